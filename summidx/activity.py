"""What one process is doing at one moment, for whoever watches a run. Any thread may look; nobody waits for it.

Every figure counts from the beginning of the process, repositories that failed included.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields


@dataclass(frozen=True, slots=True)
class Figures:
    """What repositories have come to so far."""

    documents: int = 0
    """Units that are summarised, whatever became of them."""
    cache_hits: int = 0
    calls: int = 0
    """Answers of the LLM, unusable ones included."""
    tokens_in: int = 0
    tokens_out: int = 0

    def __add__(self, other: "Figures") -> "Figures":
        return Figures(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


@dataclass(frozen=True, slots=True)
class RepoLook:
    """One repository under way."""

    name: str
    step: str
    """`read`, `parse`, `summarise`, `embed`, `write`; "" before the first and after the last."""
    settled: int
    units: int
    """How many units it has; 0 until it is parsed."""
    seconds: float
    """Since it was begun."""
    figures: Figures

    @property
    def share(self) -> float:
        """How much of it is done, from 0 to 1: summaries are nearly all of the work."""
        return min(1.0, self.settled / self.units) if self.units else 0.0


@dataclass(frozen=True, slots=True)
class Look:
    """One process: its repositories, and its calls to the LLM."""

    repos: tuple[RepoLook, ...] = ()
    """Under way, the oldest first."""
    ended: Figures = field(default_factory=Figures)
    """Of the repositories that have ended."""
    in_flight: int = 0
    waiting: int = 0
    """Calls that wait for a place."""
    cap: int = 0
    """Calls that may be in flight now; 0: no call was made yet."""

    @property
    def figures(self) -> Figures:
        """Of all repositories, those under way included."""
        return sum((repo.figures for repo in self.repos), self.ended)


class Activity:
    """The repositories of one process, as they begin and end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, Callable[[float], RepoLook]] = {}
        self._ended = Figures()
        self._begun = 0

    @contextmanager
    def following(self, look: Callable[[float], RepoLook]) -> Iterator[None]:
        """Let a repository be seen for the duration of the block.

        Args:
            look: tells what it has come to, given how many seconds ago it was begun. Called in any thread.
        """
        start = time.monotonic()
        with self._lock:
            self._begun += 1
            number = self._begun
            self._open[number] = lambda now: look(now - start)
        try:
            yield
        finally:
            with self._lock:
                last = self._open.pop(number)
                self._ended += last(time.monotonic()).figures

    def look(self, *, in_flight: int = 0, waiting: int = 0, cap: int = 0) -> Look:
        """What is under way now; the arguments are those of `Look`."""
        with self._lock:
            now = time.monotonic()
            repos = tuple(look(now) for look in self._open.values())
            return Look(repos, self._ended, in_flight, waiting, cap)
