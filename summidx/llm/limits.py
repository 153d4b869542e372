"""How many calls the endpoint may have in flight, and how they are divided over workers. Pure: no clock, no I/O.

One limit belongs to one endpoint. It is cut in half on loss, grows again while that brings more answers, and follows
the server's own queue where the server shows it. It never looks at latency: with continuous batching the time of an
answer rises long before throughput stops rising, and a limit on latency settles near a fifth of what a GPU can do.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from summidx.llm.server_load import ServerLoad

FAST, SLOW = 1.25, 1.02
"""Growth for each round trip: far from the number of calls at which one was last lost, and near it."""
NEAR_LOSS = (0.9, 1.1)
"""What is near, as shares of that number. (TCP CUBIC grows in the same way.)"""
PAYS = 0.25
"""Growth pays where throughput grew at least by this share of what the limit did."""
COMPARED = 3
"""Rounds over which throughput is compared: of one, noise is too large a part."""
HELD, LONGEST_HELD = 6, 48
"""Rounds for which the limit stays where growing did not pay; then it is tried again. Doubled each time."""
AS_WELL = 0.97
"""Where growing did not pay, the limit goes back to the least that brought this share of the best throughput."""
MIN_ROUND_S = 1.0
MIN_ROUND_ANSWERS = 16
LEAST_QUEUE, QUEUE_SHARE = 4, 0.1
"""Length of the server's queue that is aimed at, the second as a share of what it works on: as many answers as may come
while we send the next calls."""
STEADY_LOOKS = 5
"""Looks at the server's queue of which the fullest counts: a server that has just started runs little for a moment."""
FAIR_PART = 0.25
"""Of the limit: what is divided equally. In a simulation of 8 workers and 200 repositories of very different sizes the
makespan was 0.93 to 0.95 of the list schedule with it and with 0, whatever worker got which repository, 0.90 to 0.95
with 0.5, and 0.74 to 0.93 with 1."""
STEEPEST = 0.8
"""The server's queue lowers the limit by no more than to this share in one look."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What the calls of one worker process, or of all of them, are doing at one moment."""

    in_flight: int = 0
    waiting: int = 0
    """Calls that wait for a place."""
    completed: int = 0
    """Calls that were answered, since the process began."""
    lost_call_s: float | None = None
    """How long ago the last sent of the calls was sent that were lost (`Overloaded`) since the last look; None: none
    was."""
    lost_in_flight: int = 0
    """Calls in flight when the first of them was lost: a burst of refusals has left none by the next look. 0: not
    known."""

    @property
    def wanted(self) -> int:
        """Places that would be used."""
        return self.in_flight + self.waiting


class AdaptiveLimit:
    """The number of calls that may be in flight at an endpoint. Times are seconds of any one clock."""

    def __init__(self, ceiling: int) -> None:
        """Start at `ceiling`, which is never passed."""
        self._ceiling = max(1, ceiling)
        self._limit = float(self._ceiling)
        self._cut_at = -math.inf
        self._lost_at = math.inf
        """Calls in flight when one was last lost."""
        self._round_began: float | None = None
        self._round_base = 0
        self._was_full = True
        self._rounds: deque[tuple[float, float]] = deque(maxlen=COMPARED)
        """Limit and answers per second of the last rounds."""
        self._held = 0
        self._next_held = HELD
        self._running: deque[int] = deque(maxlen=STEADY_LOOKS)
        self._grows_from = 0.0
        """Answers from which on an empty queue raises the limit. After a cut that is one round more than at the next
        look (until then infinite): a server has an empty queue as well just after it refused, while all calls pause."""

    @property
    def limit(self) -> int:
        """Calls that may be in flight now."""
        return max(1, min(self._ceiling, int(self._limit)))

    def lose(self, sent_at: float, now: float, in_flight: int) -> bool:
        """A call was lost: halve, unless it was sent before the last cut. True where the limit was cut."""
        if sent_at <= self._cut_at:
            return False
        self._lost_at = max(1.0, min(float(in_flight), self._limit))
        self._limit = max(1.0, min(self._limit, max(in_flight, 1)) / 2)
        self._cut_at = now
        self._grows_from = math.inf
        self._restart()
        return True

    def observe(self, demand: Demand, now: float, load: ServerLoad | None = None) -> int:
        """Look at what all calls do, and at the server's queue if it shows one; the limit from now on.

        To be called about once a second. `demand.lost_call_s` counts as a loss.
        """
        if demand.lost_call_s is not None:
            # Where nothing says how many it was that were too many, it was the limit.
            in_flight = max(demand.in_flight, demand.lost_in_flight) or self.limit
            self.lose(now - demand.lost_call_s, now, in_flight)
        if load is None:
            self._running.clear()
            self._grow_while_it_pays(demand, now)
        else:
            self._follow_queue(demand, load)
        return self.limit

    def _follow_queue(self, demand: Demand, load: ServerLoad) -> None:
        """Keep the server's queue just above zero: full, and no deeper than it takes to stay so."""
        self._restart()
        self._running.append(load.running)
        if self._grows_from == math.inf:
            self._grows_from = demand.completed + self.limit
        target = max(LEAST_QUEUE, math.ceil(QUEUE_SHARE * load.running))
        if load.waiting > 2 * target:
            fits = max(self._running) + target
            # Calls that others send to the same server are in its numbers too: what we have in flight is the least.
            self._limit = max(1.0, min(self._limit, max(fits, self._limit * STEEPEST)))
            return
        is_used = demand.waiting > 0 and demand.in_flight >= self.limit * STEEPEST
        if load.waiting == 0 and is_used and demand.completed >= self._grows_from:
            self._grow(FAST)

    def _grow_while_it_pays(self, demand: Demand, now: float) -> None:
        if self._round_began is None:
            self._round_began, self._round_base, self._was_full = now, demand.completed, True
            return
        # A limit that is not used up says nothing of a higher one.
        self._was_full = self._was_full and demand.wanted >= self.limit
        answers, seconds = demand.completed - self._round_base, now - self._round_began
        if seconds < MIN_ROUND_S or answers < max(self.limit, MIN_ROUND_ANSWERS):
            return
        self._round_began, self._round_base = now, demand.completed
        was_full, self._was_full = self._was_full, True
        if not was_full or self.limit >= self._ceiling:
            self._rounds.clear()
            return
        if self._held:
            self._held -= 1
            return
        rate = answers / seconds
        if len(self._rounds) == COMPARED:
            if not self._paid(rate):
                self._limit = self._least_that_does_as_well(rate)
                self._rounds.clear()
                self._held, self._next_held = self._next_held, min(2 * self._next_held, LONGEST_HELD)
                return
            self._next_held = HELD
        self._rounds.append((self._limit, rate))
        self._grow_carefully()

    def _paid(self, rate: float) -> bool:
        earlier_limit, earlier_rate = self._rounds[0]
        return rate / earlier_rate - 1 >= PAYS * (self._limit / earlier_limit - 1)

    def _least_that_does_as_well(self, rate: float) -> float:
        rounds = [*self._rounds, (self._limit, rate)]
        best = max(each for _, each in rounds)
        return min(limit for limit, each in rounds if each >= AS_WELL * best)

    def _grow_carefully(self) -> None:
        below, above = (share * self._lost_at for share in NEAR_LOSS)
        if self._limit < below:
            self._limit = min(max(self._limit + 1, FAST * self._limit), max(below, self._limit + 1), self._ceiling)
        else:
            self._grow(SLOW)
        if self._limit > above:
            self._lost_at = math.inf

    def _grow(self, factor: float) -> None:
        self._limit = min(float(self._ceiling), max(self._limit + 1, self._limit * factor))

    def _restart(self) -> None:
        self._round_began = None
        self._held, self._next_held = 0, HELD
        self._rounds.clear()


