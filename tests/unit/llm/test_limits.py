"""The endpoint's limit: where it settles against a model of a server, and how it is divided."""

import heapq
import itertools
import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from summidx.llm.limits import FAIR_PART, AdaptiveLimit, Demand, apportion, fill, share_by_demand, sum_demands
from summidx.llm.server_load import ServerLoad


@dataclass
class ModelServer:
    """A server with `slots` that work for `service_s` each, and a queue; beyond `accepts` in all it refuses.

    There is always more to ask than may be in flight, unless `demand` says how much there is at a time. The time is
    virtual.
    """

    slots: int
    service_s: float = 2.0
    accepts: int = 10**9
    shows_load: bool = False
    demand: int = 10**9
    now: float = 0.0
    limits: list[int] = field(default_factory=list)
    in_flights: list[int] = field(default_factory=list)
    queues: list[int] = field(default_factory=list)
    completed: int = 0
    refused: int = 0

    def run(self, limit: AdaptiveLimit, seconds: float) -> float:
        """Let calls go by for so long; answers per second over the second half."""
        self._ends: list[float] = []
        self._queue: list[float] = []
        self._sent: list[float] = []
        refusals: list[tuple[float, float]] = []
        look, half, at_half = self.now + 1.0, self.now + seconds / 2, None
        end = self.now + seconds
        while self.now < end:
            while len(self._ends) + len(self._queue) + len(refusals) < min(limit.limit, self.demand):
                if len(self._ends) + len(self._queue) >= self.accepts:
                    heapq.heappush(refusals, (self.now + 0.05, self.now))
                elif len(self._ends) < self.slots:
                    self._work()
                else:
                    self._queue.append(self.now)
            self.now = min(look, *self._ends[:1], *(at for at, _ in refusals[:1]))
            while refusals and refusals[0][0] <= self.now:
                _, sent_at = heapq.heappop(refusals)
                self.refused += 1
                limit.lose(sent_at, self.now, len(self._ends) + len(self._queue) + len(refusals) + 1)
            while self._ends and self._ends[0] <= self.now:
                heapq.heappop(self._ends)
                self.completed += 1
                if self._queue:
                    self._queue.pop(0)
                    self._work()
            if self.now >= look:
                look += 1.0
                in_flight = len(self._ends) + len(self._queue)
                load = ServerLoad(len(self._ends), len(self._queue)) if self.shows_load else None
                waiting = max(0, min(self.demand, 10**6) - in_flight)
                limit.observe(Demand(in_flight, waiting, self.completed), self.now, load)
                self.limits.append(limit.limit)
                self.in_flights.append(in_flight)
                self.queues.append(len(self._queue))
            if at_half is None and self.now >= half:
                at_half = self.completed
        return (self.completed - (at_half or 0)) / (seconds / 2)

    def _work(self) -> None:
        # Answers differ in length: from half to one and a half times the mean, evenly.
        self._turn = (getattr(self, "_turn", 0) * 5 + 3) % 16
        heapq.heappush(self._ends, self.now + self.service_s * (0.5 + self._turn / 16))

    @property
    def peak(self) -> float:
        return self.slots / self.service_s


@pytest.mark.parametrize("slots", [16, 64, 256])
def test_without_losses_the_limit_is_what_was_configured(slots):
    limit, server = AdaptiveLimit(256), ModelServer(slots)
    assert server.run(limit, 100) >= 0.97 * server.peak
    assert set(server.limits) == {256}


