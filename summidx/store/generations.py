"""The published indexes under an index root: immutable generations, and CURRENT, which names the one to read.

    INDEX_ROOT/NAME/CURRENT                              the manifest (`current`)
                   /generations/GENERATION.PUBLISH_ID/   documents.lance, skips.json, files.json: never changed
                   /generations/GENERATION.PUBLISH_ID/DAMAGED   only where a whole reading found damage (`inventory`)
                   /staging/ID/  and  /staging/ID.lock   being written; the lock is held while its writer lives
                   /publish.lock                         held for the moment of a publish or a sweep

A generation is written by one writer in a folder of its own, synced to disk, and then published by a compare-and-swap
of CURRENT under the lock. Readers take no lock and write nothing. The generation before the current one is kept, so
that a search that has just opened it can end. The locks are `flock`: all who write must share a file system that has
it (local disks; NFS 4).
"""

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from summidx.errors import NewerIndex, StoreError, UnknownIndex, UsageError
from summidx.records import Manifest, Skip, SkipReason, Status, count_where
from summidx.store.current import CURRENT, read_current, sync_folder, write_current
from summidx.store.inventory import find_wrong_sizes, read_inventory, read_mark
from summidx.store.names import escape_name, unescape_name, without_surrogates
from summidx.store.staging import SKIPS, Staging, begin_staging, lock_index, sweep_staging, sync_filesystem

if TYPE_CHECKING:
    from summidx.store.tables import IndexTable

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verified:
    """Whether an index is up to date: its manifest if it is, else None, and why in words for the plan."""

    manifest: Manifest | None
    why: str
    current: Manifest | None = None
    """What is published, up to date or not; None where there is nothing, or nothing that can be read."""
    faults: tuple[str, ...] = ()
    """What is wrong with it, whatever was asked for: failed documents, damage."""


@dataclass(frozen=True, slots=True)
class PublishedIndex:
    """One generation, opened for reading."""

    name: str
    manifest: Manifest
    table: "IndexTable"


