"""How each document ended, told the same in CURRENT, in a build's report, in the index, and by the next plan."""

import json
from dataclasses import replace

import pytest
from fake_llm import Answer, error

from summidx.engine import Engine
from summidx.errors import TooManyFailures
from summidx.pipeline import index_repo
from summidx.plan import make_plan
from summidx.records import Level, Origin, RepoRef, Status, count_where
from summidx.settings import load_settings
from summidx.store.generations import IndexRoot

FUNCTION = '''def count_{name}(items):
    """Count what is {name}."""
    total = 0
    for item in items:
        total += item.{name}
    return total
'''


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    for name in ("red", "green", "blue", "grey", "black"):
        (folder / f"{name}.py").write_text(FUNCTION.format(name=name))
    return RepoRef("colours", str(folder))


@pytest.fixture
def build(source, tmp_path, fake_llm):
    """Build as a run does, with settings of the test's: the report of the build."""

    def run(*, retry_degraded=False, **llm):
        settings = load_settings(
            {
                "index_root": str(tmp_path / "index"),
                "embedding": {"model": "hashing"},
                "retry_degraded": retry_degraded,
                "llm": {"provider": "openai", "model": "fake", "base_url": fake_llm.base_url, "max_retries": 0} | llm,
            }
        )
        plan = make_plan([source], settings)
        engine = Engine(settings, served_model=plan.served_model)
        try:
            (planned,) = plan.repos
            report = index_repo(planned.pin, engine, expected_publish_id=planned.expected_publish_id)
        finally:
            engine.close()
        return planned, report

    return run


@pytest.fixture
def index(tmp_path):
    return lambda: IndexRoot(tmp_path / "index").open("colours")


def about(word, answer):
    """Answer so whatever function is about `word`; all else as usual."""

    def script(body, _):
        is_function = body["max_tokens"] in (200, 400)
        return answer if is_function and f"count_{word}" in body["messages"][-1]["content"] else None

    return script


def test_a_fault_of_transport_is_failed_everywhere_and_the_next_run_asks_for_it_alone(build, index, fake_llm):
    fake_llm.script = about("red", error(500, "broken"))
    _, report = build()
    opened = index()
    lost = next(each for each in opened.table.documents() if each.id == "red.py::count_red")

    assert (lost.status, lost.origin, lost.summary) == (Status.FAILED, None, "")
    assert lost.reason.startswith("ServerFault: ")
    assert report.counts == opened.manifest.counts
    assert report.faults == opened.manifest.faults
    assert (report.faults[0].id, report.faults[0].reason) == (lost.id, lost.reason)
    assert {each.id for each in report.faults[1:]} == {"red.py", "."} & {each.id for each in report.faults}
    assert count_where(report.counts, level=Level.FUNCTION, status=Status.FAILED) == 1
    above = next(each for each in opened.table.documents() if each.id == "red.py")
    assert (above.status, above.reason) == (Status.DEGRADED, "made without 1 failed: count_red")

    fake_llm.script = None
    before = fake_llm.calls
    planned, report = build()
    assert planned.why == "1 failed document"
    assert (report.faults, count_where(report.counts, status=Status.OK)) == ((), count_where(report.counts))
    assert fake_llm.calls - before <= 3  # the function, its file, the repository
    assert build()[0].up_to_date


def test_a_model_that_answers_one_unit_badly_for_ever_does_not_rebuild_it_every_night(build, index, fake_llm):
    fake_llm.script = about("red", Answer(text="to be or " * 40))
    _, report = build()
    poor = next(each for each in index().table.documents() if each.id == "red.py::count_red")
    assert (poor.status, poor.origin) == (Status.DEGRADED, Origin.EXTRACTIVE)
    assert "repeats itself" in poor.reason
    assert count_where(report.counts, status=Status.DEGRADED, origin=Origin.EXTRACTIVE) == 1
    assert [each.id for each in report.faults] == [poor.id]

    before = fake_llm.calls
    planned, _ = build()
    assert (planned.up_to_date, fake_llm.calls) == (True, before)

    planned, report = build(retry_degraded=True)
    assert planned.why == "1 degraded document (--retry-degraded)"
    assert fake_llm.calls - before == 2  # it is asked twice for something usable, and nobody else is asked
    assert [each.id for each in report.faults] == [poor.id]
    assert build()[0].up_to_date

    fake_llm.script = None
    _, report = build(retry_degraded=True)
    assert report.faults == ()


def test_more_failures_than_are_allowed_fail_the_repository_and_what_it_cost_is_told(build, index, fake_llm):
    _, first = build()
    fake_llm.script = lambda body, _: error(500, "broken") if body["max_tokens"] == 200 else None
    with pytest.raises(TooManyFailures, match=r"5 of 11 documents failed, more than the 3 allowed") as failed:
        build(max_tokens_function=200, seed=1)
    assert index().manifest.generation == first.generation
    assert failed.value.cost.counts["function"]["failed"]["none"] == 5
    assert failed.value.cost.usage.requests > 0
    assert failed.value.cost.usage.tokens_in > 0


def test_a_manifest_tells_its_faults_and_reads_back_the_same(manifest, document):
    from summidx.records import Fault
    from summidx.store.current import parse_manifest, render_manifest

    told = replace(manifest([document("a.py")]), faults=(Fault("a.py", Status.FAILED, "Overloaded: 503"),))
    assert parse_manifest(render_manifest(told)) == told
    assert json.loads(render_manifest(told))["faults"][0]["status"] == "failed"
