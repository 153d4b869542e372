"""Walks against a real HTTP server that fails in every way: what is tried again, what waits, what ends the run."""

import asyncio
import itertools
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from fake_llm import Answer, FakeLLM, error, running, start, unauthorised, unknown_model

from summidx.answers import Answers
from summidx.cache import Cache
from summidx.errors import Outage, Stopped, Unauthorised, UnknownModel
from summidx.hierarchy import build_tree
from summidx.llm import calls as calls_module
from summidx.llm import outage as outage_module
from summidx.llm.calls import Calls
from summidx.records import Level, Origin, Status, TestsPolicy, Unit, UnitFailure
from summidx.settings import LLMSettings, Provider
from summidx.stop import Stop
from summidx.summarize import SummaryPolicy, Walk
from summidx.summarizers.openai_compatible import OpenAICompatibleSummarizer

FUNCTIONS = 12


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """What waits, waits a fiftieth of what it would."""
    monkeypatch.setattr(calls_module, "BACKOFF_S", 0.02)
    monkeypatch.setattr(outage_module, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(outage_module, "LONGEST_PAUSE_S", 0.2)


def build_units(functions=FUNCTIONS):
    common = {"path": "m.py", "language": "python", "start_line": 1, "end_line": 9}
    yield Unit(id="m.py", level=Level.FILE, name="m.py", qualified_name="m.py", parent_id=None, **common)
    for n in range(functions):
        yield Unit(
            id=f"m.py::f{n}",
            level=Level.FUNCTION,
            name=f"f{n}",
            qualified_name=f"f{n}",
            parent_id="m.py",
            own_source=f"def f{n}(items):\n    total = {n}\n    for item in items:\n        total += item\n",
            **common,
        )


class Repository:
    """One repository's walk, as an engine makes it."""

    def __init__(self, fake_llm, cache, *, cap=None, functions=FUNCTIONS, **llm):
        defaults = {"timeout_s": 10, "max_retries": 2, "outage_s": 30, "concurrency": 32}
        self.settings = LLMSettings(
            provider=Provider.OPENAI, model="fake", base_url=fake_llm.base_url, **(defaults | llm)
        )
        self.cache, self.cap = cache, cap
        self.tree = build_tree(list(build_units(functions)), "r")
        self.stop = Stop()
        self.walk = None

    async def run(self, *, copies=1):
        summarizer = OpenAICompatibleSummarizer(self.settings, None)
        with ThreadPoolExecutor(2) as executor:
            answers = Answers(self.cache, executor)
            self.calls = Calls(summarizer, self.settings, self.stop, cap=self.cap)
            policy = SummaryPolicy(frozenset(Level), TestsPolicy.FILE)
            walks = [Walk(self.tree, policy, summarizer, answers, self.calls, self.stop, n) for n in range(copies)]
            self.walk = walks[0]
            try:
                await asyncio.gather(*(walk.run() for walk in walks))
            finally:
                await answers.cancel()
                await self.calls.aclose()
                await summarizer.aclose()
        assert (self.calls.gate.in_flight, self.calls.gate.waiting) == (0, 0)
        return self.walk.outcomes

    def __call__(self, **how):
        return asyncio.run(asyncio.wait_for(self.run(**how), 60))


@pytest.fixture
def cache(tmp_path):
    cache = Cache(f"sqlite:///{tmp_path / 'cache.sqlite'}")
    yield cache
    cache.close()


def asks_for(body, name):
    """True for the function's own request: what is asked of its parents names it too."""
    text = body["messages"][-1]["content"]
    return f"def {name}(" in text and "total" in text


def failing(fault, *names, times=10**9):
    """A script that gives `fault` to the first `times` requests of these functions."""
    return lambda body, before: fault if before < times and any(asks_for(body, name) for name in names) else None


def statuses(outcomes):
    return Counter(getattr(outcome, "status", "failed") for outcome in outcomes.values())


FAULTS = {
    "429": (error(429, "slow down", retry_after="0.05"), "Overloaded"),
    "429 without a time": (error(429, "slow down"), "Overloaded"),
    "500": (error(500, "internal"), "ServerFault"),
    "503": (error(503, "overloaded"), "Overloaded"),
    "disconnect": (Answer(disconnect=True), "ServerFault"),
    "half a body": (Answer(half_body=True), "ServerFault"),
    "hang": (Answer(hang=True), "Overloaded"),
    "slow drip": (Answer(drip_s=0.05), "Overloaded"),
    "huge body": (Answer(huge_bytes=3_000_000), "ServerFault"),
    "no JSON": (Answer(raw=b"<html>"), "ServerFault"),
}


@pytest.mark.parametrize(
    ("fault", "retries"), [*((fault, 1) for fault in FAULTS), ("500", 0), ("500", 3), ("429", 3), ("hang", 0)]
)
def test_a_prompt_that_always_fails_is_sent_max_retries_plus_one_times_and_fails_alone(fake_llm, cache, fault, retries):
    answer, kind = FAULTS[fault]
    fake_llm.script = failing(answer, "f3")
    repository = Repository(fake_llm, cache, max_retries=retries, timeout_s=2)
    outcomes = repository()
    assert isinstance(outcomes["m.py::f3"], UnitFailure)
    assert outcomes["m.py::f3"].error == kind
    sent = [count for body, count in prompts(fake_llm) if asks_for(body, "f3")]
    assert sent == [retries + 1]
    assert statuses(outcomes) == {Status.OK: FUNCTIONS, "failed": 1, Status.DEGRADED: 1}, "its file has a gap"
    assert not repository.stop.is_requested
    fake_llm.script = None
    assert statuses(Repository(fake_llm, cache)()) == {Status.OK: FUNCTIONS + 2}, "a failure is never cached"


def prompts(fake_llm):
    """Each distinct prompt of functions, files and the like, and how often it was asked."""
    counted: dict[str, list] = {}
    for body in fake_llm.requests:
        if body.get("max_tokens") != 1:  # the question whether the server is there
            counted.setdefault(str(body["messages"]), [body, 0])[1] += 1
    return [(body, count) for body, count in counted.values()]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes_leaves_no_trace_but_in_the_accounts(fake_llm, cache, fault):
    answer, kind = FAULTS[fault]
    fake_llm.script = failing(answer, "f1", "f2", times=1)
    repository = Repository(fake_llm, cache, timeout_s=2)
    outcomes = repository()
    assert statuses(outcomes) == {Status.OK: FUNCTIONS + 2}
    assert repository.walk.usage.record.retries[kind] == 2


def test_equal_repositories_share_the_tries_of_a_prompt_that_fails(fake_llm, cache):
    fake_llm.script = failing(error(500, "internal"), "f3")
    outcomes = Repository(fake_llm, cache, max_retries=3)(copies=4)
    assert isinstance(outcomes["m.py::f3"], UnitFailure)
    assert [count for body, count in prompts(fake_llm) if asks_for(body, "f3")] == [4]


@pytest.mark.parametrize(
    "fault",
    [error(400, "bad request"), Answer(status=307, headers={"Location": "http://127.0.0.1:9/"})],
    ids=["400", "redirect"],
)
def test_what_the_server_alone_refuses_is_tried_once_more_at_the_end_and_then_degraded(fake_llm, cache, fault):
    fake_llm.script = failing(fault, "f3")
    outcomes = Repository(fake_llm, cache)()
    assert (outcomes["m.py::f3"].status, outcomes["m.py::f3"].origin) == (Status.DEGRADED, Origin.EXTRACTIVE)
    assert [count for body, count in prompts(fake_llm) if asks_for(body, "f3")] == [2]


@pytest.mark.parametrize(
    "fault",
    [
        Answer(text=""),
        Answer(text="It reads the", finish_reason="length"),
        Answer(text="and then " * 80),
        Answer(text="<think>hm"),
    ],
    ids=["empty", "cut", "repeating", "only thinking"],
)
def test_a_model_that_answers_unusably_twice_leaves_the_extractive_text_and_is_not_asked_at_the_end(
    fake_llm, cache, fault
):
    fake_llm.script = lambda body, before: fault if asks_for(body, "f3") else None
    outcomes = Repository(fake_llm, cache)()
    assert (outcomes["m.py::f3"].status, outcomes["m.py::f3"].origin) == (Status.DEGRADED, Origin.EXTRACTIVE)
    asked = [count for body, count in prompts(fake_llm) if asks_for(body, "f3")]
    assert asked == [1, 1]
    fake_llm.reset()
    assert Repository(fake_llm, cache)()["m.py::f3"].status is Status.DEGRADED
    assert fake_llm.calls == 0


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_an_unusable_answer_is_paid_for_once_though_the_second_ask_fails_on_the_way(fake_llm, cache, retries):
    seen = []

    def script(body, before):
        if not asks_for(body, "f3"):
            return None
        seen.append(str(body["messages"]))
        return Answer(text="") if len(seen) == 1 else error(500, "internal") if len(seen) <= retries + 1 else None

    fake_llm.script = script
    outcomes = Repository(fake_llm, cache, max_retries=retries)()
    asked = [seen.count(messages) for messages in dict.fromkeys(seen)]
    if retries:
        assert outcomes["m.py::f3"].status is Status.OK
        assert outcomes["m.py::f3"].tokens_in > fake_llm.count_tokens(seen[0]) * 1.5, "both answers are paid for"
    assert asked == [1, max(1, retries + 1)]


def test_a_think_block_before_the_answer_is_no_part_of_it(fake_llm, cache):
    fake_llm.script = lambda body, before: Answer(text="<think>\nLet me see.\n</think>\n\nIt sums up items of a list.")
    outcomes = Repository(fake_llm, cache)()
    assert {outcome.text for outcome in outcomes.values()} == {"It sums up items of a list."}


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (unauthorised(), Unauthorised, "OPENAI_API_KEY"),
        (unknown_model("fake"), UnknownModel, "does not exist"),
    ],
)
def test_a_refused_key_or_model_ends_everything_at_once(fake_llm, cache, fault, kind, said):
    fake_llm.script = failing(fault, "f3")
    repository = Repository(fake_llm, cache, concurrency=1)
    with pytest.raises((kind, Stopped), match=said):
        repository()
    assert said in repository.stop.reason
    assert fake_llm.calls <= FUNCTIONS


