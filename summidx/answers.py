"""The cache as the event loop sees it: each question asked once in a process, reads and writes in groups.

Equal keys in flight share one future, and every consumer gets the entry that won in the cache, so that a model that
answers differently twice cannot make two truths.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

from summidx.cache import Cache
from summidx.records import Status, Summary

READ_DELAY_S = 0.005
WRITE_DELAY_S = 0.05
"""How long an entry waits for others to be written with it; a finished summary is durable within 200 ms."""

A = TypeVar("A")
R = TypeVar("R")


class GroupedCall(Generic[A, R]):
    """Collects single items by key and hands them to one blocking call, in a thread, a group at a time.

    A group is handed over `delay_s` after its first item, or when the group before it is done, if that is later.
    """

    def __init__(self, call: Callable[[Mapping[str, A]], Mapping[str, R]], executor: Executor, delay_s: float) -> None:
        self._call = call
        self._executor = executor
        self._delay_s = delay_s
        self._waiting: dict[str, tuple[A, asyncio.Future[R | None]]] = {}
        self._pump: asyncio.Task[None] | None = None

    async def submit(self, key: str, item: A) -> R | None:
        """The call's result for `key`, or None where it has none. A key waits at most once at a time."""
        future: asyncio.Future[R | None] = asyncio.get_running_loop().create_future()
        self._waiting[key] = (item, future)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        while self._waiting:
            await asyncio.sleep(self._delay_s)
            group, self._waiting = self._waiting, {}
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
        self._cache = cache
        self._retry_degraded = retry_degraded
        self._reads = GroupedCall[None, Summary](lambda items: cache.get_summaries(list(items)), executor, READ_DELAY_S)
        self._writes = GroupedCall[Summary, Summary](self._write, executor, WRITE_DELAY_S)
        self._in_flight: dict[str, asyncio.Task[Answer]] = {}
        self._answered: set[str] = set()
        """Keys in flight whose answer is on its way into the cache."""
        self._asked_again: set[str] = set()

    async def get(self, key: str, ask: Callable[[], Awaitable[Summary]]) -> Answer:
        """The answer for `key`; `ask` is called only where neither the cache nor a call in flight has it.

        Raises:
            LLMError: what `ask` raised, for all that wait for this key; nothing is cached then.
            CacheError: the cache failed.
        """
        if task := self._in_flight.get(key):
            answer = await asyncio.shield(task)
            return Answer(answer.summary, from_cache=True)
        task = asyncio.create_task(self._look_up_or_ask(key, ask))
        self._in_flight[key] = task
        task.add_done_callback(lambda done: self._forget_task(key, done))
        return await asyncio.shield(task)

    def _write(self, summaries: Mapping[str, Summary]) -> Mapping[str, Summary]:
        if self._retry_degraded:
            self._cache.forget_degraded(summaries)
        return self._cache.put_summaries(summaries)

    def _forget_task(self, key: str, task: asyncio.Task[Answer]) -> None:
        self._in_flight.pop(key, None)
        self._answered.discard(key)
        if not task.cancelled():
            task.exception()  # seen here, should nobody wait for it any more

    async def _look_up_or_ask(self, key: str, ask: Callable[[], Awaitable[Summary]]) -> Answer:
        cached = await self._reads.submit(key, None)
        if cached is not None and not self._is_asked_again(key, cached):
            return Answer(cached, from_cache=True)
        summary = await ask()
        self._answered.add(key)
        winner = await self._writes.submit(key, summary)
        return Answer(winner or summary, from_cache=False)

    def _is_asked_again(self, key: str, cached: Summary) -> bool:
        """True for a degraded summary, once: where it degrades again, that is the answer for all who have the key."""
        if not self._retry_degraded or cached.status is not Status.DEGRADED or key in self._asked_again:
            return False
        self._asked_again.add(key)
        return True

    async def cancel(self) -> None:
        """Give up all calls in flight, as at a stop; what is answered already still reaches the cache."""
        tasks = dict(self._in_flight)
        for key, task in tasks.items():
            if key not in self._answered:
                task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
