"""A limit on the CPU time that one file may cost, kept inside the parsing process.

CPU time, never wall clock: a busy machine must not lose functions. What parses or walks a tree polls the budget; what
does not come back to poll it is killed by the kernel, `GRACE_S` later, and the file is named by the parent process.
"""

import contextlib
import math
import resource
import time

GRACE_S = 5


class OverBudget(Exception):
    """A file has used up its CPU time."""


class Budget:
    """CPU time for what is done next, counted from construction, for the whole process. None: no limit."""

    def __init__(self, cpu_s: float | None = None) -> None:
        self._end_s = math.inf if cpu_s is None else time.process_time() + cpu_s

    @property
    def is_spent(self) -> bool:
        """Whether the CPU time is used up."""
        return time.process_time() >= self._end_s

    def check(self) -> None:
        """Raise `OverBudget` if the CPU time is used up."""
        if self.is_spent:
            raise OverBudget

    def arm(self) -> None:
        """Have the kernel kill this process (SIGXCPU) when it runs past the budget and does not notice."""
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        soft = hard if math.isinf(self._end_s) else math.ceil(self._end_s) + GRACE_S
        with contextlib.suppress(ValueError):  # the process was started with a lower limit, which then stands
            resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