def test_a_429_pauses_all_calls_for_as_long_as_the_server_says(fake_llm, cache):
    sent_at = []

    def script(body, before):
        sent_at.append(time.monotonic())
        return error(429, "slow down", retry_after="1") if len(sent_at) == 1 else None

    fake_llm.script = script
    outcomes = Repository(fake_llm, cache, concurrency=1)()
    assert statuses(outcomes) == {Status.OK: FUNCTIONS + 2}
    assert sent_at[1] - sent_at[0] >= 1
    assert len(sent_at) == FUNCTIONS + 3


def test_after_a_pause_no_more_calls_go_at_once_than_half_of_those_that_were_refused(fake_llm, cache):
    times, refused = [], 24

    def script(body, before):
        times.append(time.monotonic())
        return error(429, "slow down", retry_after="0.5") if len(times) <= refused else Answer(delay_s=0.2)

    fake_llm.script = script
    outcomes = Repository(fake_llm, cache, concurrency=refused, functions=60)()
    assert statuses(outcomes) == {Status.OK: 62}
    again = times[refused:]
    assert again[0] - times[0] >= 0.5
    assert sum(at < again[0] + 0.15 for at in again) <= refused // 2


def test_a_pause_grows_where_the_server_does_not_say_how_long(fake_llm, cache, monkeypatch):
    monkeypatch.setattr(calls_module, "BACKOFF_S", 0.2)
    times = []

    def script(body, before):
        times.append(time.monotonic())
        return error(429, "slow down") if len(times) <= 3 else None

    fake_llm.script = script
    assert statuses(Repository(fake_llm, cache, concurrency=1, max_retries=4)()) == {Status.OK: FUNCTIONS + 2}
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert waits[0] >= 0.2
    assert waits[1] >= 0.4
    assert waits[2] >= 0.8


