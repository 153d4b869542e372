"""The gate lets in at most its cap, by priority, and loses no place."""

import asyncio

import pytest

from summidx.llm.gate import CallGate


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 10))


async def hold(gate, priority, entered, release):
    async with gate.slot(priority):
        entered.append(priority)
        await release.wait()


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


def test_the_lowest_value_goes_first_and_equals_in_order():
    async def scenario():
        gate, entered, release = CallGate(1), [], asyncio.Event()
        first = asyncio.create_task(hold(gate, (9, 9), entered, release))
        await settle()
        others = [asyncio.create_task(hold(gate, p, entered, release)) for p in [(1, -1), (0, -2), (1, -3), (0, -5)]]
        await settle()
        assert (gate.in_flight, gate.waiting) == (1, 4)
        release.set()
        await asyncio.gather(first, *others)
        return entered

    assert run(scenario()) == [(9, 9), (0, -5), (0, -2), (1, -3), (1, -1)]


def test_a_raised_cap_lets_in_at_once_and_a_lowered_one_interrupts_nobody():
    async def scenario():
        gate, entered, release = CallGate(1), [], asyncio.Event()
        tasks = [asyncio.create_task(hold(gate, (i,), entered, release)) for i in range(6)]
        await settle()
        gate.set_cap(4)
        await settle()
        assert len(entered) == 4
        gate.set_cap(2)
        assert gate.in_flight == 4
        release.set()
        await asyncio.gather(*tasks)
        assert gate.in_flight == 0
        assert len(entered) == 6

    run(scenario())


def test_a_cancelled_call_gives_its_place_back_whether_it_waited_or_was_just_let_in():
    async def scenario():
        gate, entered, release = CallGate(1), [], asyncio.Event()
        holder = asyncio.create_task(hold(gate, (0,), entered, release))
        await settle()
        waiter, next_one = (asyncio.create_task(hold(gate, (i,), entered, release)) for i in (1, 2))
        await settle()
        release.set()
        await holder  # the waiter was let in just now, and has not run yet
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        await next_one
        assert gate.in_flight == 0
        assert gate.waiting == 0

    run(scenario())


def test_an_error_in_the_block_gives_the_place_back():
    async def scenario():
        gate = CallGate(1)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                async with gate.slot((0,)):
                    _ = 1 / 0
        assert gate.in_flight == 0

    run(scenario())


def test_a_shut_gate_lets_nobody_in_until_it_is_opened_and_its_time_is_over():
    async def scenario():
        gate, entered, release = CallGate(4), [], asyncio.Event()
        release.set()
        gate.shut_for(0.1)
        gate.shut_for(0.05)  # never ends an earlier time sooner
        gate.shut()
        tasks = [asyncio.create_task(hold(gate, (i,), entered, release)) for i in range(3)]
        await settle()
        assert (entered, gate.waiting) == ([], 3)
        gate.open()
        await settle()
        assert entered == []
        started = asyncio.get_running_loop().time()
        await asyncio.gather(*tasks)
        assert asyncio.get_running_loop().time() - started > 0.05
        assert len(entered) == 3
        assert gate.waiting == 0

    run(scenario())


def test_a_narrow_gate_lets_in_one_at_a_time_until_it_is_widened():
    async def scenario():
        gate, entered, release = CallGate(4), [], asyncio.Event()
        gate.narrow()
        tasks = [asyncio.create_task(hold(gate, (i,), entered, release)) for i in range(6)]
        await settle()
        assert len(entered) == 1
        gate.set_cap(3)
        await settle()
        assert len(entered) == 1
        gate.widen()
        await settle()
        assert len(entered) == 3
        release.set()
        await asyncio.gather(*tasks)

    run(scenario())


def test_calls_in_flight_go_on_behind_a_shut_gate():
    async def scenario():
        gate, entered, release = CallGate(1), [], asyncio.Event()
        task = asyncio.create_task(hold(gate, (0,), entered, release))
        await settle()
        gate.shut()
        release.set()
        await task
        assert gate.in_flight == 0

    run(scenario())


