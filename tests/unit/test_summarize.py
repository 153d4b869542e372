"""The walk: every unit ends as a summary or a failure, children first, each question asked once."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from summidx import keys
from summidx.answers import Answers
from summidx.cache import Cache
from summidx.errors import InvalidOutput, Overloaded, RequestRefused, Stopped, Unauthorised
from summidx.hierarchy import REPO_ID, build_tree
from summidx.llm.calls import Calls
from summidx.records import Level, Origin, Status, Summary, TestsPolicy, Unit, UnitFailure
from summidx.settings import LLMSettings
from summidx.stop import Stop
from summidx.summarize import SummaryPolicy, Walk
from summidx.summarizers import PreparedRequest


def unit(unit_id, level=Level.FUNCTION, parent=None, *, source="body", trivial=False, is_test=False, called_by=()):
    path, _, name = unit_id.partition("::")
    return Unit(
        id=unit_id,
        level=level,
        path=path,
        name=name.rsplit(".", 1)[-1] or path.rsplit("/", 1)[-1],
        qualified_name=name or path,
        language="python",
        start_line=1,
        end_line=3,
        parent_id=parent,
        own_source=source,
        signature=f"def {name}()" if name else "",
        trivial=trivial,
        is_test=is_test,
        called_by=called_by,
    )


UNITS = [
    unit("a.py", Level.FILE),
    unit("a.py::A", Level.CLASS, "a.py"),
    unit("a.py::A.run", parent="a.py::A", source="run", called_by=("a.py::free",)),
    unit("a.py::A.stop", parent="a.py::A", source="stop"),
    unit("a.py::free", parent="a.py", source="free"),
    unit("b.py", Level.FILE, source="other"),
    unit("b.py::tiny", parent="b.py", trivial=True),
    unit("test_a.py", Level.FILE, is_test=True, source="tests"),
    unit("test_a.py::test_run", parent="test_a.py", is_test=True, source="test"),
]
ASKED = ["a.py::A.run", "a.py::A.stop", "a.py::free", "a.py::A", "a.py", "b.py", "test_a.py", "."]


@dataclass
class ScriptedSummarizer:
    """Answers by every byte of its request; `faults` maps a unit's id to the errors of its first calls."""

    faults: dict[str, list[Exception]] = field(default_factory=dict)
    latency_s: float = 0.0
    asked: list[str] = field(default_factory=list)
    requests: dict[str, object] = field(default_factory=dict)
    in_flight: int = 0
    most_in_flight: int = 0
    identity = "scripted"
    makes_calls = True

    def split(self, request):
        return None

    def prepare(self, request):
        shown = {
            "source": request.unit.own_source,
            "name": request.unit.qualified_name,
            "header": request.header,
            "callers": request.callers,
            "children": [(child.name, child.text) for child in request.children],
        }
        return PreparedRequest(keys.summary_key(shown), request, shown)

    async def answer(self, prepared, record):
        unit_id = prepared.request.unit.id
        self.asked.append(unit_id)
        self.requests[unit_id] = prepared.request
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.latency_s)
        finally:
            self.in_flight -= 1
        if self.faults.get(unit_id):
            raise self.faults[unit_id].pop(0)
        record.spent([], tokens_in=10, tokens_out=2)
        return Summary(
            text=f"answer {prepared.key[:12]}", origin=Origin.LLM, key=prepared.key, tokens_in=10, tokens_out=2
        )

    async def aclose(self):
        pass


@pytest.fixture
def cache(tmp_path):
    cache = Cache(f"sqlite:///{tmp_path / 'cache.sqlite'}")
    yield cache
    cache.close()


def walk_all(
    trees, summarizer, cache, *, cap=64, stop=None, levels=tuple(Level), tests=TestsPolicy.FILE, retries=1, **answers
):
    """Walk trees at once over one gate and one cache, as an engine does; the walks, run."""
    stop = stop or Stop()

    async def run():
        with ThreadPoolExecutor(1) as executor:
            shared = Answers(cache, executor, **answers)
            policy = SummaryPolicy(frozenset(levels), tests)
            calls = Calls(summarizer, LLMSettings(max_retries=retries), stop, cap=cap)
            walks = [Walk(tree, policy, summarizer, shared, calls, stop, order) for order, tree in enumerate(trees)]
            try:
                await asyncio.gather(*(walk.run() for walk in walks))
            finally:
                await shared.cancel()
                await calls.aclose()
            return walks

    return asyncio.run(run())


def test_every_unit_ends_with_a_summary_and_children_come_before_their_parents(cache):
    tree, summarizer = build_tree(UNITS, "r"), ScriptedSummarizer()
    (walk,) = walk_all([tree], summarizer, cache)
    assert set(walk.outcomes) == set(tree.units)
    assert sorted(summarizer.asked) == sorted(ASKED)
    for unit_id in summarizer.asked:
        for above in tree.ancestors_of(unit_id):
            assert summarizer.asked.index(unit_id) < summarizer.asked.index(above)
    assert walk.usage.asked == len(ASKED)
    assert walk.usage.record.tokens_in == 10 * len(ASKED)


