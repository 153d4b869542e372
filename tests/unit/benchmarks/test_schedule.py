"""The bound that saturation is measured against, and how busy slots are: both are figures that we publish."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.schedule import Job, Served, list_schedule, measure_busy


def chain(*names: str) -> dict[str, Job]:
    return {name: Job(1.0, names[i - 1 : i] if i else ()) for i, name in enumerate(names)}


def test_independent_jobs_fill_the_slots_in_rounds() -> None:
    assert list_schedule({str(i): Job(2.0) for i in range(5)}, 2).makespan_s == 6.0


def test_the_longest_way_to_go_comes_first() -> None:
    """Any other order leaves a slot idle while the chain ends."""
    assert list_schedule({**chain("a", "b", "c"), **{f"s{i}": Job(1.0) for i in range(3)}}, 2).makespan_s == 3.0


def test_a_job_waits_for_all_that_it_needs() -> None:
    jobs = {"short": Job(1.0), "long": Job(3.0), "after": Job(1.0, ("short", "long"))}
    assert list_schedule(jobs, 8).makespan_s == 4.0


def test_a_job_that_takes_no_time_takes_no_slot_but_keeps_the_order() -> None:
    jobs = {
        "call": Job(1.0),
        "template": Job(0.0, ("call",)),
        "free": Job(0.0),
        "parent": Job(1.0, ("template", "free")),
    }
    assert list_schedule(jobs, 1).makespan_s == 2.0


def test_kinds_of_jobs_take_slots_of_their_own() -> None:
    """Two calls at a time, and one text, each text after its call."""
    jobs = {f"call{i}": Job(1.0) for i in range(4)}
    jobs |= {f"text{i}": Job(2.0, (f"call{i}",), "embedder") for i in range(4)}
    schedule = list_schedule(jobs, {"slot": 2, "embedder": 1})
    assert schedule.makespan_s == 9.0
    calls = sorted(span for name, span in schedule.spans.items() if name.startswith("call"))
    texts = sorted(span for name, span in schedule.spans.items() if name.startswith("text"))
    assert calls == [(0.0, 1.0), (0.0, 1.0), (1.0, 2.0), (1.0, 2.0)]
    assert texts == [(1.0, 3.0), (3.0, 5.0), (5.0, 7.0), (7.0, 9.0)]


def test_a_job_of_a_kind_without_slots_is_refused() -> None:
    with pytest.raises(KeyError, match="embedder"):
        list_schedule({"text": Job(1.0, kind="embedder")}, 2)


def test_nothing_to_do_takes_no_time() -> None:
    assert list_schedule({}, 4).makespan_s == 0.0
    assert list_schedule({"template": Job(0.0)}, 4).makespan_s == 0.0


@pytest.mark.parametrize(
    ("jobs", "says"),
    [({"a": Job(1.0, ("b",)), "b": Job(1.0, ("a",))}, "circle"), ({"a": Job(1.0, ("gone",))}, "gone")],
)
def test_a_graph_that_cannot_be_walked_is_refused(jobs: dict[str, Job], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        list_schedule(jobs, 2)


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Job]:
    jobs: dict[str, Job] = {}
    for i in range(draw(st.integers(1, 25))):
        needs = draw(st.sets(st.sampled_from(sorted(jobs)), max_size=3)) if jobs else set()
        jobs[f"j{i}"] = Job(draw(st.sampled_from([0.0, 1.0, 2.5])), tuple(sorted(needs)))
    return jobs


@given(graphs(), st.integers(1, 6))
def test_a_schedule_keeps_within_the_known_bounds(jobs: dict[str, Job], slots: int) -> None:
    """No schedule beats work / slots and the longest path; no list schedule is worse than Graham's bound."""
    schedule = list_schedule(jobs, slots)
    least = max(schedule.work_s / slots, schedule.longest_path_s)
    assert least - 1e-9 <= schedule.makespan_s
    assert schedule.makespan_s <= schedule.work_s / slots + schedule.longest_path_s * (1 - 1 / slots) + 1e-9


def test_full_slots_are_all_busy() -> None:
    served = [Served(0.0, start, start + 1.0) for start in range(20) for _ in range(2)]
    busy = measure_busy(served, 2)
    assert (busy.calls, busy.makespan_s, busy.busy, busy.busy_until_95) == (40, 20.0, 1.0, 1.0)
    assert busy.median_wait_s > 0


def test_what_is_lost_is_named_and_adds_up() -> None:
    """One slot of two starts a second late, both idle in the middle, and one works alone at the end."""
    spans = [(0.0, 4.0), (1.0, 4.0), *[(5.0 + i, 6.0 + i) for i in range(40)], *[(5.0 + i, 6.0 + i) for i in range(38)]]
    busy = measure_busy([Served(start, start, end) for start, end in spans], 2)
    lost = (busy.lost_at_start, busy.lost_between, busy.lost_in_tail)
    assert busy.makespan_s == 45.0
    assert busy.lost_at_start == pytest.approx(0.5 / 45)
    assert busy.lost_between == pytest.approx(1.0 / 45)
    assert busy.lost_in_tail == pytest.approx(1.0 / 45)
    assert busy.busy + sum(lost) == pytest.approx(1.0)


def test_nothing_served_is_no_measurement() -> None:
    with pytest.raises(ValueError, match="no request"):
        measure_busy([], 64)
