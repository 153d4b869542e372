"""Summaries from an OpenAI-compatible server (vLLM and others). The only importer of openai.

One total deadline per call (the SDK's timeout is per read), answers bounded in bytes, redirects off, the SDK's retries
off. Fields that the server refuses by name are left out, or renamed, for the whole process; what is asked, and how a
prompt that is too long or an answer that is unusable is seen to, is that of every chat (chat.py).
"""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future

from openai.types.model import Model

from summidx.accounting import CallRecord
from summidx.errors import UnknownModel
from summidx.settings import LLMSettings
from summidx.summarizers import ServedModel
from summidx.summarizers.chat import ChatSummarizer
from summidx.summarizers.openai_compatible.client import ChatClient
from summidx.summarizers.prose import clean_text

PROBE_TIMEOUT_S = 30.0


class OpenAICompatibleSummarizer(ChatSummarizer):
    """Asks an OpenAI-compatible server for each summary. Its client belongs to the event loop that first uses it."""

    def __init__(self, settings: LLMSettings, served_model: ServedModel | None) -> None:
        """Make a summariser; no connection is made yet.

        Args:
            settings: the server, the model and how it is asked.
            served_model: what `probe_model` found; None: as `settings.model` says, with nothing known about it.

        Raises:
            UsageError: no server or no model is named, or the context leaves no room for a prompt.
        """
        self._client = ChatClient(settings)
        model = served_model or ServedModel(settings.model)
        super().__init__(settings, model, self._client, identity={"provider": "openai"})

    def __repr__(self) -> str:
        return f"OpenAICompatibleSummarizer({self._model.id!r} at {self._client.host})"

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

    async def ping(self, timeout_s: float) -> None:
        """Ask for one real completion of a single token, once: does the server answer?

        Raises:
            LLMError: it was not answered within `timeout_s`, or not well.
        """
        await self._client.complete(
            {
                "model": self._model.id,
                "messages": [{"role": "user", "content": "Say yes."}],
                "max_tokens": 1,
                "extra_body": self._settings.extra_body,
            },
            CallRecord(),
            timeout_s=timeout_s,
        )


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

    answer: Future[ServedModel] = Future()

    def run() -> None:
        try:
            answer.set_result(asyncio.run(probe()))
        except BaseException as error:
            answer.set_exception(error)

    # No executor: that would have who is interrupted (Ctrl-C) wait for the server.
    threading.Thread(target=run, name="summidx-probe", daemon=True).start()
    return answer.result()


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
