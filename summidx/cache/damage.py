"""What is done about a SQLite file that is damaged: it is set aside, and what can still be read goes into a new one.

The damaged file stays in place until the new one is complete, so that a kill in the middle costs nothing: the next
process begins again. Others wait for the lock, find another file at the path, and go on with that. (SQLite itself
leaves the log alone when the file of a connection that it closes has been moved.)
"""

import hashlib
import logging
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa

from summidx.cache.schema import migrate
from summidx.cache.sqlite_file import SIDE_FILES, SqliteFile
from summidx.records import Status

_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_DAMAGE_EXTENDED = frozenset({sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS})

_COLUMNS = {
    "summaries": ("key", "content", "digest", "status", "model", "created_at", "used_on"),
    "vectors": ("key", "content", "digest", "dim", "model", "created_at", "used_on"),
}
_LONGEST_JUMP = 2**40

logger = logging.getLogger(__name__)


def is_damage(error: BaseException | None) -> bool:
    """True where SQLite says that its file is damaged, or no database, or lacks a table that it must have.

    Its message may quote damaged bytes, which Python's sqlite3 fails to decode: that is all there is to be had of it.
    """
    if isinstance(error, UnicodeDecodeError):
        return True
    if not isinstance(error, sqlite3.Error):
        return False
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return False
    return code & 0xFF in _DAMAGE or code in _DAMAGE_EXTENDED or str(error).startswith("no such table")


def replace_damaged(file: SqliteFile, what: str) -> None:
    """Set the file aside and put a new one in its place, unless another process has done so already.

    Args:
        file: the damaged one, as it was opened.
        what: SQLite's words for it.

    Raises:
        OSError: there is no room for a new file, or the folder cannot be written.
        sqlite3.Error: the new file cannot be written.
    """
    with file.lock():
        if file.has_moved():
            return
        path = file.path
        new = Path(f"{path}.new")
        for leftover in (new, *(Path(f"{new}{suffix}") for suffix in ("-journal", "-headed", *SIDE_FILES))):
            leftover.unlink(missing_ok=True)
        try:
            carried = _build_new(new, path)
            aside = _find_free(path)
            path.replace(aside)
            # In this order: a new, empty file beside the old log (a kill here) makes SQLite remove the log.
            for suffix in SIDE_FILES:
                side = Path(f"{path}{suffix}")
                if side.exists():
                    side.replace(f"{aside}{suffix}")
            new.replace(path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
    logger.warning(
        "the cache %s is damaged (%s): it was set aside as %s; %d summaries and %d vectors that could still be read "
        "were carried over into a new one, and what else it held is paid for again",
        path,
        what,
        aside,
        carried["summaries"],
        carried["vectors"],
    )


def _find_free(path: Path) -> Path:
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    aside, n = Path(f"{path}.damaged-{stamp}"), 1
    while aside.exists():
        n += 1
        aside = Path(f"{path}.damaged-{stamp}-{n}")
    return aside


def _build_new(new: Path, damaged: Path) -> dict[str, int]:
    """Make an empty cache at `new` and fill it with the rows of `damaged` that are whole; return how many by table."""
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(new)))
    try:
        with engine.begin() as connection:
            migrate(connection)
    finally:
        engine.dispose()
    headed = Path(f"{new}-headed")
    readable = damaged
    if _lacks_header(damaged):
        _write_with_header(damaged, header_of=new, target=headed)
        readable = headed
    try:
        return _carry_over(new, readable)
    finally:
        headed.unlink(missing_ok=True)


def _lacks_header(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
            connection.execute("PRAGMA schema_version")
    except (sqlite3.Error, UnicodeDecodeError) as error:
        return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB
    return False


def _write_with_header(damaged: Path, *, header_of: Path, target: Path) -> None:
    """Copy the damaged file and give the copy the header of one that was made as it was.

    What differs between two such headers (https://sqlite.org/fileformat2.html#the_database_header): the size in pages
    at byte 28, and the list of free pages at byte 32, which nobody needs who only reads.
    """
    shutil.copyfile(damaged, target)
    header = bytearray(header_of.read_bytes()[:100])
    page_size = int.from_bytes(header[16:18], "big")
    header[28:32] = (target.stat().st_size // page_size).to_bytes(4, "big")
    header[32:40] = bytes(8)
    with target.open("r+b") as file:
        file.write(header)


def _carry_over(new: Path, damaged: Path) -> dict[str, int]:
    carried = {}
    with closing(sqlite3.connect(new, isolation_level=None)) as target:
        target.execute("BEGIN")
        for table, columns in _COLUMNS.items():
            marks = ", ".join("?" * len(columns))
            statement = f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 - constants
            carried[table] = target.executemany(statement, _read_whole(damaged, table, columns)).rowcount
        target.execute("COMMIT")
    return carried


def _read_whole(path: Path, table: str, columns: tuple[str, ...]) -> Iterator[tuple[object, ...]]:
    """Rows whose digest matches their content. Where pages cannot be read, go on behind them."""
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None)) as source:
        source.text_factory = bytes
        try:
            source.execute("PRAGMA writable_schema=ON")  # SQLite then reads a file that was cut short as far as it goes
            present = {row[1].decode() for row in source.execute(f"PRAGMA table_info({table})")}
        except (sqlite3.Error, UnicodeDecodeError):
            return
        wanted = ", ".join(name if name in present else "NULL" for name in columns)
        statement = f"SELECT rowid, {wanted} FROM {table} WHERE rowid >= ? ORDER BY rowid"  # noqa: S608 - constants
        start, jump = 0, 1
        while jump <= _LONGEST_JUMP:
            last = None
            try:
                for rowid, *values in source.execute(statement, (start,)):
                    if (row := _check(table, values)) is not None:
                        last = rowid
                        yield row
            except (sqlite3.Error, UnicodeDecodeError):
                if last is not None and last >= start:
                    start, jump = last + 1, 1
                else:
                    start, jump = start + jump, jump * 2
            else:
                return


def _check(table: str, values: list[object]) -> tuple[object, ...] | None:
    """The row as it is to be stored; None where it is not whole."""
    try:
        key, content, digest, status_or_dim, model, created_at, used_on = values
        if not isinstance(content, bytes) or not isinstance(digest, bytes):
            return None
        if hashlib.sha256(content).hexdigest().encode() != digest:
            return None
        texts = [_decode(value) for value in (key, digest, model, created_at)]
        day = None if used_on is None else _decode(used_on)
        if table == "vectors":
            if status_or_dim != len(content) // 4:
                return None
            return (texts[0], content, texts[1], status_or_dim, texts[2], texts[3], day)
        return (texts[0], content.decode(), texts[1], Status(_decode(status_or_dim)).value, texts[2], texts[3], day)
    except ValueError:
        return None


def _decode(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
