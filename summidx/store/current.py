"""CURRENT: the small JSON file that names the published generation of an index. It is the manifest, the only truth.

It is replaced as a whole, and it is sealed (`sealed`): a bit that flipped in it is damage.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pydantic_core
from pydantic import TypeAdapter, ValidationError

from summidx.errors import NewerIndex, StoreError
from summidx.keys import INDEX_VERSION
from summidx.records import Counts, Level, Manifest, Origin, Status
from summidx.store.disk_files import sync_folder
from summidx.store.names import without_surrogates
from summidx.store.sealed import seal, unseal

CURRENT = "CURRENT"
UNFINISHED_PREFIX = ".CURRENT."
"""Of the file that becomes CURRENT; one that is found was left by a crash."""

_MANIFEST = TypeAdapter(Manifest)
_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}")
_LEVELS = frozenset(Level)
_STATUSES = frozenset(Status)
_ORIGINS = frozenset((*Origin, "none"))


def read_manifest(data: bytes, where: str) -> Manifest:
    """The manifest that CURRENT holds; `where` is the index that it is of, for the message.

    Raises:
        NewerIndex: it was written by a newer summidx.
        StoreError: it is not wholly and only a manifest of this version of summidx.
    """
    try:
        value = unseal(data)
        if (version := _index_version(value)) > INDEX_VERSION:
            raise NewerIndex(
                f"{where}/{CURRENT} is of a newer summidx (index version {version}, and this one reads up to "
                f"{INDEX_VERSION}), so it is neither read nor replaced: upgrade summidx here, or delete the index to "
                "build it anew"
            )
        return _parse(value)
    except ValueError as error:
        raise StoreError(
            f"{where}/{CURRENT} is not a manifest of this version of summidx ({error}): build the index again"
        ) from None


def write_current(folder: Path, data: bytes, publish_id: str) -> None:
    """Replace CURRENT, durably. The caller holds the lock of the index.

    Raises:
        OSError: the disk refused.
    """
    partial = folder / f"{UNFINISHED_PREFIX}{publish_id}"
    with partial.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / CURRENT)
    sync_folder(folder)


def render_manifest(manifest: Manifest) -> bytes:
    """A manifest as JSON; lone surrogates in its texts are escaped.

    Raises:
        ValueError: it would not be read back.
    """
    values = {key: _clean(value) for key, value in asdict(manifest).items()}
    data = seal(values)
    parse_manifest(data)
    return data


def parse_manifest(data: bytes) -> Manifest:
    """Read a manifest, strictly: its seal, no unknown field, ids that are safe in a path, counts that are counts.

    A field that has a default may be missing: it was not kept yet when the index was built.

    Raises:
        ValueError: one line that says what is wrong.
    """
    return _parse(unseal(data))


def _parse(value: dict[str, Any]) -> Manifest:
    try:
        manifest = _MANIFEST.validate_json(pydantic_core.to_json(value), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}") from None
    if not _is_within(value, _MANIFEST.dump_python(manifest, mode="json")):
        raise ValueError("it has unknown fields")
    if not (_ID.fullmatch(manifest.publish_id) and _ID.fullmatch(manifest.generation)):
        raise ValueError("publish_id or generation is not an id")
    if not _are_counts(manifest.counts) or min(manifest.skips.values(), default=0) < 0 or manifest.dim < 1:
        raise ValueError("its counts are not counts")
    return manifest


def _index_version(value: Mapping[str, Any]) -> int:
    """What a manifest says of its version, whatever else is in it; 0 where it says nothing."""
    version = value.get("index_version")
    return version if isinstance(version, int) else 0


def _are_counts(counts: Counts) -> bool:
    return all(
        level in _LEVELS and status in _STATUSES and origin in _ORIGINS and n >= 0
        for level, by_status in counts.items()
        for status, by_origin in by_status.items()
        for origin, n in by_origin.items()
    )


def _is_within(value: object, known: object) -> bool:
    """True where `known` has all that `value` has; what only `known` has are defaults."""
    if isinstance(value, dict) and isinstance(known, dict):
        return all(key in known and _is_within(each, known[key]) for key, each in value.items())
    return value == known


def _clean(value: object) -> object:
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, Mapping):
        return {key: _clean(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(each) for each in value]
    return value
