"""Brings the warnings of worker processes to the run: to its log and the Prefect UI, some to the console as well.

They travel as events of Dask, from any process and thread. Each worker's own log file has all of them at once.
"""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from distributed import Worker

from flows.logs import belongs_to_task, name_repository

BUSY_EVERY_S = 60.0
"""Of pauses that the LLM server asks for, no more is told than one in this time."""
MOST_TOLD = 200
"""Warnings of one run that are told; it is one that matters, not the thousandth of its kind."""


logger = logging.getLogger(__name__)


def keep_line(line: str) -> None:
    """Write a warning of a worker to the log file of this process."""
    logger.warning("%s", line)


def topic_of(run_id: str) -> str:
    """Under which Dask passes on the warnings of flow run `run_id`."""
    return f"summidx-warnings-{run_id}"


class WarningSender(logging.Handler):
    """Sends what a worker process warns of to whoever has subscribed to the run's topic."""

    def __init__(self, worker: Worker, run_id: str) -> None:
        super().__init__(logging.WARNING)
        self._worker = worker
        self._topic = topic_of(run_id)

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record; one that a closing worker cannot send is in its log file."""
        name_repository(record)
        event = {
            "line": f"{getattr(record, 'repo', '')}{' '.join(record.getMessage().split())}",
            "server": str(getattr(record, "server", "")),
            "in_ui": belongs_to_task(record),
        }
        with suppress(Exception):
            self._worker.log_event(self._topic, event)


class WarningReceiver:
    """Takes the warnings of all workers, and tells each piece of news about the LLM server once.

    Every worker finds out by itself that the server is away (`server: away`) or back (`back`), or has asked for a pause
    (`busy`): the first that says so is told.
    """

    def __init__(
        self, note: Callable[[str], None], tell: Callable[[str], None], keep: Callable[[str], None] | None = None
    ) -> None:
        """Listen.

        Args:
            note: writes a line to the run's log.
            tell: does so, and shows it on the console.
            keep: writes it to the run's log file alone: the UI has it, under its task. None: as `note`.
        """
        self._note = note
        self._tell = tell
        self._keep = keep or note
        self._is_away = False
        self._busy_at: float | None = None
        self._told = 0

    def take(self, event: tuple[float, Mapping[str, Any]]) -> None:
        """Take an event of Dask: when it was (not used), and what."""
        _, said = event
        line, server = str(said["line"]), said["server"]
        if server in ("away", "back"):
            if self._is_away != (server == "away"):
                self._is_away = not self._is_away
                self._tell(line)
        elif server == "busy":
            now = time.monotonic()
            if self._busy_at is None or now - self._busy_at >= BUSY_EVERY_S:
                self._busy_at = now
                self._tell(line)
        else:
            self._told += 1
            if self._told <= MOST_TOLD:
                (self._keep if said.get("in_ui") else self._note)(line)
            elif self._told == MOST_TOLD + 1:
                self._note("more warnings are in the log files of the workers")
