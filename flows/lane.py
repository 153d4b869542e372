"""The lane of what needs no worker: a few threads of the flow's own process, that say nothing but how it ended.

That is what is up to date, and what the plan could not read.
"""

import logging
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any, Self

from prefect import Task
from prefect.client.schemas.objects import RunInput
from prefect.futures import PrefectConcurrentFuture, PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner

THREADS = 2
"""What a task does here is nearly all Python: more of them only wait for each other."""

_in_lane: ContextVar[bool] = ContextVar("in_lane", default=False)


class Lane(ThreadPoolTaskRunner[Any]):
    """Runs tasks whose result Prefect's cache mostly holds, at a few milliseconds each."""

    def __init__(self) -> None:
        super().__init__(max_workers=THREADS)

    def submit(
        self,
        task: Task[Any, Any],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectFuture[Any]] | None = None,
        dependencies: dict[str, set[RunInput]] | None = None,
    ) -> PrefectConcurrentFuture[Any]:
        """Submit a task; it runs in a copy of this context, and so knows that it is in the lane."""
        token = _in_lane.set(True)
        try:
            return super().submit(task, parameters, wait_for, dependencies)
        finally:
            _in_lane.reset(token)

    def __enter__(self) -> Self:
        """Start. Of thousands of tasks that had nothing to do, each would log a line that says no more than its state.

        To log them is a third of what such a task costs here, and costs the API a row each.
        """
        logging.getLogger("prefect.task_runs").addFilter(_is_worth_a_line)
        return super().__enter__()

    def __exit__(self, *args: object) -> None:
        """End, when what was submitted has ended."""
        super().__exit__(*args)
        logging.getLogger("prefect.task_runs").removeFilter(_is_worth_a_line)


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or not _in_lane.get()
