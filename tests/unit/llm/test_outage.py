"""When a server counts as away, and when a run ends by that."""

import asyncio
import time

import pytest

from summidx.errors import Outage, ServerFault
from summidx.llm import outage as outage_module
from summidx.llm.gate import CallGate
from summidx.llm.outage import SUSPECT_AFTER, OutageWatch


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(outage_module, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(outage_module, "LONGEST_PAUSE_S", 0.05)


class Watched:
    """A server that answers as many questions whether it is there as `answers` says, True or False each."""

    def __init__(self, *answers, outage_s=0.3):
        self.answers, self.asked, self.ended, self.forgiven = list(answers), 0, [], []
        self.gate = CallGate(4)
        self.watch = OutageWatch(
            self.ping,
            self.gate,
            timeout_s=600,
            outage_s=outage_s,
            forgive=self.forgiven.append,
            end=self.ended.append,
        )

    async def ping(self, timeout_s):
        self.asked += 1
        if not (self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]):
            raise ServerFault("away")

    async def fail(self, *ages_s):
        """Calls fail in a row, so long ago each; wait until it is clear why."""
        for age in ages_s:
            self.watch.failed(ServerFault("no answer"), time.monotonic() - age)
        async with asyncio.timeout(10):
            await self.watch.settle()


def test_calls_that_took_longer_than_an_outage_may_do_not_end_a_run_whose_server_is_there():
    async def scenario():
        watched = Watched(True)
        await watched.fail(1200, 600, 0)
        assert (watched.asked, watched.ended, watched.forgiven) == (1, [], [])
        async with watched.gate.slot((0,)):
            pass

    asyncio.run(scenario())


def test_a_server_that_misses_one_question_after_long_calls_is_asked_on_for_the_whole_time_of_an_outage():
    async def scenario():
        watched = Watched(False, False, True)
        await watched.fail(1200, 600, 0)
        assert (watched.asked, watched.ended) == (3, [])

    asyncio.run(scenario())


def test_a_failure_of_long_ago_is_no_part_of_an_outage_of_now():
    async def scenario():
        watched = Watched(False, True)
        watched.watch.failed(ServerFault("hours ago"), time.monotonic() - 7200)
        await watched.fail(*[0] * SUSPECT_AFTER)
        assert watched.ended == []
        assert watched.forgiven[0] > time.monotonic() - 60

    asyncio.run(scenario())


def test_a_server_that_stays_away_ends_the_run_after_it_was_asked_for_that_time():
    async def scenario():
        watched = Watched(False)
        started = time.monotonic()
        await watched.fail(1200, 600, 0)
        assert time.monotonic() - started >= 0.3
        assert watched.asked > 2
        (error,) = watched.ended
        assert isinstance(error, Outage)
        assert "nothing was answered for 0.3 s (`llm.outage_s`)" in str(error)

    asyncio.run(scenario())