def test_a_gate_that_failed_ends_those_who_wait_and_those_who_come():
    async def scenario():
        gate, entered, release = CallGate(1), [], asyncio.Event()
        holder, waiter = (asyncio.create_task(hold(gate, (i,), entered, release)) for i in range(2))
        await settle()
        gate.fail(ZeroDivisionError("over"))
        with pytest.raises(ZeroDivisionError, match="over"):
            await waiter
        with pytest.raises(ZeroDivisionError, match="over"):
            await hold(gate, (0,), entered, release)
        release.set()
        await holder
        assert (gate.in_flight, gate.waiting) == (0, 0)

    run(scenario())


def test_a_cap_of_nothing_lets_nobody_in_until_it_is_raised():
    async def scenario():
        gate, entered, release = CallGate(0), [], asyncio.Event()
        release.set()
        task = asyncio.create_task(hold(gate, (0,), entered, release))
        await settle()
        assert entered == []
        gate.set_cap(1)
        await task
        assert entered == [(0,)]

    run(scenario())


def test_one_that_is_to_be_alone_waits_for_all_and_lets_nobody_beside_it():
    async def scenario():
        gate, entered = CallGate(4), []
        releases = {name: asyncio.Event() for name in "abcd"}

        async def hold_place(name, priority, *, alone=False):
            async with gate.slot((priority,), alone=alone):
                entered.append(name)
                await releases[name].wait()

        tasks = [asyncio.create_task(hold_place(*each)) for each in [("a", 5), ("b", 5)]]
        await settle()
        tasks.append(asyncio.create_task(hold_place("c", 1, alone=True)))
        tasks.append(asyncio.create_task(hold_place("d", 2)))
        await settle()
        assert entered == ["a", "b"]
        releases["a"].set()
        await settle()
        assert entered == ["a", "b"], "b is still in flight"
        releases["b"].set()
        await settle()
        assert entered == ["a", "b", "c"]
        assert gate.in_flight == 1
        releases["c"].set()
        await settle()
        assert entered == ["a", "b", "c", "d"]
        releases["d"].set()
        await asyncio.gather(*tasks)
        assert (gate.in_flight, gate.waiting) == (0, 0)

    run(scenario())


def test_one_that_was_to_be_alone_and_is_cancelled_holds_up_nobody():
    async def scenario():
        gate, entered, release = CallGate(2), [], asyncio.Event()

        async def be_alone():
            async with gate.slot((0,), alone=True):
                raise AssertionError

        first = asyncio.create_task(hold(gate, (1,), entered, release))
        await settle()
        alone = asyncio.create_task(be_alone())
        later = asyncio.create_task(hold(gate, (2,), entered, release))
        await settle()
        assert entered == [(1,)]
        alone.cancel()
        release.set()
        await asyncio.gather(first, later)
        assert entered == [(1,), (2,)]

    run(scenario())


def test_one_that_was_let_in_as_the_gate_was_shut_waits_again_and_keeps_its_rank():
    async def scenario():
        gate, entered, release = CallGate(1), [], asyncio.Event()
        first = asyncio.create_task(hold(gate, (0,), entered, asyncio.Event()))
        await settle()
        others = [asyncio.create_task(hold(gate, (n,), entered, release)) for n in (2, 3, 1)]
        await settle()
        first.cancel()
        await asyncio.sleep(0)  # its place has been given to (1,), which does not run yet
        assert (gate.in_flight, gate.waiting) == (1, 2)
        gate.shut()
        await settle()
        assert entered == [(0,)]
        assert (gate.in_flight, gate.waiting) == (0, 3)
        release.set()
        gate.open()
        await asyncio.gather(*others)
        assert entered == [(0,), (1,), (2,), (3,)]
        assert (gate.in_flight, gate.waiting) == (0, 0)

    run(scenario())
