"""Whether a cache is whole: its schema, SQLite's own check, and the digest of every row; and its repair."""

import hashlib
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from summidx.cache.damage import replace_damaged
from summidx.cache.database import Database
from summidx.cache.schema import SCHEMA_VERSION, SUMMARIES, VECTORS
from summidx.cache.sqlite_file import SqliteFile
from summidx.cache.url import parse_url
from summidx.errors import CacheError

PROBLEMS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class CacheCondition:
    """A cache as it was found."""

    shown: str
    """Its URL, without secrets."""
    schema: int
    """0: there is no cache yet."""
    faults: tuple[str, ...] = ()
    """What SQLite says is wrong with the file, a line each, the first few."""
    rows: int | None = None
    """Rows that were read; None where that was not asked for."""
    changed_rows: int = 0
    """Rows whose content is not what was put. They read as not there, and are replaced when they are asked for."""

    @property
    def is_older(self) -> bool:
        """The next build brings its tables up to date."""
        return 0 < self.schema < SCHEMA_VERSION


def examine_cache(url: str, *, whole: bool = False) -> CacheCondition:
    """Open the cache at `url` and look for damage.

    Args:
        url: as `Cache` takes it.
        whole: read every row. Else SQLite's quick check, which reads the file once, and nothing of PostgreSQL.

    Raises:
        UsageError: as `Cache`.
        CacheError: it cannot be opened, or was made by a newer summidx.
    """
    parsed = parse_url(url)
    file = Path(parsed.database or "").absolute() if parsed.get_backend_name() == "sqlite" else None
    shown = parsed.set(query={}).render_as_string(hide_password=True)
    if file is not None and file.is_file() and (faults := _check_file(file, whole=whole)):
        return CacheCondition(shown, schema=SCHEMA_VERSION, faults=faults)
    database = Database(url, read_only=True)
    try:
        if not whole or not database.version:
            return CacheCondition(database.shown, database.version)
        rows, changed = database.read(_read_all)
        return CacheCondition(database.shown, database.version, rows=rows, changed_rows=changed)
    finally:
        database.close()


def repair_cache(url: str) -> bool:
    """Set a damaged SQLite file aside and carry what can be read over into a new one; False where it is whole.

    Processes at work on it go on with the new one.

    Raises:
        UsageError: as `Cache`.
        CacheError: it cannot be opened or written.
    """
    found = examine_cache(url, whole=True)
    if not found.faults:
        return False
    path = Path(parse_url(url).database or "").absolute()
    try:
        replace_damaged(SqliteFile(path, read_only=False), found.faults[0])
    except (OSError, sqlite3.Error, sa.exc.SQLAlchemyError) as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise CacheError(
            f"the cache {path} could not be repaired: {reason}; see that there is room for a copy"
        ) from None
    return True


def _check_file(path: Path, *, whole: bool) -> tuple[str, ...]:
    check = "integrity_check" if whole else "quick_check"
    try:
        with closing(SqliteFile(path, read_only=True).connect()) as connection:
            found = [str(row[0]) for row in connection.execute(f"PRAGMA {check}({PROBLEMS_SHOWN})")]
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY):
            raise CacheError(f"the cache {path} cannot be opened: {error}; check who may read its folder") from None
        found = [str(error)]
    except sqlite3.DatabaseError as error:
        found = [str(error)]
    return () if found == ["ok"] else tuple(" ".join(each.split()) for each in found)


def _read_all(connection: sa.Connection) -> tuple[int, int]:
    """Rows of summaries and vectors, and how many of them are not what was put."""
    rows = changed = 0
    for table in (SUMMARIES, VECTORS):
        values: list[sa.ColumnElement[Any]] = [table.c.content, table.c.digest]
        if connection.dialect.name == "sqlite":  # as bytes: text that a bad disk made invalid would raise
            values = [sa.cast(each, sa.LargeBinary) for each in values]
        for row in connection.execution_options(yield_per=1000).execute(sa.select(*values)):
            data, expected = (each.encode() if isinstance(each, str) else bytes(each) for each in row)
            rows += 1
            changed += hashlib.sha256(data).hexdigest().encode() != expected
    return rows, changed
