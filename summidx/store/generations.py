"""The published indexes under an index root: immutable generations, and CURRENT, which names the one to read.

    INDEX_ROOT/NAME/CURRENT                              the manifest (`current`)
                   /generations/GENERATION.PUBLISH_ID/   documents.lance, skips.json, files.json: never changed
                   /generations/GENERATION.PUBLISH_ID/DAMAGED   only where a whole reading found damage (`inventory`)

An index root is a folder (`folder`) or a prefix in a bucket (`bucket`); what is said here holds for both (`place`).

A generation is written by one writer in a staging folder of its own, made durable, and then published by a
compare-and-swap of CURRENT. Readers take no lock and write nothing. The generation before the current one is kept, so
that a search that has just opened it can end.
"""

import json
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from summidx.errors import NewerIndex, StorageUnavailable, StoreError, UnknownIndex, UsageError
from summidx.index_uri import is_uri, parse_bucket_uri
from summidx.records import Manifest, Skip, SkipReason, Status, count_where
from summidx.store.current import read_manifest, render_manifest
from summidx.store.folder import FolderFiles, FolderPlace
from summidx.store.inventory import find_changed_metadata, inspect, read_inventory
from summidx.store.names import without_surrogates
from summidx.store.place import Files, IndexPlace, Place, StoredGeneration
from summidx.store.sealed import is_sealed
from summidx.store.staging import SKIPS, Staging

if TYPE_CHECKING:
    from summidx.store.tables import IndexTable

TABLE_METADATA = "documents.lance/_versions"
"""LanceDB opens a table by what is here: the files of its data, the rows in each, its indexes."""
METADATA = (TABLE_METADATA, "words.lance/_versions")