class IndexRoot:
    """All indexes under one folder. Cheap to make; nothing is created before the first `stage`.

    Args:
        uri: a local folder. Object storage (`s3://...`) is refused until it is supported.

    Raises:
        UsageError: the URI is not one of a local folder.
    """

    def __init__(self, uri: str | Path) -> None:
        if scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", str(uri)):
            raise UsageError(f"an index root on {scheme[1]}:// is not supported yet: give a local folder")
        self.path = Path(uri)

    def create(self) -> None:
        """Make the folder, if it is missing.

        Raises:
            StoreError: it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            hide_from_git(self.path)
        except OSError as error:
            raise StoreError(f"the index root {self.path} cannot be made: {error.strerror}") from error

    def names(self) -> list[str]:
        """Names of all published indexes, sorted.

        Raises:
            StoreError: the index root cannot be read. One that does not exist has no indexes.
        """
        try:
            folders = [entry.name for entry in self.path.iterdir() if (entry / CURRENT).is_file()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"the index root {self.path} cannot be read: {error.strerror}") from error
        return sorted(_iterate_names(folders))

    def read_manifest(self, name: str) -> Manifest | None:
        """The manifest of the published index; None where there is none.

        Raises:
            StoreError: CURRENT is corrupt, or that of another index.
        """
        folder = self.index_folder(name)
        manifest = read_current(folder)
        if manifest is not None and manifest.name != without_surrogates(name):
            raise StoreError(
                f"{folder} holds the index of {manifest.name!r}: an index cannot be renamed or copied, build it anew"
            )
        return manifest

    def require_manifest(self, name: str) -> Manifest:
        """The manifest of the published index.

        Raises:
            UnknownIndex: there is none; the message names what there is.
            StoreError: CURRENT is corrupt, or that of another index.
        """
        manifest = self.read_manifest(name)
        if manifest is None:
            raise UnknownIndex(f"there is no index {name!r} under {self.path}; {self.describe_names()}")
        return manifest

    def find_manifest(self, name: str) -> Manifest | None:
        """As `read_manifest`, but None where CURRENT is corrupt: for builders, who replace it.

        Raises:
            NewerIndex: it is of a newer summidx, and may not be replaced.
        """
        try:
            return self.read_manifest(name)
        except NewerIndex:
            raise
        except StoreError as error:
            logger.warning("%s", error)
            return None

    def verify(self, name: str, build_key: str) -> Verified:
        """Find out whether the published index is up to date: truly there, whole, and of this build key.

        The table is opened, its rows are counted, and each file of the generation must have its size. The rows are
        not read: an index is verified in milliseconds. What a whole reading found (`verification`) counts.
        """
        try:
            manifest = self.read_manifest(name)
        except StoreError as error:
            return Verified(None, f"damaged: {error}")
        if manifest is None:
            return Verified(None, "new")
        faults = []
        if failed := count_where(manifest.counts, status=Status.FAILED):
            faults.append(f"{failed} failed document{'s' if failed > 1 else ''}")
        if damage := _find_damage(self.generation_folder(name, manifest), count_where(manifest.counts)):
            faults.append(f"damaged: {damage}")
        changed = ["content or settings changed"] if manifest.build_key != build_key else []
        why = "; ".join([*changed, *faults])
        return Verified(None if why else manifest, why or "up to date", manifest, tuple(faults))

    def find_damage(self, name: str) -> str:
        """What is wrong with the published index, as far as `verify` sees it; "" where nothing is, or it is gone."""
        try:
            manifest = self.read_manifest(name)
        except StoreError as error:
            return str(error)
        if manifest is None:
            return ""
        damage = _find_damage(self.generation_folder(name, manifest), count_where(manifest.counts))
        latest = self.find_manifest(name)
        has_moved = latest is None or latest.publish_id != manifest.publish_id  # it was swept while it was looked at
        return "" if damage and has_moved else damage

    def size_bytes(self, name: str) -> int:
        """Bytes of the published index's files, as they were written; 0 where there is none, or it is damaged."""
        try:
            manifest = self.read_manifest(name)
            files = read_inventory(self.generation_folder(name, manifest)) if manifest else {}
        except (OSError, ValueError, StoreError):
            return 0
        return sum(record.size_bytes for record in files.values())

    def open(self, name: str) -> PublishedIndex:
        """Open the published index for reading.

        Raises:
            UnknownIndex: there is none; the message names what there is.
            StoreError: it is damaged.
        """
        from summidx.store.tables import IndexTable

        manifest = self.require_manifest(name)
        while True:
            try:
                return PublishedIndex(name, manifest, IndexTable(self.generation_folder(name, manifest)))
            except StoreError:
                # two publishes since CURRENT was read: the generation was swept before it could be opened
                latest = self.require_manifest(name)
                if latest.publish_id == manifest.publish_id:
                    raise
                manifest = latest

    def read_skips(self, name: str, manifest: Manifest) -> tuple[Skip, ...]:
        """What was passed over when this generation was built.

        Raises:
            StoreError: the list cannot be read.
        """
        path = self.generation_folder(name, manifest) / SKIPS
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
            return tuple(Skip(row["path"], SkipReason(row["reason"]), row["detail"]) for row in rows)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path} cannot be read: {error}") from error

    def stage(self, name: str, generation: str) -> Staging:
        """Begin a generation, in a new folder of its own; what dead writers left is swept.

        Two writers of one generation (a worker taken for lost, and its successor) do not meet before `publish`.

        Raises:
            UsageError: the name cannot be a folder's.
            StoreError: the folder cannot be made.
        """
        self.create()
        index = self.index_folder(name)
        try:
            return begin_staging(index, name, generation)
        except OSError as error:
            raise StoreError(f"no index can be written to {index}: {error}") from error

    def publish(
        self,
        staging: Staging,
        manifest: Manifest,
        *,
        expected_publish_id: str | None,
        check: Callable[[], None] = lambda: None,
    ) -> bool:
        """Make a staged generation the current one, or discard it if another run was first.

        It is discarded when CURRENT is no longer the one expected and is now that of another commit (of another tree,
        for a plain folder): a run that was overtaken must not put its older index over a newer one. It is discarded too
        when CURRENT is by now what it would be itself, by another run or by another try of this one (a worker that was
        taken for lost and goes on), unless that is damaged or has more failed documents. An index of the same content
        under other settings is replaced: there the last one wins.

        Args:
            staging: what was written; it is used up.
            manifest: of what was written.
            expected_publish_id: publish id of CURRENT when this was planned; None where there was none to be read.
            check: called when nothing but the swap is left to do, under the lock; what it raises ends the publish.

        Returns:
            True if it is the current one now.

        Raises:
            StoreError: it is not whole, or the disk refused; CURRENT is as it was.
        """
        index = self.index_folder(staging.name)
        target = self.generation_folder(staging.name, manifest)
        try:
            if (staging.name, staging.generation, staging.rows) != (
                manifest.name,
                manifest.generation,
                count_where(manifest.counts),
            ):
                raise StoreError(f"the manifest of {manifest.name!r} is not of what was written for {staging.name!r}")
            if damage := _find_damage(staging.folder, staging.rows):
                raise StoreError(f"the new index of {manifest.name!r} is damaged ({damage}): nothing was published")
            sync_filesystem(staging.folder)
            with lock_index(index):
                current = self.find_manifest(staging.name)
                if current is not None and self._is_overtaken(manifest, current, expected_publish_id):
                    return False
                check()
                staging.move_to(target)
                sync_folder(target.parent)
                write_current(index, manifest)
                previous = self.generation_folder(staging.name, current) if current else None
                retired = _sweep(index, {target, previous})
        except (OSError, ValueError) as error:
            raise StoreError(f"the new index of {manifest.name!r} cannot be published: {error}") from error
        finally:
            staging.discard()
        for folder in retired:
            shutil.rmtree(folder, ignore_errors=True)
        return True

    def _is_overtaken(self, ours: Manifest, current: Manifest, expected_publish_id: str | None) -> bool:
        if current.publish_id == expected_publish_id:
            return False
        if (current.commit, current.tree) != (ours.commit, ours.tree):
            return True
        failed, failed_there = (count_where(each.counts, status=Status.FAILED) for each in (ours, current))
        if current.build_key != ours.build_key or failed < failed_there:
            return False
        return not _find_damage(self.generation_folder(ours.name, current), count_where(current.counts))

    def index_folder(self, name: str) -> Path:
        """Folder of an index: INDEX_ROOT/NAME, the name escaped."""
        return self.path / escape_name(name)

    def generation_folder(self, name: str, manifest: Manifest) -> Path:
        """Folder of the generation that a manifest names."""
        return self.index_folder(name) / "generations" / f"{manifest.generation}.{manifest.publish_id}"

    def describe_names(self) -> str:
        """What there is, in words, for a message to who asked for something else."""
        names = self.names()
        if not names:
            return "it holds no index: build one with `python flows/build.py`"
        return f"there are: {', '.join(names[:10])}{f' and {len(names) - 10} more' if len(names) > 10 else ''}"