def test_trivial_units_and_test_functions_get_templates_without_a_call(cache):
    (walk,) = walk_all([build_tree(UNITS, "r")], ScriptedSummarizer(), cache)
    templates = {unit_id for unit_id, each in walk.outcomes.items() if each.origin is Origin.TEMPLATE}
    assert templates == {"b.py::tiny", "test_a.py::test_run"}
    assert all(walk.outcomes[unit_id].text for unit_id in templates)


def test_full_asks_for_test_functions_too(cache):
    summarizer = ScriptedSummarizer()
    walk_all([build_tree(UNITS, "r")], summarizer, cache, tests=TestsPolicy.FULL)
    assert "test_a.py::test_run" in summarizer.asked


def test_a_request_holds_header_callers_and_the_childrens_summaries(cache):
    summarizer = ScriptedSummarizer()
    (walk,) = walk_all([build_tree(UNITS, "r")], summarizer, cache)
    method = summarizer.requests["a.py::A.run"]
    assert method.header == "def A()"
    assert method.callers == ("free",)
    children = summarizer.requests["a.py::A"].children
    assert [(child.name, child.text) for child in children] == [
        (name, walk.outcomes[f"a.py::A.{name}"].text) for name in ("run", "stop")
    ]


def test_a_level_that_is_not_asked_for_costs_no_call_and_its_parent_reads_its_template(cache):
    summarizer = ScriptedSummarizer()
    (walk,) = walk_all([build_tree(UNITS, "r")], summarizer, cache, levels=[Level.FILE, Level.REPO])
    assert sorted(summarizer.asked) == [".", "a.py", "b.py", "test_a.py"]
    children = summarizer.requests["a.py"].children
    assert [child.text for child in children] == [walk.outcomes[f"a.py::{name}"].text for name in ("A", "free")]
    assert "def free()" in children[1].text


def test_a_second_walk_makes_no_call(cache):
    tree = build_tree(UNITS, "r")
    (first,) = walk_all([tree], ScriptedSummarizer(), cache)
    summarizer = ScriptedSummarizer()
    (second,) = walk_all([tree], summarizer, cache)
    assert summarizer.asked == []
    assert second.outcomes == first.outcomes
    assert second.usage.cache_hits == len(ASKED)


def test_an_edited_method_costs_its_own_call_and_one_per_ancestor(cache):
    walk_all([build_tree(UNITS, "r")], ScriptedSummarizer(), cache)
    edited = [unit("a.py::A.stop", parent="a.py::A", source="edited") if u.id == "a.py::A.stop" else u for u in UNITS]
    summarizer = ScriptedSummarizer()
    walk_all([build_tree(edited, "r")], summarizer, cache)
    assert summarizer.asked == ["a.py::A.stop", "a.py::A", "a.py", REPO_ID]


def test_eight_equal_repositories_walked_at_once_cost_what_one_does(cache):
    summarizer = ScriptedSummarizer(latency_s=0.01)
    walks = walk_all([build_tree(UNITS, "r")] * 8, summarizer, cache)
    assert sorted(summarizer.asked) == sorted(ASKED)
    assert all(walk.outcomes == walks[0].outcomes for walk in walks)
    assert sum(walk.usage.asked for walk in walks) == len(ASKED)


def test_calls_in_flight_reach_the_cap_and_never_pass_it(cache):
    many = [unit("m.py", Level.FILE), *(unit(f"m.py::f{i}", parent="m.py", source=str(i)) for i in range(60))]
    summarizer = ScriptedSummarizer(latency_s=0.02)
    walk_all([build_tree(many, "r")], summarizer, cache, cap=16)
    assert summarizer.most_in_flight == 16


def test_a_fault_of_transport_is_tried_again_at_the_end_and_leaves_no_trace(cache):
    summarizer = ScriptedSummarizer(faults={"a.py::A.run": [Overloaded("busy")]})
    (walk,) = walk_all([build_tree(UNITS, "r")], summarizer, cache)
    assert {each.status for each in walk.outcomes.values()} == {Status.OK}
    assert summarizer.asked.count("a.py::A.run") == 2


def test_a_unit_that_cannot_be_had_fails_alone_and_its_parents_are_degraded_by_the_gap(cache):
    faults = {"a.py::A.run": [Overloaded("busy"), Overloaded("busy")]}
    (walk,) = walk_all([build_tree(UNITS, "r")], ScriptedSummarizer(faults=faults), cache)
    assert walk.outcomes["a.py::A.run"] == UnitFailure("Overloaded", "busy")
    parent = walk.outcomes["a.py::A"]
    assert (parent.status, parent.reason) == (Status.DEGRADED, "made without 1 failed: run")
    assert walk.outcomes["a.py::A.stop"].status is Status.OK


