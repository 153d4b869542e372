"""A generation while it is written: a folder of its own, a lock that tells whether its writer lives, and the sweep."""

import ctypes
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from summidx.errors import StoreError
from summidx.records import Document, Skip, Vectors
from summidx.store.current import UNFINISHED_PREFIX
from summidx.store.inventory import write_inventory
from summidx.store.names import without_surrogates

LOCK_TIMEOUT_S = 60.0
"""The lock is held for milliseconds; who waits longer than this waits for a process that hangs."""

SKIPS = "skips.json"


class Staging:
    """A generation that is being written, by one writer. Leaving its `with` block discards what was not published."""

    def __init__(self, name: str, generation: str, folder: Path, lock: FileLock) -> None:
        self.name = name
        self.generation = generation
        self.folder = folder
        self.rows: int | None = None
        self._lock = lock

    def write(self, documents: Sequence[Document], vectors: Vectors, skips: Sequence[Skip]) -> None:
        """Write all rows and their index of words; once.

        Args:
            documents: the rows, in printing order of the tree; their ids are unique.
            vectors: one row for each document, in the same order.
            skips: what was passed over.

        Raises:
            StoreError: it cannot be written (disk full, for instance).
        """
        from summidx.store.tables import write_table

        write_table(self.folder, documents, vectors)
        try:
            rows = [{key: without_surrogates(value) for key, value in asdict(skip).items()} for skip in skips]
            (self.folder / SKIPS).write_text(json.dumps(rows, indent=0), encoding="utf-8")
            write_inventory(self.folder)
        except OSError as error:
            raise StoreError(f"the index of {self.name!r} cannot be written to {self.folder}: {error}") from error
        self.rows = len(documents)

    def discard(self) -> None:
        """Delete what was written; nothing happens where it was published."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._end()

    def move_to(self, target: Path) -> None:
        """Become a generation's folder. Only `IndexRoot.publish` calls it, under the lock of the index."""
        self.folder.rename(target)
        self._end()

    def _end(self) -> None:
        self.folder.with_suffix(".lock").unlink(missing_ok=True)
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


def begin_staging(index: Path, name: str, generation: str) -> Staging:
    """Make a new staging folder in the folder of an index; what dead writers left is swept.

    Raises:
        OSError: the disk refused.
        StoreError: the lock of the index is held for too long.
    """
    staging_id = uuid.uuid4().hex
    (index / "staging").mkdir(parents=True, exist_ok=True)
    (index / "generations").mkdir(exist_ok=True)
    with lock_index(index):
        sweep_staging(index)
        lock = _staging_lock(index / "staging" / f"{staging_id}.lock")
        lock.acquire()
        folder = index / "staging" / staging_id
        folder.mkdir()
    return Staging(name, generation, folder, lock)


@contextmanager
def lock_index(index: Path) -> Iterator[None]:
    """Hold the lock of an index, for the moment of a publish or a sweep.

    Raises:
        StoreError: another process holds it for longer than any publish takes.
    """
    lock = FileLock(index / "publish.lock", timeout=LOCK_TIMEOUT_S, fallback_to_soft=False)
    try:
        with lock:
            yield
    except Timeout:
        raise StoreError(
            f"{lock.lock_file} is held by another process for {LOCK_TIMEOUT_S:.0f} s: end it, then run again"
        ) from None


def _staging_lock(path: Path) -> FileLock:
    return FileLock(path, blocking=False, thread_local=False, fallback_to_soft=False)


def sweep_staging(index: Path) -> None:
    """Delete what dead writers left. The caller holds the lock of the index, so none is about to begin."""
    for entry in list((index / "staging").iterdir()):
        folder, lock_file = entry.with_suffix(""), entry.with_suffix(".lock")
        try:
            with _staging_lock(lock_file):
                shutil.rmtree(folder, ignore_errors=True)
                lock_file.unlink(missing_ok=True)
        except Timeout:  # its writer lives
            continue
    for partial in index.glob(f"{UNFINISHED_PREFIX}*"):
        partial.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class StagingFolder:
    """A generation that is being written, or was when its writer died."""

    path: Path
    lives: bool
    """Its writer does."""


def list_staging(index: Path) -> list[StagingFolder]:
    """What lies in the staging of an index."""
    try:
        folders = [entry for entry in (index / "staging").iterdir() if entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [StagingFolder(folder, _writer_lives(folder.with_suffix(".lock"))) for folder in folders]


def _writer_lives(lock_file: Path) -> bool:
    if not lock_file.exists():
        return False
    try:
        with _staging_lock(lock_file):
            return False
    except Timeout:
        return True


def sync_filesystem(folder: Path) -> None:
    """Write all that is buffered for a folder's file system to the disk: LanceDB calls no fsync of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):
        os.sync()
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if libc.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(descriptor)
