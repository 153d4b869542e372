"""The database of a cache: how it is opened, transactions, and what happens when it fails."""

import logging
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError

from summidx.cache.damage import is_damage, replace_damaged
from summidx.cache.schema import SCHEMA_VERSION, TABLE_NAMES, migrate, read_version
from summidx.cache.sqlite_file import BUSY_TIMEOUT_MS, Moved, SqliteFile
from summidx.cache.url import parse_url
from summidx.errors import CacheError, UsageError

MAX_TRIES = 4
"""Of one transaction: a damaged or replaced file is opened anew in between, a deadlock is over."""

_RECONNECT_S = 1.0
"""Before a lost server is tried again; twice as long each time, so that its restart costs no answer."""

_RUN_AGAIN = frozenset({"40001", "40P01"})
"""PostgreSQL's SQLSTATE of a transaction that can simply be run again: serialisation failure, deadlock."""

_WRITES = "summidx_writes"

ROOM = 2**20
"""Bytes. Where fewer are free, a write of the cache may fail for want of room."""

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Opened:
    """The connections to one file or server."""

    engine: sa.Engine
    file: SqliteFile
    """As it was opened; unused for a server."""
    is_ready: bool = False
    """Its tables are up to date."""


class Database:
    """Transactions over SQLite or PostgreSQL. Usable from several threads."""

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        """Open the database, and bring its tables up to date.

        Args:
            url: `sqlite:///FILE` (its folder is made) or `postgresql+psycopg://...`.
            read_only: nothing is written or made, and an older schema is left as it is.

        Raises:
            UsageError: the URL is of no database that can hold a cache, or its driver is not installed.
            CacheError: the database cannot be reached, or was made by a newer summidx.
        """
        self.url = parse_url(url)
        self.read_only = read_only
        self.version = 0
        """Of the schema; 0: read-only, and there is no cache."""
        self.openings = 0
        """How often it was opened: a SQLite file may be replaced in between, and what was in it be gone."""
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._opening = threading.RLock()
        self._turn: AbstractContextManager[object] = threading.Lock() if self.is_sqlite else nullcontext()
        """SQLite has one writer at a time, and lets those that wait sleep for up to 100 ms: our threads queue here."""
        self._opened: _Opened | None = None
        if self.is_sqlite and read_only and not self.path.is_file():
            return
        try:
            self.read(lambda _: None)
        except BaseException:
            self.close()
            raise

    @property
    def shown(self) -> str:
        """The URL for messages: its password hidden, and its query, which may hold one, left out."""
        return self.url.set(query={}).render_as_string(hide_password=True)

    @property
    def path(self) -> Path:
        """The file of a SQLite database."""
        return Path(self.url.database or "").absolute()

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` in a transaction that only reads.

        Raises:
            CacheError: the database failed.
        """
        return self._run(work, writes=False)

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` in a transaction; it is run again, from its beginning, where the first try came to nothing.

        Raises:
            CacheError: the database failed.
        """
        found = self._run(work, writes=True)
        if self.is_sqlite and SqliteFile(self.path, read_only=True).log_is_long():
            self.fold_log(wait_ms=BUSY_TIMEOUT_MS)
        return found

    def fold_log(self, *, wait_ms: int) -> bool:
        """Move SQLite's write-ahead log into the file and empty it; False if others did not give way in time."""
        return self._outside_transactions(
            lambda connection: not connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0], wait_ms
        )

    def vacuum(self) -> bool:
        """Give the space of removed rows in a SQLite file back to the disk; False if others are at work."""
        if not self.fold_log(wait_ms=0):
            return False
        return self._outside_transactions(lambda connection: connection.execute("VACUUM") is not None, 0) and (
            self.fold_log(wait_ms=0)
        )

    def size_bytes(self) -> int:
        """What the cache takes on disk."""
        if self.is_sqlite:
            return SqliteFile(self.path, read_only=True).size_bytes()
        sizes = (
            sa.func.coalesce(sa.func.pg_total_relation_size(sa.func.to_regclass(sa.literal(name))), 0)
            for name in TABLE_NAMES
        )
        return int(sum(self.read(lambda connection: connection.execute(sa.select(*sizes)).one())))

    def close(self) -> None:
        """Close all connections; SQLite's write-ahead log is folded in, unless another process is at work."""
        with self._opening:
            if self.is_sqlite and not self.read_only:
                self.fold_log(wait_ms=0)
            if self._opened is not None:
                self._forget(self._opened)

    def _run(self, work: Callable[[sa.Connection], T], *, writes: bool) -> T:
        tried = 0
        while True:
            tried += 1
            opened = self._find_opened()
            try:
                self._prepare(opened)
                with self._turn if writes else nullcontext(), opened.engine.connect() as connection:
                    connection.execution_options(**{_WRITES: writes})
                    with connection.begin():
                        return work(connection)
            except (SQLAlchemyError, UnicodeDecodeError) as error:
                if tried == MAX_TRIES or not self._mend(error, opened, tried):
                    raise CacheError(self._explain(error)) from error

    def _find_opened(self) -> _Opened:
        """The connections to what lies at the path now; nothing is connected yet."""
        with self._opening:
            if self._opened is not None and self.is_sqlite and self._opened.file.has_moved():
                logger.warning("the cache %s was replaced while it was in use: going on with the new one", self.path)
                self._forget(self._opened)
            if self._opened is None:
                file = SqliteFile(self.path, read_only=self.read_only)
                self._opened = _Opened(self._create_engine(file), file)
            return self._opened

    def _forget(self, opened: _Opened) -> None:
        with self._opening:
            opened.engine.dispose()
            if self._opened is opened:
                self._opened = None

    def _prepare(self, opened: _Opened) -> None:
        """Bring the tables up to date, once."""
        if opened.is_ready:
            return
        with self._opening:
            with opened.engine.begin() as connection:
                version = read_version(connection)
            if version < SCHEMA_VERSION and not self.read_only:
                with opened.engine.connect() as connection:
                    connection.execution_options(**{_WRITES: True})
                    with connection.begin():
                        migrate(connection)
                version = SCHEMA_VERSION
            self.version = version
            self.openings += 0 if opened.is_ready else 1
            opened.is_ready = True

    def _create_engine(self, file: SqliteFile) -> sa.Engine:
        try:
            if self.is_sqlite:
                engine = sa.create_engine(self.url, creator=file.connect)
                sa.event.listen(engine, "begin", _begin)
                return engine
            return sa.create_engine(
                self.url,
                pool_pre_ping=True,
                isolation_level="READ COMMITTED",  # each statement sees what others have committed: claims rely on it
                execution_options={"postgresql_readonly": self.read_only},
            )
        except NoSuchModuleError:
            raise UsageError(
                f"{self.url.drivername} is no driver that is known here; use postgresql+psycopg://"
            ) from None
        except ModuleNotFoundError as error:
            raise UsageError(
                f"{error.name} is not installed, and {self.url.drivername} needs it: pip install 'summidx[postgres]'"
            ) from None

    def _mend(self, error: SQLAlchemyError | UnicodeDecodeError, opened: _Opened, tried: int) -> bool:
        """True where the transaction can be tried again now."""
        original = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(original, Moved):
            return True
        if self.is_sqlite and is_damage(original) and not self.read_only:
            try:
                with self._opening:
                    replace_damaged(opened.file, _first_line(original))
                    self._forget(opened)
            except (OSError, UnicodeDecodeError, sqlite3.Error, SQLAlchemyError) as failure:
                logger.warning("the damaged cache %s could not be replaced: %s", self.path, failure)
                return False
            return True
        state = getattr(original, "sqlstate", None)
        if not self.is_sqlite and self.openings and isinstance(error, sa.exc.OperationalError) and _is_lost(state):
            time.sleep(_RECONNECT_S * 2 ** (tried - 1))
            return True
        return state in _RUN_AGAIN

    def _outside_transactions(self, work: Callable[[sqlite3.Connection], bool], wait_ms: int) -> bool:
        """Do `work` on a bare SQLite connection; False where others did not give way within `wait_ms`."""
        opened = self._opened
        if opened is None or not self.is_sqlite:
            return False
        try:
            with opened.engine.connect() as pooled:
                connection = pooled.connection.driver_connection
                assert isinstance(connection, sqlite3.Connection)  # noqa: S101 - for the type checker
                connection.execute(f"PRAGMA busy_timeout={wait_ms}")
                try:
                    return work(connection)
                finally:
                    connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        except (SQLAlchemyError, UnicodeDecodeError, sqlite3.Error, CacheError) as error:
            logger.debug("%s is left as it is: %s", self.path, error)  # whoever comes next does it
            return False

    def _explain(self, error: SQLAlchemyError | UnicodeDecodeError) -> str:
        """One line: what was wrong, and what to do."""
        original = getattr(error, "orig", None)
        what = _first_line(original or error)
        if is_damage(original):
            advice = "move the file away (a new one is made; what was cached is then paid for again)"
        elif "locked" in what:
            advice = f"another process held it for {BUSY_TIMEOUT_MS // 1000} s; use PostgreSQL for many writers"
        elif "full" in what or ("I/O" in what and self._is_disk_full()):
            advice = "the disk is full: free some space; what was cached so far is kept"
        else:
            advice = "check that it can be reached and written (setting `cache.url`)"
        return f"the cache {self.shown} failed: {what}; {advice}"

    def _is_disk_full(self) -> bool:
        """SQLite says `disk I/O error` where there is no room for its log or for the index of that."""
        try:
            return self.is_sqlite and shutil.disk_usage(self.path.parent).free < ROOM
        except OSError:
            return False


def _begin(connection: sa.Connection) -> None:
    """A writer waits for its turn at the beginning, instead of failing later on a stale snapshot."""
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _is_lost(state: str | None) -> bool:
    """True where PostgreSQL is away, shutting down or starting (classes 08 and 57P of SQLSTATE, or none at all)."""
    return state is None or state.startswith(("08", "57P"))


def _first_line(error: BaseException | None) -> str:
    return (str(error).strip().splitlines() or [""])[0]
