"""Walks a tree bottom-up with many requests in flight: every unit ends as a Summary or a UnitFailure.

A unit is asked for the moment its last child is done, not level by level. Of all that is ready in a process, the oldest
repository's deepest unit goes first.
"""

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from summidx.accounting import CallRecord
from summidx.answers import Answer
from summidx.errors import (
    ContextTooLong,
    InvalidOutput,
    Overloaded,
    RequestRefused,
    ServerFault,
)
from summidx.hierarchy import Tree
from summidx.llm.gate import Priority
from summidx.records import (
    ChildSummary,
    Level,
    Origin,
    Status,
    Summary,
    SummaryRequest,
    TestsPolicy,
    Unit,
    UnitFailure,
)
from summidx.stop import Stop
from summidx.summarizers import PreparedRequest, Summarizer
from summidx.summarizers.degraded import Refusals, degrade
from summidx.summarizers.template import render_template

MAX_CALLERS = 5
WINDOW = 512
"""Units of one repository being looked up or asked for at once: twice the default of calls in flight, so that the queue
at the gate does not run dry, and few enough that a huge repository's requests are not all in memory."""


@dataclass(frozen=True, slots=True)
class SummaryPolicy:
    """Which units are asked for; all others get their template."""

    levels: frozenset[Level]
    tests: TestsPolicy

    def needs_template(self, unit: Unit) -> bool:
        """True where the unit's template says enough, or all that was asked for."""
        if unit.level not in self.levels or unit.trivial:
            return True
        is_code = unit.level in (Level.FUNCTION, Level.CLASS)
        return self.tests is TestsPolicy.FILE and unit.is_test and is_code


@dataclass(slots=True)
class SummaryUsage:
    """What a walk cost so far."""

    asked: int = 0
    """Units answered by a call of their own."""
    cache_hits: int = 0
    record: CallRecord = field(default_factory=CallRecord)


class Asker(Protocol):
    """Where a question goes that nobody has answered yet (`calls.Calls`)."""

    async def ask(self, prepared: PreparedRequest, record: CallRecord, priority: Priority, *, last: bool) -> Summary:
        """The answer, by a call."""
        ...


class Answerer(Protocol):
    """Who knows answers by key (`answers.Answers`)."""

    async def get(self, key: str, ask: Callable[[], Awaitable[Summary]]) -> Answer:
        """The answer for `key`; `ask` is called where there is none yet."""
        ...


Settled = Callable[[Unit, Summary | UnitFailure], None]
"""Told what became of a unit, at each try of it."""


