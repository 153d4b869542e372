"""Summaries from an OpenAI-compatible server (vLLM and others). The only importer of openai.

One retry layer for faults of transport (tenacity; the SDK's own is off), one total deadline per call (the SDK's timeout
is per read), answers bounded in bytes, redirects off.

The key of a summary is of the request as prepared. What may still change on the way follows from that request and from
the server alone, so that the key stays honest: a prompt that turns out too long is shortened by what the server says
(the context's size is in the key wherever this can happen); an unusable answer is asked for once more in a fixed way;
`extra_body` is dropped for the whole process when the server refuses it.
"""

import asyncio
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from openai.types.model import Model

from summidx.accounting import CallRecord
from summidx.errors import ContextTooLong, InvalidOutput, UnknownModel, UsageError
from summidx.keys import summary_key
from summidx.records import Level, Origin, Summary, SummaryRequest
from summidx.settings import LLMSettings
from summidx.summarizers import PreparedRequest, ServedModel
from summidx.summarizers.openai_compatible.client import ChatClient
from summidx.summarizers.prompts import (
    MESSAGE_OVERHEAD_TOKENS,
    PROMPT_VERSION,
    Messages,
    add_nudge,
    build_messages,
    estimate_tokens,
    parse_answer,
)
from summidx.summarizers.prose import clean_text

DEFAULT_CONTEXT_TOKENS = 8192
MAX_SHORTENINGS = 4
PROBE_TIMEOUT_S = 30.0
SURE_MARGIN = 256
"""Tokens that chat templates and the nudge of a second ask may add, generously."""

logger = logging.getLogger(__name__)


class OpenAICompatibleSummarizer:
    """Asks an OpenAI-compatible server for each summary. Its client belongs to the event loop that first uses it."""

    makes_calls = True

    def __init__(self, settings: LLMSettings, served_model: ServedModel | None) -> None:
        """Make a summariser; no connection is made yet.

        Args:
            settings: the server, the model and how it is asked.
            served_model: what `probe_model` found; None: as `settings.model` says, with nothing known about it.

        Raises:
            UsageError: no server or no model is named.
        """
        self._client = ChatClient(settings)
        self._model = served_model or ServedModel(settings.model)
        if not self._model.id:
            raise UsageError("no model is named: set `llm.model` (--llm-model) to one that the server serves")
        self._settings = settings
        self._context_tokens = settings.context_tokens or self._model.max_model_len or DEFAULT_CONTEXT_TOKENS
        if self._context_tokens <= 2 * settings.max_tokens:
            raise UsageError(
                f"a context of {self._context_tokens} tokens leaves no room for a prompt beside an answer of "
                f"{settings.max_tokens}: lower `llm.max_tokens` or serve the model with a longer context"
            )

    def __repr__(self) -> str:
        return f"OpenAICompatibleSummarizer({self._model.id!r} at {self._client.host})"

    @property
    def calls_sent(self) -> int:
        """Requests for completions sent so far, retries included."""
        return self._client.calls_sent

    @property
    def tokens_in(self) -> int:
        """Tokens of prompts so far, as the server counts."""
        return self._client.tokens_in

    @property
    def tokens_out(self) -> int:
        """Tokens of answers so far, as the server counts."""
        return self._client.tokens_out

    @property
    def identity(self) -> str:
        """Provider, model id, what it was loaded from, prompt version, context in tokens; as JSON."""
        return json.dumps(self._model_identity() | {"context_tokens": self._context_tokens}, sort_keys=True)

    def prepare(self, request: SummaryRequest) -> PreparedRequest:
        """Build the request and its key. The estimate of what fits is cheap, and put right by the server if wrong."""
        max_tokens = self._max_tokens(request)
        budget = self._context_tokens - max_tokens
        messages, truncated = build_messages(request, language=self._settings.summary_language, budget_tokens=budget)
        payload: dict[str, Any] = {
            "model": self._model.id,
            "messages": messages,
            "temperature": self._settings.temperature,
            "seed": self._settings.seed,
            "max_tokens": max_tokens,
            "extra_body": self._settings.extra_body,
        }
        # No tokenizer makes more tokens than there are bytes. Above that the server may refuse the prompt, and what is
        # sent instead depends on its context: then, and only then, the context is part of the key.
        size_bytes = sum(len(message["content"].encode()) for message in messages)
        surely_fits = size_bytes + 2 * max_tokens + SURE_MARGIN <= self._context_tokens
        key = summary_key(
            {
                "identity": self._model_identity(),
                "request": payload,
                "context_tokens": None if surely_fits else self._context_tokens,
            }
        )
        return PreparedRequest(key=key, request=request, payload=payload, truncated=truncated)

    async def answer(self, prepared: PreparedRequest, record: CallRecord) -> Summary:
        """Ask for a summary; once more, with more room and a nudge, when the answer is unusable.

        Raises:
            InvalidOutput: both answers were unusable.
            ContextTooLong: the prompt does not fit, however much it is shortened.
            LLMError: the other kinds, when the call failed after its retries.
        """
        call = _Call(self._client, prepared, self._settings.summary_language, record)
        try:
            text, keywords = parse_answer(*await call.ask(prepared.payload))
        except InvalidOutput as error:
            logger.debug("asking again for %s: %s", prepared.request.unit.id, error)
            record.retried(error)
            try:
                text, keywords = parse_answer(*await call.ask_again(str(error)))
            except InvalidOutput as again:
                raise InvalidOutput(str(again), call.tokens_in, call.tokens_out) from None
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

    async def probe(self) -> ServedModel:
        """Ask the server which models it serves, and describe ours.

        Raises:
            UnknownModel: the server does not serve the model; the message names what it serves.
            Unauthorised: the server refuses the key.
            Overloaded: the server does not answer in time.
            ServerFault: the server cannot be reached, or failed.
        """
        models = await self._client.list_models(min(self._settings.timeout_s, PROBE_TIMEOUT_S))
        return _find_model(models, self._settings.model, self._client.host)

    async def aclose(self) -> None:
        """Close the connections; the next call opens new ones."""
        await self._client.aclose()

    def _max_tokens(self, request: SummaryRequest) -> int:
        is_function = request.unit.level is Level.FUNCTION
        return self._settings.max_tokens_function if is_function else self._settings.max_tokens

    def _model_identity(self) -> dict[str, str]:
        return {"provider": "openai", "model": self._model.id, "root": self._model.root, "prompt": PROMPT_VERSION}


