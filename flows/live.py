"""What is known of a run while it goes: fed by the workers' looks and by what ended, read by display and artifacts.

Nobody asks a worker anything for it: the looks come with what flows/shares.py hears of each worker anyway.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from statistics import linear_regression
from typing import Any

from flows.looks import GPUUse, WorkerLook
from summidx.activity import Figures, RepoLook
from summidx.plan import Plan
from summidx.settings import Settings

WINDOW_S = 20.0
"""Rates are of so long."""
ETA_AFTER_S = 5.0
ETA_SHARE = 0.02
"""No time is foretold before so long, and before so much of the work is done."""
FITTED_FROM = 5
SIZE_IS_NOTHING = 100.0
"""Times the mean size, at most, is what a repository costs however small it is."""
MOST_SAMPLES = 240
"""Of a run; beyond it every second one is dropped, and they are taken half as often."""
FIRST_SAMPLE_S = 1.0
RECENT = 200
"""So many of those that ended last are kept for the table."""

SAMPLE_FIELDS = ("seconds", "in_flight", "limit", "documents", "calls", "cache_hits", "tokens_in", "tokens_out", "gpu")
"""What a sample is made of. Seconds since the run began; the counts are sums since then; `gpu` is the mean share of the
time in which the workers' GPUs were busy, or None."""


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One worker process."""

    name: str
    repos: tuple[RepoLook, ...]
    gpu: GPUUse | None


@dataclass(frozen=True, slots=True)
class EndedRow:
    """One repository that has ended."""

    name: str
    ending: str
    documents: int
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A run at one moment. Rates are per second."""

    title: str = ""
    phase: str = ""
    """What the run does before and after its repositories; "" while they are built."""
    elapsed_s: float = 0.0
    up_to_date: int = 0
    known_failures: int = 0
    """Not tried: they would fail as before."""
    to_build: int = 0
    endings: Mapping[str, int] = field(default_factory=dict)
    """Of those to build that have ended, by ending."""
    share: float = 0.0
    """How much of what is to build is done, by size, from 0 to 1."""
    eta_s: float | None = None
    figures: Figures = field(default_factory=Figures)
    rates: Mapping[str, float] = field(default_factory=dict)
    """By figure."""
    asks_llm: bool = True
    in_flight: int = 0
    waiting: int = 0
    limit: int = 0
    workers: tuple[WorkerRow, ...] = ()
    ended: tuple[EndedRow, ...] = ()
    """Those that failed, and the last others, in the order in which they ended."""

    @property
    def done(self) -> int:
        """Repositories to build that have ended."""
        return sum(self.endings.values())

    @property
    def failed(self) -> int:
        """Those of them that failed."""
        return sum(n for ending, n in self.endings.items() if ending in ("failed", "crashed", "stopped"))