logger = logging.getLogger(__name__)
K = TypeVar("K")
T = TypeVar("T")


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
    """All indexes under one root. Cheap to make; nothing is created before the first `stage`.

    Args:
        uri: a folder, or `s3://BUCKET/PREFIX`; credentials and endpoint of that are of the process (`index_uri`).

    Raises:
        UsageError: the URI cannot be used.
    """

    def __init__(self, uri: str | Path) -> None:
        self.place = open_place(uri)

    @property
    def path(self) -> Path:
        """The folder.

        Raises:
            UsageError: it is none.
        """
        if not isinstance(self.place, FolderPlace):
            raise UsageError(f"the index root {self.place.where} is no folder")
        return self.place.path

    def each(self, call: Callable[[K], T], keys: Iterable[K]) -> list[T]:
        """What `call` returns for each key, in their order; several at once where the root is far away."""
        if self.place.at_once == 1:
            return [call(key) for key in keys]
        with ThreadPoolExecutor(self.place.at_once) as threads:
            return list(threads.map(call, keys))

    def names(self) -> list[str]:
        """Names of all published indexes, sorted.

        Raises:
            StoreError: the index root cannot be read. One that does not exist has no indexes.
        """
        ours = self.folder_names()
        published = self.each(lambda name: self.place.index(name).is_published(), ours)
        return [name for name, is_published in zip(ours, published, strict=True) if is_published]

    def versions(self) -> dict[str, str]:
        """All published indexes by name, sorted, each with what changes when it is published anew.

        Raises:
            StoreError: the index root cannot be read. One that does not exist has no indexes.
        """
        found = {}
        for folder, version in self.place.versions().items():
            with suppress(UsageError):  # not ours
                found[self.place.unescape(folder)] = version
        return dict(sorted(found.items()))

    def folder_names(self) -> list[str]:
        """Names of all indexes that are published, were, or are about to be, sorted.

        Raises:
            StoreError: the index root cannot be read.
        """
        names = []
        for folder in self.place.folders():
            with suppress(UsageError):  # not ours
                names.append(self.place.unescape(folder))
        return sorted(names)

    def read_manifest(self, name: str) -> Manifest | None:
        """The manifest of the published index; None where there is none.

        Raises:
            StoreError: CURRENT is corrupt, or that of another index.
        """
        index = self.place.index(name)
        return _check_manifest(index.read_current().data, name, index)

    def require_manifest(self, name: str) -> Manifest:
        """The manifest of the published index.

        Raises:
            UnknownIndex: there is none; the message names what there is.
            StoreError: CURRENT is corrupt, or that of another index.
        """
        manifest = self.read_manifest(name)
        if manifest is None:
            raise UnknownIndex(f"there is no index {name!r} under {self.place.where}; {self.describe_names()}")
        return manifest

    def find_manifest(self, name: str) -> Manifest | None:
        """As `read_manifest`, but None where CURRENT is corrupt: for builders, who replace it.

        Raises:
            NewerIndex: it is of a newer summidx, and may not be replaced.
            StorageUnavailable: nothing is known of it.
        """
        return _parse_or_none(self.place.index(name).read_current().data, name, self.place.index(name))

    def verify(self, name: str, build_key: str) -> Verified:
        """Find out whether the published index is up to date: truly there, whole, and of this build key.

        Each file of the generation must have its size, and what tells LanceDB what the table is made of its very bytes:
        with those the table was opened, and its rows were counted, before it was published. Where that is not known, it
        is done again. The rows are not read: an index is verified in a millisecond. What a whole reading found
        (`verification`) counts.

        Raises:
            StorageUnavailable: nothing is known of it.
        """
        index = self.place.index(name)
        try:
            data = index.read_current().data
            manifest = _check_manifest(data, name, index)
        except StorageUnavailable:
            raise
        except StoreError as error:
            return Verified(None, f"damaged: {error}")
        if data is None or manifest is None:
            return Verified(None, "new")
        faults = []
        if failed := count_where(manifest.counts, status=Status.FAILED):
            faults.append(f"{failed} failed document{'s' if failed > 1 else ''}")
        if damage := self._find_damage(name, manifest, were_counted=is_sealed(data)):
            faults.append(f"damaged: {damage}")
        changed = ["content or settings changed"] if manifest.build_key != build_key else []
        why = "; ".join([*changed, *faults])
        return Verified(None if why else manifest, why or "up to date", manifest, tuple(faults))

    def find_damage(self, name: str) -> str:
        """What is wrong with the published index, as far as `verify` sees it; "" where nothing is, or it is gone.

        Raises:
            StorageUnavailable: nothing is known of it.
        """
        index = self.place.index(name)
        try:
            data = index.read_current().data
            manifest = _check_manifest(data, name, index)
        except StorageUnavailable:
            raise
        except StoreError as error:
            return str(error)
        if data is None or manifest is None:
            return ""
        damage = self._find_damage(name, manifest, were_counted=is_sealed(data))
        latest = self.find_manifest(name)
        has_moved = latest is None or latest.publish_id != manifest.publish_id  # it was swept while it was looked at
        return "" if damage and has_moved else damage

    def size_bytes(self, name: str) -> int:
        """Bytes of the published index's files, as they were written; 0 where there is none, or it is damaged."""
        try:
            manifest = self.read_manifest(name)
            files = read_inventory(self.files(name, manifest)) if manifest else {}
        except (OSError, ValueError, StoreError):
            return 0
        return sum(record.size_bytes for record in files.values())

    def open(self, name: str) -> PublishedIndex:
        """Open the published index for reading.

        Raises:
            UnknownIndex: there is none; the message names what there is.
            StoreError: it is damaged.
        """
        manifest = self.require_manifest(name)
        while True:
            try:
                return self._open(name, manifest)
            except StorageUnavailable:
                raise
            except StoreError:
                # two publishes since CURRENT was read: the generation was swept before it could be opened
                latest = self.require_manifest(name)
                if latest.publish_id == manifest.publish_id:
                    raise
                manifest = latest

    def _open(self, name: str, manifest: Manifest) -> PublishedIndex:
        from summidx.store.tables import IndexTable

        files = self.files(name, manifest)
        # A store of objects has digests of its own.
        fault = "" if files.table.options else find_changed_metadata(files, METADATA)
        if fault:
            raise StoreError(f"the index in {files.table.uri} is damaged ({fault}): build it again")
        return PublishedIndex(name, manifest, IndexTable(files.table))

    def read_skips(self, name: str, manifest: Manifest) -> tuple[Skip, ...]:
        """What was passed over when this generation was built.

        Raises:
            StoreError: the list cannot be read.
        """
        files = self.files(name, manifest)
        try:
            rows = json.loads(files.read(SKIPS))
            return tuple(Skip(row["path"], SkipReason(row["reason"]), row["detail"]) for row in rows)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{files.where}/{SKIPS} cannot be read: {error}") from error

    def stage(self, name: str, generation: str) -> Staging:
        """Begin a generation, in a new folder of its own; what dead writers left is swept.

        Two writers of one generation (a worker taken for lost, and its successor) do not meet before `publish`.

        Raises:
            UsageError: the name cannot be a folder's.
            StoreError: the folder cannot be made.
        """
        self.place.create()
        index = self.place.index(name)
        try:
            return index.begin(name, generation)
        except OSError as error:
            raise StoreError(f"no index can be written to {index.where}: {error}") from error

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
        index = self.place.index(staging.name)
        target = generation_name(manifest)
        try:
            if (staging.name, staging.generation, staging.rows) != (
                manifest.name,
                manifest.generation,
                count_where(manifest.counts),
            ):
                raise StoreError(f"the manifest of {manifest.name!r} is not of what was written for {staging.name!r}")
            if damage := _find_damage(FolderFiles(staging.folder), staging.rows):
                raise StoreError(f"the new index of {manifest.name!r} is damaged ({damage}): nothing was published")
            index.deliver(staging, target)
            try:
                superfluous = self._swap(index, staging, manifest, expected_publish_id, check)
            except StorageUnavailable:
                raise  # whether it is published now, nobody knows: what was delivered must stay
            except BaseException:
                index.withdraw(target)
                raise
            if superfluous is None:
                index.withdraw(target)
                return False
        except (OSError, ValueError) as error:
            raise StoreError(f"the new index of {manifest.name!r} cannot be published: {error}") from error
        finally:
            staging.discard()
        index.delete_generations(superfluous)
        return True

    def _swap(
        self,
        index: IndexPlace,
        staging: Staging,
        manifest: Manifest,
        expected_publish_id: str | None,
        check: Callable[[], None],
    ) -> list[str] | None:
        """Replace CURRENT; the generations that can be deleted then, or None where another run was first."""
        data = render_manifest(manifest)
        target = generation_name(manifest)
        while True:
            with index.exclusive():
                stored = index.read_current()
                current = _parse_or_none(stored.data, staging.name, index)
                if current is not None and self._is_overtaken(manifest, current, expected_publish_id):
                    return None
                check()
                index.settle(staging, target)
                if index.swap_current(data, manifest.publish_id, stored):
                    return _find_superfluous(index, manifest, current)

    def _is_overtaken(self, ours: Manifest, current: Manifest, expected_publish_id: str | None) -> bool:
        if current.publish_id == expected_publish_id:
            return False
        if (current.commit, current.tree) != (ours.commit, ours.tree):
            return True
        failed, failed_there = (count_where(each.counts, status=Status.FAILED) for each in (ours, current))
        if current.build_key != ours.build_key or failed < failed_there:
            return False
        return not self._find_damage(ours.name, current)

    def _find_damage(self, name: str, manifest: Manifest, *, were_counted: bool = False) -> str:
        return _find_damage(self.files(name, manifest), count_where(manifest.counts), were_counted=were_counted)

    def files(self, name: str, manifest: Manifest) -> Files:
        """The files of the generation that a manifest names."""
        return self.place.index(name).files(generation_name(manifest))

    def index_folder(self, name: str) -> Path:
        """Folder of an index, where the root is a folder: INDEX_ROOT/NAME, the name escaped."""
        return FolderPlace(self.path).index(name).path

    def generation_folder(self, name: str, manifest: Manifest) -> Path:
        """Folder of the generation that a manifest names, where the root is a folder."""
        return FolderPlace(self.path).index(name).files(generation_name(manifest)).path

    def describe_names(self) -> str:
        """What there is, in words, for a message to who asked for something else."""
        names = self.names()
        if not names:
            return "it holds no index: build one with `python flows/build.py`"
        return f"there are: {', '.join(names[:10])}{f' and {len(names) - 10} more' if len(names) > 10 else ''}"