@pytest.mark.parametrize("times", [1, 2])
def test_each_unit_is_counted_once_also_where_it_was_asked_for_again_at_the_end(cache, times):
    faults = {"a.py::A.run": [Overloaded("busy")] * times}
    (walk,) = walk_all([build_tree(UNITS, "r")], ScriptedSummarizer(faults=faults), cache)
    answered = [each for each in walk.outcomes.values() if isinstance(each, Summary) and each.key]
    assert walk.usage.asked + walk.usage.cache_hits == len(answered)


def test_a_request_that_is_always_refused_is_degraded_and_cached_as_the_models_no(cache):
    refused = [RequestRefused("content filter")] * 2
    (walk,) = walk_all([build_tree(UNITS, "r")], ScriptedSummarizer(faults={"a.py::A.run": refused}), cache)
    outcome = walk.outcomes["a.py::A.run"]
    assert (outcome.status, outcome.origin, outcome.reason) == (Status.DEGRADED, Origin.EXTRACTIVE, "content filter")
    assert {each.status for name, each in walk.outcomes.items() if name != "a.py::A.run"} == {Status.OK}
    again = ScriptedSummarizer()
    walk_all([build_tree(UNITS, "r")], again, cache)
    assert again.asked == []


def test_the_repository_itself_may_be_refused(cache):
    refused = [RequestRefused("content filter")] * 2
    (walk,) = walk_all([build_tree(UNITS, "r")], ScriptedSummarizer(faults={REPO_ID: refused}), cache)
    assert walk.outcomes[REPO_ID].status is Status.DEGRADED


def test_a_server_that_refuses_everything_leaves_failures_and_nothing_in_the_cache(cache):
    faults = {unit_id: [RequestRefused("unknown field")] * 2 for unit_id in ASKED}
    (walk,) = walk_all([build_tree(UNITS, "r")], ScriptedSummarizer(faults=faults), cache)
    assert all(walk.outcomes[unit_id] == UnitFailure("RequestRefused", "unknown field") for unit_id in ASKED)
    summarizer = ScriptedSummarizer()
    (walk,) = walk_all([build_tree(UNITS, "r")], summarizer, cache)
    assert sorted(summarizer.asked) == sorted(ASKED)
    assert {each.status for each in walk.outcomes.values()} == {Status.OK}


def test_a_server_that_begins_to_refuse_everything_leaves_failures(cache):
    files = [unit(f"{i:03}.py", Level.FILE, source=str(i)) for i in range(60)]
    faults = {each.id: [RequestRefused("no credit")] * 2 for each in files[30:]}
    (walk,) = walk_all([build_tree(files, "r")], ScriptedSummarizer(faults=faults), cache, cap=1)
    assert all(isinstance(walk.outcomes[each.id], UnitFailure) for each in files[30:])


def test_a_failure_is_never_cached(cache):
    faults = {"a.py::A.run": [Overloaded("busy"), Overloaded("busy")]}
    walk_all([build_tree(UNITS, "r")], ScriptedSummarizer(faults=faults), cache)
    summarizer = ScriptedSummarizer()
    (walk,) = walk_all([build_tree(UNITS, "r")], summarizer, cache)
    assert summarizer.asked == ["a.py::A.run", "a.py::A", "a.py", REPO_ID][: len(summarizer.asked)]
    assert {each.status for each in walk.outcomes.values()} == {Status.OK}


def test_an_unusable_answer_is_degraded_cached_and_asked_again_only_on_request(cache):
    faults = {"a.py::free": [InvalidOutput("repeats itself")]}
    (walk,) = walk_all([build_tree(UNITS, "r")], ScriptedSummarizer(faults=faults), cache)
    outcome = walk.outcomes["a.py::free"]
    assert (outcome.status, outcome.origin) == (Status.DEGRADED, Origin.EXTRACTIVE)
    assert "repeats itself" in outcome.reason
    assert outcome.text
    again = ScriptedSummarizer()
    walk_all([build_tree(UNITS, "r")], again, cache)
    assert again.asked == []
    asked_for = ScriptedSummarizer()
    (walk,) = walk_all([build_tree(UNITS, "r")], asked_for, cache, retry_degraded=True)
    assert asked_for.asked[0] == "a.py::free"
    assert walk.outcomes["a.py::free"].status is Status.OK


def test_a_refused_key_stops_the_run_at_once(cache):
    stop = Stop()
    faults = {"a.py::A.run": [Unauthorised("the key is refused")]}
    with pytest.raises((Unauthorised, Stopped), match="the key is refused"):
        walk_all([build_tree(UNITS, "r")], ScriptedSummarizer(faults=faults), cache, stop=stop, cap=1)
    assert stop.reason == "the key is refused"


def test_nothing_is_asked_after_a_stop(cache):
    stop, summarizer = Stop(), ScriptedSummarizer()
    stop.request("Ctrl-C")
    with pytest.raises(Stopped, match=r"Ctrl-C"):
        walk_all([build_tree(UNITS, "r")], summarizer, cache, stop=stop)
    assert summarizer.asked == []