class LiveRun:
    """One run. Any thread may tell it something, or look."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._began = clock()
        self._phase = "starting"
        self._title = ""
        self._up_to_date = 0
        self._known_failures = 0
        self._sizes: dict[str, int] = {}
        self._asks_llm = True
        self._building_since: float | None = None
        self._endings: Counter[str] = Counter()
        self._done_bytes = 0
        self._done_in_s: dict[str, float] = {}
        """Of those that were built: how long each took."""
        self._failed: deque[tuple[int, EndedRow]] = deque(maxlen=RECENT)
        self._recent: deque[tuple[int, EndedRow]] = deque(maxlen=RECENT)
        self._looks: Mapping[str, WorkerLook] = {}
        self._gone: set[str] = set()
        """Names of those that have ended, which an older look still shows at work."""
        self._limit = 0
        self._last: dict[str, Figures] = {}
        """Figures of every worker that was ever seen, by its address."""
        self._lost = Figures()
        """What workers had come to that were started again under the same address."""
        self._window: deque[tuple[float, Figures]] = deque()
        self._samples: list[list[Any]] = []
        self._sample_every_s = FIRST_SAMPLE_S

    def planned(self, plan: Plan, settings: Settings, title: str = "") -> None:
        """What is going to be done."""
        with self._lock:
            to_build = plan.to_build
            self._title = title
            self._up_to_date = sum(each.up_to_date for each in plan.repos)
            self._known_failures = len(plan.known_failures)
            # Nothing is free: a repository without content still has to be opened and published.
            self._sizes = {each.pin.name: each.size_bytes + 1024 for each in to_build}
            self._asks_llm = settings.llm.provider.value != "extractive"
            self._limit = settings.llm.concurrency
            self._phase = "starting the workers" if any(each.needs_worker for each in to_build) else "checking"
            self._building_since = self._clock()

    def phase(self, what: str) -> None:
        """What the run does now that is no building."""
        with self._lock:
            self._phase = what

    def looked(self, looks: Mapping[str, WorkerLook], limit: int) -> None:
        """Take in what the workers do, and how many calls may be in flight."""
        with self._lock:
            now = self._clock()
            if self._phase == "starting the workers" and looks:
                self._phase = ""
            self._looks = dict(looks)
            self._limit = limit or self._limit
            for address, look in looks.items():
                figures = look.work.figures
                before = self._last.get(address)
                if before is not None and figures.documents < before.documents:
                    self._lost += before
                self._last[address] = figures
            total = self._figures()
            self._window.append((now, total))
            while len(self._window) > 2 and now - self._window[0][0] > WINDOW_S:
                self._window.popleft()
            self._sample(now - self._began, total)

    def ended(self, row: EndedRow) -> None:
        """Take in how a repository ended that was to build."""
        with self._lock:
            self._phase = ""
            self._endings[row.ending] += 1
            self._gone.add(row.name)
            self._done_bytes += self._sizes.get(row.name, 0)
            if row.ending == "built":
                self._done_in_s[row.name] = row.seconds
            kept = self._failed if row.reason else self._recent
            kept.append((sum(self._endings.values()), row))

    def timeline(self) -> dict[str, Any]:
        """What was measured from time to time: `fields`, and at most `MOST_SAMPLES` `samples`; {} of a short run."""
        with self._lock:
            samples = [list(sample) for sample in self._samples]
        return {"fields": list(SAMPLE_FIELDS), "samples": samples} if samples else {}

    def snapshot(self) -> Snapshot:
        """The run now."""
        with self._lock:
            now = self._clock()
            rows = sorted(self._looks.values(), key=lambda look: (len(look.name), look.name))
            share = self._share()
            return Snapshot(
                title=self._title,
                phase=self._phase,
                elapsed_s=now - self._began,
                up_to_date=self._up_to_date,
                known_failures=self._known_failures,
                to_build=len(self._sizes),
                endings=dict(self._endings),
                share=share,
                eta_s=self._foretell(now),
                figures=self._figures(),
                rates=self._rates(now),
                asks_llm=self._asks_llm,
                in_flight=sum(look.work.in_flight for look in rows),
                waiting=sum(look.work.waiting for look in rows),
                limit=self._limit,
                workers=tuple(WorkerRow(look.name, self._under_way(look), look.gpu) for look in rows),
                ended=tuple(row for _, row in sorted((*self._failed, *self._recent), key=lambda each: each[0])),
            )

    def _under_way(self, look: WorkerLook) -> tuple[RepoLook, ...]:
        return tuple(repo for repo in look.work.repos if repo.name not in self._gone)

    def _figures(self) -> Figures:
        return sum(self._last.values(), self._lost)

    def _rates(self, now: float) -> dict[str, float]:
        if len(self._window) < 2:
            return {}
        (began, first), (_, last) = self._window[0], self._window[-1]
        seconds = max(now - began, 0.5)
        names = [each.name for each in fields(Figures)]
        return {name: max(0.0, (getattr(last, name) - getattr(first, name)) / seconds) for name in names}

    def _share(self, fixed_bytes: float = 0.0) -> float:
        """How much is done, where each repository weighs its size and so much more."""
        total = sum(self._sizes.values()) + fixed_bytes * len(self._sizes)
        under_way = sum(
            repo.share * (self._sizes[repo.name] + fixed_bytes)
            for look in self._looks.values()
            for repo in self._under_way(look)
            if repo.name in self._sizes
        )
        done = self._done_bytes + fixed_bytes * self._endings.total()
        return min(1.0, (done + under_way) / total) if total else 1.0

    def _foretell(self, now: float) -> float | None:
        """Seconds that are left: as fast as so far, and no sooner than the slowest of what is under way."""
        if self._building_since is None or not self._sizes:
            return None
        seconds = now - self._building_since
        share = self._share(fixed_cost([(self._sizes.get(name, 0), took) for name, took in self._done_in_s.items()]))
        if seconds < ETA_AFTER_S or share < ETA_SHARE:
            return None
        left = seconds * (1 - share) / share
        alone = [
            repo.seconds * (1 - repo.share) / repo.share
            for look in self._looks.values()
            for repo in self._under_way(look)
            if repo.share > ETA_SHARE
        ]
        return max([left, *alone])

    def _sample(self, seconds: float, total: Figures) -> None:
        if self._samples and seconds - self._samples[-1][0] < self._sample_every_s:
            return
        looks = self._looks.values()
        gpus = [look.gpu.busy for look in looks if look.gpu is not None]
        counts = (total.documents, total.calls, total.cache_hits, total.tokens_in, total.tokens_out)
        in_flight = sum(look.work.in_flight for look in looks)
        gpu = round(sum(gpus) / len(gpus), 3) if gpus else None
        self._samples.append([round(seconds, 1), in_flight, self._limit, *counts, gpu])
        if len(self._samples) > MOST_SAMPLES:
            del self._samples[1::2]
            self._sample_every_s *= 2


def fixed_cost(built: Sequence[tuple[int, float]]) -> float:
    """Pure: what a repository costs however small it is, in bytes that take as long.

    The largest come first, and a night's many small ones take longer than their bytes say. Time is taken to be a line
    over the size, by least squares.

    Args:
        built: (size in bytes, seconds) of those that were built.

    Returns:
        Bytes; 0 of too few, and where they say nothing of the kind.
    """
    if len(built) < FITTED_FROM:
        return 0.0
    sizes, times = zip(*built, strict=True)
    if len(set(sizes)) == 1:
        return 0.0
    line = linear_regression(sizes, times)
    most: float = SIZE_IS_NOTHING * sum(sizes) / len(sizes)
    slope, intercept = float(line.slope), float(line.intercept)
    return most if slope <= 0 else min(max(0.0, intercept / slope), most)


_live: ContextVar[LiveRun | None] = ContextVar("live", default=None)


def live_run() -> LiveRun:
    """The run that goes on here; one that nobody looks at where there is none."""
    return _live.get() or LiveRun()


@contextmanager
def going_on(live: LiveRun) -> Iterator[LiveRun]:
    """Let `live` be the run that goes on in this block."""
    token = _live.set(live)
    try:
        yield live
    finally:
        _live.reset(token)
