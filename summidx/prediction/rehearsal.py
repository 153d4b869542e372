"""A walk that asks nobody: the real walk over a real tree, with the cache read, and calls only counted.

A unit whose children are all known has its exact key. What is not in the cache would be asked for: a text of the usual
length stands in for its answer, made of its key, so that equal questions stay equal and different ones different.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from summidx.accounting import CallRecord
from summidx.answers import READ_DELAY_S, Answer, GroupedCall
from summidx.cache import Cache
from summidx.documents import build_documents, embedding_text
from summidx.hierarchy import Tree
from summidx.keys import vector_key
from summidx.llm.gate import Priority
from summidx.prediction.experience import Experience
from summidx.records import Origin, Status, Summary
from summidx.settings import Settings, Stage
from summidx.stop import Stop
from summidx.summarize import SummaryPolicy, Walk
from summidx.summarizers import PreparedRequest, Summarizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """What the build of one repository would cost."""

    units: int
    cache_hits: int
    """Documents that the cache answers, or an equal question."""
    calls: int
    """Calls to the LLM, those for parts included."""
    chain: int
    """The longest chain of calls that wait for each other."""
    tokens_in: int
    tokens_out: int
    vectors: int
    """Texts that have no vector yet."""


class Rehearsal:
    """What several repositories would cost, one after the other: what one has asked for, the next finds answered."""

    def __init__(
        self, settings: Settings, summarizer: Summarizer, embedding_model: str, cache: Cache, experience: Experience
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            settings: those of the build.
            summarizer: who would be asked; only its pure parts are used.
            embedding_model: identity of the model that would embed.
            cache: it is only read.
            experience: how long answers are.
        """
        self._settings = settings
        self._summarizer = summarizer
        self._embedding_model = embedding_model
        self._cache = cache
        self._experience = experience
        self._asked: dict[str, Summary] = {}
        """By key: what was asked for so far would be in the cache by then."""
        self._embedded: set[str] = set()

    def rehearse(self, tree: Tree) -> Rehearsed:
        """Find out what the repository would cost.

        Raises:
            CacheError: the cache cannot be read.
        """
        return asyncio.run(self._rehearse(tree))

    async def _rehearse(self, tree: Tree) -> Rehearsed:
        calls = _CountedCalls(self._experience)
        levels = frozenset(self._settings.levels)
        with ThreadPoolExecutor(1, thread_name_prefix="summidx-rehearsal") as executor:
            answers = _KnownAnswers(self._cache, executor, self._asked, retry_degraded=self._settings.retry_degraded)
            walk = Walk(
                tree,
                SummaryPolicy(levels, self._settings.tests),
                self._summarizer,
                answers,
                calls,
                Stop(),
                order=0,
            )
            outcomes = await walk.run()
        record = walk.usage.record
        texts = {embedding_text(each) for each in build_documents(tree, outcomes, levels, searchable=False)}
        return Rehearsed(
            units=len(tree.units),
            cache_hits=walk.usage.cache_hits,
            calls=record.requests,
            chain=_longest_chain(tree, calls.unit_ids),
            tokens_in=record.tokens_in,
            tokens_out=record.tokens_out,
            vectors=0 if self._settings.stage is Stage.SUMMARIES else self._count_new_vectors(texts),
        )

    def _count_new_vectors(self, texts: Iterable[str]) -> int:
        keys = {vector_key(text, self._embedding_model) for text in texts} - self._embedded
        new = keys - self._cache.get_vectors(keys).keys()
        self._embedded |= new
        return len(new)


class _KnownAnswers:
    """In the place of `Answers`: the cache is read and never written, and no other process is waited for."""

    def __init__(
        self, cache: Cache, executor: ThreadPoolExecutor, asked: dict[str, Summary], *, retry_degraded: bool
    ) -> None:
        def look_up(keys: Mapping[str, None]) -> Mapping[str, Summary]:
            found = cache.get_summaries(keys)
            return {key: each for key, each in found.items() if not (retry_degraded and _is_degraded(each))}

        self._reads = GroupedCall[None, Summary](look_up, executor, READ_DELAY_S)
        self._asked = asked
        self._in_flight: dict[str, asyncio.Task[Answer]] = {}

    async def get(self, key: str, ask: Callable[[], Awaitable[Summary]]) -> Answer:
        """The answer for `key`, as in a build: the first who needs it pays."""
        if task := self._in_flight.get(key):
            return Answer((await asyncio.shield(task)).summary, from_cache=True)
        task = self._in_flight[key] = asyncio.create_task(self._find(key, ask))
        return await task

    async def _find(self, key: str, ask: Callable[[], Awaitable[Summary]]) -> Answer:
        known = self._asked.get(key) or await self._reads.submit(key, None)
        if known is not None:
            return Answer(known, from_cache=True)
        self._asked[key] = summary = await ask()
        return Answer(summary, from_cache=False)


class _CountedCalls:
    """In the place of `Calls`: each is counted, and answered by a text that stands in for the answer."""

    def __init__(self, experience: Experience) -> None:
        self._experience = experience
        self.unit_ids: set[str] = set()
        """Of the units that were asked for."""

    async def ask(
        self,
        prepared: PreparedRequest,
        record: CallRecord,
        priority: Priority,  # noqa: ARG002 - nobody waits for a turn here
        *,
        last: bool,  # noqa: ARG002 - nothing fails here
    ) -> Summary:
        """Count a call."""
        level = prepared.request.unit.level
        messages = prepared.payload["messages"]
        before = record.prompt_bytes
        record.sent()
        record.spent(messages, 0, self._experience.answer_tokens[level])
        tokens_in = round((record.prompt_bytes - before) * self._experience.tokens_per_byte)
        record.spent((), tokens_in, 0)
        self.unit_ids.add(prepared.request.unit.id)
        return Summary(
            text=_stand_in(prepared.key, self._experience.answer_chars[level]), origin=Origin.LLM, key=prepared.key
        )


def _stand_in(key: str, chars: int) -> str:
    """A text of the usual length that is another one for every key."""
    words = f"{key[:16]} " + "word " * (chars // 5)
    return words[: max(16, chars)].rstrip()


def _longest_chain(tree: Tree, asked: set[str]) -> int:
    chains: dict[str, int] = {}
    for unit_id in reversed(list(tree.units)):  # children come after their parent
        below = max((chains[child] for child in tree.children[unit_id]), default=0)
        chains[unit_id] = below + (unit_id in asked)
    return max(chains.values(), default=0)


def _is_degraded(summary: Summary) -> bool:
    return summary.status is Status.DEGRADED
