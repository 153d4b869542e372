"""Summaries from anything that completes chats: what is asked, under which key, and how an answer is asked for again.

The key of a summary is of the request as prepared. What may still change on the way follows from that request and from
the model alone, so that the key stays honest: a prompt that turns out too long is shortened by what the model's
tokenizer counts (the context's size is in the key wherever this can happen); an unusable answer is asked for once more
in a fixed way. Faults of transport are raised: calls.py tries again, and what was answered before is not asked twice.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from summidx.accounting import CallRecord
from summidx.errors import ContextTooLong, InvalidOutput, UsageError
from summidx.keys import summary_key
from summidx.records import Origin, Summary, SummaryRequest
from summidx.reduction import Reduction
from summidx.settings import LLMSettings
from summidx.summarizers import PreparedRequest, ServedModel
from summidx.summarizers.prompts import (
    MESSAGE_OVERHEAD_TOKENS,
    MIN_ROOM,
    Messages,
    PromptWriter,
    add_nudge,
    estimate_tokens,
)
from summidx.summarizers.prompts.output import parse_answer
from summidx.summarizers.prompts.wording import PROMPT_VERSION

DEFAULT_CONTEXT_TOKENS = 8192
MAX_SHORTENINGS = 4
SURE_MARGIN = 256
"""Tokens that chat templates and the nudge of a second ask may add, generously."""
COUNTED_SHARE = 0.85
"""Of the context: where the cheap estimate of a prompt is above it, the exact count is asked for."""
MOST_HALF_ASKED = 1000
"""Questions whose second ask failed; beyond it the oldest is forgotten, and asked from the start."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Completion:
    """What is read of a chat completion; tokens as its model counts, 0 where that is not said."""

    text: str
    finish_reason: str | None
    tokens_in: int
    tokens_out: int


class Chat(Protocol):
    """A model that continues chats, wherever it runs. Used from one event loop."""

    async def complete(
        self, payload: Mapping[str, Any], record: CallRecord, *, timeout_s: float | None = None
    ) -> Completion:
        """One completion, asked for once, within `timeout_s` (default: `llm.timeout_s`).

        Raises:
            LLMError: the kind says what to do about it.
        """
        ...

    async def count_tokens(self, payload: Mapping[str, Any]) -> int | None:
        """Tokens of a prompt, its chat template applied; None where it cannot be said, or not now."""
        ...

    async def aclose(self) -> None:
        """Free what is held; the next call takes it anew."""
        ...


@dataclass(frozen=True, slots=True)
class _Unusable:
    """What came of a question's first ask."""

    reason: str
    shortened: dict[str, Any] | None
    """What was asked, where the model did not take the whole."""
    tokens_in: int
    tokens_out: int


