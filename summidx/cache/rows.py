"""How summaries and vectors lie in their tables, and how rows are read and written once."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from summidx.cache.schema import SUMMARIES, VECTORS
from summidx.records import Origin, Status, Summary

BATCH = 100
"""Rows per transaction, in sorted key order: several writers then neither deadlock nor hold each other up for long."""

Vector = npt.NDArray[np.float32]
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Rows(Generic[Value]):
    """How values of one kind lie in their table. `decode` is only given content whose digest matches."""

    table: sa.Table
    encode: Callable[[Value], dict[str, Any]]
    decode: Callable[[str, bytes], Value]


@dataclass(slots=True)
class Found(Generic[Value]):
    """What lies under some keys."""

    values: dict[str, Value] = field(default_factory=dict)
    damaged: dict[str, bytes | str] = field(default_factory=dict)
    """Content whose digest does not match it: a bad disk, an edit by hand."""
    unused: set[str] = field(default_factory=set)
    """Keys that nobody has used today yet."""


_SUMMARY_FIELDS = frozenset(each.name for each in fields(Summary)) - {"key"}


def _encode_summary(summary: Summary) -> dict[str, Any]:
    values = {name: getattr(summary, name) for name in _SUMMARY_FIELDS}
    content = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return {
        "content": content,
        "digest": hashlib.sha256(content.encode()).hexdigest(),
        "status": summary.status.value,
        "model": summary.model,
    }


def _decode_summary(key: str, content: bytes) -> Summary:
    values = {name: value for name, value in json.loads(content).items() if name in _SUMMARY_FIELDS}
    values["status"] = Status(values["status"])
    values["origin"] = Origin(values["origin"])
    values["keywords"] = tuple(values["keywords"])
    return Summary(key=key, **values)


def _encode_vector(vector: Vector, model: str) -> dict[str, Any]:
    content = vector.astype("<f4").tobytes()
    return {
        "content": content,
        "digest": hashlib.sha256(content).hexdigest(),
        "dim": vector.shape[0],
        "model": model,
    }


def _decode_vector(_: str, content: bytes) -> Vector:
    return np.frombuffer(content, dtype="<f4").astype(np.float32)


SUMMARY_ROWS = Rows(SUMMARIES, _encode_summary, _decode_summary)


def vector_rows(model: str = "") -> Rows[Vector]:
    """Rows of vectors made by `model`, which only writing asks for."""
    return Rows(VECTORS, partial(_encode_vector, model=model), _decode_vector)


def batches(keys: Iterable[str]) -> Iterator[list[str]]:
    """Distinct keys, sorted, `BATCH` at a time."""
    ordered = sorted(set(keys))
    for start in range(0, len(ordered), BATCH):
        yield ordered[start : start + BATCH]


def insert_into(connection: sa.Connection, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that can say what happens on a conflict, in the dialect of `connection`."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


@cache
def insert_new(table: sa.Table, dialect: str) -> sa.Insert:
    """An INSERT that passes over keys that are there, and returns those that were not."""
    statement = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    return statement.on_conflict_do_nothing(index_elements=["key"]).returning(table.c.key)


def locked(
    connection: sa.Connection, table: sa.Table, condition: sa.ColumnElement[bool], *, skip: bool = False
) -> sa.ColumnElement[bool]:
    """`condition` for an UPDATE or DELETE, its rows locked in the order of their keys: no two writers deadlock.

    Args:
        connection: SQLite has one writer at a time, and needs no locks.
        table: one with a `key`.
        condition: which rows.
        skip: leave out those that another writer is at.
    """
    if connection.dialect.name != "postgresql":
        return condition
    rows = sa.select(table.c.key).where(condition).order_by(table.c.key).with_for_update(skip_locked=skip)
    return table.c.key.in_(rows)


def read_rows(
    connection: sa.Connection,
    rows: Rows[Value],
    keys: Sequence[str],
    *,
    again_before: datetime | None = None,
    with_use: bool = False,
) -> Found[Value]:
    """What lies under `keys`.

    Args:
        connection: to the database.
        rows: of which kind.
        keys: at most `BATCH`.
        again_before: degraded summaries made before this moment read as none.
        with_use: also say which rows nobody has used today yet (schema 1 does not know).
    """
    found: Found[Value] = Found()
    if not keys:
        return found
    today = today_utc() if with_use else ""
    values: dict[str, object] = {"keys": keys}
    if again_before is not None:
        values["before"] = stamp(again_before)
    selected = _selecting(rows.table, connection.dialect.name, again=again_before is not None, with_use=with_use)
    for key, content, digest, day in connection.execute(selected, values):
        data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else bytes(content)
        if hashlib.sha256(data).hexdigest() != digest:
            found.damaged[key] = content
            continue
        try:
            found.values[key] = rows.decode(key, data)
        except (KeyError, TypeError, ValueError):  # of a newer summidx that shares the cache: whole, but not for us
            continue
        if day != today:
            found.unused.add(key)
    return found


@cache
def _selecting(table: sa.Table, dialect: str, *, again: bool, with_use: bool) -> sa.Select[Any]:
    """Made once: to put a statement together costs as much as to run it."""
    wanted = _under_keys(table)
    if again:
        wanted &= ~_is_old_degraded(table)
    used_on = table.c.used_on if with_use else sa.literal("")
    return sa.select(table.c.key, _content(dialect, table), table.c.digest, used_on).where(wanted)


def _under_keys(table: sa.Table) -> sa.ColumnElement[bool]:
    return table.c.key.in_(sa.bindparam("keys", expanding=True))


def _is_old_degraded(table: sa.Table) -> sa.ColumnElement[bool]:
    return (table.c.status == Status.DEGRADED.value) & (table.c.created_at < sa.bindparam("before"))


def delete_old_degraded(connection: sa.Connection, keys: Sequence[str], before: datetime) -> None:
    """Remove degraded summaries under `keys` that were made before that moment."""
    old = locked(connection, SUMMARIES, _under_keys(SUMMARIES) & _is_old_degraded(SUMMARIES))
    connection.execute(sa.delete(SUMMARIES).where(old), {"keys": keys, "before": stamp(before)})


def put_rows(connection: sa.Connection, rows: Rows[Value], encoded: Mapping[str, dict[str, Any]]) -> dict[str, Value]:
    """Insert each row unless its key has a whole one; return what others had put before.

    Args:
        connection: in a transaction that writes.
        rows: of which kind.
        encoded: by key, at most `BATCH`, in sorted order.
    """
    columns = rows.table.c
    statement = insert_new(rows.table, connection.dialect.name)
    mine = set(connection.execute(statement, list(encoded.values())).scalars())
    theirs = read_rows(connection, rows, [key for key in encoded if key not in mine])
    if not theirs.damaged:
        return theirs.values
    for key, content in theirs.damaged.items():
        bad = (columns.key == key) & (_content(connection.dialect.name, rows.table) == content)
        connection.execute(sa.update(rows.table).where(bad).values(encoded[key]))
    return theirs.values | read_rows(connection, rows, list(theirs.damaged)).values


def encode_rows(rows: Rows[Value], values: Mapping[str, Value], keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The rows to insert for `keys`, in their order."""
    now = stamp(datetime.now(UTC))
    return {key: {"key": key, "created_at": now, "used_on": now[:10], **rows.encode(values[key])} for key in keys}


def stamp(moment: datetime) -> str:
    """A moment (with its time zone) as `created_at` has it: later ones sort later."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def today_utc() -> str:
    """The day, as `used_on` has it."""
    return datetime.now(UTC).date().isoformat()


def _content(dialect: str, table: sa.Table) -> sa.ColumnElement[Any]:
    """The content column. SQLite gives bytes: text that a bad disk made invalid would raise, and must be a miss."""
    if dialect == "sqlite":
        return sa.cast(table.c.content, sa.LargeBinary)
    return table.c.content
