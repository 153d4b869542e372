"""The gate that calls to the LLM pass: at most `cap` in flight; of those that wait, the lowest priority value first."""

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

Priority = tuple[Any, ...]
"""Compared as tuples are; equal ones go in the order of their coming."""


class CallGate:
    """A semaphore with priorities and a cap that can change. Lives on one event loop."""

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._in_flight = 0
        self._order = itertools.count()
        self._waiting: list[tuple[Priority, int, asyncio.Future[None]]] = []

    @property
    def cap(self) -> int:
        """Calls that may be in flight."""
        return self._cap

    @property
    def in_flight(self) -> int:
        """Calls that are in flight."""
        return self._in_flight

    @property
    def waiting(self) -> int:
        """Calls that wait for their turn."""
        return sum(not future.done() for _, _, future in self._waiting)

    def set_cap(self, cap: int) -> None:
        """Change the cap. Calls in flight are never interrupted; fewer are let in until they have ended."""
        self._cap = cap
        self._admit()

    @asynccontextmanager
    async def slot(self, priority: Priority) -> AsyncIterator[None]:
        """Wait for a place, hold it for the block."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._order), turn))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # let in and cancelled in the same moment
                self._leave()
            raise
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        self._in_flight -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._in_flight < self._cap:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():  # who was cancelled while waiting takes no place
                self._in_flight += 1
                turn.set_result(None)