class _Call:
    """One summary on its way: what it has cost, and how it was shortened."""

    def __init__(self, client: ChatClient, prepared: PreparedRequest, language: str, record: CallRecord) -> None:
        self._client = client
        self._record = record
        self._language = language
        self._request = prepared.request
        self._payload = prepared.payload
        self.truncated = prepared.truncated
        self.tokens_in = 0
        self.tokens_out = 0

    async def ask(self, payload: dict[str, Any]) -> tuple[str, str | None]:
        """The answer's text and why it ended; a prompt that is too long is shortened by what the server says."""
        for _ in range(MAX_SHORTENINGS):
            try:
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
        """Messages that should fit a server that answered with `error`; None where nothing is left to cut.

        A server that stops counting at its limit ("at least 2049") has named no ratio: then by two fifths.
        """
        share = 0.6
        if error.limit_tokens and error.prompt_tokens and "at least" not in str(error):
            share = min(0.97 * (error.limit_tokens - max_tokens) / error.prompt_tokens, 0.9)
        budget = MESSAGE_OVERHEAD_TOKENS + int((estimate_tokens(messages) - MESSAGE_OVERHEAD_TOKENS) * share)
        shorter, _ = build_messages(self._request, language=self._language, budget_tokens=budget)
        return shorter if estimate_tokens(shorter) < estimate_tokens(messages) else None

    async def _complete(self, payload: dict[str, Any]) -> tuple[str, str | None]:
        completion = await self._client.complete(payload, self._record)
        if completion.usage:
            self.tokens_in += completion.usage.prompt_tokens
            self.tokens_out += completion.usage.completion_tokens
        if not completion.choices:
            return "", None
        choice = completion.choices[0]
        return choice.message.content or "", choice.finish_reason


def probe_model(settings: LLMSettings) -> ServedModel:
    """Ask the server that `settings` name which model it serves. Blocks; callable with or without a running loop.

    Raises:
        UsageError: no server is named.
        LLMError: as `OpenAICompatibleSummarizer.probe`.
    """

    async def probe() -> ServedModel:
        summarizer = OpenAICompatibleSummarizer(settings, ServedModel(settings.model or "any"))
        try:
            return await summarizer.probe()
        finally:
            await summarizer.aclose()

    with ThreadPoolExecutor(1, "summidx-probe") as thread:
        return thread.submit(asyncio.run, probe()).result()


def _find_model(models: Sequence[Model], wanted: str, host: str) -> ServedModel:
    served = sorted(model.id for model in models)
    if not wanted and len(models) == 1:
        wanted = served[0]
    for model in models:
        if model.id == wanted:
            extra = model.model_extra or {}
            length = extra.get("max_model_len")
            return ServedModel(wanted, str(extra.get("root") or ""), length if isinstance(length, int) else None)
    names = ", ".join(served[:10]) + (", ..." if len(served) > 10 else "")
    problem = f"does not serve the model {wanted!r}" if wanted else "serves several models, and none is named"
    raise UnknownModel(f"{host} {problem}; set `llm.model` (--llm-model) to one of: {clean_text(names) or '(none)'}")