@pytest.mark.parametrize("slots", [16, 64, 256])
def test_a_server_that_refuses_what_is_beyond_its_queue_is_kept_nearly_full(slots):
    limit = AdaptiveLimit(400)
    server = ModelServer(slots, accepts=slots + max(4, slots // 4))
    server.run(limit, 100)  # the first burst, of which most is refused
    server.refused = server.completed = 0
    assert server.run(limit, 500) >= 0.9 * server.peak
    assert server.refused < 0.02 * server.completed
    assert max(server.limits[100:]) <= 1.2 * server.accepts


@pytest.mark.parametrize("slots", [16, 64, 256])
def test_after_one_burst_of_losses_the_limit_grows_until_the_server_is_full(slots):
    limit, server = AdaptiveLimit(512), ModelServer(slots)
    for n in range(40):
        limit.lose(server.now, server.now, 512)  # of one generation: all sent before the cut
        assert limit.limit == 256, n
    for _ in range(6):
        server.now += 0.001
        limit.lose(server.now, server.now, limit.limit)
    assert limit.limit <= 8
    assert server.run(limit, 400) >= 0.9 * server.peak


@pytest.mark.parametrize("slots", [16, 64, 256])
def test_the_limit_stops_growing_where_more_calls_bring_no_more_answers(slots):
    limit, server = AdaptiveLimit(4096), ModelServer(slots)
    limit.lose(0.0, 0.0, slots)  # half of what the server can do
    assert server.run(limit, 120 * server.service_s) >= 0.95 * server.peak
    assert max(server.limits) < 4 * slots


@pytest.mark.parametrize("slots", [16, 64, 256])
def test_a_server_that_shows_its_queue_is_kept_full_with_a_queue_just_above_zero(slots):
    limit, server = AdaptiveLimit(512), ModelServer(slots, shows_load=True)
    assert server.run(limit, 200) >= 0.97 * server.peak
    settled = server.queues[100:]  # what was sent at the beginning has been answered
    assert max(settled) <= 0.5 * slots + 4
    assert sorted(settled)[len(settled) // 2] <= max(4, 0.3 * slots)


def test_a_queue_that_runs_dry_raises_the_limit_quickly_and_never_past_what_was_configured():
    limit, server = AdaptiveLimit(256), ModelServer(16, shows_load=True)
    server.run(limit, 40)
    assert limit.limit < 40
    server.slots = 1000
    server.run(limit, 14)
    assert limit.limit == 256


def test_an_empty_queue_raises_the_limit_after_a_loss_only_once_as_many_calls_were_answered():
    limit = AdaptiveLimit(64)
    limit.lose(0.0, 0.5, 24)  # what a router in front of the server refused never came to its queue
    limits = [limit.observe(Demand(12, 36, answered), 1.0, ServerLoad(12, 0)) for answered in (3, 3, 14, 15)]
    assert limits == [12, 12, 12, 15]


def test_a_server_that_has_just_started_or_works_for_others_too_does_not_starve_us():
    limit = AdaptiveLimit(256)
    limit.observe(Demand(256, 1000, 0), 0.0, ServerLoad(0, 256))
    assert limit.limit > 200, "one odd look"
    for second in range(1, 60):  # the server is full of the calls of somebody else
        limit.observe(Demand(limit.limit, 1000, second), float(second), ServerLoad(64, 1000))
    assert limit.limit >= 64


def test_a_limit_that_is_not_used_says_nothing_of_a_higher_one():
    limit, server = AdaptiveLimit(256), ModelServer(64, demand=10)
    limit.lose(0.0, 0.0, 64)
    server.run(limit, 100)
    assert limit.limit == 32


def test_losses_of_calls_that_were_sent_before_the_last_cut_do_not_cut_again():
    limit = AdaptiveLimit(64)
    assert limit.lose(1.0, 5.0, 64)
    assert not limit.lose(4.9, 6.0, 60)
    assert limit.limit == 32
    assert limit.lose(5.1, 7.0, 32)
    assert limit.limit == 16
    for at in range(8, 40):
        limit.lose(at - 0.5, float(at), 1)
    assert limit.limit == 1


demands = st.lists(
    st.builds(Demand, in_flight=st.integers(0, 400), waiting=st.integers(0, 3000)), min_size=1, max_size=12
)


def count_waiting(demands):
    return sum(demand.wanted > 0 for demand in demands)


@given(limit=st.integers(0, 600), demands=demands)
def test_who_waits_gets_a_place_however_small_the_limit_and_whatever_is_still_in_flight(limit, demands):
    shares = share_by_demand(limit, demands)
    assert all(share > 0 for share, demand in zip(shares, demands, strict=True) if demand.wanted)


@pytest.mark.parametrize("places", list(itertools.permutations(range(3))))
def test_an_idle_worker_takes_no_place_from_one_that_waits(places):
    ours = [Demand(waiting=1), Demand(), Demand()]
    assert share_by_demand(1, [ours[place] for place in places]) == [[1, 0, 0][place] for place in places]


def test_with_fewer_calls_than_workers_the_one_that_works_is_not_among_those_that_get_none():
    assert share_by_demand(4, [Demand(waiting=1), *[Demand()] * 7])[0] == 1
    assert share_by_demand(4, [Demand(waiting=9), *[Demand()] * 7]) == [4, *[0] * 7]
    assert share_by_demand(2, [Demand(waiting=9)] * 3) == [1, 1, 1], "one more than the limit, so that nobody starves"


@given(limit=st.integers(0, 600), demands=demands)
def test_shares_stay_within_the_limit_whatever_is_still_in_flight(limit, demands):
    """Within it but for the one call that nobody is refused."""
    shares = share_by_demand(limit, demands)
    assert len(shares) == len(demands)
    assert min(shares) >= 0
    assert sum(shares) <= limit + count_waiting(demands)
    may_be_in_flight = sum(max(share, demand.in_flight) for share, demand in zip(shares, demands, strict=True))
    begun = sum(demand.in_flight for demand in demands)
    assert may_be_in_flight <= max(limit, begun) + sum(not each.in_flight for each in demands if each.wanted)


@given(limit=st.integers(1, 600), demands=demands)
def test_the_whole_limit_is_given_away_where_nothing_is_in_flight_over_it(limit, demands):
    idle = [Demand(0, demand.waiting) for demand in demands]
    assert sum(share_by_demand(limit, idle)) == max(limit, count_waiting(idle))


@given(limit=st.integers(1, 600), demands=demands)
def test_nobody_has_more_than_it_wants_while_another_wants_more(limit, demands):
    idle = [Demand(0, demand.waiting) for demand in demands]
    shares = share_by_demand(limit, idle)
    if any(share < demand.wanted for share, demand in zip(shares, idle, strict=True)):
        assert all(share <= max(1, demand.wanted) for share, demand in zip(shares, idle, strict=True))


@given(limit=st.integers(1, 600), demands=demands)
def test_who_wants_little_has_it_soon_and_who_wants_more_has_no_less(limit, demands):
    idle = [Demand(0, demand.waiting) for demand in demands]
    shares = share_by_demand(limit, idle)
    for share, demand in zip(shares, idle, strict=True):
        assert share >= min(demand.wanted, int(FAIR_PART * limit) // len(idle))
    ordered = [share for _, share in sorted(zip([demand.wanted for demand in idle], shares, strict=True))]
    assert all(less <= more + 1 for less, more in itertools.pairwise(ordered)), "but for what does not divide evenly"


def test_workers_that_want_much_come_to_the_end_of_it_together():
    wants = [1600, 800, 400, 200]
    for _ in range(40):
        shares = share_by_demand(100, [Demand(waiting=want) for want in wants])
        wants = [max(0, want - share) for want, share in zip(wants, shares, strict=True)]
        if not any(wants):
            break
    assert wants == [0, 0, 0, 0]
    halfway = [1600, 800, 400, 200]
    for _ in range(15):
        shares = share_by_demand(100, [Demand(waiting=want) for want in halfway])
        halfway = [want - share for want, share in zip(halfway, shares, strict=True)]
    assert halfway[0] < 0.6 * 1600, "in equal shares it would be at 1225"


@given(limit=st.integers(1, 300), demands=demands, ended=st.randoms(use_true_random=False))
@settings(deadline=None)
def test_divided_again_and_again_the_calls_in_flight_fall_to_the_limit_and_nobody_starves(limit, demands, ended):
    in_flight = [demand.in_flight for demand in demands]
    for _ in range(60):
        state = [Demand(n, 1000) for n in in_flight]
        shares = share_by_demand(limit, state)
        before = sum(in_flight)
        # Some calls end, and each worker fills up to its cap.
        in_flight = [n - ended.randint((n + 1) // 2, n) for n in in_flight]
        in_flight = [max(n, share) for n, share in zip(in_flight, shares, strict=True)]
        assert sum(in_flight) <= max(limit, before) + len(in_flight)
    assert sum(in_flight) == max(limit, len(in_flight))
    assert min(in_flight) >= 1
    assert max(in_flight) - min(in_flight) <= 2, "each of the two parts is rounded up for whom wants most"


@given(amount=st.integers(0, 500), wishes=st.lists(st.integers(0, 200), max_size=12))
def test_filling_meets_small_wishes_first(amount, wishes):
    given_ = fill(amount, wishes)
    assert sum(given_) == min(amount, sum(wishes))
    for got, wish in zip(given_, wishes, strict=True):
        assert got <= wish
        assert got == wish or got >= max(given_) - 1


@given(amount=st.integers(0, 500), wishes=st.lists(st.integers(0, 200), max_size=12))
def test_what_is_apportioned_is_in_proportion_to_the_wishes(amount, wishes):
    given_ = apportion(amount, wishes)
    assert sum(given_) == min(amount, sum(wishes))
    for got, wish in zip(given_, wishes, strict=True):
        assert got <= wish
        assert got == wish or abs(got - amount * wish / sum(wishes)) < 1


def test_a_burst_of_refusals_that_is_over_by_the_next_look_halves_the_limit():
    assert AdaptiveLimit(256).observe(Demand(0, 300, 100, 0.5, lost_in_flight=200), 10) == 100
    assert AdaptiveLimit(256).observe(Demand(0, 300, 100, 0.5), 10) == 128, "not said how many"


def test_the_sum_of_demands_tells_the_latest_loss_and_how_many_calls_there_were():
    total = sum_demands([Demand(1, 2, 3, 5.0, 40), Demand(10, 20, 30), Demand(0, 0, 0, 0.5, 30)])
    assert total == Demand(11, 22, 33, 0.5, 80)
    assert sum_demands([]) == Demand()
    assert math.isclose(sum_demands([Demand(lost_call_s=0.0)]).lost_call_s, 0.0)
