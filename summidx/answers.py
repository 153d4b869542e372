"""The cache as the event loop sees it: each question asked once over all processes, reads and writes in groups.

Equal keys in flight share one future in a process, and a claim over processes (cache/claims.py). Every consumer gets
the entry that won in the cache, so that a model that answers differently twice cannot make two truths.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from typing import Generic, TypeVar

from summidx.cache import Cache
from summidx.errors import CacheError
from summidx.records import Summary

READ_DELAY_S = 0.02
"""How long a question waits for others to be looked up and claimed with it: a transaction for each key would cost ten
times the CPU, and beside calls of seconds this is nothing."""
WRITE_DELAY_S = 0.05
"""How long an entry waits for others to be written with it; a finished summary is durable within 200 ms."""
POLL_DELAY_S = 0.25
"""How often we look whether another process has the answer that it claimed."""

logger = logging.getLogger(__name__)

A = TypeVar("A")
R = TypeVar("R")


class _Elsewhere(Enum):
    """Another process is asking: look again."""

    CLAIMED = "claimed"


class GroupedCall(Generic[A, R]):
    """Collects single items by key and hands them to one blocking call, in a thread, a group at a time.

    A group is handed over `delay_s` after its first item, or when the group before it is done, if that is later.
    """

    def __init__(self, call: Callable[[Mapping[str, A]], Mapping[str, R]], executor: Executor, delay_s: float) -> None:
        self._call = call
        self._executor = executor
        self._delay_s = delay_s
        self._waiting: dict[str, tuple[A, asyncio.Future[R | None]]] = {}
        self._due = 0.0
        """When what waits is handed over, on the loop's clock."""
        self._pump: asyncio.Task[None] | None = None

    async def submit(self, key: str, item: A) -> R | None:
        """The call's result for `key`, or None where it has none. A key waits at most once at a time."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R | None] = loop.create_future()
        if not self._waiting:
            self._due = loop.time() + self._delay_s
        self._waiting[key] = (item, future)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run())
        return await future

    async def aclose(self) -> None:
        """Hand over nothing more."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)

    async def _run(self) -> None:
        while self._waiting:
            await asyncio.sleep(max(0.0, self._due - asyncio.get_running_loop().time()))
            group, self._waiting = self._waiting, {}
            group = {key: waiting for key, waiting in group.items() if not waiting[1].done()}
            if not group:  # all were cancelled
                continue
            items = {key: item for key, (item, _) in group.items()}
            try:
                results = await asyncio.get_running_loop().run_in_executor(self._executor, self._call, items)
            except Exception as error:
                for _, future in group.values():
                    if not future.done():
                        future.set_exception(error)
                continue
            for key, (_, future) in group.items():
                if not future.done():
                    future.set_result(results.get(key))


@dataclass(frozen=True, slots=True)
class Answer:
    """A summary, and whether it came without a call of this question's own."""

    summary: Summary
    from_cache: bool


class Answers:
    """Answers to questions by key: from the cache, from a call in flight, or asked for now. Lives on one event loop."""

    def __init__(self, cache: Cache, executor: Executor, *, retry_degraded: bool = False) -> None:
        """Make the answers of one run in this process.

        Args:
            cache: its policy decides what is looked up, claimed and kept.
            executor: where the cache is read and written; two threads, so that reading need not wait for writing.
            retry_degraded: ask again for degraded answers that are older than this object. What degrades again is
                the answer for all: a key is asked again once, whatever the number of processes.
        """
        self._cache = cache
        self._executor = executor
        self._again_before = datetime.now(UTC) if retry_degraded else None
        self._reads = GroupedCall[None, Summary | _Elsewhere](self._look_up, executor, READ_DELAY_S)
        self._polls = GroupedCall[None, Summary | _Elsewhere](
            partial(self._look_up, polling=True), executor, POLL_DELAY_S
        )
        self._writes = GroupedCall[Summary, Summary](self._write, executor, WRITE_DELAY_S)
        self._releases = GroupedCall[None, None](self._release, executor, READ_DELAY_S)
        self._in_flight: dict[str, asyncio.Task[Answer]] = {}
        self._answered: set[str] = set()
        """Keys in flight whose answer is on its way into the cache."""

    async def get(self, key: str, ask: Callable[[], Awaitable[Summary]]) -> Answer:
        """The answer for `key`; `ask` is called only where neither the cache nor a call in flight has it.

        `ask` is called with the claim on `key`, and waits for its turn at the gate itself: who waits here for another
        process holds no place there.

        Raises:
            LLMError: what `ask` raised, for all in this process that wait for this key; nothing is cached then.
            CacheError: the cache failed.
        """
        if task := self._in_flight.get(key):
            answer = await asyncio.shield(task)
            return Answer(answer.summary, from_cache=True)
        task = asyncio.create_task(self._look_up_or_ask(key, ask))
        self._in_flight[key] = task
        task.add_done_callback(lambda done: self._forget_task(key, done))
        return await asyncio.shield(task)

    @property
    def unwritten(self) -> int:
        """How many answers are on their way into the cache. Any thread may ask."""
        return len(self._answered)

    async def cancel(self) -> None:
        """Give up all calls in flight, as at a stop; what is answered already still reaches the cache."""
        tasks = dict(self._in_flight)
        for key, task in tasks.items():
            if key not in self._answered:
                task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        for group in (self._reads, self._polls):
            await group.aclose()
        given_up = dict.fromkeys(key for key in tasks if key not in self._answered)
        await asyncio.get_running_loop().run_in_executor(self._executor, self._release, given_up)

    async def _look_up_or_ask(self, key: str, ask: Callable[[], Awaitable[Summary]]) -> Answer:
        found = await self._reads.submit(key, None)
        while isinstance(found, _Elsewhere):
            found = await self._polls.submit(key, None)
        if found is not None:
            return Answer(found, from_cache=True)
        try:
            summary = await ask()
            self._answered.add(key)
            winner = await self._writes.submit(key, summary)
        except Exception:
            await self._releases.submit(key, None)
            raise
        return Answer(winner or summary, from_cache=False)

    def _look_up(self, keys: Mapping[str, None], *, polling: bool = False) -> Mapping[str, Summary | _Elsewhere]:
        """The summaries there are; a key that is left out is ours to ask for."""
        looked_up = self._cache.look_up(keys, again_before=self._again_before, polling=polling)
        elsewhere = keys.keys() - looked_up.found.keys() - looked_up.to_ask
        return {**looked_up.found, **dict.fromkeys(elsewhere, _Elsewhere.CLAIMED)}

    def _write(self, summaries: Mapping[str, Summary]) -> Mapping[str, Summary]:
        return self._cache.put_summaries(summaries, again_before=self._again_before)

    def _release(self, keys: Mapping[str, None]) -> Mapping[str, None]:
        try:
            self._cache.release(keys)
        except CacheError as error:  # the cache tries again by itself; what the call met matters more
            logger.debug("claims are released later: %s", error)
        return {}

    def _forget_task(self, key: str, task: asyncio.Task[Answer]) -> None:
        self._in_flight.pop(key, None)
        self._answered.discard(key)
        if not task.cancelled():
            task.exception()  # seen here, should nobody wait for it any more
