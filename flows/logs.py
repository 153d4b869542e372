"""Where the log of a run goes: one file for the run itself, one for each of its worker processes, and the Prefect UI.

A worker process has several repositories in flight, whose lines come from its repository threads, its event loop and
its embedding threads. Each line carries the context of the task that it belongs to: in the files it begins with the
repository's name, in the UI it stands under its task run.
"""

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from uuid import UUID

from prefect.client.schemas.objects import TaskRun
from prefect.context import TaskRunContext
from prefect.logging.handlers import APILogHandler

from summidx.errors import UsageError
from summidx.escaping import escape_line
from summidx.store.disk_files import hide_from_git

FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(repo)s%(message)s"
OURS = ("summidx", "flows")
FILE_BYTES, OLD_FILES = 20_000_000, 4
"""A log file that has grown so large is set aside as `.log.1` and so on; more than so many old ones are not kept."""
LINES_IN_UI, CHARS_IN_UI = 100, 2_000
"""Of one task run that the UI gets; what a repository makes the library say is not ours to bound otherwise."""


class SafeFormatter(logging.Formatter):
    """Writes what a log is told with its steering characters escaped: whoever reads it may do so in a terminal.

    A message is one line, so that none can forge another record; the lines of a traceback stay lines.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """The record's line."""
        return escape_line(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        """The record's line, and those of its traceback, which another handler may have formatted before."""
        return "\n".join(map(escape_line, super().format(record).split("\n")))


def find_task_run() -> TaskRun | None:
    """The task run to which what happens here belongs."""
    context = TaskRunContext.get()
    return context.task_run if context is not None else None


def name_repository(record: logging.LogRecord) -> bool:
    """A filter that lets all pass: `repo` is the repository that a record is about, as the beginning of its line."""
    context = TaskRunContext.get()
    name = str(context.parameters.get("name", "")) if context is not None and belongs_to_task(record) else ""
    record.repo = f"[{name}] " if name else ""
    return True


def belongs_to_task(record: logging.LogRecord) -> bool:
    """True where a record is about one repository: what the LLM server does is about all of them."""
    return find_task_run() is not None and not getattr(record, "server", "")


class TaskLog(APILogHandler):
    """Sends what the library says of a repository to its task run in the Prefect UI, so much of each and no more."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(SafeFormatter("%(message)s"))
        self._lines: Counter[UUID] = Counter()
        self._counting = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record."""
        task_run = find_task_run()
        if task_run is None or not belongs_to_task(record):
            return
        with self._counting:
            self._lines[task_run.id] += 1
            lines = self._lines[task_run.id]
        if lines <= LINES_IN_UI:
            super().emit(record)
        elif lines == LINES_IN_UI + 1:
            more = logging.LogRecord(record.name, logging.WARNING, "", 0, "more is in the worker's log file", (), None)
            super().emit(more)

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, cut where it is too long, and its traceback."""
        text = super().format(record)
        return text if len(text) <= CHARS_IN_UI else f"{text[:CHARS_IN_UI]} ..."

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Called where a line could not be sent: it is in the worker's file."""


class LogFile(RotatingFileHandler):
    """A log file. Where the disk refuses a line the line is lost, without a word and a traceback for each."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, maxBytes=FILE_BYTES, backupCount=OLD_FILES, encoding="utf-8", errors="backslashreplace")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Called where a line could not be written."""

    def close(self) -> None:
        """Close the file, whether or not what is left of it can still be written."""
        with suppress(OSError):
            super().close()


@contextmanager
def log_file(log_dir: str, name: str) -> Iterator[Path]:
    """Write what is logged in this process to a new file in `log_dir` for the duration of the block.

    Raises:
        UsageError: the file cannot be written.
    """
    path = Path(log_dir) / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{name}.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        hide_from_git(path.parent)
        handler = LogFile(path)
    except OSError as error:
        raise UsageError(
            f"the log folder {log_dir} cannot be written ({error.strerror}): name another with --log-dir"
        ) from None
    handler.setFormatter(SafeFormatter(FORMAT))
    handler.addFilter(name_repository)
    for ours in OURS:
        logging.getLogger(ours).setLevel(logging.INFO)
    logging.getLogger().addHandler(handler)
    try:
        yield path
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