@dataclass(slots=True)
class Walk:
    """One repository's walk. Lives on the engine's event loop."""

    tree: Tree
    policy: SummaryPolicy
    summarizer: Summarizer
    answers: Answerer
    calls: Asker
    stop: Stop
    order: int
    """Rank of the repository in its process: the oldest goes first."""
    outcomes: dict[str, Summary | UnitFailure] = field(default_factory=dict)
    usage: SummaryUsage = field(default_factory=SummaryUsage)
    refusals: Refusals = field(default_factory=Refusals)
    """Shared by all walks of a process."""
    settled: Settled | None = None
    at_end: bool = False
    """What failed is asked for the last time."""
    _from_cache: dict[str, bool] = field(default_factory=dict)
    """By unit: how its answer came, at the last try."""

    async def run(self) -> Mapping[str, Summary | UnitFailure]:
        """Settle every unit of the tree; those that failed are tried once more at the end.

        Raises:
            Stopped: the run was told to stop.
            Unauthorised: the server refuses the key.
            UnknownModel: the server does not serve the model.
            Outage: the server answered nothing for too long.
            CacheError: the cache failed.
        """
        await self._settle_all(self.tree.units)
        failed = [unit_id for unit_id, outcome in self.outcomes.items() if isinstance(outcome, UnitFailure)]
        if failed:
            again = {*failed, *(above for unit_id in failed for above in self.tree.ancestors_of(unit_id))}
            self.at_end = True
            await self._settle_all(again)
        return self.outcomes

    async def _settle_all(self, unit_ids: Collection[str]) -> None:
        """Settle `unit_ids`, children first, `WINDOW` at a time."""
        wanted = set(unit_ids)
        missing = {unit_id: len(wanted.intersection(self.tree.children[unit_id])) for unit_id in wanted}
        ready = [(-self.tree.depths[unit_id], unit_id) for unit_id, n in missing.items() if n == 0]
        heapq.heapify(ready)
        running: dict[asyncio.Task[Summary | UnitFailure], str] = {}
        finished: asyncio.Queue[asyncio.Task[Summary | UnitFailure]] = asyncio.Queue()
        try:
            while ready or running:
                while ready and len(running) < WINDOW:
                    self.stop.check()
                    unit_id = heapq.heappop(ready)[1]
                    task = asyncio.create_task(self._settle(self.tree.units[unit_id]))
                    task.add_done_callback(finished.put_nowait)
                    running[task] = unit_id
                task = await finished.get()
                unit_id = running.pop(task)
                self.outcomes[unit_id] = outcome = task.result()
                if self.settled is not None:
                    self.settled(self.tree.units[unit_id], outcome)
                parent = self.tree.parent_of(unit_id)
                if parent in wanted:
                    missing[parent] -= 1
                    if missing[parent] == 0:
                        heapq.heappush(ready, (-self.tree.depths[parent], parent))
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _settle(self, unit: Unit) -> Summary | UnitFailure:
        if self.policy.needs_template(unit):
            return render_template(unit)
        self._count(unit, None)
        try:
            return await self._summarize(self._build_request(unit))
        except (Overloaded, ServerFault, RequestRefused) as error:
            return UnitFailure(type(error).__name__, str(error))

    async def _summarize(self, request: SummaryRequest) -> Summary:
        """The summary of a unit; where it does not fit a prompt, of its parts first, and then of what they say.

        Raises:
            LLMError: a part, or the whole, could not be had. The parts that were answered are kept in the cache.
        """
        gaps = [child.name for child in request.children if child.text is None]
        parts: list[Summary] = []
        while reduction := self.summarizer.split(request):
            answers = await self._answer_parts(reduction.parts)
            parts.extend(answers)
            request = reduction.merge(answer.text for answer in answers)
        summary = await self._answer(request)
        if parts:
            summary = _stands_on(summary, parts)
        if gaps and summary.status is Status.OK:
            named = ", ".join(gaps[:3]) + (", ..." if len(gaps) > 3 else "")
            return replace(summary, status=Status.DEGRADED, reason=f"made without {len(gaps)} failed: {named}")
        return summary

    async def _answer_parts(self, requests: Sequence[SummaryRequest]) -> list[Summary]:
        """Answers to all parts; where one fails, the others are still waited for: what is paid for is kept."""
        answers = await asyncio.gather(*map(self._answer, requests), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return [answer for answer in answers if isinstance(answer, Summary)]

    async def _answer(self, request: SummaryRequest) -> Summary:
        """The one place where a request is answered: by the cache, by a call in flight for its equal, or by a call."""
        prepared = self.summarizer.prepare(request)
        if not self.summarizer.makes_calls:
            return await self.summarizer.answer(prepared, self.usage.record)
        answer = await self.answers.get(prepared.key, lambda: self._ask(prepared))
        if not request.is_part:  # a part is no document
            self._count(request.unit, answer)
        return answer.summary

    def _count(self, unit: Unit, answer: Answer | None) -> None:
        """Count how a unit was answered, in the place of what an earlier try of it was counted as; None: not yet."""
        before = self._from_cache.pop(unit.id, None)
        if before is not None:
            self.usage.cache_hits -= before
            self.usage.asked -= not before
        if answer is not None:
            self._from_cache[unit.id] = answer.from_cache
            self.usage.cache_hits += answer.from_cache
            self.usage.asked += not answer.from_cache

    async def _ask(self, prepared: PreparedRequest) -> Summary:
        """One call; a model that cannot answer usably gets the extractive text, `degraded`, under the same key.

        So does a request that the server refuses (a content filter): it would for ever. But only at the end of the
        repository, and where it answers others: a server that refuses all of them has a wrong setting, which is
        mended, and must not fill the cache.
        """
        unit = prepared.request.unit
        priority = (self.order, -self.tree.depths[unit.id], unit.id)
        try:
            summary = await self.calls.ask(prepared, self.usage.record, priority, last=self.at_end)
        except InvalidOutput as error:
            self.refusals.note(prepared.key, refused=False)
            return degrade(prepared, error, error.tokens_in, error.tokens_out)
        except ContextTooLong as error:
            return degrade(prepared, error, error.tokens_in, error.tokens_out)
        except RequestRefused as error:
            if self.at_end and self.refusals.is_of_request(prepared.key):
                return degrade(prepared, error)
            if not self.at_end:
                self.refusals.note(prepared.key, refused=True)
            raise
        self.refusals.note(prepared.key, refused=False)
        return summary

    def _build_request(self, unit: Unit) -> SummaryRequest:
        tree = self.tree
        parent = tree.units[unit.parent_id] if unit.parent_id is not None else None
        return SummaryRequest(
            unit=unit,
            header=parent.signature if parent is not None and parent.level is Level.CLASS else "",
            callers=tuple(sorted(itertools.islice(self._callers_of(unit), MAX_CALLERS))),
            children=tuple(self._child_summary(child) for child in tree.children[unit.id]),
        )

    def _callers_of(self, unit: Unit) -> Iterator[str]:
        """Qualified names of functions and classes that call `unit`, by id.

        A file's would put its path into the key. Tests call everything and say little of what it is for.
        """
        for caller in map(self.tree.units.__getitem__, unit.called_by):
            if caller.level in (Level.FUNCTION, Level.CLASS) and (unit.is_test or not caller.is_test):
                yield caller.qualified_name

    def _child_summary(self, unit_id: str) -> ChildSummary:
        unit = self.tree.units[unit_id]
        outcome = self.outcomes[unit_id]
        text = outcome.text if isinstance(outcome, Summary) else None
        return ChildSummary(unit.level, unit.name, unit.signature, text)


def _stands_on(summary: Summary, parts: Sequence[Summary]) -> Summary:
    """A unit's summary that was made of its parts': its cost is theirs too, and so is what was left out or unusable."""
    unusable = [part.reason for part in parts if part.status is Status.DEGRADED]
    degraded = summary.status is Status.OK and bool(unusable)
    return replace(
        summary,
        origin=Origin.REDUCED if summary.origin is Origin.LLM else summary.origin,
        status=Status.DEGRADED if degraded else summary.status,
        reason=f"{len(unusable)} of its {len(parts)} parts: {unusable[0]}" if degraded else summary.reason,
        truncated=summary.truncated or any(part.truncated for part in parts),
        tokens_in=summary.tokens_in + sum(part.tokens_in for part in parts),
        tokens_out=summary.tokens_out + sum(part.tokens_out for part in parts),
    )
