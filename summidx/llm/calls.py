"""The calls of one process to its LLM: through the gate, tried again, slowed down on loss, held back in an outage.

    Walk -> Calls.ask -> gate (place, pause, outage) -> summariser -> server

The one retry layer for faults of transport is here. A place is held while a request is under way and no longer: who
waits for another try queues at the gate like everybody.
"""

import asyncio
import copy
import logging
import random
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeGuard, runtime_checkable

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from summidx.accounting import CallRecord
from summidx.errors import (
    ContextTooLong,
    InvalidOutput,
    LLMError,
    Outage,
    Overloaded,
    ServerFault,
    Unauthorised,
    UnknownModel,
)
from summidx.llm.gate import CallGate, Priority
from summidx.llm.limits import AdaptiveLimit, Demand
from summidx.llm.outage import OutageWatch, without_traceback
from summidx.llm.server_load import LoadReader
from summidx.records import Summary
from summidx.settings import LLMSettings
from summidx.stop import Stop
from summidx.summarizers import PreparedRequest, Summarizer

BACKOFF_S, LONGEST_BACKOFF_S = 1.0, 60.0
"""Before the second try; doubled for each further one, with jitter of as much again."""
LONGEST_PAUSE_S = 300.0
"""A server that asks to wait longer than this is asked again after this time."""
PROBED_AFTER = 2
"""Refusals in a row, a pause after each, after which one call alone asks whether it is over."""
STEER_S = 1.0
FORGOTTEN_S = 600.0
"""After this time a question that failed may be asked afresh, by another repository that has it."""
MOST_REMEMBERED = 10_000
"""Questions that failed; beyond it the oldest is forgotten."""

FORGIVEN = 3
"""Outages that are not held against a question that was under way. One that kills its server each time must end too."""
ALONE_AFTER = 2
"""Outages after which a question is asked alone: it may be what the server dies of, and takes others along."""
QUIET_S = 60.0
"""A refusal so long after the last pause is no more of the same row."""
TAKEN_AGAIN = 2
"""Nor is one before which so many calls were answered since the last pause: a server that refuses some at random, or
what is beyond its queue, would else be left alone for a minute after each. Pauses double in a row, so their mean stays
small only while a row goes on with less than an even chance: of 8 answers in a row it does so where 9 % are refused
(10 % cost 1.6 calls a second), of 2 where 29 % are."""

logger = logging.getLogger(__name__)


@runtime_checkable
class Endpoint(Protocol):
    """A summariser whose model is behind a server that can be away."""

    async def ping(self, timeout_s: float) -> None:
        """Ask for one real completion of a single token, once.

        Raises:
            LLMError: it was not answered within `timeout_s`, or not well.
        """
        ...


@dataclass(slots=True)
class _Failures:
    """The tries of one question that failed, and the last error."""

    error: LLMError
    times: list[float] = field(default_factory=list)
    forgiven: int = 0
    """Outages in which it failed."""

    def forgive(self, since: float) -> None:
        """Take back the tries that failed since then."""
        kept = [time for time in self.times if time < since]
        if len(kept) < len(self.times) and self.forgiven < FORGIVEN:
            self.times = kept
            self.forgiven += 1


