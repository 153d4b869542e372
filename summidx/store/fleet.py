"""The fleet table: one table over the indexes of very many repositories, from which search learns where to look.

    INDEX_ROOT/.summidx/fleet/CURRENT                the manifest (`fleet_manifest`)
                             /generations/SEGMENT/   documents.lance, words.lance (`fleet_tables`), files.json

It is made of immutable segments. A refresh writes what is new into a segment of its own and replaces CURRENT by
compare-and-swap, as an index is published; so a refresh that is killed, that finds the disk full or that another one
has overtaken leaves the table as it was. The segments of the manifest before stay, for searches that have just read it.
"""

import logging
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from summidx.errors import NewerIndex, StorageUnavailable, StoreError
from summidx.store.fleet_manifest import (
    Entry,
    FleetManifest,
    Segment,
    count_once,
    is_newer,
    parse_fleet,
    plan_segments,
    render_fleet,
)
from summidx.store.folder import FolderFiles
from summidx.store.generations import IndexRoot
from summidx.store.inventory import find_changed_files, find_fault, write_inventory
from summidx.store.place import IndexPlace, Stored
from summidx.store.staging import Staging

if TYPE_CHECKING:
    from summidx.store.tables import IndexTable

FLEET_FROM = 21
"""So many repositories make a fleet: fewer are all searched, and need no table."""

