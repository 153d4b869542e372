"""Removal of indexes, and of what writers that died left behind; never of what is being built or published.

All is done under the lock of the index, so that a publish comes before or after; in a bucket, the conditional write of
CURRENT has the same effect. A folder that was emptied stays, with its lock (a lock that is deleted while somebody waits
for it would no longer be one lock), and so does a CURRENT in a bucket that says that nothing is published.
"""

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from summidx.errors import NewerIndex, StoreError
from summidx.records import Manifest
from summidx.store.generations import IndexRoot, generation_name, select_kept


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
    index = root.place.index(prunable.name)
    try:
        with index.exclusive():
            stored = index.read_current()
            current = root.find_manifest(prunable.name)
            if current is None or current.publish_id != prunable.publish_id:
                return "it was published anew meanwhile" if current else "it is gone"
            index.sweep_staging()
            generations = index.generations()
            published = generation_name(current)
            if any(lives for _, lives in index.staging()) or any(
                each.may_be_published for each in generations if each.name != published
            ):
                return "it is being built"
            if not index.remove_current(stored):
                return "it was published anew meanwhile"
            index.delete_generations(each.name for each in generations)
    except OSError as error:
        raise StoreError(
            f"the index {prunable.name!r} cannot be removed from {index.where}: {error.strerror}"
        ) from error
    return ""


def sweep_index(root: IndexRoot, name: str) -> None:
    """Delete what writers that died left of an index: staging, and generations that nobody reads.

    Where CURRENT is damaged, nobody knows which generation is read, and all stay.

    Raises:
        StoreError: its lock is held for too long, or the disk refused.
    """
    index = root.place.index(name)
    try:
        with index.exclusive():
            index.sweep_staging()
            generations = index.generations()
            manifest = root.find_manifest(name)
            if manifest is None and index.is_published():
                return
            kept = select_kept(generations, generation_name(manifest)) if manifest else set()
            index.delete_generations(
                each.name for each in generations if each.name not in kept and not each.may_be_published
            )
    except OSError as error:
        raise StoreError(f"what is left in {index.where} cannot be deleted: {error.strerror}") from error


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
