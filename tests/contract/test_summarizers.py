"""What every summariser promises, whoever writes its summaries."""

import asyncio
from dataclasses import replace

import pytest

from summidx.accounting import CallRecord
from summidx.records import ChildSummary, Level, Status, SummaryRequest, Unit
from summidx.settings import LLMSettings, Provider
from summidx.summarizers.select import make_summarizer, probe_model

CHILDREN = (
    ChildSummary(Level.FUNCTION, "a", "def a()", "Does a."),
    ChildSummary(Level.FUNCTION, "lost", "def lost()", None),
)


def build_request(level: Level, **fields) -> SummaryRequest:
    unit = Unit(
        id="p.py::C.f",
        level=level,
        path="p.py",
        name="f",
        qualified_name="C.f",
        language="python",
        start_line=1,
        end_line=3,
        parent_id=None,
        own_source='def f():\n    """Read \ud800 a row."""\n    return 1',
        signature="def f()",
    )
    children = () if level is Level.FUNCTION else CHILDREN
    return SummaryRequest(replace(unit, **fields), header="class C", callers=("g",), children=children)


# What the model in the worker promises beyond its server's is shown where there is one: tests/vllm.
@pytest.fixture(params=[each for each in Provider if each is not Provider.VLLM])
def summarizer(request, fake_llm):
    settings = LLMSettings(provider=request.param, base_url=fake_llm.base_url, model="fake")
    return make_summarizer(settings, probe_model(settings))


def ask(summarizer, *prepared):
    async def run():
        try:
            return await asyncio.gather(*(summarizer.answer(each, CallRecord()) for each in prepared))
        finally:
            await summarizer.aclose()

    return asyncio.run(run())


@pytest.mark.parametrize("level", Level)
def test_every_level_gets_a_summary_under_the_key_of_its_request(summarizer, level):
    prepared = summarizer.prepare(build_request(level))
    (summary,) = ask(summarizer, prepared)
    assert summary.text.strip()
    assert "\n" not in summary.text
    assert len(summary.keywords) <= 6
    assert summary.status is Status.OK
    assert summary.key == prepared.key
    assert len(prepared.key) == 64
    assert prepared.request.unit.level is level


def test_the_same_request_has_the_same_key_and_answer_and_another_has_another(summarizer):
    one, same = (summarizer.prepare(build_request(Level.FUNCTION)) for _ in range(2))
    other = summarizer.prepare(build_request(Level.FUNCTION, own_source="def f(): return sum(rows)"))
    assert one.key == same.key != other.key
    answers = ask(summarizer, one, same, other)
    assert answers[0] == answers[1] != answers[2]


def test_a_gap_is_in_the_key(summarizer):
    request = build_request(Level.CLASS)
    whole = replace(request, children=tuple(replace(child, text=child.text or "Back.") for child in CHILDREN))
    assert summarizer.prepare(request).key != summarizer.prepare(whole).key


def test_it_can_be_asked_again_after_it_was_closed(summarizer):
    prepared = summarizer.prepare(build_request(Level.FILE))
    assert ask(summarizer, prepared) == ask(summarizer, prepared)


def test_its_identity_is_stable_and_says_who_it_is(summarizer):
    assert summarizer.identity == summarizer.identity
    assert summarizer.identity.strip()
    assert ("fake" in summarizer.identity) == summarizer.makes_calls