TRIES = 3
"""A refresh that another one overtook begins again, with what that one has left to do."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh came to."""

    repositories: int
    """That count: of several commits of one repository one."""
    written: int = 0
    """Indexes that were read and written; 0: the table was as it should be, or is not needed."""
    rows: int = 0
    """Of the table."""
    segments: int = 0
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Indexes that cannot be read: name -> why."""


def read_fleet(root: IndexRoot) -> FleetManifest | None:
    """The manifest of the fleet table; None where there is none.

    Raises:
        StoreError: it is damaged, or of another version of summidx.
    """
    place = root.place.fleet()
    return _parse(place.read_current(), place)


def read_entries(
    root: IndexRoot, known: Mapping[str, Entry], versions: Mapping[str, str]
) -> tuple[dict[str, Entry], dict[str, str]]:
    """What the published indexes say of themselves.

    Args:
        root: the indexes.
        known: entries by name; one whose version is still that of its index is not read again.
        versions: `IndexRoot.versions`, of all or of some.

    Returns:
        Entries by name, and the indexes whose CURRENT cannot be read: name -> why.

    Raises:
        StorageUnavailable: object storage does not answer.
    """
    left_out: dict[str, str] = {}

    def read(name: str) -> Entry | None:
        entry = known.get(name)
        if entry is not None and entry.version == versions[name] != "":
            return entry
        try:
            manifest = root.read_manifest(name)
        except StorageUnavailable:
            raise
        except StoreError as error:
            left_out[name] = str(error)
            return None
        if manifest is None:  # removed in this moment
            return None
        return Entry(
            name=name,
            version=versions[name],
            publish_id=manifest.publish_id,
            source=manifest.source,
            built_at=manifest.built_at,
            embedding_model=manifest.embedding_model,
            dim=manifest.dim,
        )

    found = root.each(read, versions)
    return {entry.name: entry for entry in found if entry is not None}, left_out


def refresh_fleet(
    root: IndexRoot, *, rebuild: bool = False, tell: Callable[[int, int], None] = lambda _done, _of: None
) -> Refreshed:
    """Bring the fleet table up to date with the published indexes; nothing is written where it is.

    Args:
        root: the indexes.
        rebuild: write all of it anew, whatever is there.
        tell: called with how many indexes have been read, and of how many.

    Raises:
        NewerIndex: the table is of a newer summidx, which is left alone.
        StoreError: the index root cannot be read, or the table not be written; it is as it was then.
    """
    place = root.place.fleet()
    for _ in range(TRIES):
        stored = place.read_current()
        if stored.data is not None and is_newer(stored.data):
            raise NewerIndex(f"the fleet table {place.where} is of a newer summidx: it is left as it is")
        done = _Refresh(root, place, stored, tell, rebuild=rebuild).run()
        if done is not None:
            return done
    raise StoreError(f"other runs were faster {TRIES} times to refresh the fleet table {place.where}: it is theirs now")


class _Refresh:
    """One try of a refresh."""

    def __init__(
        self,
        root: IndexRoot,
        place: IndexPlace,
        stored: Stored,
        tell: Callable[[int, int], None],
        *,
        rebuild: bool,
    ) -> None:
        self._root = root
        self._place = place
        self._stored = stored
        self._before = _parse_or_none(stored, place)
        self._rebuild = rebuild
        self._tell = tell
        self._read = 0

    def run(self) -> Refreshed | None:
        """What it came to; None where another one was first."""
        known = {entry.name: entry for entry in self._before.entries} if self._before else {}
        entries, left_out = read_entries(self._root, known, self._root.versions())
        wanted = count_once(entries.values())
        if len(wanted) < FLEET_FROM and self._before is None:
            return Refreshed(len(wanted), left_out=left_out)
        segments = self._before.segments if self._before and not self._rebuild else ()
        whole = [segment for segment in segments if self._is_whole(segment)]
        plan = plan_segments(wanted.values(), whole)
        n = sum(map(len, plan.written.values()))
        before = {each.generation for each in self._before.segments} if self._before else None
        if not n and before == {each.generation for each in plan.kept}:
            return Refreshed(len(wanted), 0, sum(each.rows for each in plan.kept), len(plan.kept), left_out)
        staged: list[tuple[Staging, Segment]] = []
        try:
            for model, members in plan.written.items():
                dim = entries[next(iter(members))].dim
                staging, segment, unreadable = self._write(model, dim, members, n)
                staged.append((staging, segment))
                left_out |= unreadable
            segments = (*plan.kept, *(segment for _, segment in staged if segment.members))
            manifest = FleetManifest(
                publish_id=uuid.uuid4().hex,
                built_at=datetime.now(UTC).isoformat(timespec="seconds"),
                entries=tuple(entries.values()),
                segments=segments,
            )
            if not self._publish(manifest, staged):
                return None
        except (OSError, ValueError) as error:
            raise StoreError(f"the fleet table {self._place.where} cannot be written: {error}") from error
        finally:
            for staging, _ in staged:
                staging.discard()
        self._clean_up(manifest)
        return Refreshed(len(wanted), n, sum(each.rows for each in segments), len(segments), left_out)

    def _is_whole(self, segment: Segment) -> bool:
        """Whether a segment is as it was written: every byte of it, or in a bucket the sizes of its objects."""
        files = self._place.files(segment.generation)
        try:
            fault = find_fault(files)
            if not fault and isinstance(files, FolderFiles):
                fault = next(find_changed_files(files), "")
        except StorageUnavailable:
            raise
        except (OSError, ValueError, StoreError) as error:
            fault = str(error)
        if fault:
            logger.warning("a segment of the fleet table is written anew: %s: %s", files.where, fault)
        return not fault

    def _write(
        self, model: str, dim: int, members: Mapping[str, str], n: int
    ) -> tuple[Staging, Segment, dict[str, str]]:
        from summidx.store.fleet_tables import write_segment

        generation = uuid.uuid4().hex
        self._root.place.create()
        staging = self._place.begin("fleet", generation)
        try:
            written, left_out = write_segment(staging.folder, members, partial(self._open, n), dim)
            write_inventory(staging.folder)
            self._place.deliver(staging, generation)
        except BaseException:
            staging.discard()
            raise
        segment = Segment(
            generation=generation,
            embedding_model=model,
            dim=dim,
            rows=written.rows,
            documents=written.documents,
            code_documents=written.code_documents,
            members=written.members,
        )
        return staging, segment, left_out

    def _open(self, n: int, name: str, publish_id: str) -> "IndexTable":
        self._tell(self._read, n)
        self._read += 1
        opened = self._root.open(name)
        if opened.manifest.publish_id != publish_id:
            raise StoreError("it was published anew while the fleet table was written: the next refresh has it")
        return opened.table

    def _publish(self, manifest: FleetManifest, staged: Sequence[tuple[Staging, Segment]]) -> bool:
        data = render_fleet(manifest)
        parse_fleet(data)
        try:
            with self._place.exclusive():
                now = self._place.read_current()
                is_first = now.data == self._stored.data
                if is_first:
                    for staging, segment in staged:
                        self._place.settle(staging, segment.generation)
                    is_first = self._place.swap_current(data, manifest.publish_id, now)
        except StorageUnavailable:
            raise  # whether it is published now, nobody knows: what was delivered must stay
        except BaseException:
            self._withdraw(staged)
            raise
        if not is_first:
            self._withdraw(staged)
        return is_first

    def _withdraw(self, staged: Iterable[tuple[Staging, Segment]]) -> None:
        for _, segment in staged:
            self._place.withdraw(segment.generation)

    def _clean_up(self, manifest: FleetManifest) -> None:
        """Delete the segments that neither this manifest nor the one before names."""
        previous = {segment.generation for segment in self._before.segments} if self._before else set()
        current = {segment.generation for segment in manifest.segments}
        try:
            for generation in previous - current:
                self._place.retire(generation)
            with self._place.exclusive():  # nobody settles a segment meanwhile
                now = _parse_or_none(self._place.read_current(), self._place)
                kept = previous | current | {each.generation for each in (now.segments if now else ())}
                found = self._place.generations()
                self._place.delete_generations(
                    each.name for each in found if each.name not in kept and not each.may_be_published
                )
        except (OSError, StoreError) as error:
            logger.warning("old segments of the fleet table stay until its next refresh: %s", error)


def _parse(stored: Stored, place: IndexPlace) -> FleetManifest | None:
    if stored.data is None:
        return None
    try:
        return parse_fleet(stored.data)
    except ValueError as error:
        raise StoreError(f"the manifest of the fleet table {place.where} cannot be used ({error})") from None


def _parse_or_none(stored: Stored, place: IndexPlace) -> FleetManifest | None:
    try:
        return _parse(stored, place)
    except StoreError as error:
        logger.warning("%s: it is written anew", error)
        return None