class ChatSummarizer:
    """Asks a model for each summary."""

    makes_calls = True

    def __init__(self, settings: LLMSettings, model: ServedModel, chat: Chat, *, identity: Mapping[str, Any]) -> None:
        """Make a summariser; nothing is asked yet.

        Args:
            settings: how the model is asked.
            model: the model.
            chat: where it runs.
            identity: what else shapes an answer and is in no request: it joins the keys.

        Raises:
            UsageError: no model is named, or its context leaves no room for a prompt.
        """
        if not model.id:
            raise UsageError("no model is named: set `llm.model` (--llm-model) to one that the server serves")
        self._chat = chat
        self._model = model
        self._settings = settings
        self._identity = {**identity, "model": model.id, "root": model.root, "prompt": PROMPT_VERSION}
        self._context_tokens = settings.context_tokens or model.max_model_len or DEFAULT_CONTEXT_TOKENS
        self._writer = PromptWriter(settings, self._context_tokens)
        self._half_asked: dict[str, _Unusable] = {}
        """By key."""
        if self._context_tokens <= 2 * settings.max_tokens or self._writer.smallest_room < MIN_ROOM:
            raise UsageError(
                f"a context of {self._context_tokens} tokens, of which a prompt and its answer may take "
                f"{settings.prompt_tokens}, leaves no room for code beside instructions and an answer of "
                f"{settings.max_tokens}: raise `llm.prompt_tokens`, lower `llm.max_tokens`, shorten your own "
                "instructions, or serve the model with a longer context"
            )

    @property
    def identity(self) -> str:
        """Provider, model id, what it was loaded from, prompt version, as JSON; the context, where it can matter."""
        largest = self._writer.largest_prompt_bytes, self._settings.max_tokens
        return json.dumps(self._identity | {"context_tokens": self._limiting_context(*largest)}, sort_keys=True)

    def split(self, request: SummaryRequest) -> Reduction | None:
        """The next step towards a request that fits the prompt's budget, or None where it does."""
        return self._writer.split(request)

    def prepare(self, request: SummaryRequest) -> PreparedRequest:
        """Build the request and its key. The estimate of what fits is cheap, and put right later if wrong."""
        max_tokens = self._writer.answer_tokens(request)
        messages, truncated = self._writer.build_messages(request)
        payload: dict[str, Any] = {
            "model": self._model.id,
            "messages": messages,
            "temperature": self._settings.temperature,
            "seed": self._settings.seed,
            "max_tokens": max_tokens,
            "extra_body": self._settings.extra_body,
        }
        size_bytes = sum(len(message["content"].encode()) for message in messages)
        key = summary_key(
            {
                "identity": self._identity,
                "request": payload,
                "context_tokens": self._limiting_context(size_bytes, max_tokens),
            }
        )
        return PreparedRequest(key=key, request=request, payload=payload, truncated=truncated)

    async def answer(self, prepared: PreparedRequest, record: CallRecord) -> Summary:
        """Ask for a summary; once more, with more room and a nudge, when the answer is unusable.

        Where the second ask fails on the way, the next try begins with it: within a process, an unusable first answer
        is paid for once.

        Raises:
            InvalidOutput: both answers were unusable.
            ContextTooLong: the prompt does not fit, however much it is shortened.
            LLMError: the other kinds, when the call failed.
        """
        call = _Call(self._chat, prepared, self._writer, self._context_tokens, record)
        unusable = self._half_asked.get(prepared.key)
        if unusable is not None:
            call.resume(unusable)
        else:
            try:
                text, keywords = parse_answer(*await call.ask(prepared.payload))
            except InvalidOutput as error:
                logger.debug("asking again for %s: %s", prepared.request.unit.id, error)
                record.retried(error)
                unusable = call.as_unusable(str(error))
                self._remember(prepared.key, unusable)
        if unusable is not None:
            try:
                text, keywords = parse_answer(*await call.ask_again(unusable.reason))
            except InvalidOutput as again:
                self._half_asked.pop(prepared.key, None)
                raise InvalidOutput(str(again), call.tokens_in, call.tokens_out) from None
            self._half_asked.pop(prepared.key, None)
        return Summary(
            text=text,
            keywords=keywords,
            origin=Origin.LLM,
            truncated=call.truncated,
            key=prepared.key,
            model=self._model.id,
            prompt_version=PROMPT_VERSION,
            tokens_in=call.tokens_in,
            tokens_out=call.tokens_out,
        )

    async def aclose(self) -> None:
        """Free what is held; the next call takes it anew."""
        await self._chat.aclose()

    def _remember(self, key: str, unusable: _Unusable) -> None:
        self._half_asked[key] = unusable
        while len(self._half_asked) > MOST_HALF_ASKED:
            del self._half_asked[next(iter(self._half_asked))]

    def _limiting_context(self, size_bytes: int, max_tokens: int) -> int | None:
        """The context, where a prompt of so many bytes may not fit: what is sent instead depends on it.

        No tokenizer makes more tokens than there are bytes. Where all fit, a longer context changes nothing, and what
        was paid for is kept.
        """
        surely_fits = size_bytes + 2 * max_tokens + SURE_MARGIN <= self._context_tokens
        return None if surely_fits else self._context_tokens


