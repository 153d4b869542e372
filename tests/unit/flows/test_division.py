"""How the limit of an endpoint is divided again while workers come, go, hang and start again."""

import asyncio
import threading
from unittest.mock import Mock

from flows import shares
from flows.shares import Division
from summidx.llm.limits import Demand
from summidx.settings import LLMSettings


def round_of(division, demands, now, silent=()):
    """One round as the thread makes it, where every worker answers but `silent`."""
    division.observe(demands, now)
    held = {worker: division.caps.get(worker, 0) for worker in silent}
    caps = division.divide(demands, held)
    division.told(caps, {**demands, **held})
    return caps


def test_what_one_worker_does_not_use_another_gets():
    division = Division(16)
    assert round_of(division, {"a": Demand(8, 100), "b": Demand(8, 100)}, 0.0) == {"a": 8, "b": 8}
    assert round_of(division, {"a": Demand(8, 100), "b": Demand(1, 0)}, 1.0) == {"a": 15, "b": 1}
    assert round_of(division, {"a": Demand(15, 85), "b": Demand(1, 90)}, 2.0) == {"a": 8, "b": 1}, "a's are in flight"
    assert round_of(division, {"a": Demand(9, 85), "b": Demand(7, 90)}, 3.0) == {"a": 8, "b": 7}


def test_idle_workers_may_begin_at_once():
    assert round_of(Division(16), {"a": Demand(), "b": Demand(4, 0)}, 0.0) == {"a": 6, "b": 10}


def test_a_worker_that_does_not_answer_keeps_its_cap_and_one_that_is_gone_leaves_it():
    division = Division(16)
    round_of(division, {"a": Demand(8, 100), "b": Demand(8, 100)}, 0.0)
    assert round_of(division, {"a": Demand(8, 100)}, 1.0, silent=["b"]) == {"a": 8}
    assert round_of(division, {"a": Demand(8, 100)}, 2.0) == {"a": 16}
    assert round_of(division, {"a": Demand(16, 100), "c": Demand(0, 100)}, 3.0) == {"a": 8, "c": 1}


def test_silent_workers_that_hold_all_of_the_limit_leave_one_call_to_each_that_waits():
    division = Division(4)
    round_of(division, {"a": Demand(), "b": Demand(4, 100)}, 0.0)
    assert division.divide({"a": Demand(0, 5), "c": Demand(0, 1), "d": Demand()}, {"b": 4}) == {"a": 1, "c": 1, "d": 0}


class HangingClient:
    """A client whose scheduler answers nothing."""

    def __init__(self, loop):
        self.loop = Mock(asyncio_loop=loop)
        self.begun = self.under_way = self.most_under_way = 0
        self.again = threading.Event()

    async def nthreads(self):
        self.begun += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        if self.begun == 3:
            self.again.set()
        try:
            await asyncio.sleep(3600)
        finally:
            self.under_way -= 1


def test_a_round_that_overruns_has_ended_before_the_next_begins(monkeypatch):
    monkeypatch.setattr(shares, "PERIOD_S", 0.05)
    monkeypatch.setattr(shares, "ANSWER_S", 0.02)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    client = HangingClient(loop)
    divider = shares.Shares(client, "run", LLMSettings(), 1)
    try:
        assert client.again.wait(30)
        assert client.most_under_way == 1
    finally:
        divider.close()
        divider._thread.join(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


def test_losses_of_all_workers_that_were_sent_before_the_cut_are_one_cut():
    division = Division(64)
    lost = Demand(16, 100, 0, 0.5)
    round_of(division, {"a": lost, "b": lost, "c": lost, "d": lost}, 10.0)
    assert division.limit == 32
    division.note_losses({"a": Demand(16, 0, 0, 1.0)}, 10.2)  # heard between two rounds
    round_of(division, {"a": Demand(8, 100), "b": Demand(8, 100, 0, 1.5)}, 10.7)
    assert division.limit == 32
    round_of(division, {"a": Demand(16, 100), "b": Demand(16, 100, 0, 0.2)}, 12.0)
    assert division.limit == 16


def test_a_burst_of_refusals_that_is_over_by_the_next_look_halves_the_limit_once():
    division = Division(64)
    division.note_losses({"a": Demand(0, 100, 0, 0.5, 16)}, 10.0)  # heard between two rounds
    round_of(division, {"a": Demand(0, 100, 0, 0.6, 4), "b": Demand(0, 100, 0, 0.5, 32), "c": Demand(16, 100)}, 10.1)
    assert division.limit == 32
    round_of(division, {"a": Demand(0, 100), "b": Demand(0, 100), "c": Demand(0, 100, 0, 0.5)}, 20.0)
    assert division.limit == 16, "what was heard of the first burst is forgotten"


def test_a_worker_that_was_started_again_counts_from_nothing():
    division = Division(64)
    division.observe({"a": Demand(32, 100, 500), "b": Demand(32, 100, 500)}, 0.0)
    division.observe({"a": Demand(32, 100, 600), "b": Demand(0, 0, 3)}, 1.0)
    assert division._completed == 500 + 500 + 100 + 3