@pytest.mark.parametrize("retry_after", [None, "0.01"])
def test_a_quota_that_refuses_all_for_a_long_time_fails_nothing_and_costs_one_call_for_each_pause(
    fake_llm, cache, monkeypatch, retry_after
):
    monkeypatch.setattr(calls_module, "LONGEST_BACKOFF_S", 0.08)
    refusals, said = 20, {} if retry_after is None else {"retry_after": retry_after}
    at_once = []

    def script(body, before):
        if fake_llm.calls <= FUNCTIONS:  # what the first minute allows
            return None
        at_once.append(fake_llm.in_flight)
        return error(429, "slow down", **said) if len(at_once) <= 32 + refusals else None

    fake_llm.script = script
    repository = Repository(fake_llm, cache, concurrency=16, functions=80)
    assert statuses(repository()) == {Status.OK: 82}
    assert max(count for _, count in prompts(fake_llm)) <= 3
    assert set(at_once[32 : 32 + refusals]) == {1}
    assert repository.calls.gate.cap >= 2, "that one call alone is refused does not lower the limit"


@pytest.mark.parametrize("at_random", [False, True])
def test_pauses_do_not_grow_where_the_server_refuses_one_call_in_ten(fake_llm, cache, caplog, monkeypatch, at_random):
    monkeypatch.setattr(calls_module, "BACKOFF_S", 0.05)
    chance = random.Random(9)

    def script(body, before):
        refused = chance.random() < 0.1 if at_random else fake_llm.calls % 10 == 0
        return error(429, "slow down") if refused else None

    fake_llm.script = script
    outcomes = Repository(fake_llm, cache, concurrency=4, functions=400, max_retries=6)()
    assert statuses(outcomes) == {Status.OK: 402}
    pauses = [record.args[0] for record in caplog.records if "asks to be left alone" in record.msg]
    assert len(pauses) > 20
    assert sum(pauses) / len(pauses) <= 2.5 * calls_module.BACKOFF_S
    assert at_random or max(pauses) <= 4 * calls_module.BACKOFF_S


