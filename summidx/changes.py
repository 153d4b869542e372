"""Pure: why an index is not the one that is asked for: what its build key was made of, and what it is made of now."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from summidx.keys import INDEX_VERSION, build_key, recorded_settings, shorten_hashes
from summidx.records import Manifest
from summidx.settings import Settings

UNKNOWN = "settings or version changed"
"""Said of an index that does not tell what it was made of."""
MAX_SHOWN = 60
_IDENTITY = {"model": "model", "prompt": "prompt version", "context_tokens": "context of the model, in tokens,"}
"""What parts of a summariser's identity are called."""
_MODEL_PARTS = ("root", "revision")


@dataclass(frozen=True, kw_only=True)
class BuildInputs:
    """What a build key is made of. `settings` are all of a run's; the key takes what shapes the index."""

    tree: str
    settings: Settings
    summarizer: str
    embedding_model: str

    @cached_property
    def build_key(self) -> str:
        """The key of the index; made once."""
        return build_key(self.tree, self.settings, summarizer=self.summarizer, embedding_model=self.embedding_model)


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs between an index and what is asked for now."""

    content: bool
    """The source's content changed."""
    others: tuple[str, ...]
    """In words: settings (`llm.max_tokens changed: 350 -> 400`), model, prompt version, tool version."""

    def describe(self) -> str:
        """All of it in one line; "" where nothing differs."""
        return "; ".join((*(("content changed",) if self.content else ()), *self.others))


def find_changes(manifest: Manifest, now: BuildInputs) -> Changes:
    """What has changed since the index of `manifest` was built."""
    if manifest.build_key == now.build_key:
        return Changes(content=False, others=())
    content = manifest.tree != now.tree
    others = tuple(_find_others(manifest, now))
    return Changes(content=content, others=others or (() if content else (UNKNOWN,)))


def _find_others(manifest: Manifest, now: BuildInputs) -> Iterator[str]:
    if manifest.index_version not in (None, INDEX_VERSION):
        yield f"tool version changed: index version {manifest.index_version} -> {INDEX_VERSION}"
    before, after = _read_identity(manifest.summarizer), _read_identity(now.summarizer)
    same_provider = before.get("provider") == after.get("provider")
    if same_provider:
        yield from _compare_identities(before, after)
    else:
        yield f"llm.provider changed: {before.get('provider')} -> {after.get('provider')}"
    if manifest.settings is not None:
        yield from _compare_settings(manifest.settings, recorded_settings(now.settings), with_llm=same_provider)
    if manifest.embedding_model != now.embedding_model:
        yield f"embedding model changed: {_show(manifest.embedding_model)} -> {_show(now.embedding_model)}"


def _compare_identities(before: Mapping[str, object], after: Mapping[str, object]) -> Iterator[str]:
    for name in sorted({*before, *after}):
        if before.get(name) == after.get(name):
            continue
        if name not in _MODEL_PARTS:
            yield f"{_IDENTITY.get(name, f'{name} of the summariser')} changed: " + _arrow(before, after, name)
        elif before.get("model") == after.get("model"):
            yield f"model changed: its {name} " + _arrow(before, after, name)


def _compare_settings(before: Mapping[str, object], after: Mapping[str, object], *, with_llm: bool) -> Iterator[str]:
    for name in sorted({*before, *after}):
        if before.get(name) == after.get(name) or name == "llm.provider" or (name.startswith("llm.") and not with_llm):
            continue
        hidden = any(str(each.get(name)).startswith("sha256:") for each in (before, after))
        yield f"{name} changed" + ("" if hidden else f": {_arrow(before, after, name)}")


def _arrow(before: Mapping[str, object], after: Mapping[str, object], name: str) -> str:
    return f"{_show(before.get(name))} -> {_show(after.get(name))}"


def _read_identity(identity: str) -> dict[str, object]:
    """The parts of a summariser's identity: JSON for models, `extractive/VERSION` for what asks none."""
    try:
        parts = json.loads(identity)
    except ValueError:
        parts = None
    if isinstance(parts, dict):
        return parts
    provider, _, version = identity.partition("/")
    return {"provider": provider, "version": version}


def _show(value: object) -> str:
    if value is None:
        return "(none)"
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    text = shorten_hashes(text)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."
