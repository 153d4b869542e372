"""The cache of summaries and vectors, content-addressed and write-once, in SQLite or PostgreSQL.

What is under a key was made from exactly what the key hashes, so that an index built through the cache equals a cold
build. The first writer of a key wins and everyone uses the winner: a model that answers differently twice cannot make
two truths. Two exceptions: a row whose digest does not match its content (a bad disk, an edit by hand) reads as a miss
and is replaced by the next writer, and `forget_degraded` removes rows on request.
"""

import hashlib
import json
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.schema import CreateTable

from summidx.errors import CacheError, UsageError
from summidx.records import Origin, Status, Summary

SCHEMA_VERSION = 1
BATCH = 100
"""Rows per transaction, in sorted key order: several writers then neither deadlock nor hold each other up for long."""
BUSY_TIMEOUT_MS = 30_000
JOURNAL_SIZE_LIMIT = 64 * 2**20
"""Bytes of SQLite's write-ahead log past which we fold it in ourselves: SQLite does so by itself only when nobody else
is at work, and several busy writers never leave it such a moment."""

logger = logging.getLogger(__name__)

Vector = npt.NDArray[np.float32]
Value = TypeVar("Value")

_METADATA = sa.MetaData()
_META = sa.Table(
    "summidx_meta", _METADATA, sa.Column("name", sa.String(64), primary_key=True), sa.Column("value", sa.Text)
)
_SUMMARIES = sa.Table(
    "summaries",
    _METADATA,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("created_at", sa.String(32), nullable=False),
)
_VECTORS = sa.Table(
    "vectors",
    _METADATA,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("content", sa.LargeBinary, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("dim", sa.Integer, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("created_at", sa.String(32), nullable=False),
)


@dataclass(frozen=True, slots=True)
class _Rows(Generic[Value]):
    """How values of one kind lie in their table. `decode` is only given content whose digest matches."""

    table: sa.Table
    encode: Callable[[Value], dict[str, Any]]
    decode: Callable[[str, bytes], Value]


def _encode_summary(summary: Summary) -> dict[str, Any]:
    fields = {name: value for name, value in asdict(summary).items() if name != "key"}
    content = json.dumps(fields, sort_keys=True, ensure_ascii=False)
    return {
        "content": content,
        "digest": hashlib.sha256(content.encode()).hexdigest(),
        "status": summary.status.value,
        "model": summary.model,
    }


def _decode_summary(key: str, content: bytes) -> Summary:
    fields = json.loads(content)
    fields["status"] = Status(fields["status"])
    fields["origin"] = Origin(fields["origin"])
    fields["keywords"] = tuple(fields["keywords"])
    return Summary(key=key, **fields)


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


def _vector_rows(model: str = "") -> _Rows[Vector]:
    return _Rows(_VECTORS, partial(_encode_vector, model=model), _decode_vector)


_SUMMARY_ROWS = _Rows(_SUMMARIES, _encode_summary, _decode_summary)


class Cache:
    """Summaries and vectors by key. Usable from several threads and processes; make one in each process."""

    def __init__(self, url: str) -> None:
        """Open the cache, and create its tables where they are missing.

        Args:
            url: `sqlite:///FILE` (its folder is made) or `postgresql+psycopg://...`.

        Raises:
            UsageError: the URL is of no database that can hold a cache, or its driver is not installed.
            CacheError: the database cannot be reached, is damaged, or was made by a newer summidx.
        """
        self._url = _parse_url(url)
        self._engine = _create_engine(self._url)
        try:
            with self._transaction() as connection:
                _create_tables(connection)
        except BaseException:
            self._engine.dispose()
            raise

    def __repr__(self) -> str:
        return f"Cache({_shown(self._url)!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def get_summaries(self, keys: Iterable[str]) -> dict[str, Summary]:
        """The summaries under `keys`; a key that has none, or a damaged one, is left out."""
        return self._get(_SUMMARY_ROWS, keys)

    def put_summaries(self, summaries: Mapping[str, Summary]) -> dict[str, Summary]:
        """Put each summary under its key unless there is one, and return what is there now: use that, not yours.

        Raises:
            ValueError: a summary failed or has no key; only what is ok or degraded is ever cached.
        """
        for key, summary in summaries.items():
            if not key or summary.status not in (Status.OK, Status.DEGRADED):
                raise ValueError(f"a summary of status {summary.status} under key {key!r} must not be cached")
        return self._put(_SUMMARY_ROWS, summaries)

    def get_vectors(self, keys: Iterable[str]) -> dict[str, Vector]:
        """The vectors under `keys`, each of shape (dim,), float32; a key that has none is left out."""
        return self._get(_vector_rows(), keys)

    def put_vectors(self, vectors: Mapping[str, Vector], *, model: str) -> dict[str, Vector]:
        """Put each vector, of shape (dim,), under its key unless there is one, and return what is there now.

        Args:
            vectors: by `keys.vector_key`.
            model: identity of the embedding model, for the record.

        Raises:
            ValueError: a vector is not one-dimensional, or not finite.
        """
        for key, vector in vectors.items():
            if not key or vector.ndim != 1 or not np.isfinite(vector).all():
                raise ValueError(f"the vector under key {key!r} must have one dimension and finite values")
        return self._put(_vector_rows(model), vectors)

    def forget_degraded(self, keys: Iterable[str]) -> int:
        """Remove those summaries under `keys` that are degraded, so that they are asked for again; return how many."""
        removed = 0
        for batch in _batches(keys):
            with self._transaction() as connection:
                found = connection.execute(
                    sa.delete(_SUMMARIES)
                    .where(_SUMMARIES.c.key.in_(batch), _SUMMARIES.c.status == Status.DEGRADED.value)
                    .returning(_SUMMARIES.c.key)
                )
                removed += len(found.all())
        return removed

    def close(self) -> None:
        """Close all connections; SQLite's write-ahead log is folded in, unless another process is at work."""
        if self._url.get_backend_name() == "sqlite":
            self._fold_log(wait_ms=0)
        self._engine.dispose()

    def _fold_log(self, *, wait_ms: int) -> None:
        """Move SQLite's write-ahead log into the file and empty it, if the others give way in time."""
        try:
            with self._engine.connect() as connection:
                connection.exec_driver_sql(f"PRAGMA busy_timeout={wait_ms}")
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
                connection.exec_driver_sql(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        except SQLAlchemyError as error:  # it stays as long as it is, and is folded in by whoever comes next
            logger.debug("the log of %s was not folded in: %s", self._url.database, error)

    def _log_is_long(self) -> bool:
        log = Path(f"{self._url.database}-wal")
        try:
            return self._url.get_backend_name() == "sqlite" and log.stat().st_size > JOURNAL_SIZE_LIMIT
        except OSError:
            return False

    def _get(self, rows: _Rows[Value], keys: Iterable[str]) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for batch in _batches(keys):
            with self._transaction() as connection:
                found.update(_read(connection, rows, batch)[0])
        return found

    def _put(self, rows: _Rows[Value], values: Mapping[str, Value]) -> dict[str, Value]:
        insert = postgresql.insert if self._url.get_backend_name() == "postgresql" else sqlite.insert
        statement = insert(rows.table).on_conflict_do_nothing(index_elements=["key"]).returning(rows.table.c.key)
        winners: dict[str, Value] = {}
        for batch in _batches(values):
            now = datetime.now(UTC).isoformat(timespec="seconds")
            encoded = {key: {"key": key, "created_at": now, **rows.encode(values[key])} for key in batch}
            with self._transaction() as connection:
                # First an insert, never a read: SQLite then waits for its turn instead of failing on a stale snapshot.
                mine = set(connection.execute(statement, list(encoded.values())).scalars())
                theirs = [key for key in batch if key not in mine]
                found, damaged = _read(connection, rows, theirs)
                for key, content in damaged.items():
                    bad = (rows.table.c.key == key) & (rows.table.c.content == content)
                    connection.execute(sa.update(rows.table).where(bad).values(encoded[key]))
                found.update(_read(connection, rows, list(damaged))[0])
            winners.update((key, found.get(key, values[key])) for key in batch)
            if self._log_is_long():
                self._fold_log(wait_ms=BUSY_TIMEOUT_MS)
        return winners

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise CacheError(self._explain(error)) from error

    def _explain(self, error: SQLAlchemyError) -> str:
        """One line: what was wrong, and what to do."""
        what = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        where = _shown(self._url)
        if "malformed" in what or "not a database" in what:
            advice = "move the file away (a new one is made; what was cached is then paid for again)"
        elif "locked" in what:
            advice = f"another process held it for {BUSY_TIMEOUT_MS // 1000} s; use PostgreSQL for many writers"
        elif "full" in what:
            advice = "free some space; what was cached so far is kept"
        else:
            advice = "check that it can be reached and written (setting `cache.url`)"
        return f"the cache {where} failed: {what}; {advice}"


def _read(
    connection: sa.Connection, rows: _Rows[Value], keys: Sequence[str]
) -> tuple[dict[str, Value], dict[str, str | bytes]]:
    """The values under `keys`, and, by key, the content of those rows whose digest does not match it."""
    if not keys:
        return {}, {}
    columns = rows.table.c
    found: dict[str, Value] = {}
    damaged: dict[str, str | bytes] = {}
    for key, content, digest in connection.execute(
        sa.select(columns.key, columns.content, columns.digest).where(columns.key.in_(keys))
    ):
        data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else bytes(content)
        if hashlib.sha256(data).hexdigest() == digest:
            found[key] = rows.decode(key, data)
        else:
            damaged[key] = content
    return found, damaged


def _batches(keys: Iterable[str]) -> Iterator[list[str]]:
    ordered = sorted(set(keys))
    for start in range(0, len(ordered), BATCH):
        yield ordered[start : start + BATCH]


def check_cache_url(url: str) -> None:
    """Refuse what is no URL of a cache; nothing is opened.

    Raises:
        UsageError: as `Cache`.
    """
    _parse_url(url)


def _shown(url: sa.URL) -> str:
    """The URL for messages: its password hidden, and its query, which may hold one, left out."""
    return url.set(query={}).render_as_string(hide_password=True)


def _parse_url(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except ArgumentError:
        raise UsageError(
            "the cache's URL is no database URL; write sqlite:///FILE or postgresql+psycopg://..."
        ) from None
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise UsageError(f"a cache cannot lie in {parsed.drivername}; use sqlite:/// or postgresql+psycopg://")
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise UsageError("a cache in memory is seen by one connection only; name a file: sqlite:///FILE")
    return parsed


def _create_engine(url: sa.URL) -> sa.Engine:
    try:
        if url.get_backend_name() != "sqlite":
            return sa.create_engine(url, pool_pre_ping=True)
        engine = sa.create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000})
        Path(url.database or "").absolute().parent.mkdir(parents=True, exist_ok=True)
    except NoSuchModuleError:
        raise UsageError(f"{url.drivername} is no driver that is known here; use postgresql+psycopg://") from None
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{error.name} is not installed, and {url.drivername} needs it: pip install 'summidx[postgres]'"
        ) from None
    except OSError as error:
        raise CacheError(f"the folder of the cache cannot be made: {error}; set `cache.url` to another place") from None
    sa.event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    """Settings of one SQLite connection: readers beside a writer, one sync per checkpoint, a bounded log."""
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute(f"PRAGMA journal_size_limit={JOURNAL_SIZE_LIMIT}")
    cursor.close()


def _create_tables(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        # CREATE TABLE IF NOT EXISTS of two sessions at once fails in one of them; the lock is let go at commit.
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(7867311)"))
        insert: Any = postgresql.insert
    else:
        insert = sqlite.insert
    for table in _METADATA.sorted_tables:
        connection.execute(CreateTable(table, if_not_exists=True))
    connection.execute(insert(_META).values(name="schema", value=str(SCHEMA_VERSION)).on_conflict_do_nothing())
    version = connection.execute(sa.select(_META.c.value).where(_META.c.name == "schema")).scalar_one()
    if version != str(SCHEMA_VERSION):
        raise CacheError(
            f"the cache has schema {version}, and this summidx reads {SCHEMA_VERSION}: install a newer "
            "summidx, or set `cache.url` to another place"
        )
