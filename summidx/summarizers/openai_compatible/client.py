"""The connection to an OpenAI-compatible server: one deadline per call, bounded answers, no redirects.

A completion is asked for once: calls.py tries again.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import httpx2
import openai
from openai.types.model import Model
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from summidx.accounting import CallRecord
from summidx.errors import LLMError, Overloaded, RequestRefused, ServerFault, UsageError
from summidx.settings import LLMSettings
from summidx.summarizers.chat import Completion
from summidx.summarizers.openai_compatible.errors import UnusableResponse, map_error
from summidx.summarizers.openai_compatible.wire import RefusedFields, parse_completion

SPARE_CONNECTIONS = 8
"""For questions beside the calls: whether the server is there, what it serves."""
KEEP_ALIVE_S = 4.0
"""Shorter than servers' (uvicorn, and so vLLM: 5 s): a call on a connection that its other end is closing fails."""

COUNT_TIMEOUT_S = 10.0

T = TypeVar("T")

logger = logging.getLogger(__name__)


class ChatClient:
    """Sends chat completions. Its connections belong to the event loop that uses it; another loop gets new ones."""

    def __init__(self, settings: LLMSettings) -> None:
        """Make a client; no connection is made yet.

        Raises:
            UsageError: `settings` name no server, or something that is no http(s) URL.
        """
        _check_base_url(settings.base_url)
        self._settings = settings
        self._client: openai.AsyncOpenAI | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._refused = RefusedFields()
        self._cannot_count = False

    @property
    def host(self) -> str:
        """The server, for messages: no credentials, no path."""
        parts = urlsplit(self._settings.base_url)
        return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")

    async def complete(
        self, payload: Mapping[str, Any], record: CallRecord, *, timeout_s: float | None = None
    ) -> Completion:
        """One chat completion, asked for once, within `timeout_s` (default: that of a call).

        Fields that the server refuses by name are left out, or renamed, for the whole process from then on.

        Raises:
            LLMError: the kind says what to do about it.
        """
        body = {name: value for name, value in payload.items() if name != "extra_body"}
        extra_body = payload.get("extra_body") or {}
        while True:
            sent = self._refused.apply(body, extra_body)
            try:
                return await self._send(sent, record, timeout_s or self._settings.timeout_s)
            except RequestRefused as error:
                if not self._refused.learn(str(error), sent, extra_body):
                    raise
                record.retried(error)

    async def list_models(self, timeout_s: float) -> list[Model]:
        """The models that the server serves.

        Raises:
            LLMError: as `complete`.
        """
        client = self._running_client()

        async def call() -> list[Model]:
            models = (await client.models.list()).data
            if not isinstance(models, list) or not all(isinstance(getattr(m, "id", None), str) for m in models):
                raise ValueError("the answer is no list of models")
            return models

        retrying = AsyncRetrying(
            retry=retry_if_exception_type((Overloaded, ServerFault)),
            stop=stop_after_attempt(self._settings.max_retries + 1),
            wait=wait_exponential_jitter(initial=1, max=timeout_s),
            reraise=True,
        )
        models: list[Model] = await retrying(self._once, call, timeout_s)
        return models

    async def count_tokens(self, payload: Mapping[str, Any]) -> int | None:
        """Tokens of a prompt as the server counts them (vLLM's `/tokenize`); None where it cannot say, or not now.

        No call in the sense of the ledger, and never tried twice. A server without that route is not asked again.
        """
        if self._cannot_count:
            return None
        client, root = self._running_client(), self._settings.base_url.rstrip("/").removesuffix("/v1")
        template = (payload.get("extra_body") or {}).get("chat_template_kwargs")
        body = {"model": payload["model"], "messages": payload["messages"]}

        async def call() -> int:
            sent = body if template is None else {**body, "chat_template_kwargs": template}
            response = await client.post(f"{root}/tokenize", body=sent, cast_to=httpx2.Response)
            return int(json.loads(response.content)["count"])

        try:
            return await self._once(call, min(self._settings.timeout_s, COUNT_TIMEOUT_S))
        except (Overloaded, ServerFault):  # the completion will meet it, and that is seen to there
            return None
        except (KeyError, TypeError, LLMError):
            self._cannot_count = True
            return None

    async def aclose(self) -> None:
        """Close the connections; the next call opens new ones."""
        client, self._client, self._loop = self._client, None, None
        if client is not None:
            await client.close()

    async def _send(self, body: Mapping[str, Any], record: CallRecord, timeout_s: float) -> Completion:
        client = self._running_client()

        async def call() -> Completion:
            record.sent()
            started = time.monotonic()
            # Not `chat.completions.create`: what it does to check and copy requests and answers costs half of a call.
            response = await client.post("/chat/completions", body=body, cast_to=httpx2.Response)
            completion = parse_completion(response.content)
            record.answered(time.monotonic() - started)
            return completion

        completion = await self._once(call, timeout_s)
        record.spent(body["messages"], completion.tokens_in, completion.tokens_out)
        return completion

    async def _once(self, call: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        failure: LLMError
        try:
            async with asyncio.timeout(timeout_s):
                return await call()
        except TimeoutError:
            failure = Overloaded(
                f"{self.host} did not answer within {timeout_s:g} s; raise `llm.timeout_s` if it is only slow"
            )
        except openai.OpenAIError as error:
            failure = map_error(error, host=self.host, secret=self._settings.api_key.get_secret_value())
        except UnusableResponse as error:
            failure = ServerFault(f"{self.host} sent {error}")
        except (aiohttp.ClientError, httpx2.HTTPError, OSError) as error:
            failure = ServerFault(f"the connection to {self.host} failed ({type(error).__name__})")
        except (ValueError, AttributeError, RecursionError) as error:  # the SDK does not check what it parses
            failure = ServerFault(
                f"{self.host} sent what is not of the OpenAI API ({type(error).__name__}): check `llm.base_url`"
            )
        # Raised here, so that it has no context: where Dask is loaded (tblib) that is pickled with the error, and the
        # SDK's errors cannot be unpickled.
        raise failure

    def _running_client(self) -> openai.AsyncOpenAI:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._client, self._loop = self._make_client(), loop
        return self._client

    def _make_client(self) -> openai.AsyncOpenAI:
        limit = self._settings.max_response_bytes

        async def bound(response: httpx2.Response) -> None:
            encoding = response.headers.get("content-encoding", "identity")
            if encoding != "identity":  # a small compressed body can be a huge one
                raise UnusableResponse(f"an answer in the encoding {encoding[:20]!r}, which was not asked for")
            response.stream = _BoundedStream(response.stream, limit)

        return openai.AsyncOpenAI(
            base_url=self._settings.base_url,
            api_key=self._settings.api_key.get_secret_value() or "none",  # servers without keys take any
            max_retries=0,
            timeout=self._settings.timeout_s,
            default_headers={"Accept-Encoding": "identity"},
            http_client=openai.DefaultAioHttpClient(
                follow_redirects=False,
                event_hooks={"response": [bound]},
                limits=httpx2.Limits(
                    max_connections=self._settings.concurrency + SPARE_CONNECTIONS,
                    max_keepalive_connections=self._settings.concurrency + SPARE_CONNECTIONS,
                    keepalive_expiry=KEEP_ALIVE_S,
                ),
            ),
        )


class _BoundedStream(httpx2.AsyncByteStream):
    """A response's bytes up to a limit; one more and it fails."""

    def __init__(self, stream: Any, limit: int) -> None:  # noqa: ANN401 - sync or async by its type, async here
        self._stream = stream
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        seen = 0
        async for chunk in self._stream:
            seen += len(chunk)
            if seen > self._limit:
                raise UnusableResponse(f"an answer of more than {self._limit} bytes (`llm.max_response_bytes`)")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def _check_base_url(base_url: str) -> None:
    if not base_url:
        raise UsageError(
            "no LLM server is named: set `llm.base_url` (--llm-base-url, OPENAI_BASE_URL) to its OpenAI-compatible "
            "API, such as http://localhost:8000/v1"
        )
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError("`llm.base_url` must be an http:// or https:// URL, such as http://localhost:8000/v1")
    if parts.username or parts.password:
        raise UsageError(
            "`llm.base_url` must not hold credentials, it is shown in messages: set OPENAI_API_KEY instead"
        )
