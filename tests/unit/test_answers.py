"""Each question is asked once, and what was paid for is kept."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from summidx import answers as module
from summidx.answers import Answers, GroupedCall
from summidx.cache import Cache
from summidx.errors import CacheError
from summidx.records import Origin, Status, Summary
from summidx.settings import CachePolicy


@pytest.fixture
def cache(tmp_path):
    with Cache(f"sqlite:///{tmp_path / 'cache.sqlite'}") as cache:
        yield cache


def run(cache, scenario, **options):
    async def main():
        with ThreadPoolExecutor(1) as executor:
            return await asyncio.wait_for(scenario(Answers(cache, executor, **options)), 20)

    return asyncio.run(main())


def summary(text, status=Status.OK):
    return Summary(text=text, origin=Origin.LLM, key="k", status=status)


def test_equal_questions_in_flight_are_one(cache):
    asked = []

    async def ask():
        asked.append(1)
        await asyncio.sleep(0.05)
        return summary(f"answer {len(asked)}")

    async def scenario(answers):
        return await asyncio.gather(*(answers.get("k", ask) for _ in range(8)))

    found = run(cache, scenario)
    assert len(asked) == 1
    assert {each.summary.text for each in found} == {"answer 1"}
    assert sum(each.from_cache for each in found) == 7


def test_the_entry_that_won_is_what_everybody_gets(cache):
    async def ask_slowly():
        cache.put_summaries({"k": summary("another process was first")})
        return summary("too late")

    assert run(cache, lambda answers: answers.get("k", ask_slowly)).summary.text == "another process was first"


def test_a_failure_reaches_all_who_wait_and_is_not_kept(cache):
    async def fail():
        await asyncio.sleep(0.02)
        raise ValueError("no")

    async def scenario(answers):
        failed = await asyncio.gather(*(answers.get("k", fail) for _ in range(3)), return_exceptions=True)
        return failed, await answers.get("k", lambda: asyncio.sleep(0, summary("yes")))

    failed, answer = run(cache, scenario)
    assert [str(error) for error in failed] == ["no"] * 3
    assert answer.summary.text == "yes"


def test_a_stop_gives_up_calls_in_flight_and_keeps_what_was_answered(cache, monkeypatch):
    monkeypatch.setattr(module, "WRITE_DELAY_S", 0.5)

    async def scenario(answers):
        hanging = asyncio.create_task(answers.get("hanging", lambda: asyncio.sleep(60, summary("never"))))
        answered = asyncio.create_task(answers.get("answered", lambda: asyncio.sleep(0, summary("paid for"))))
        await asyncio.sleep(0.2)
        assert not answered.done()  # its entry waits to be written
        await answers.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging

    run(cache, scenario)
    assert list(cache.get_summaries(["hanging", "answered"])) == ["answered"]


def test_a_degraded_answer_is_asked_for_again_once(cache):
    cache.put_summaries({"k": summary("extract", Status.DEGRADED)})
    asked = []

    async def degrade():
        asked.append(1)
        return summary(f"extract {len(asked)}", Status.DEGRADED)

    async def scenario(answers):
        return [(await answers.get("k", degrade)).summary.text for _ in range(3)]

    assert run(cache, scenario, retry_degraded=True) == ["extract 1"] * 3
    assert len(asked) == 1


@pytest.mark.parametrize(("policy", "asked"), [(CachePolicy.READ_ONLY, ["new"]), (CachePolicy.OFF, ["old", "new"])])
def test_equal_questions_in_flight_are_one_whatever_the_policy_and_nothing_is_kept(tmp_path, policy, asked):
    url = f"sqlite:///{tmp_path / 'cache.sqlite'}"
    with Cache(url) as cache:
        cache.put_summaries({"old": summary("kept")})
    calls = []

    def ask(key):
        async def answer():
            calls.append(key)
            await asyncio.sleep(0.05)
            return summary(f"answer for {key}")

        return answer

    async def scenario(answers):
        return await asyncio.gather(*(answers.get(key, ask(key)) for key in ("old", "new") * 4))

    with Cache(url, policy=policy) as cache:
        found = run(cache, scenario)
    assert sorted(calls) == sorted(asked)
    assert {each.summary.text for each in found} == {
        "answer for new",
        "kept" if "old" not in asked else "answer for old",
    }
    with Cache(url) as cache:
        assert list(cache.get_summaries(["old", "new"])) == ["old"]


def test_a_stop_releases_the_claims_of_calls_that_are_given_up(cache, tmp_path):
    async def scenario(answers):
        hanging = asyncio.create_task(answers.get("hanging", lambda: asyncio.sleep(60, summary("never"))))
        await asyncio.sleep(0.1)
        await answers.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging

    run(cache, scenario)
    with Cache(f"sqlite:///{tmp_path / 'cache.sqlite'}") as other:
        assert other.look_up(["hanging"]).to_ask == {"hanging"}


def test_a_cache_that_fails_when_the_answer_is_put_leaves_no_claim_behind(cache, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise CacheError("disk full")

    monkeypatch.setattr(cache, "put_summaries", fail)
    with pytest.raises(CacheError, match="disk full"):
        run(cache, lambda answers: answers.get("k", lambda: asyncio.sleep(0, summary("paid for"))))
    with Cache(f"sqlite:///{tmp_path / 'cache.sqlite'}") as other:
        assert other.look_up(["k"]).to_ask == {"k"}


def test_a_degraded_answer_is_asked_for_again_once_over_all_processes(cache, tmp_path):
    cache.put_summaries({"k": summary("extract", Status.DEGRADED)})
    asked = []
    begun = asyncio.Event()

    def ask(name):
        async def degrade():
            asked.append(name)
            begun.set()
            await asyncio.sleep(0.3)
            return summary(f"extract by {name}", Status.DEGRADED)

        return degrade

    async def main():
        with ThreadPoolExecutor(4) as executor, Cache(f"sqlite:///{tmp_path / 'cache.sqlite'}") as other:
            one, two = (Answers(each, executor, retry_degraded=True) for each in (cache, other))
            first = asyncio.create_task(one.get("k", ask("one")))
            await begun.wait()
            found = [await two.get("k", ask("two")), await first, await two.get("k", ask("two"))]
            plain = await Answers(other, executor).get("k", ask("plain"))
            return {each.summary.text for each in (*found, plain)}

    assert asyncio.run(asyncio.wait_for(main(), 30)) == {"extract by one"}
    assert asked == ["one"]


def test_what_came_while_a_group_was_written_is_written_right_after_it(monkeypatch):
    slept, groups, release = [], [], threading.Event()
    sleep = asyncio.sleep

    async def note_sleep(seconds):
        slept.append(seconds)
        await sleep(seconds)

    def write(items):
        groups.append(set(items))
        release.wait(10)
        return {}

    async def run():
        with ThreadPoolExecutor(1) as executor:
            calls = GroupedCall(write, executor, 0.05)
            first = asyncio.create_task(calls.submit("a", 1))
            while not groups:
                await sleep(0.01)
            later = [asyncio.create_task(calls.submit(key, 1)) for key in "bc"]
            await sleep(0.1)
            release.set()
            await asyncio.gather(first, *later)

    monkeypatch.setattr("summidx.answers.asyncio.sleep", note_sleep)
    asyncio.run(run())

    assert groups == [{"a"}, {"b", "c"}]
    assert 0 < slept[0] <= 0.05
    assert slept[1] == 0
