"""Stop: how a run tells every step of every worker to end, and how one repository is given up."""

import threading
import time

from summidx.durations import format_duration
from summidx.errors import RepoTimeout, Stopped


class Stop:
    """A flag with a reason, set once, from any thread; every step polls it before each call, batch and publish."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._reason = ""

    def request(self, reason: str) -> None:
        """Ask all steps to end. The first reason stays."""
        if not self._event.is_set():
            self._reason = reason
            self._event.set()

    @property
    def is_requested(self) -> bool:
        """True once a stop was requested."""
        return self._event.is_set()

    @property
    def reason(self) -> str:
        """Why the run was told to stop, or ""."""
        return self._reason

    def check(self) -> None:
        """Raise `Stopped` with the reason if a stop was requested."""
        if self._event.is_set():
            raise Stopped(f"stopped: {self._reason}")


class RepoStop(Stop):
    """A run's stop as one repository sees it: it is also to end when its own time is over, and the others go on."""

    def __init__(self, run: Stop, timeout_s: float | None) -> None:
        """Begin the repository's time.

        Args:
            run: the stop of the run.
            timeout_s: how long the repository may take; None: as long as it wants.
        """
        super().__init__()
        self._run = run
        self._timeout_s = timeout_s
        self._ends_at = None if timeout_s is None else time.monotonic() + timeout_s

    def request(self, reason: str) -> None:
        """Ask all steps of the run to end."""
        self._run.request(reason)

    @property
    def is_requested(self) -> bool:
        """True once a stop was requested, or the repository's time is over."""
        return self._run.is_requested or self._is_over

    @property
    def reason(self) -> str:
        """Why the run was told to stop, or the repository is given up, or ""."""
        return self._run.reason or (self._over if self._is_over else "")

    def check(self) -> None:
        """Raise `Stopped` if the run was told to stop, `RepoTimeout` if the repository's time is over."""
        self._run.check()
        if self._is_over:
            raise RepoTimeout(self._over)

    @property
    def _is_over(self) -> bool:
        return self._ends_at is not None and time.monotonic() >= self._ends_at

    @property
    def _over(self) -> str:
        return (
            f"it took longer than {format_duration(self._timeout_s or 0)} (`--repo-timeout`) and was given up; what is "
            "finished is kept, so that the next run goes on from here; give it more time if it is only large"
        )