def test_a_server_that_refuses_everything_for_good_ends_the_run_in_one_line(fake_llm, cache, monkeypatch):
    monkeypatch.setattr(calls_module, "LONGEST_BACKOFF_S", 0.08)
    fake_llm.script = lambda body, before: error(429, "slow down")
    repository = Repository(fake_llm, cache, outage_s=1, functions=400)
    with pytest.raises((Outage, Stopped), match=r"every call was refused for 1 s \(`llm\.outage_s`\)"):
        repository()
    assert max(count for _, count in prompts(fake_llm)) <= 3


def test_what_is_remembered_of_questions_that_failed_is_bounded_and_holds_no_prompt(fake_llm, cache, monkeypatch):
    import distributed  # noqa: F401 - with it loaded, a copy of an exception has its traceback

    monkeypatch.setattr(calls_module, "MOST_REMEMBERED", 3)
    fake_llm.script = lambda body, before: (
        error(500, "internal") if "total" in body["messages"][-1]["content"] else None
    )
    repository = Repository(fake_llm, cache, max_retries=0)
    repository()
    remembered = repository.calls._failures.values()
    assert 0 < len(remembered) <= 3
    assert all(each.error.__traceback__ is None and each.error.__context__ is None for each in remembered)


def test_a_server_that_asks_for_a_day_is_asked_again_sooner(fake_llm, cache, monkeypatch):
    monkeypatch.setattr(calls_module, "LONGEST_PAUSE_S", 0.3)
    fake_llm.fail_next(error(429, "tomorrow", retry_after="86400"))
    assert statuses(Repository(fake_llm, cache)()) == {Status.OK: FUNCTIONS + 2}


@pytest.mark.parametrize("retries", [0, 3])
@pytest.mark.parametrize("how", ["gone", "hangs", "502"])
def test_a_server_that_goes_away_and_comes_back_leaves_nothing_failed(cache, how, retries):
    """Gone for many times as long as all retries take."""
    server = FakeLLM()

    async def scenario():
        runner = await start(server)
        port = runner.addresses[0][1]
        server.delay_s = 0.05
        timeout_s = 1 if how == "hangs" else 10
        repository = Repository(server, cache, max_retries=retries, timeout_s=timeout_s, concurrency=8, functions=60)
        walk = asyncio.create_task(repository.run())
        while server.calls < 15:  # noqa: ASYNC110 - no event is made for each call
            await asyncio.sleep(0.01)
        if how == "gone":
            await runner.cleanup()
            await asyncio.sleep(2)
            runner = await start(server, port)
        else:
            server.script = lambda body, before: Answer(hang=True) if how == "hangs" else error(502, "no upstream")
            await asyncio.sleep(2)
            server.script = None
        outcomes = await walk
        await runner.cleanup()
        return repository, outcomes

    repository, outcomes = asyncio.run(asyncio.wait_for(scenario(), 60))
    assert statuses(outcomes) == {Status.OK: 62}
    assert not repository.stop.is_requested


