"""What the parsing process and its parent say to each other: data only, nothing that executes.

Parent to child: for each file a line of JSON (`FileFacts`, size) and the file's bytes; then the end of the stream.
Child to parent: `READY`; for each file, in order, a line of JSON with its units and its skip; then one with the links.
All lines end in LF; JSON is ASCII, so that no name of a file can break it.
"""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from summidx.parsing.links import Links
from summidx.parsing.units import FileFacts
from summidx.records import Level, Skip, SkipReason, Unit

READY = b"ready\n"
"""The child's first line: it has started, and what ends it from now on is a file's doing."""
OUT_OF_MEMORY = 77
"""Exit status of a child that ran out of memory."""

_UNIT_FIELDS = tuple(field.name for field in dataclasses.fields(Unit))
_FACT_FIELDS = tuple(field.name for field in dataclasses.fields(FileFacts))


@dataclass(frozen=True, slots=True)
class FileResult:
    """What the child says of one file."""

    units: tuple[Unit, ...]
    skip: Skip | None


def encode_file(facts: FileFacts, size_bytes: int) -> bytes:
    """The line before a file's bytes."""
    return _line([[getattr(facts, name) for name in _FACT_FIELDS], size_bytes])


def decode_file(line: bytes) -> tuple[FileFacts, int]:
    """Inverse of `encode_file`."""
    values, size_bytes = json.loads(line)
    return FileFacts(**dict(zip(_FACT_FIELDS, values, strict=True))), size_bytes


def encode_result(units: Iterable[Unit], skip: Skip | None) -> bytes:
    """The line for one file."""
    rows = [[getattr(unit, name) for name in _UNIT_FIELDS] for unit in units]
    return _line([rows, [skip.path, skip.reason, skip.detail] if skip else None])


def decode_result(line: bytes) -> FileResult:
    """Inverse of `encode_result`."""
    rows, skip = json.loads(line)
    return FileResult(
        units=tuple(_decode_unit(dict(zip(_UNIT_FIELDS, row, strict=True))) for row in rows),
        skip=Skip(skip[0], SkipReason(skip[1]), skip[2]) if skip else None,
    )


def _decode_unit(row: dict[str, Any]) -> Unit:
    row["level"] = Level(row["level"])
    row["own_spans"] = tuple((first, last) for first, last in row["own_spans"])
    for name in ("imports", "calls", "called_by"):
        row[name] = tuple(row[name])
    return Unit(**row)


def encode_links(links: Links) -> bytes:
    """The last line."""
    return _line([links.calls, links.called_by, links.imports])


def decode_links(line: bytes) -> Links:
    """Inverse of `encode_links`."""
    calls, called_by, imports = ({key: tuple(values) for key, values in each.items()} for each in json.loads(line))
    return Links(calls=calls, called_by=called_by, imports=imports)


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n"