def hide_from_git(folder: Path) -> None:
    """Mark a folder as made by a tool, by a `.gitignore` of its own: neither git nor our own builds read it then.

    Raises:
        OSError: it cannot be written.
    """
    marker = folder / ".gitignore"
    if not marker.exists():
        marker.write_text("# Made by summidx.\n*\n", encoding="utf-8")


def _sweep(index: Path, kept: set[Path | None]) -> list[Path]:
    """Generations that can be deleted. CURRENT has moved already: nothing that fails here may undo the news of it."""
    try:
        sweep_staging(index)
        return [folder for folder in (index / "generations").iterdir() if folder not in kept]
    except OSError as error:
        logger.warning("old generations of %s stay until the next publish: %s", index, error)
        return []


def _find_damage(folder: Path, rows: int | None) -> str:
    """What is wrong with a generation, or ""."""
    from summidx.store.tables import IndexTable

    try:
        if fault := read_mark(folder) or next(find_wrong_sizes(folder), ""):
            return fault
        found = IndexTable(folder).count()
    except FileNotFoundError as error:
        return f"{Path(error.filename).relative_to(folder)} is missing"
    except (OSError, ValueError, StoreError) as error:
        return str(error)
    return "" if found == rows else f"the table has {found} rows instead of {rows}"


def _iterate_names(folders: Sequence[str]) -> Iterator[str]:
    for folder in folders:
        try:
            yield unescape_name(folder)
        except UsageError:  # not ours
            continue
