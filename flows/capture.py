"""What anybody writes to the terminal while a display is there, caught and handed on line by line.

A display that is drawn over itself is torn by every line that others write between two frames: Prefect's and Dask's
logs, warnings, a worker process that dies with a message. They share the descriptors, so these are what is caught.
"""

import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

MOST_LINES = 500
"""Of one display that are handed on: what writes more than that drowns what matters."""
MOST_CHARS = 4000
LAST_S = 0.5
"""So long the lines are waited for that were written last."""

_COLOURS = re.compile(r"\x1b\[[\d;]*m")
"""Of those who took what they write to for a terminal; all else that steers one is shown as an escape."""

_held: dict[int, int] = {}
"""The descriptors that are caught, and those under which the terminal is kept meanwhile."""


@contextmanager
def caught_lines(take: Callable[[str], None]) -> Iterator[TextIO | None]:
    """Catch what is written to standard output and standard error, as far as they are a terminal.

    Args:
        take: called with each line, in a thread of its own.

    Yields:
        the terminal itself, to draw on; None where there is none.
    """
    terminals = [fd for fd in (1, 2) if os.isatty(fd)]
    if not terminals:
        yield None
        return
    _flush()
    reader, writer = os.pipe()
    screen = os.fdopen(os.dup(terminals[0]), "w", encoding="utf-8", errors="backslashreplace")
    for fd in terminals:
        _held[fd] = os.dup(fd)
        os.dup2(writer, fd)
    os.close(writer)
    thread = threading.Thread(target=_read, args=(reader, take), name="summidx-capture", daemon=True)
    thread.start()
    try:
        yield screen
    finally:
        release()
        thread.join(LAST_S)  # a process that outlives the display may hold the pipe: its lines are read on
        screen.flush()


def release() -> None:
    """Give the terminal back to who writes; nothing where it is not caught."""
    _flush()
    while _held:
        fd, terminal = _held.popitem()
        os.dup2(terminal, fd)
        os.close(terminal)


def _read(reader: int, take: Callable[[str], None]) -> None:
    told = 0
    with os.fdopen(reader, encoding="utf-8", errors="backslashreplace") as lines:
        while line := lines.readline(MOST_CHARS):
            told += 1
            if not line.strip() or told > MOST_LINES:
                continue
            with suppress(Exception):  # the pipe must be emptied whatever becomes of the screen
                take(_COLOURS.sub("", line).rstrip() if told < MOST_LINES else "more lines are not shown")


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