class _Call:
    """One summary on its way: what it has cost, and how it was shortened."""

    def __init__(
        self, chat: Chat, prepared: PreparedRequest, writer: PromptWriter, context_tokens: int, record: CallRecord
    ) -> None:
        self._chat = chat
        self._record = record
        self._writer = writer
        self._context_tokens = context_tokens
        self._request = prepared.request
        self._payload = self._whole = prepared.payload
        self.truncated = prepared.truncated
        self.tokens_in = 0
        self.tokens_out = 0

    def as_unusable(self, reason: str) -> _Unusable:
        """What came of the first ask, for a later try."""
        shortened = self._payload if self._payload is not self._whole else None
        return _Unusable(reason, shortened, self.tokens_in, self.tokens_out)

    def resume(self, unusable: _Unusable) -> None:
        """Go on after a first ask of an earlier try."""
        self.tokens_in, self.tokens_out = unusable.tokens_in, unusable.tokens_out
        if unusable.shortened is not None:
            self._payload, self.truncated = unusable.shortened, True

    async def ask(self, payload: dict[str, Any]) -> tuple[str, str | None]:
        """The answer's text and why it ended; a prompt that is too long is shortened by how long it is."""
        for shortenings in range(MAX_SHORTENINGS):
            try:
                await self._check_length(payload, must_count=shortenings > 0)
                return await self._complete(payload)
            except ContextTooLong as error:
                self._record.retried(error)
                messages = self._shorten(payload["messages"], payload["max_tokens"], error)
                if messages is None:
                    raise
                payload = {**payload, "messages": messages}
                self._payload = payload
                self.truncated = True
        return await self._complete(payload)

    async def _check_length(self, payload: dict[str, Any], *, must_count: bool) -> None:
        """Count a prompt that comes near the context, where that can be done: a refusal may name no exact number.

        Of a prompt that was too long before (`must_count`), the estimate has been wrong already.

        Raises:
            ContextTooLong: prompt and answer are longer than the context.
        """
        room = self._context_tokens - payload["max_tokens"]
        if not must_count and estimate_tokens(payload["messages"]) <= COUNTED_SHARE * room:
            return
        tokens = await self._chat.count_tokens(payload)
        if tokens is not None and tokens > room:
            raise ContextTooLong(f"the prompt has {tokens} tokens", self._context_tokens, tokens)

    async def ask_again(self, reason: str) -> tuple[str, str | None]:
        """The same with twice the room, a nudge and some temperature, so that a loop is not simply repeated."""
        payload = self._payload
        return await self.ask(
            {
                **payload,
                "messages": add_nudge(payload["messages"], reason),
                "max_tokens": 2 * payload["max_tokens"],
                "temperature": max(payload["temperature"], 0.3),
                "seed": payload["seed"] + 1,
            }
        )

    def _shorten(self, messages: Messages, max_tokens: int, error: ContextTooLong) -> Messages | None:
        """Messages that should fit a model that answered with `error`; None where nothing is left to cut.

        A server that stops counting at its limit ("at least 2049") has named no ratio: then by two fifths.
        """
        share = 0.6
        if error.limit_tokens and error.prompt_tokens and "at least" not in str(error):
            share = min(0.97 * (error.limit_tokens - max_tokens) / error.prompt_tokens, 0.9)
        budget = MESSAGE_OVERHEAD_TOKENS + int((estimate_tokens(messages) - MESSAGE_OVERHEAD_TOKENS) * share)
        shorter, _ = self._writer.build_messages(self._request, budget)
        return shorter if estimate_tokens(shorter) < estimate_tokens(messages) else None

    async def _complete(self, payload: dict[str, Any]) -> tuple[str, str | None]:
        completion = await self._chat.complete(payload, self._record)
        self.tokens_in += completion.tokens_in
        self.tokens_out += completion.tokens_out
        return completion.text, completion.finish_reason
