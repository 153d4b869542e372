"""Removal of indexes, and of what writers that died left behind; never of what is being built or published.

All is done under the lock of the index, so that a publish comes before or after. A folder that was emptied stays, with
its lock: a lock that is deleted while somebody waits for it would no longer be one lock.
"""

import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from summidx.errors import NewerIndex, StoreError
from summidx.records import Manifest
from summidx.store.current import CURRENT, sync_folder
from summidx.store.generations import IndexRoot
from summidx.store.staging import list_staging, lock_index, sweep_staging


@dataclass(frozen=True, slots=True)
class Prunable:
    """An index that nobody needs any more, as it was found."""

    name: str
    publish_id: str
    why: str
    size_bytes: int
    """Of its published generation."""


def find_prunable(root: IndexRoot, *, missing: bool, older_than: timedelta | None) -> list[Prunable]:
    """The indexes that all conditions given are true of; none where none is given.

    A damaged CURRENT is passed over, and so is one of a newer summidx.

    Args:
        root: the indexes.
        missing: the source that it was built from no longer exists. A source that cannot be asked about is there.
        older_than: it was built longer ago than this.

    Raises:
        StoreError: the index root cannot be read.
    """
    if not missing and older_than is None:
        return []
    now = datetime.now(UTC)
    found = []
    for name in root.names():
        try:
            manifest = root.find_manifest(name)
        except NewerIndex:
            continue
        if manifest is None:
            continue
        whys = []
        if missing:
            if not _is_missing(manifest.source):
                continue
            whys.append(f"its source {manifest.source} no longer exists")
        if older_than is not None:
            age = now - _built_at(manifest, now)
            if age <= older_than:
                continue
            whys.append(f"built {age.days} days ago")
        found.append(Prunable(name, manifest.publish_id, ", ".join(whys), root.size_bytes(name)))
    return found


def remove_index(root: IndexRoot, prunable: Prunable) -> str:
    """Unpublish an index and delete its generations; returns "", or why it was left as it is.

    Raises:
        StoreError: its lock is held for too long, or the disk refused.
    """
    index = root.index_folder(prunable.name)
    try:
        with lock_index(index):
            current = root.find_manifest(prunable.name)
            if current is None or current.publish_id != prunable.publish_id:
                return "it was published anew meanwhile" if current else "it is gone"
            sweep_staging(index)
            if any(entry.lives for entry in list_staging(index)):
                return "it is being built"
            (index / CURRENT).unlink()
            sync_folder(index)
            generations = list((index / "generations").iterdir())
            for folder in generations:
                shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"the index {prunable.name!r} cannot be removed from {index}: {error.strerror}") from error
    return ""


def sweep_index(root: IndexRoot, name: str) -> None:
    """Delete what writers that died left in the folder of an index: staging, and generations that nobody reads.

    Where CURRENT is damaged, nobody knows which generation is read, and all stay.

    Raises:
        StoreError: its lock is held for too long, or the disk refused.
    """
    index = root.index_folder(name)
    try:
        with lock_index(index):
            sweep_staging(index)
            manifest = root.find_manifest(name)
            if (index / CURRENT).exists() and manifest is None:
                return
            kept = kept_generations(index, manifest) if manifest else set()
            for folder in list((index / "generations").iterdir()):
                if folder not in kept:
                    shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"what is left in {index} cannot be deleted: {error.strerror}") from error


def kept_generations(index: Path, manifest: Manifest) -> set[Path]:
    """The published generation and the newest other one, in which a search that has just opened it can end."""
    current = index / "generations" / f"{manifest.generation}.{manifest.publish_id}"
    others = [folder for folder in (index / "generations").iterdir() if folder != current]
    newest = max(others, key=_written_at, default=None)
    return {current} | ({newest} if newest else set())


def _written_at(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:  # deleted in this moment
        return 0.0


def _built_at(manifest: Manifest, now: datetime) -> datetime:
    try:
        built_at = datetime.fromisoformat(manifest.built_at)
    except ValueError:
        return now
    return built_at if built_at.tzinfo else built_at.replace(tzinfo=UTC)


def _is_missing(source: str) -> bool:
    try:
        os.stat(source)  # noqa: PTH116 - a name may hold what no Path takes
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):  # not to be reached now: that is not gone
        return False
    return False
