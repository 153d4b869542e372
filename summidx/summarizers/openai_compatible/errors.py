"""The SDK's errors as ours. A test fails when the SDK has an exception that is not in `_MAPPINGS`.

    429, 503, 504, 529, 408, a timeout     Overloaded (a quota that is used up: Unauthorised)
    other 5xx, no connection, no JSON      ServerFault
    400 or 413 about the context's length  ContextTooLong, with the numbers that the server names
    401, 403                               Unauthorised
    404                                    UnknownModel
    any other status                       RequestRefused

The server's own words are quoted on one line, bounded, without control characters and without the key.
"""

import email.utils
import re
import time
from collections.abc import Callable, Iterator, Mapping

import aiohttp
import openai

from summidx.errors import (
    ContextTooLong,
    InvalidOutput,
    LLMError,
    Overloaded,
    RequestRefused,
    ServerFault,
    Unauthorised,
    UnknownModel,
)
from summidx.summarizers.prose import quote

_OVERLOADED = frozenset({408, 429, 503, 504, 529})
_LIMITED = frozenset({429, 529})

_LIMIT = re.compile(
    r"(?:context (?:length|size|window)|max_model_len|maximum (?:input|sequence) length)[^\d\n]{0,24}?(\d+)",
    re.IGNORECASE,
)
_PROMPT = re.compile(
    r"(\d+) (?:input tokens|in the messages|prompt tokens)|(?:resulted in|request has|input \(|request \()\s*(\d+)",
    re.IGNORECASE,
)
_ABOUT_LENGTH = re.compile(
    r"context (?:length|size|window)|context_length|too long|max_model_len|too many tokens", re.IGNORECASE
)


class UnusableResponse(Exception):
    """A response breaks a bound of ours; raised while the SDK reads it."""


def map_error(error: openai.OpenAIError, *, host: str = "the LLM server", secret: str = "") -> LLMError:
    """Our error for an error of the SDK.

    Args:
        error: as the SDK raised it.
        host: the server, for the message.
        secret: the API key; wherever the server echoes it, it is taken out.
    """
    said = quote(str(error), secret)
    for kind in type(error).__mro__:
        if kind in _MAPPINGS:
            return _MAPPINGS[kind](error, host, said)
    return ServerFault(f"{host}: {said}")


def _from_status(error: openai.OpenAIError, host: str, said: str) -> LLMError:
    status = error.status_code if isinstance(error, openai.APIStatusError) else 0
    code = error.code if isinstance(error, openai.APIStatusError) else ""
    quoted = f"{host} answered {status}: {said}"
    mapped: LLMError = RequestRefused(quoted)
    if status == 429 and code == "insufficient_quota":
        mapped = Unauthorised(f"{host} has no quota left for this key: {said}")
    elif status in _OVERLOADED and isinstance(error, openai.APIStatusError):
        mapped = Overloaded(quoted, _retry_after_s(error.response.headers), status in _LIMITED)
    elif status >= 500:
        mapped = ServerFault(quoted)
    elif status in (401, 403):
        mapped = Unauthorised(f"{host} refuses the API key ({status}): set OPENAI_API_KEY to one that it takes")
    elif status == 404:
        mapped = UnknownModel(f"{quoted}; check `llm.model`, and that `llm.base_url` ends as the server wants (/v1)")
    elif status in (400, 413, 422) and (code == "context_length_exceeded" or _ABOUT_LENGTH.search(said)):
        limit, prompt = _LIMIT.search(said), _PROMPT.search(said)
        mapped = ContextTooLong(
            quoted, int(limit[1]) if limit else None, int(prompt[1] or prompt[2]) if prompt else None
        )
    elif 300 <= status < 400:
        mapped = RequestRefused(f"{host} redirects elsewhere ({status}), which is not followed: set `llm.base_url`")
    return mapped


def _from_connection(error: openai.OpenAIError, host: str, said: str) -> LLMError:
    """No response: a deadline of ours or the SDK's, or a fault on the way.

    The SDK's aiohttp transport reports a refused or broken connection as a timeout, so the causes are asked.
    """
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, UnusableResponse):
            return ServerFault(f"{host} sent {cause}")
        if isinstance(cause, aiohttp.ClientConnectionError) and not isinstance(cause, TimeoutError):
            return ServerFault(f"{host} cannot be reached, or broke the connection ({type(cause).__name__})")
    if isinstance(error, openai.APITimeoutError):
        return Overloaded(f"{host} did not answer in time")
    return ServerFault(f"{host}: {said} ({type(causes[-1]).__name__})" if causes else f"{host}: {said}")


def _from_body(_: openai.OpenAIError, host: str, said: str) -> LLMError:
    return ServerFault(f"{host} sent something that is no chat completion: {said}")


def _from_output(_: openai.OpenAIError, __: str, said: str) -> LLMError:
    return InvalidOutput(said)


def _from_setup(_: openai.OpenAIError, host: str, said: str) -> LLMError:
    return RequestRefused(f"the request for {host} could not be made: {said}")


_MAPPINGS: Mapping[type, Callable[[openai.OpenAIError, str, str], LLMError]] = {
    openai.OpenAIError: _from_setup,
    openai.APIError: _from_body,
    openai.APIResponseValidationError: _from_body,
    openai.APIConnectionError: _from_connection,
    openai.APITimeoutError: _from_connection,
    openai.APIStatusError: _from_status,
    openai.BadRequestError: _from_status,
    openai.AuthenticationError: _from_status,
    openai.OAuthError: _from_status,
    openai.PermissionDeniedError: _from_status,
    openai.NotFoundError: _from_status,
    openai.ConflictError: _from_status,
    openai.UnprocessableEntityError: _from_status,
    openai.RateLimitError: _from_status,
    openai.InternalServerError: _from_status,
    openai.LengthFinishReasonError: _from_output,
    openai.ContentFilterFinishReasonError: _from_output,
    # Of other ways of using the SDK (web sockets): never raised by ours.
    openai.WebSocketConnectionClosedError: _from_setup,
    openai.WebSocketQueueFullError: _from_setup,
}


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: `Retry-After` as a number or a date (RFC 9110, 10.2.3), or None."""
    milliseconds, after = headers.get("retry-after-ms", ""), headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", milliseconds):
        return float(milliseconds) / 1000
    if re.fullmatch(r"\d{1,9}(\.\d+)?", after):
        return float(after)
    date = email.utils.parsedate_tz(after)
    return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause = error.__cause__ or error.__context__
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
