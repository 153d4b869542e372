"""Pure: how busy slots were, and how soon the same calls could have been answered at best."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

SLOT = "slot"


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of work that starts when all that it needs is done. One of 0 seconds takes no slot."""

    seconds: float
    needs: tuple[str, ...] = ()
    kind: str = SLOT
    """Which kind of slot it takes."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long jobs take together, in seconds."""

    makespan_s: float
    """Of the greedy list schedule: whenever a slot is free, the ready job with the longest way to go takes it."""
    work_s: float
    """Sum over all jobs."""
    longest_path_s: float
    """No number of slots makes it shorter than that."""
    spans: Mapping[str, tuple[float, float]] = field(default_factory=dict, repr=False, compare=False)
    """Start and end of each job that takes time."""


def list_schedule(jobs: Mapping[str, Job], slots: int | Mapping[str, int]) -> Schedule:
    """Schedule `jobs` on equal slots, all there from the start: longest remaining path first.

    Args:
        jobs: by name.
        slots: how many there are; where jobs are of several kinds, of each kind.

    List scheduling by critical path (Hu 1961, optimal for a tree of equal jobs; Graham 1966: at most 2 - 1/slots times
    the optimum for any graph).

    Raises:
        ValueError: the needs of jobs form a circle, or name a job that is not there.
        KeyError: there is no slot of a job's kind.
    """
    free = {SLOT: slots} if isinstance(slots, int) else dict(slots)
    needed_by, missing = _link(jobs)
    remaining_s = _remaining_paths(jobs, needed_by, missing)

    now_s = 0.0
    spans: dict[str, tuple[float, float]] = {}
    ready: dict[str, list[tuple[float, str]]] = {kind: [] for kind in free}
    running: list[tuple[float, str]] = []
    done = [name for name, n in missing.items() if n == 0]

    def make_ready(names: Iterable[str]) -> None:
        stack = list(names)
        while stack:
            name = stack.pop()
            if jobs[name].seconds > 0:
                heapq.heappush(ready[jobs[name].kind], (-remaining_s[name], name))
            else:
                stack.extend(_release(name, needed_by, missing))

    make_ready(done)
    while running or any(ready.values()):
        for kind, waiting in ready.items():
            while waiting and free[kind]:
                _, name = heapq.heappop(waiting)
                spans[name] = (now_s, now_s + jobs[name].seconds)
                heapq.heappush(running, (spans[name][1], name))
                free[kind] -= 1
        now_s = running[0][0]
        while running and running[0][0] <= now_s:  # all that end at this moment, before the next ones start
            _, name = heapq.heappop(running)
            free[jobs[name].kind] += 1
            make_ready(_release(name, needed_by, missing))
    work_s = sum(job.seconds for job in jobs.values())
    return Schedule(now_s, work_s, max(remaining_s.values(), default=0.0), spans)


def _link(jobs: Mapping[str, Job]) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Which jobs need each one, and how many each one needs."""
    needed_by: dict[str, list[str]] = {name: [] for name in jobs}
    missing: dict[str, int] = {}
    for name, job in jobs.items():
        needs = set(job.needs)
        missing[name] = len(needs)
        for need in needs:
            if need not in jobs:
                raise ValueError(f"job {name} needs {need}, which is not there")
            needed_by[need].append(name)
    return needed_by, missing


def _release(name: str, needed_by: Mapping[str, Sequence[str]], missing: dict[str, int]) -> list[str]:
    freed = []
    for above in needed_by[name]:
        missing[above] -= 1
        if missing[above] == 0:
            freed.append(above)
    return freed


def _remaining_paths(
    jobs: Mapping[str, Job], needed_by: Mapping[str, Sequence[str]], missing: Mapping[str, int]
) -> dict[str, float]:
    """Seconds from the start of each job to the end of all, if there were slots without end."""
    left = dict(missing)
    order = [name for name, n in left.items() if n == 0]
    for name in order:  # grows while it is walked
        order.extend(_release(name, needed_by, left))
    if len(order) < len(jobs):
        raise ValueError("the needs of jobs form a circle")
    remaining: dict[str, float] = {}
    for name in reversed(order):
        remaining[name] = jobs[name].seconds + max((remaining[above] for above in needed_by[name]), default=0.0)
    return remaining


@dataclass(frozen=True, slots=True)
class Served:
    """When a request came to the server, took a slot and left it, in seconds of one clock."""

    arrived_s: float
    started_s: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class Busy:
    """How busy the server's slots were, from the first request to come until the last answer.

    The shares of what was lost are of slots x makespan; with `busy` they add up to 1.
    """

    calls: int
    makespan_s: float
    busy_until_95: float
    """Share of slots busy from the first call until 95 % of the calls are done."""
    busy: float
    """The same until the last call is done."""
    lost_at_start: float
    """Before all slots were busy for the first time."""
    lost_between: float
    lost_in_tail: float
    """After 95 % of the calls were done."""
    median_wait_s: float
    """In the server's queue: 0 where it ran dry."""


def measure_busy(served: Sequence[Served], slots: int) -> Busy:
    """Integrate over time how many slots were taken.

    Raises:
        ValueError: nothing was served.
    """
    if not served:
        raise ValueError("no request was served")
    first = min(each.arrived_s for each in served)
    ends = sorted(each.ended_s for each in served)
    end_95, last = ends[int(0.95 * (len(ends) - 1))], ends[-1]
    filled = next((time_s for time_s, n in _running(served) if n >= slots), end_95)
    filled = min(filled, end_95)

    def taken(start_s: float, end_s: float) -> float:
        """Slot-seconds that were taken within a span."""
        return sum(max(0.0, min(each.ended_s, end_s) - max(each.started_s, start_s)) for each in served)

    def lost(start_s: float, end_s: float) -> float:
        return (end_s - start_s - taken(start_s, end_s) / slots) / (last - first)

    waits = sorted(each.started_s - each.arrived_s for each in served)
    return Busy(
        calls=len(served),
        makespan_s=last - first,
        busy_until_95=taken(first, end_95) / slots / (end_95 - first),
        busy=taken(first, last) / slots / (last - first),
        lost_at_start=lost(first, filled),
        lost_between=lost(filled, end_95),
        lost_in_tail=lost(end_95, last),
        median_wait_s=waits[len(waits) // 2],
    )


def _running(served: Sequence[Served]) -> Iterable[tuple[float, int]]:
    """Slots taken after each change, in order of time."""
    changes = sorted([(each.ended_s, -1) for each in served] + [(each.started_s, 1) for each in served])
    n = 0
    for time_s, change in changes:
        n += change
        yield time_s, n
