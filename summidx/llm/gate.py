"""The gate that calls to the LLM pass: at most `cap` in flight; of those that wait, the lowest priority value first.

It can be shut for a time (the server asked to wait) or until it is opened again (the server answers nothing).
"""

import asyncio
import copy
import heapq
import itertools
from typing import Any, Self

Priority = tuple[Any, ...]
"""Compared as tuples are; equal ones go in the order of their coming."""


class CallGate:
    """A semaphore with priorities, a cap that can change, and a door that can be shut. Lives on one event loop."""

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._in_flight = 0
        self._order = itertools.count()
        self._waiting: list[tuple[Priority, int, bool, asyncio.Future[None]]] = []
        self._n_waiting = 0
        self._narrow = False
        self._alone = False
        """One is in flight beside which no other may be."""
        self._shut = False
        self._shut_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._broken: BaseException | None = None

    @property
    def cap(self) -> int:
        """Calls that may be in flight."""
        return self._cap

    @property
    def in_flight(self) -> int:
        """Calls that are in flight. May be read from any thread."""
        return self._in_flight

    @property
    def waiting(self) -> int:
        """Calls that wait for their turn. May be read from any thread."""
        return self._n_waiting

    def set_cap(self, cap: int) -> None:
        """Change the cap. Calls in flight are never interrupted; fewer are let in until they have ended."""
        self._cap = cap
        self._admit()

    @property
    def is_narrow(self) -> bool:
        """True from `narrow` to `widen`."""
        return self._narrow

    def narrow(self) -> None:
        """Let in one at a time, whatever the cap, until `widen`."""
        self._narrow = True

    def widen(self) -> None:
        """Let in as many as the cap allows."""
        if self._narrow:
            self._narrow = False
            self._admit()

    def shut(self) -> None:
        """Let nobody in until `open`. Calls in flight go on."""
        self._shut = True

    def open(self) -> None:
        """Let in those that wait, as far as the cap and a time set by `shut_for` allow."""
        self._shut = False
        self._admit()

    def shut_for(self, seconds: float) -> None:
        """Let nobody in for so long; never ends an earlier time sooner."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        if self._timer is not None:
            if until <= self._shut_until:
                return
            self._timer.cancel()
        self._shut_until = until
        self._timer = loop.call_at(until, self._end_time)

    def fail(self, error: BaseException) -> None:
        """End all that wait, and all that come later, with `error`."""
        self._broken = error
        for *_, turn in self._waiting:
            if not turn.done():
                self._n_waiting -= 1
                turn.set_exception(copy.copy(error))
        self._waiting.clear()

    def slot(self, priority: Priority, *, alone: bool = False) -> "Slot":
        """Wait for a place, hold it for the block: `async with gate.slot((order, -depth)): ...`.

        One that is to be `alone` is let in when none is in flight, and until it leaves nobody else is.
        """
        return Slot(self, priority, alone)

    async def _enter(self, priority: Priority, *, alone: bool) -> None:
        if self._broken is None and not self._n_waiting and self._has_room(alone=alone):
            self._in_flight += 1
            self._alone = alone
            return
        await self._wait_for_turn(priority, alone=alone)
        while self._is_shut:  # since it was let in; nothing was sent yet
            self._leave()
            await self._wait_for_turn(priority, alone=alone)

    async def _wait_for_turn(self, priority: Priority, *, alone: bool) -> None:
        if self._broken is not None:
            raise copy.copy(self._broken)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._order), alone, turn))
        self._n_waiting += 1
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled() or not turn.done():
                self._n_waiting -= 1
            elif turn.exception() is None:  # let in and cancelled in the same moment
                self._leave()
            raise

    def _leave(self) -> None:
        self._in_flight -= 1
        self._alone = False
        self._admit()

    def _has_room(self, *, alone: bool) -> bool:
        cap = min(self._cap, 1) if self._narrow or self._alone or alone else self._cap
        return self._in_flight < cap and not self._is_shut

    @property
    def _is_shut(self) -> bool:
        return self._shut or self._timer is not None

    def _end_time(self) -> None:
        self._timer = None
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._has_room(alone=self._waiting[0][2]):
            _, _, alone, turn = heapq.heappop(self._waiting)
            if not turn.done():  # who was cancelled while waiting takes no place
                self._n_waiting -= 1
                self._in_flight += 1
                self._alone = alone
                turn.set_result(None)


class Slot:
    """One call's place. A class, not a generator: there are hundreds a second, and a place must cost little."""

    __slots__ = ("_alone", "_gate", "_priority")

    def __init__(self, gate: CallGate, priority: Priority, alone: bool) -> None:  # noqa: FBT001 - made in one place
        self._gate = gate
        self._priority = priority
        self._alone = alone

    async def __aenter__(self) -> Self:
        await self._gate._enter(self._priority, alone=self._alone)  # noqa: SLF001 - one thing in two classes
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._gate._leave()  # noqa: SLF001
