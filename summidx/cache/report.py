"""What a cache holds and how it is used, and the removal of what is no longer needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import sqlalchemy as sa

from summidx.cache.claims import database_now
from summidx.cache.database import Database
from summidx.cache.schema import CLAIM_OWNERS, CLAIMS, LOOKUPS, SCHEMA_VERSION, SUMMARIES, VECTORS
from summidx.errors import CacheError
from summidx.records import Status

AGES_DAYS = (1, 7, 30, 90)
PRUNE_BATCH = 1000
"""Rows removed in one transaction: runs that are at work need not wait for long."""

_TABLES = {table.name: table for table in (SUMMARIES, VECTORS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntries:
    """The entries of one kind that one model made. Days are in UTC, as YYYY-MM-DD."""

    kind: str
    """`summaries` or `vectors`."""
    model: str
    entries: int
    degraded: int
    first_made: str
    last_made: str
    last_used: str
    by_age: dict[str, int]
    """How many were last used within 1, 7, 30, 90 days (none is counted twice), and before (`older`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DayLookups:
    """How often entries of one kind were looked up on one day (UTC), by all processes together."""

    day: str
    kind: str
    lookups: int
    hits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheReport:
    """A cache, as it is now."""

    url: str
    schema: int
    size_bytes: int
    """On disk, indexes and write-ahead log included."""
    entries: Sequence[ModelEntries]
    lookups: Sequence[DayLookups]
    """The newest day first."""
    claims: int
    """Keys that a process is asking for now."""
    processes: int
    """Processes that have a lease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What a pruning removed, or would remove."""

    summaries: int
    vectors: int
    bytes_freed: int
    space_given_back: bool
    """False: others are at work on the SQLite file, or the database is PostgreSQL, which does so in its own time."""


def read_report(url: str, *, days: int = 30) -> CacheReport | None:
    """What the cache at `url` holds; None where there is none. Nothing is written.

    Args:
        url: as `Cache` takes it.
        days: so many days of lookups, at most.

    Raises:
        UsageError: as `Cache`.
        CacheError: as `Cache`.
    """
    database = Database(url, read_only=True)
    try:
        if not database.version:
            return None
        is_current = database.version == SCHEMA_VERSION
        entries = [each for table in _TABLES.values() for each in _read_entries(database, table, with_use=is_current)]
        lookups, claims, processes = database.read(_read_uses) if is_current else ([], 0, 0)
        return CacheReport(
            url=database.shown,
            schema=database.version,
            size_bytes=database.size_bytes(),
            entries=entries,
            lookups=lookups[: days * len(_TABLES)],
            claims=claims,
            processes=processes,
        )
    finally:
        database.close()


def prune(url: str, *, older_than_days: int | None = None, model: str | None = None, dry_run: bool = False) -> Pruned:
    """Remove what was not used for so many days, what a model made, or what is both; give its space back.

    Runs at work are not disturbed: to them, what was removed is a miss.

    Args:
        url: as `Cache` takes it.
        older_than_days: the last use, which is kept by day, is longer ago than this.
        model: the model's whole identity, or what stands before the `@` in it.
        dry_run: only count.

    Raises:
        UsageError: as `Cache`.
        CacheError: there is no cache, or it failed.
    """
    database = Database(url, read_only=True)
    missing = not database.version
    if missing or not dry_run:
        database.close()
    if missing:
        raise CacheError(f"there is no cache at {database.shown}: name it with --cache-url or --index-root")
    if not dry_run:
        database = Database(url)
    try:
        has_use = database.version == SCHEMA_VERSION
        conditions = {
            table: _condition(table, older_than_days=older_than_days, model=model, with_use=has_use)
            for table in _TABLES.values()
        }
        if dry_run:
            counts = {table.name: database.read(partial(_count, table, where)) for table, where in conditions.items()}
            return Pruned(**counts, bytes_freed=0, space_given_back=False)
        before = database.size_bytes()
        counts = {table.name: _remove(database, table, where) for table, where in conditions.items()}
        at_work = database.read(_read_uses)[2]
        given_back = not at_work and database.vacuum()
        return Pruned(**counts, bytes_freed=max(0, before - database.size_bytes()), space_given_back=given_back)
    finally:
        database.close()


def _read_entries(database: Database, table: sa.Table, *, with_use: bool) -> list[ModelEntries]:
    columns = table.c
    used = _last_use(table, with_use=with_use)
    bounds = [(f"{days} d", _days_ago(days)) for days in AGES_DAYS]
    degraded = columns.status == Status.DEGRADED.value if "status" in columns else sa.false()
    statement = (
        sa.select(
            columns.model,
            sa.func.count(),
            _count_if(degraded),
            sa.func.min(columns.created_at),
            sa.func.max(columns.created_at),
            sa.func.max(used),
            *(_count_if(used >= bound) for _, bound in bounds),
        )
        .group_by(columns.model)
        .order_by(columns.model)
    )
    found = []
    for model, entries, n_degraded, first, last, last_used, *within in database.read(
        lambda connection: connection.execute(statement).all()
    ):
        ages = [outer - inner for inner, outer in zip([0, *within], [*within, entries], strict=True)]
        found.append(
            ModelEntries(
                kind=table.name,
                model=model,
                entries=entries,
                degraded=n_degraded,
                first_made=first[:10],
                last_made=last[:10],
                last_used=last_used,
                by_age=dict(zip([*(name for name, _ in bounds), "older"], ages, strict=True)),
            )
        )
    return found


def _read_uses(connection: sa.Connection) -> tuple[list[DayLookups], int, int]:
    """Lookups by day, the newest first; claims in force; processes that have a lease."""
    rows = connection.execute(sa.select(LOOKUPS).order_by(LOOKUPS.c.day.desc(), LOOKUPS.c.kind))
    lookups = [DayLookups(day=row.day, kind=row.kind, lookups=row.lookups, hits=row.hits) for row in rows]
    living = sa.select(CLAIM_OWNERS.c.owner).where(CLAIM_OWNERS.c.expires_at >= database_now(connection.dialect.name))
    owners = connection.execute(living).scalars().all()
    in_force = sa.select(sa.func.count()).select_from(CLAIMS).where(CLAIMS.c.owner.in_(owners))
    return lookups, connection.execute(in_force).scalar_one(), len(owners)


def _condition(
    table: sa.Table, *, older_than_days: int | None, model: str | None, with_use: bool
) -> sa.ColumnElement[bool]:
    conditions = []
    if older_than_days is not None:
        conditions.append(_last_use(table, with_use=with_use) < _days_ago(older_than_days))
    if model is not None:
        before_at = sa.func.substr(table.c.model, 1, len(model) + 1) == f"{model}@"
        conditions.append((table.c.model == model) | before_at)
    return sa.and_(*conditions)


def _last_use(table: sa.Table, *, with_use: bool) -> sa.ColumnElement[str]:
    made_on = sa.func.substr(table.c.created_at, 1, 10)
    return sa.func.coalesce(table.c.used_on, made_on) if with_use else made_on


def _days_ago(days: int) -> str:
    return (datetime.now(UTC).date() - timedelta(days=days)).isoformat()


def _count_if(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.coalesce(sa.func.sum(sa.case((condition, 1), else_=0)), 0)


def _count(table: sa.Table, where: sa.ColumnElement[bool], connection: sa.Connection) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(table).where(where)).scalar_one()


def _remove(database: Database, table: sa.Table, where: sa.ColumnElement[bool]) -> int:
    """Remove the rows of `where`, in the order of their keys, a batch at a time; return how many there were."""
    removed, last = 0, ""
    while True:
        keys = database.write(partial(_remove_batch, table, where & (table.c.key > last)))
        if not keys:
            return removed
        removed, last = removed + len(keys), keys[-1]


def _remove_batch(table: sa.Table, where: sa.ColumnElement[bool], connection: sa.Connection) -> Sequence[str]:
    batch = sa.select(table.c.key).where(where).order_by(table.c.key).limit(PRUNE_BATCH)
    if connection.dialect.name == "postgresql":
        batch = batch.with_for_update()
    keys = connection.execute(batch).scalars().all()
    if keys:
        connection.execute(sa.delete(table).where(table.c.key.in_(keys)))
    return keys
