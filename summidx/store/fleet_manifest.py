"""Pure: what the fleet table's CURRENT holds, which indexes count in it, and what a refresh writes anew.

The fleet table is derived from the indexes and says nothing of them that they do not say: whoever finds it missing,
damaged or behind searches the indexes themselves.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import pydantic_core
from pydantic import TypeAdapter, ValidationError

from summidx.errors import UsageError
from summidx.store.names import escape_name, unescape_name
from summidx.store.sealed import seal, unseal

FORMAT = 1
"""Of the manifest and of the tables in the segments; another one is not read, and a newer one not replaced."""

MOST_DEAD = 0.3
"""A segment of which more is dead is written anew: what is dead is read with every query, and is in the word counts."""

MOST_SEGMENTS = 6
"""Of one embedding model: each costs every query a search by words and one by vectors."""

_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A published index, as its CURRENT describes it."""

    name: str
    version: str
    """What the index root says of its CURRENT (`Place.versions`): as long as it does, the rest is true."""
    publish_id: str
    source: str
    built_at: str
    embedding_model: str
    dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """An immutable table of the outer documents (files, directories, repositories) of some indexes of one model."""

    generation: str
    """Its folder among the generations."""
    embedding_model: str
    dim: int
    rows: int
    documents: int
    """Of the indexes: all levels."""
    code_documents: int
    """Those that are neither tests nor secondary."""
    members: Mapping[str, str]
    """Publish id by name of the index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetManifest:
    """The fleet table as it is published."""

    publish_id: str
    built_at: str
    """ISO 8601, UTC."""
    entries: tuple[Entry, ...] = ()
    """All indexes that were published then, those included that do not count."""
    segments: tuple[Segment, ...] = ()
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """What a refresh does: these segments stay, and one is written of these members (name -> publish id) by model."""

    kept: tuple[Segment, ...]
    written: Mapping[str, Mapping[str, str]]


_MANIFEST = TypeAdapter(FleetManifest)


def count_once(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Of several commits of one repository the index that was built last, by name; sorted.

    Hundreds of commits would else be hundreds of equal answers, and make the words of their repository seem common.
    """
    newest: dict[str, Entry] = {}
    for entry in entries:
        best = newest.get(entry.source)
        if best is None or (entry.built_at, entry.name) > (best.built_at, best.name):
            newest[entry.source] = entry
    return {entry.name: entry for entry in sorted(newest.values(), key=lambda each: each.name)}


def plan_segments(wanted: Iterable[Entry], segments: Sequence[Segment]) -> SegmentPlan:
    """Which segments are kept, and which members are written to new ones.

    What is new is written together with the members of segments that are not much larger, so that there are few
    segments, and a member is written again only as often as the table doubles.
    """
    by_model: dict[str, dict[str, str]] = defaultdict(dict)
    for entry in wanted:
        by_model[entry.embedding_model][entry.name] = entry.publish_id
    kept: list[Segment] = []
    written: dict[str, dict[str, str]] = {}
    for model, members in by_model.items():
        left = dict(members)
        stay: list[tuple[Segment, dict[str, str]]] = []
        for segment in segments:
            if segment.embedding_model != model:
                continue
            live = {name: each for name, each in segment.members.items() if left.get(name) == each}
            if len(live) >= (1.0 - MOST_DEAD) * len(segment.members) and live:
                stay.append((segment, live))
                for name in live:
                    del left[name]
        stay.sort(key=lambda pair: -len(pair[1]))
        while stay and left and (len(stay[-1][1]) <= 2 * len(left) or len(stay) >= MOST_SEGMENTS):
            left |= stay.pop()[1]
        kept += [segment for segment, _ in stay]
        if left:
            written[model] = dict(sorted(left.items()))
    return SegmentPlan(tuple(kept), written)


def render_fleet(manifest: FleetManifest) -> bytes:
    """A manifest as sealed JSON. Names are escaped as folders are, so that any name comes back.

    Raises:
        ValueError: it would not be read back.
    """
    value = asdict(manifest)
    for entry in value["entries"]:
        entry["name"] = escape_name(entry["name"])
        entry["source"] = entry["source"].encode("utf-8", "backslashreplace").decode()
    for segment in value["segments"]:
        segment["members"] = {escape_name(name): publish_id for name, publish_id in segment["members"].items()}
    return seal(value)


def parse_fleet(data: bytes) -> FleetManifest:
    """Read a manifest, strictly.

    Raises:
        ValueError: it is damaged, or of another version of summidx.
    """
    value = unseal(data)
    if value.get("format") != FORMAT:
        raise ValueError(f"it is of format {value.get('format')!r}, and this summidx reads {FORMAT}")
    try:
        manifest = _MANIFEST.validate_json(pydantic_core.to_json(value), strict=True)
        entries = tuple(_rename(entry) for entry in manifest.entries)
        segments = tuple(_rename_members(segment) for segment in manifest.segments)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}") from None
    except UsageError as error:
        raise ValueError(str(error)) from None
    if not all(_ID.fullmatch(segment.generation) for segment in segments):
        raise ValueError("the name of a segment is not an id")
    return FleetManifest(publish_id=manifest.publish_id, built_at=manifest.built_at, entries=entries, segments=segments)


def is_newer(data: bytes) -> bool:
    """Whether a manifest is of a newer summidx."""
    try:
        version = unseal(data).get("format")
    except ValueError:
        return False
    return isinstance(version, int) and version > FORMAT


def _rename(entry: Entry) -> Entry:
    values = asdict(entry)
    return Entry(**{**values, "name": unescape_name(entry.name)})


def _rename_members(segment: Segment) -> Segment:
    values = asdict(segment)
    members = {unescape_name(name): publish_id for name, publish_id in segment.members.items()}
    return Segment(**{**values, "members": members})
