"""Every key of the design, pure: what makes two requests, two texts, or two indexes the same."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from summidx.settings import Provider, Settings

INDEX_VERSION = 6
"""Moves when the same source and settings would give other rows; a golden test forces it to."""
_IDENTITY_HASH = re.compile(r"(@sha256:[0-9a-f]{8})[0-9a-f]+")


def digest(value: object) -> str:
    """SHA-256, hex, of `value` as canonical JSON (sorted keys, no white space, UTF-8)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def summary_key(request: Mapping[str, Any]) -> str:
    """Key of a summary: of the request as sent.

    `request` holds the messages, the model's identity (id, root, revision), sampling, token limit and extra body:
    nothing reaches the model that is not in the key, so that an index built through the cache equals a cold build.
    """
    return digest({"summary": request})


def vector_key(text: str, model_identity: str) -> str:
    """Key of a vector: of the text and of the embedding model's identity (id and weights)."""
    return digest({"vector": text, "model": model_identity})


def build_key(tree: str, settings: Settings, *, summarizer: str, embedding_model: str) -> str:
    """Key of an index: what is in it is decided by this.

    Args:
        tree: fingerprint of the source's content (git tree id, or hash of a folder's files).
        settings: every field that is not marked `unkeyed` takes part.
        summarizer: identity of the summariser, its prompt version and the model's root and revision included.
        embedding_model: identity of the embedding model, its weights included.
    """
    return digest(
        {
            "index_version": INDEX_VERSION,
            "tree": tree,
            "settings": _shaping_settings(settings),
            "summarizer": summarizer,
            "embedding_model": embedding_model,
        }
    )


def recorded_settings(settings: Settings) -> dict[str, object]:
    """The settings that take part in the build key, as CURRENT keeps them: by dotted name, as JSON values.

    What the operator fills freely (`llm.extra_body`, `llm.instructions`) may hold anything, a token or pages of text:
    its digest is kept, which says that it changed, and not what it is.
    """
    return {
        name: f"sha256:{digest(value)}" if isinstance(value, dict) else value
        for name, value in _shaping_settings(settings).items()
    }


def _shaping_settings(settings: Settings) -> dict[str, Any]:
    """What is keyed; where no LLM is asked, nothing of what it would be asked with."""
    asks_llm = settings.llm.provider is not Provider.EXTRACTIVE
    return {name: value for name, value in keyed_settings(settings) if asks_llm or not name.startswith("llm.")}


def keyed_settings(settings: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, JSON value) of every setting that takes part in the build key."""
    values = settings.model_dump(mode="json")
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from keyed_settings(value, f"{prefix}{name}.")
        elif not (isinstance(field.json_schema_extra, dict) and "unkeyed" in field.json_schema_extra):
            yield f"{prefix}{name}", values[name]


def shorten_hashes(text: str) -> str:
    """A text for people in which the hashes of identities (`model@sha256:...`) have eight digits."""
    return _IDENTITY_HASH.sub(r"\1", text)