def test_a_server_that_stays_away_ends_the_run_in_one_line(fake_llm, cache):
    fake_llm.script = lambda body, before: Answer(hang=True)
    repository = Repository(fake_llm, cache, timeout_s=0.5, outage_s=1.5, max_retries=1, functions=200, concurrency=16)
    started = time.monotonic()
    with pytest.raises((Outage, Stopped), match=r"nothing was answered for 1\.5 s \(`llm\.outage_s`\)"):
        repository()
    assert time.monotonic() - started < 10
    assert "\n" not in repository.stop.reason
    assert all(count == 1 for _, count in prompts(fake_llm)), "who waits sends nothing"
    assert len(prompts(fake_llm)) <= 16 + 2


def test_a_server_that_was_never_there_ends_the_run_too(cache):
    with running(FakeLLM()) as server:
        pass
    repository = Repository(server, cache, timeout_s=5, outage_s=1, max_retries=0)
    with pytest.raises((Outage, Stopped), match="cannot be reached"):
        repository()


@pytest.mark.parametrize("concurrency", [2, 12])
def test_a_prompt_that_kills_its_server_each_time_fails_alone_in_the_end(fake_llm, cache, concurrency):
    """A supervisor starts the server again and again; nobody can go on for ever by that."""
    killed, away_for_probes = 0, 0

    def script(body, before):
        nonlocal killed, away_for_probes
        if asks_for(body, "f3"):
            killed, away_for_probes = killed + 1, 2
            return Answer(disconnect=True)
        if not away_for_probes:
            return None
        if body["max_tokens"] == 1:
            away_for_probes -= 1
        return Answer(disconnect=True)

    fake_llm.script = script
    outcomes = Repository(fake_llm, cache, max_retries=1, concurrency=concurrency)()
    assert isinstance(outcomes["m.py::f3"], UnitFailure)
    assert killed <= 2 + calls_module.FORGIVEN
    assert statuses(outcomes) == {Status.OK: FUNCTIONS, "failed": 1, Status.DEGRADED: 1}


def test_a_server_that_comes_back_with_another_model_ends_the_run(fake_llm, cache):
    def script(body, before):
        if fake_llm.calls < 4:
            return None
        return unknown_model("fake") if fake_llm.calls > 12 else Answer(disconnect=True)

    fake_llm.script = script
    repository = Repository(fake_llm, cache, concurrency=2)
    with pytest.raises((UnknownModel, Stopped), match="does not exist"):
        repository()


def test_single_failures_among_answers_do_not_hold_up_the_others(fake_llm, cache):
    rng = random.Random(7)
    fake_llm.script = lambda body, before: error(500, "now and then") if before == 0 and rng.random() < 0.4 else None
    outcomes = Repository(fake_llm, cache, functions=80)()
    assert statuses(outcomes) == {Status.OK: 82}


def test_the_servers_queue_lowers_the_calls_in_flight(fake_llm, cache, monkeypatch):
    monkeypatch.setattr(calls_module, "STEER_S", 0.05)
    fake_llm.delay_s, fake_llm.slots = 0.1, 8
    repository = Repository(fake_llm, cache, concurrency=64, functions=300)
    outcomes = repository()
    assert statuses(outcomes) == {Status.OK: 302}
    assert repository.calls.gate.cap < 32


def test_a_cap_from_outside_is_kept_and_halved_at_once_on_loss(fake_llm, cache, tmp_path):
    repository = Repository(fake_llm, cache, cap=8, functions=40)
    fake_llm.delay_s = 0.02
    repository()
    assert fake_llm.max_in_flight == 8
    assert repository.calls.gate.cap == 8

    fake_llm.reset()
    fake_llm.fail_next(error(503, "overloaded"))
    other = Cache(f"sqlite:///{tmp_path / 'other.sqlite'}")
    repository = Repository(fake_llm, other, cap=8, functions=40)
    repository()
    other.close()
    assert repository.calls.gate.cap == 4
    demand = repository.calls.demand()
    assert demand.completed == 42
    assert demand.lost_call_s > 0
    assert demand.lost_in_flight == 8
    again = repository.calls.demand()
    assert (again.lost_call_s, again.lost_in_flight) == (None, 0), "told once"


def test_a_stop_lets_no_waiting_call_through(fake_llm, cache):
    fake_llm.delay_s = 0.05
    repository = Repository(fake_llm, cache, concurrency=2)

    def script(body, before):
        repository.stop.request("Ctrl-C")

    fake_llm.script = script
    with pytest.raises(Stopped, match=r"Ctrl-C"):
        repository()
    assert fake_llm.calls <= 2