def share_by_demand(limit: int, demands: Sequence[Demand]) -> list[int]:
    """Divide `limit` over workers: the cap of each, in their order.

    A part (`FAIR_PART`) is divided equally, so that who wants little has it soon; the rest in proportion to what each
    wants beyond that, so that all come to the end of what they have at about the same time: in equal shares, the worker
    with the largest repositories would be left behind, to embed alone at the end of the run what it asked last. What is
    left over is spread, so that a worker that comes by new work begins at once. A call in flight cannot be taken back:
    what a worker still has above its share is kept from the others until it has ended, so that the calls in flight of
    all fall to `limit`.

    Who wants anything gets at least 1, else one that waits could wait for ever. That may be more than `limit` allows:
    all together may pass it by fewer calls than there are workers.
    """
    if not demands:
        return []
    wants = [demand.wanted for demand in demands]
    equal = fill(max(int(FAIR_PART * limit), min(limit, sum(want > 0 for want in wants))), wants)
    rest = [want - share for want, share in zip(wants, equal, strict=True)]
    shares = [share + more for share, more in zip(equal, apportion(max(0, limit - sum(equal)), rest), strict=True)]
    spare = max(0, limit - sum(shares))
    shares = [share + more for share, more in zip(shares, fill(spare, [spare] * len(shares)), strict=True)]
    over = sum(max(0, demand.in_flight - share) for demand, share in zip(demands, shares, strict=True))
    if over:
        # Those within their share keep what they have in flight; what they may have beyond it is what the others leave.
        begun = [min(demand.in_flight, share) for demand, share in zip(demands, shares, strict=True)]
        left = max(0, limit - over - sum(begun))
        more = fill(left, [share - kept for share, kept in zip(shares, begun, strict=True)])
        shares = [kept + extra for kept, extra in zip(begun, more, strict=True)]
    return [max(share, min(1, demand.wanted)) for share, demand in zip(shares, demands, strict=True)]


def fill(amount: int, wishes: Sequence[int]) -> list[int]:
    """Divide `amount` so that the smallest wishes are met first and nobody gets more than it wishes (max-min fair)."""
    given = [0] * len(wishes)
    left = max(0, amount)
    for rank, place in enumerate(sorted(range(len(wishes)), key=wishes.__getitem__)):
        given[place] = min(wishes[place], left // (len(wishes) - rank))
        left -= given[place]
    return given


def apportion(amount: int, wishes: Sequence[int]) -> list[int]:
    """Divide `amount` in proportion to `wishes` (largest remainder), so that nobody gets more than it wishes."""
    whole = sum(wishes)
    if whole <= amount:
        return list(wishes)
    given = [amount * wish // whole for wish in wishes]
    by_remainder = sorted(range(len(wishes)), key=lambda place: amount * wishes[place] % whole, reverse=True)
    for place in by_remainder[: amount - sum(given)]:
        given[place] += 1
    return given


def sum_demands(demands: Sequence[Demand]) -> Demand:
    """The demand of several workers together."""
    ages = [demand.lost_call_s for demand in demands if demand.lost_call_s is not None]
    at_loss = sum(max(demand.in_flight, demand.lost_in_flight) for demand in demands)
    return Demand(
        in_flight=sum(demand.in_flight for demand in demands),
        waiting=sum(demand.waiting for demand in demands),
        completed=sum(demand.completed for demand in demands),
        lost_call_s=min(ages, default=None),
        lost_in_flight=at_loss if ages else 0,
    )
