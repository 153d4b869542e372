"""Where the log of a run goes: one file for the run itself, one for each of its worker processes."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from summidx.errors import UsageError
from summidx.escaping import escape_line
from summidx.store.disk_files import hide_from_git

FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
OURS = ("summidx", "flows")


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


class LogFile(logging.FileHandler):
    """A log file. Where the disk refuses a line the line is lost, without a word and a traceback for each."""

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
        handler = LogFile(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UsageError(
            f"the log folder {log_dir} cannot be written ({error.strerror}): name another with --log-dir"
        ) from None
    handler.setFormatter(SafeFormatter(FORMAT))
    for ours in OURS:
        logging.getLogger(ours).setLevel(logging.INFO)
    logging.getLogger().addHandler(handler)
    try:
        yield path
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
