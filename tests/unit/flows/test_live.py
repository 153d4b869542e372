"""What is told of a run while it goes: shares, rates, the time that is left."""

import itertools
from types import SimpleNamespace

import pytest

from flows.live import MOST_SAMPLES, RECENT, EndedRow, LiveRun, fixed_cost, going_on, live_run
from flows.looks import GPUUse, WorkerLook, find_gpu_use
from summidx.activity import Figures, Look, RepoLook
from summidx.plan import Plan, PlannedRepo
from summidx.records import PinnedRepo
from summidx.settings import load_settings


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def live(clock):
    """A run of four repositories of the same size, one of them up to date."""
    run = LiveRun(clock)
    repos = tuple(
        PlannedRepo(PinnedRepo(name, "", "", "", name), name == "old", "new", 9 * 1024, None)
        for name in ("a", "b", "c", "d", "old")
    )
    run.planned(Plan(repos, None), load_settings({"llm": {"provider": "openai", "model": "m", "concurrency": 64}}), "n")
    return run


def look(*repos, ended=None, in_flight=0, gpu=None, name="0"):
    under_way = tuple(
        RepoLook(each, "summarise", settled, 100, 10.0, Figures(settled, 0, settled, 10 * settled, settled))
        for each, settled in repos
    )
    return WorkerLook(name, None, Look(under_way, ended or Figures(), in_flight, 3, 32), gpu)


def end(live, name, ending="built", reason=""):
    live.ended(EndedRow(name, ending, 10, 1.0, reason))


def test_the_share_that_is_done_counts_what_is_under_way(live):
    live.looked({"w": look(("b", 50))}, 64)
    end(live, "a")
    snapshot = live.snapshot()
    assert snapshot.share == pytest.approx((1 + 0.5) / 4)
    assert (snapshot.done, snapshot.to_build, snapshot.up_to_date, snapshot.failed) == (1, 4, 1, 0)


def test_rates_are_of_the_last_seconds_and_survive_a_worker_that_is_started_again(live, clock):
    live.looked({"w": look(("a", 10))}, 64)
    clock.now += 2
    live.looked({"w": look(("a", 30))}, 64)
    assert live.snapshot().rates["documents"] == pytest.approx(10)
    assert live.snapshot().rates["tokens_in"] == pytest.approx(100)
    clock.now += 2
    live.looked({"w": look(("b", 5))}, 64)
    assert live.snapshot().figures.documents == 35, "what the worker had come to before is not lost"
    clock.now += 2
    live.looked({}, 64)
    assert live.snapshot().figures.documents == 35
    assert live.snapshot().workers == ()


def test_what_a_repository_costs_however_small_it_is_is_learned():
    seen = [(size, 2.0 + size / 1000) for size in (90_000, 40_000, 9_000, 4_000, 1_000)]
    assert fixed_cost(seen) == pytest.approx(2000)
    assert fixed_cost(seen[:4]) == 0, "too few"
    assert fixed_cost([(1_000, seconds) for seconds in (1, 2, 3, 4, 5)]) == 0, "all of one size"
    assert fixed_cost([(size, 3.0) for size, _ in seen]) == pytest.approx(100 * 28_800), "size says nothing"


def test_many_small_repositories_after_a_few_large_ones_are_given_the_time_they_take(clock):
    live = LiveRun(clock)
    sizes = [200_000, 150_000, 120_000, 100_000, *([2_000] * 196)]
    repos = tuple(
        PlannedRepo(PinnedRepo(f"r{at}", "", "", "k", f"g{at}"), False, "new", size - 1024, None)
        for at, size in enumerate(sizes)
    )
    live.planned(Plan(repos, None), load_settings({"llm": {"provider": "openai", "model": "m"}}))
    took = [1.0 + size / 20_000 for size in sizes]  # one after the other
    left = sum(took)
    for at, seconds in enumerate(took[:60]):
        clock.now += seconds
        left -= seconds
        live.ended(EndedRow(f"r{at}", "built", 10, seconds, ""))
    assert live.snapshot().eta_s == pytest.approx(left, rel=0.05)
    assert live.snapshot().share > 0.7, "of the work, as the bar shows it"


def test_no_time_is_foretold_before_anything_is_known_and_the_slowest_repository_is_heeded(live, clock):
    live.looked({"w": look(("a", 50))}, 64)
    assert live.snapshot().eta_s is None
    clock.now += 60
    end(live, "b")
    end(live, "c")
    live.looked({"w": look(("d", 80))}, 64)
    # 2.8 of 4 in 60 s: 25.7 s are left.
    assert live.snapshot().eta_s == pytest.approx(60 * 1.2 / 2.8)
    live.looked({"w": look(("d", 10))}, 64)  # a tenth took 10 s
    assert live.snapshot().eta_s == pytest.approx(max(60 * 1.9 / 2.1, 90))


def test_calls_in_flight_are_summed_and_workers_are_in_order(live):
    gpu = GPUUse(0.5, 1, 2)
    looks = {"x": look(("a", 1), in_flight=7, name="10", gpu=gpu), "y": look(("b", 1), in_flight=5, name="2")}
    live.looked(looks, 48)
    snapshot = live.snapshot()
    assert (snapshot.in_flight, snapshot.waiting, snapshot.limit) == (12, 6, 48)
    assert [worker.name for worker in snapshot.workers] == ["2", "10"]
    assert snapshot.workers[1].gpu == gpu


def test_what_failed_is_kept_however_many_end_well(live):
    end(live, "bad", "failed", "no such revision")
    for n in range(3 * RECENT):
        end(live, f"r{n}")
    rows = live.snapshot().ended
    assert rows[0].name == "bad"
    assert len(rows) == RECENT + 1
    assert rows[-1].name == f"r{3 * RECENT - 1}"


def test_a_long_run_is_measured_less_often_and_never_more_than_so_many_times(live, clock):
    for n in range(5000):
        clock.now += 0.7
        live.looked({"w": look(("a", 1), ended=Figures(documents=n))}, 64)
    timeline = live.timeline()
    seconds = [sample[0] for sample in timeline["samples"]]
    assert MOST_SAMPLES / 2 <= len(seconds) <= MOST_SAMPLES
    assert seconds[-1] > 3400
    steps = [after - before for before, after in itertools.pairwise(seconds[1:])]
    assert max(steps) < 4 * min(steps)
    assert timeline["fields"][3] == "documents"
    assert timeline["samples"][-1][3] > 4900


def test_where_no_run_goes_on_whoever_tells_something_is_not_disturbed(live):
    live_run().looked({}, 1)
    with going_on(live):
        assert live_run() is live
    assert live_run() is not live


def test_the_gpu_of_a_worker_is_what_dasks_monitor_saw():
    seen = {"gpu_utilization": [3, 78], "gpu_memory_used": [0, 2**30], "gpu-memory-total": [2**31]}
    worker = SimpleNamespace(monitor=SimpleNamespace(quantities=seen))
    assert find_gpu_use(worker) == GPUUse(0.78, 2**30, 2**31)
    worker.monitor.quantities = {"cpu": [1]}
    assert find_gpu_use(worker) is None
    assert find_gpu_use(None) is None
