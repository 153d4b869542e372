"""What is sent to a chat completion API and what comes back, as data. Pure."""

import json
import logging
import re
from collections.abc import Mapping
from typing import Any

from summidx.summarizers.chat import Completion

MAY_BE_DROPPED = ("temperature", "seed")
"""Fields that some models do not take; their defaults are used then."""
_REFUSAL = re.compile(r"unsupported|not support|unrecognized|unknown|not allowed|not permitted|extra", re.IGNORECASE)
_REQUEST = re.compile(r"""\{[^{}]*["'](?:messages|model|role|content)["']\s*:""")
"""The beginning of a request, or of a message of it, in what a server says."""

logger = logging.getLogger(__name__)


def parse_completion(body: bytes) -> Completion:
    """Read a chat completion.

    Raises:
        ValueError: it is none.
    """
    data = json.loads(body)
    try:
        choices, usage = data["choices"], data.get("usage") or {}
        tokens = [usage.get(name) or 0 for name in ("prompt_tokens", "completion_tokens")]
        choice = choices[0] if choices else {"message": {}}
        text, reason = choice["message"].get("content") or "", choice.get("finish_reason")
    except (KeyError, TypeError, AttributeError, IndexError):
        raise ValueError("the answer is no chat completion") from None
    if not isinstance(text, str) or not isinstance(reason, str | None) or not all(isinstance(n, int) for n in tokens):
        raise ValueError("the answer is no chat completion")
    return Completion(text, reason, *tokens)


class RefusedFields:
    """Which fields of a request a server has refused by name. Keys of summaries hold what was prepared."""

    def __init__(self) -> None:
        self._renames: dict[str, str] = {}
        self._dropped: set[str] = set()

    def apply(self, body: Mapping[str, Any], extra_body: Mapping[str, Any]) -> dict[str, Any]:
        """The request as this server takes it."""
        fields = {**body, **extra_body}
        return {self._renames.get(name, name): value for name, value in fields.items() if name not in self._dropped}

    def learn(self, refusal: str, sent: Mapping[str, Any], extra_body: Mapping[str, Any]) -> bool:
        """Take note of what a server said; True where the request that was `sent` would look different now.

        Args:
            refusal: the server's words.
            sent: the fields of the request.
            extra_body: those of them that are settings of `llm.extra_body`.
        """
        if "max_tokens" in sent and "max_completion_tokens" in refusal:
            self._rename("max_tokens", "max_completion_tokens")
            return True
        # A server that quotes the request names all that is in it, and any word at all.
        said = _REQUEST.split(refusal)[0]
        named = [name for name in (*MAY_BE_DROPPED, *extra_body) if name in sent and _names(said, name)]
        if named and _REFUSAL.search(said):
            self._drop(named, refusal)
            return True
        return False

    def _rename(self, name: str, to: str) -> None:
        if name not in self._renames:
            logger.warning("the server does not take %r, it gets %r from now on", name, to)
        self._renames[name] = to

    def _drop(self, names: list[str], refusal: str) -> None:
        if not self._dropped.issuperset(names):
            logger.warning("the server refuses %s, left out from now on: %s", ", ".join(names), refusal)
        self._dropped.update(names)


def _names(said: str, name: str) -> bool:
    """True where `name` is there as a word of its own, and not as the key of something that is quoted."""
    return re.search(rf"""(?<![\w-]){re.escape(name)}(?![\w-])(?!["']\s*:)""", said) is not None