class Calls:
    """One per process, shared by all walks. Lives on the engine's event loop; any thread may call `demand`."""

    def __init__(self, summarizer: Summarizer, settings: LLMSettings, stop: Stop, *, cap: int | None = None) -> None:
        """Make the calls of a process; nothing is asked yet.

        Args:
            summarizer: who answers.
            settings: the limit, the retries, the outage.
            stop: requested when no call can succeed.
            cap: calls in flight that this process may have now, where somebody else divides the limit over several
                processes (`set_cap`); None: this process has the endpoint to itself, and finds the limit by itself.
        """
        self._summarizer = summarizer
        self._settings = settings
        self._stop = stop
        self.gate = CallGate(settings.concurrency if cap is None else cap)
        self._limit = AdaptiveLimit(settings.concurrency) if cap is None else None
        self._steering: asyncio.Task[None] | None = None
        self._outage: OutageWatch | None = None
        if isinstance(summarizer, Endpoint):
            self._outage = OutageWatch(
                summarizer.ping,
                self.gate,
                timeout_s=settings.timeout_s,
                outage_s=settings.outage_s,
                forgive=self._forgive,
                end=self._end,
            )
        self._ended: LLMError | None = None
        self._failures: dict[str, _Failures] = {}
        self._completed = 0
        self._lost_sent_at: float | None = None
        self._lost_in_flight = 0
        self._cut_at = 0.0
        self._paused_at = 0.0
        self._paused_until = 0.0
        self._refusals = 0
        """In a row: what was answered between them went well for a shorter time than the pause before it took, and was
        less than `TAKEN_AGAIN`."""
        self._taken = 0
        """Calls that were answered since the last pause began, and sent since then."""
        self._refused_since = 0.0
        """When the first was refused after which nothing was answered."""

    def demand(self) -> Demand:
        """What the calls are doing; each loss is told once."""
        lost_at, self._lost_sent_at = self._lost_sent_at, None
        lost_in_flight, self._lost_in_flight = self._lost_in_flight, 0
        return Demand(
            in_flight=self.gate.in_flight,
            waiting=self.gate.waiting,
            completed=self._completed,
            lost_call_s=None if lost_at is None else time.monotonic() - lost_at,
            lost_in_flight=lost_in_flight,
        )

    def set_cap(self, cap: int) -> None:
        """Let so many calls be in flight, as whoever divides the limit says; no limit is looked for here then."""
        self._limit = None
        self.gate.set_cap(cap)

    async def ask(self, prepared: PreparedRequest, record: CallRecord, priority: Priority, *, last: bool) -> Summary:
        """The answer to one request.

        In all, at most `max_retries` + 1 tries are made for one question in this process, `last` ones included: before,
        one try is left for the end of the repository. Tries that failed because the server was away do not count
        (`FORGIVEN`). A try is one completion that is asked for; in the one whose answer is unusable, the second ask
        comes in addition, once for a question. What the server will not take as it is (too long, a field that it does
        not know) is put right and sent again within the try.

        Args:
            prepared: the request.
            record: what it takes is counted there.
            priority: its rank among the calls that wait.
            last: this is the try at the end of the repository.

        Raises:
            LLMError: its kind says what to do about it; for `Unauthorised`, `UnknownModel` and `Outage` the stop is
                requested.
            Stopped: the run was told to stop.
        """
        self._start_steering()
        retries = self._settings.max_retries
        allowed = retries + 1 if last else max(1, retries)
        if earlier := self._failures_of(prepared.key, last=last):
            if len(earlier.times) >= allowed:
                raise copy.copy(earlier.error)
            record.retried(earlier.error)
        try:
            return await self._try(prepared, record, (False, *priority), allowed)
        except (Overloaded, ServerFault) as error:
            first: LLMError | None = error

        async def attempt() -> Summary:
            nonlocal first
            if first is not None:
                failed, first = first, None
                raise failed
            # While the server refuses all, each pause costs one call a try: another one each time.
            return await self._try(prepared, record, (self._refusals >= PROBED_AFTER, *priority), allowed)

        # Made for calls that failed only: it costs as much as all else that we do for one.
        retrying = AsyncRetrying(
            retry=retry_if_exception_type((Overloaded, ServerFault)),
            stop=lambda _: self._is_spent(prepared.key, allowed),
            wait=self._wait_s,
            before_sleep=partial(_note_retry, record),
            reraise=True,
        )
        summary: Summary = await retrying(attempt)
        return summary

    async def aclose(self) -> None:
        """Stop looking after the limit and the server."""
        if self._outage is not None:
            self._outage.close()
        if self._steering is not None:
            self._steering.cancel()
            await asyncio.gather(self._steering, return_exceptions=True)

    async def _try(self, prepared: PreparedRequest, record: CallRecord, priority: Priority, allowed: int) -> Summary:
        failures = self._failures.get(prepared.key) if self._failures else None
        alone = failures is not None and failures.forgiven >= ALONE_AFTER
        async with self.gate.slot(priority, alone=alone):
            self._stop.check()
            sent_at = time.monotonic()
            try:
                summary = await self._summarizer.answer(prepared, record)
            except (Unauthorised, UnknownModel) as error:
                self._end(error)
                raise
            except (InvalidOutput, ContextTooLong):
                self._note_answer(prepared.key, sent_at)
                raise
            except LLMError as error:
                failure = error
                self._note_failure(prepared.key, failure, sent_at, alone=alone)
            else:
                self._note_answer(prepared.key, sent_at)
                return summary
        # No place is held any more.
        if self._outage is not None and not _is_answer(failure) and self._is_spent(prepared.key, allowed):
            await self._outage.settle()
            if self._ended is not None:
                raise copy.copy(self._ended)
        raise failure

    def _note_answer(self, key: str, sent_at: float) -> None:
        self._completed += 1
        self._note_taken(sent_at)
        if self._failures:
            self._failures.pop(key, None)
        if self._outage is not None:
            self._outage.answered(sent_at)

    def _note_failure(self, key: str, error: LLMError, sent_at: float, *, alone: bool) -> None:
        now = time.monotonic()
        if isinstance(error, Overloaded) and not (self.gate.is_narrow and sent_at > self._paused_at):
            self._lose(sent_at, now)  # that one call alone is refused says nothing of how many may go at once
        if _is_refusal(error):
            self._pause(error, sent_at, now)
        elif sent_at > self._paused_at:
            self.gate.widen()
        if self._outage is not None:
            if _is_answer(error):
                self._outage.answered(sent_at)
            else:
                self._outage.failed(error, now, killer=alone)
        kept = without_traceback(error)
        failures = self._failures.setdefault(key, _Failures(kept))
        failures.error = kept
        failures.times.append(now)
        while len(self._failures) > MOST_REMEMBERED:
            del self._failures[next(iter(self._failures))]
        if self._outage is not None and self._outage.is_down:
            failures.forgive(now)

    def _failures_of(self, key: str, *, last: bool) -> _Failures | None:
        failures = self._failures.get(key)
        if failures and not last and failures.times and failures.times[-1] < time.monotonic() - FORGOTTEN_S:
            del self._failures[key]
            return None
        return failures

    def _is_spent(self, key: str, allowed: int) -> bool:
        failures = self._failures.get(key)
        return failures is not None and len(failures.times) >= allowed

    def _forgive(self, since: float) -> None:
        """What failed since then did so because the server is away."""
        for failures in self._failures.values():
            failures.forgive(since)

    def _wait_s(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if _is_refusal(error):
            return 0.0  # the gate is shut for as long as is to be waited
        longest = min(BACKOFF_S * 2 ** min(state.attempt_number - 1, 16), LONGEST_BACKOFF_S)
        wait_s: float = longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        return wait_s

    def _note_taken(self, sent_at: float) -> None:
        """A call was not refused: all may go again.

        That it goes on so is believed after as long as the last pause, or after `TAKEN_AGAIN` calls.
        """
        if not self._refusals or sent_at <= self._paused_at:
            return
        self._refused_since = 0.0
        self.gate.widen()
        self._taken += 1
        lasts = time.monotonic() - self._paused_until >= self._paused_until - self._paused_at
        if lasts or self._taken >= TAKEN_AGAIN:
            self._refusals = 0

    def _pause(self, error: Overloaded, sent_at: float, now: float) -> None:
        """Let no call of this process through for as long as the server asks, or a growing while.

        A quota for each minute refuses all until the minute is over: the pauses grow, and after each one call alone is
        let through until it is known what becomes of it. So it is few calls whose tries are used up by that.
        """
        asked_s = min(error.retry_after_s or 0.0, LONGEST_PAUSE_S)
        if sent_at <= self._paused_at:  # refused together with the one for which the pause was made
            if asked_s:
                self._shut_for(asked_s, now)
            return
        if sent_at > self._paused_until + QUIET_S:
            self._refusals, self._refused_since = 0, 0.0
        self._refused_since = self._refused_since or now
        grown_s = min(BACKOFF_S * 2 ** min(self._refusals, 16), LONGEST_BACKOFF_S)
        # One that has refused again after the time it had asked for does not know it.
        knows = error.retry_after_s is not None and self._refusals < PROBED_AFTER
        seconds = asked_s if knows else max(asked_s, grown_s)
        self._refusals += 1
        self._taken = 0
        if self._refusals >= PROBED_AFTER:
            self.gate.narrow()
        logger.warning(
            "the LLM server asks to be left alone, all calls wait for %.1f s: %s",
            seconds,
            error,
            extra={"server": "busy"},  # for whoever tells a person of it
        )
        self._paused_at = now
        self._shut_for(seconds, now)
        if self._outage is not None and now - self._refused_since >= self._settings.outage_s:
            self._end(
                Outage(
                    f"every call was refused for {self._settings.outage_s:g} s (`llm.outage_s`), so the run stops; run "
                    f"again when the server takes calls, what is finished is kept; last: {error}"
                )
            )

    def _shut_for(self, seconds: float, now: float) -> None:
        seconds = seconds * random.uniform(1.0, 1.1) + 0.01  # noqa: S311 - no secret
        self._paused_until = max(self._paused_until, now + seconds)
        self.gate.shut_for(seconds)

    def _lose(self, sent_at: float, now: float) -> None:
        self._lost_sent_at = max(sent_at, self._lost_sent_at or 0.0)
        self._lost_in_flight = max(self._lost_in_flight, self.gate.in_flight)
        if self._limit is not None:
            if self._limit.lose(sent_at, now, self.gate.in_flight):
                self.gate.set_cap(self._limit.limit)
        elif sent_at > self._cut_at:  # at once here; whoever divides the limit hears of it with the next look
            self._cut_at = now
            self.gate.set_cap(max(1, min(self.gate.cap, self.gate.in_flight) // 2))

    def _end(self, error: LLMError) -> None:
        """No call can succeed any more."""
        if not self._stop.is_requested:
            logger.error("the run stops: %s", error)
        self._ended = self._ended or error
        self._stop.request(str(error))
        self.gate.fail(error)

    def _start_steering(self) -> None:
        if self._steering is None and self._limit is not None:
            self._steering = asyncio.create_task(self._steer())

    async def _steer(self) -> None:
        """Find the limit, as long as nobody else does."""
        shows_load = self._outage is not None and bool(self._settings.base_url)
        reader = LoadReader(self._settings.base_url, self._settings.model) if shows_load else None
        while (limit := self._limit) is not None:
            await asyncio.sleep(STEER_S)
            load = await asyncio.to_thread(reader.read) if reader is not None else None
            if self._limit is limit:
                self.gate.set_cap(limit.observe(self.demand(), time.monotonic(), load))


def _is_answer(error: LLMError) -> bool:
    """True where the server is there, though it does not do what it is asked."""
    return not isinstance(error, Overloaded | ServerFault) or (isinstance(error, Overloaded) and error.is_limited)


def _is_refusal(error: BaseException | None) -> TypeGuard[Overloaded]:
    """True where the server says that it was asked too much, or when to come again."""
    return isinstance(error, Overloaded) and (error.is_limited or error.retry_after_s is not None)


def _note_retry(record: CallRecord, state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    if error is not None:
        record.retried(error)
