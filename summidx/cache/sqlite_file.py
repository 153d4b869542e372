"""The file of a cache in SQLite: its connections, and which file a path stands for while several processes use it.

A damaged file is replaced under the feet of those that have it open (damage.py). So every connection is opened under a
lock beside the file, and knows which file it was opened on: who finds another one at the path opens that.
"""

import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock

from summidx.errors import CacheError

BUSY_TIMEOUT_MS = 30_000
JOURNAL_SIZE_LIMIT = 64 * 2**20
"""Bytes of SQLite's write-ahead log past which we fold it in ourselves: SQLite does so by itself only when nobody else
is at work, and several busy writers never leave it such a moment."""

SIDE_FILES = ("-wal", "-shm")


class Moved(sqlite3.OperationalError):
    """At the path lies another file than the one that was opened."""


class SqliteFile:
    """One file, as it was found when the first connection was made."""

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self.path = path
        self._read_only = read_only
        self._identity: tuple[int, int] | None = None

    def lock(self) -> FileLock:
        """Held while a connection is opened, and while the file is replaced; free again when its holder dies."""
        return FileLock(f"{self.path}.lock", thread_local=False, fallback_to_soft=False)

    def connect(self) -> sqlite3.Connection:
        """A connection in autocommit mode: transactions are begun by whoever uses it.

        Raises:
            CacheError: the folder cannot be made or written.
            Moved: another file was put in the place of this one.
        """
        if self._read_only:
            return self._connect_read_only()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.lock():
                return self._connect()
        except OSError as error:
            raise CacheError(
                f"the folder of the cache cannot be made or written: {error}; set `cache.url` to another place"
            ) from None

    def _connect(self) -> sqlite3.Connection:
        if self.has_moved():
            raise Moved("another file was put in its place")
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            self._identity = _identify(self.path)
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
            cursor.execute("PRAGMA journal_mode=WAL")  # readers beside a writer
            cursor.execute("PRAGMA synchronous=NORMAL")  # one sync per checkpoint
            cursor.execute(f"PRAGMA journal_size_limit={JOURNAL_SIZE_LIMIT}")
            cursor.close()
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect_read_only(self) -> sqlite3.Connection:
        log = Path(f"{self.path}-wal")
        # SQLite needs a file of its own beside one in WAL mode. Where it cannot make that, nobody is at work either.
        immutable = not os.access(self.path.parent, os.W_OK, effective_ids=True) and not (
            log.is_file() and log.stat().st_size
        )
        uri = f"file:{quote(str(self.path))}?mode=ro{'&immutable=1' if immutable else ''}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}").close()
        self._identity = self._identity or _identify(self.path)
        return connection

    def has_moved(self) -> bool:
        """True where the path now stands for another file, or none."""
        return self._identity is not None and _identify(self.path) != self._identity

    def log_is_long(self) -> bool:
        """True where the write-ahead log has grown past `JOURNAL_SIZE_LIMIT`."""
        try:
            return Path(f"{self.path}-wal").stat().st_size > JOURNAL_SIZE_LIMIT
        except OSError:
            return False

    def size_bytes(self) -> int:
        """Of the file and its write-ahead log, on disk."""
        paths = [self.path, *(Path(f"{self.path}{suffix}") for suffix in SIDE_FILES)]
        return sum(path.stat().st_size for path in paths if path.is_file())


def _identify(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return found.st_dev, found.st_ino