def open_place(uri: str | Path) -> Place:
    """The place where an index root lies.

    Raises:
        UsageError: the URI cannot be used.
    """
    if not is_uri(uri):
        return FolderPlace(Path(uri))
    from summidx.store.bucket import BucketPlace

    return BucketPlace(parse_bucket_uri(str(uri)))


def generation_name(manifest: Manifest) -> str:
    """Name of the generation that a manifest names: no two publishes have the same."""
    return f"{manifest.generation}.{manifest.publish_id}"


def select_kept(generations: Iterable[StoredGeneration], current: str) -> set[str]:
    """The published generation and the newest other one, in which a search that has just opened it can end."""
    others = [each for each in generations if each.name != current and each.was_published]
    newest = max(others, key=lambda each: each.written_at, default=None)
    return {current} | ({newest.name} if newest else set())


def _find_superfluous(index: IndexPlace, ours: Manifest, previous: Manifest | None) -> list[str]:
    """Generations that can be deleted. CURRENT has moved already: nothing that fails here may undo the news of it."""
    try:
        if previous is not None:
            index.retire(generation_name(previous))
        index.sweep_staging()
        found = [each for each in index.generations() if not each.may_be_published]
        now = _parse_or_none(index.read_current().data, ours.name, index)  # where no lock is held: a later one, maybe
        kept = {generation_name(each) for each in (ours, previous, now) if each is not None}
        return [each.name for each in found if each.name not in kept]
    except (OSError, StoreError) as error:
        logger.warning("old generations of %s stay until the next publish: %s", index.where, error)
        return []


def _check_manifest(data: bytes | None, name: str, index: IndexPlace) -> Manifest | None:
    if data is None:
        return None
    manifest = read_manifest(data, index.where)
    if manifest.name != without_surrogates(name):
        raise StoreError(
            f"{index.where} holds the index of {manifest.name!r}: an index cannot be renamed or copied, build it anew"
        )
    return manifest


def _parse_or_none(data: bytes | None, name: str, index: IndexPlace) -> Manifest | None:
    try:
        return _check_manifest(data, name, index)
    except NewerIndex:
        raise
    except StoreError as error:
        logger.warning("%s", error)
        return None


def _find_damage(files: Files, rows: int | None, *, were_counted: bool = False) -> str:
    """What is wrong with a generation, or "".

    `were_counted`: `rows` is what was counted when it was published, so that the same table has nothing to count.
    """
    try:
        inspection = inspect(files, TABLE_METADATA)
        if inspection.fault or (were_counted and inspection.has_same_table):
            return inspection.fault
        from summidx.store.tables import IndexTable

        found = IndexTable(files.table).count()
    except StorageUnavailable:
        raise
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, StoreError) as error:
        return str(error)
    return "" if found == rows else f"the table has {found} rows instead of {rows}"
