"""Repositories as `parse` gets them, and a hand on the processes that it starts."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from summidx.parsing import parse
from summidx.records import ParsedRepo, SourceFile, Unit
from summidx.settings import ParseSettings
from summidx.stop import Stop

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


Read = Callable[..., ParsedRepo]


def _read(files: dict[str, str | bytes], settings: ParseSettings | None = None, stop: Stop | None = None) -> ParsedRepo:
    sources = [
        SourceFile(path, data if isinstance(data, bytes) else data.encode("utf-8")) for path, data in files.items()
    ]
    return parse(sources, settings or ParseSettings(), stop or Stop())


@pytest.fixture(scope="session")
def read() -> Read:
    """Parse a repository that is written down as path -> content."""
    return _read


@pytest.fixture(scope="session")
def read_by_id() -> Callable[..., dict[str, Unit]]:
    """The same, its units by id."""
    return lambda *args, **kwargs: {unit.id: unit for unit in _read(*args, **kwargs).units}


@pytest.fixture
def watching() -> Callable[[Callable[[int], None]], AbstractContextManager[list[int]]]:
    """A context in which a function is called once for each parsing process at work; yields their ids."""
    return _watching


def children_at_work() -> Iterator[int]:
    """Processes that this thread's process started and that have used CPU time for 0.3 s: past their start."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            is_parser = b"summidx.parsing.child" in (entry / "cmdline").read_bytes()
        except OSError:  # gone in between
            continue
        # After the command: state, ppid, ...; utime and stime are the 14th and 15th of the line (man 5 proc).
        if is_parser and int(fields[1]) == os.getpid() and int(fields[11]) + int(fields[12]) > 0.3 * TICKS_PER_S:
            yield int(entry.name)


@contextmanager
def _watching(act: Callable[[int], None]) -> Iterator[list[int]]:
    seen: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            for pid in children_at_work():
                if pid not in seen:
                    seen.append(pid)
                    act(pid)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


@pytest.fixture(scope="session")
def slow_python() -> str:
    """Python that takes seconds of CPU time to parse."""
    return "def slow():\n    return [" + "a.b(c) + d[1:2], " * 40_000 + "]\n"
