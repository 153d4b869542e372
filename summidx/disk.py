"""What takes the disk: the indexes by generation, the cache, and what runs left. Nothing is changed."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from summidx.cache.database import Database
from summidx.errors import CacheError, StorageUnavailable, StoreError, UsageError
from summidx.retention import find_run_files, prefect_home
from summidx.settings import Settings
from summidx.space import FreeSpace, free_spaces
from summidx.store.disk_files import allocated_bytes
from summidx.store.generations import IndexRoot, generation_name, select_kept


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexUse:
    """What one index takes, in bytes on the disk or in the bucket."""

    name: str
    current_bytes: int = 0
    previous_bytes: int = 0
    """The generation before, kept for searches that have opened it."""
    building_bytes: int = 0
    left_bytes: int = 0
    """Left by writers that died; the next build of it, or `summidx prune`, deletes it."""
    is_damaged: bool = False
    """CURRENT cannot be read, so nobody knows which generation is the current one: all counts as left."""

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.current_bytes + self.previous_bytes + self.building_bytes + self.left_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What one kind of thing takes."""

    what: str
    where: str
    n: int
    size_bytes: int
    old_bytes: int = 0
    """What `summidx prune`, or the next run, would delete of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskUse:
    """All that lies on the disk because of us."""

    places: tuple[Place, ...]
    indexes: tuple[IndexUse, ...]
    """The largest first."""
    free: tuple[FreeSpace, ...]


def measure_disk(settings: Settings, results: Path) -> DiskUse:
    """Look at everything; `results` is Prefect's folder of results.

    Raises:
        StoreError: the index root cannot be read.
    """
    indexes = sorted(measure_indexes(IndexRoot(settings.index_root)), key=lambda each: (-each.total_bytes, each.name))
    return DiskUse(
        places=(
            *_index_places(settings, indexes),
            *_fleet_place(settings),
            *_cache_place(settings),
            *_run_places(settings, results),
        ),
        indexes=tuple(indexes),
        free=tuple(free_spaces(settings)),
    )


def measure_indexes(root: IndexRoot) -> list[IndexUse]:
    """What each folder of an index takes, those without a published index included.

    Raises:
        StoreError: the index root cannot be read.
    """
    uses = root.each(lambda name: _measure_index(root, name), root.folder_names())
    return [use for use in uses if use.total_bytes]


def _measure_index(root: IndexRoot, name: str) -> IndexUse:
    index = root.place.index(name)
    try:
        generations = index.generations()
    except FileNotFoundError:  # begun, and not more
        generations = []
    except OSError as error:
        raise StoreError(f"{index.where} cannot be read: {error.strerror}") from error
    is_damaged = False
    current = ""
    try:
        manifest = root.read_manifest(name)
        current = generation_name(manifest) if manifest else ""
    except StorageUnavailable:
        raise
    except StoreError:
        is_damaged = True
    sizes = {"current_bytes": 0, "previous_bytes": 0, "building_bytes": 0, "left_bytes": 0}
    kept = select_kept(generations, current) if current else set()
    for each in generations:
        if each.name == current:
            which = "current_bytes"
        elif each.may_be_published:
            which = "building_bytes"
        else:
            which = "previous_bytes" if each.name in kept else "left_bytes"
        sizes[which] += each.size_bytes
    for size, lives in index.staging():
        sizes["building_bytes" if lives else "left_bytes"] += size
    return IndexUse(name=name, is_damaged=is_damaged, **sizes)


def _index_places(settings: Settings, indexes: Iterable[IndexUse]) -> list[Place]:
    uses = list(indexes)
    where = settings.index_root

    def place(what: str, sizes: list[int], *, old: bool = False) -> Place:
        total = sum(sizes)
        n = sum(size > 0 for size in sizes)
        return Place(what=what, where=where, n=n, size_bytes=total, old_bytes=total if old else 0)

    return [
        place("indexes", [each.current_bytes for each in uses]),
        place("previous generations", [each.previous_bytes for each in uses]),
        place("being built", [each.building_bytes for each in uses]),
        place("left by dead writers", [each.left_bytes for each in uses], old=True),
    ]


def _fleet_place(settings: Settings) -> list[Place]:
    fleet = IndexRoot(settings.index_root).place.fleet()
    try:
        sizes = [each.size_bytes for each in fleet.generations()] + [size for size, _ in fleet.staging()]
    except FileNotFoundError:  # no table is there
        sizes = []
    except OSError as error:
        raise StoreError(f"{fleet.where} cannot be read: {error.strerror}") from error
    return [Place(what="fleet table", where=fleet.where, n=len(sizes), size_bytes=sum(sizes))] if sizes else []


def _cache_place(settings: Settings) -> list[Place]:
    try:
        database = Database(settings.cache_url, read_only=True)
    except (CacheError, UsageError):
        file = Path(settings.cache_url.removeprefix("sqlite:///"))
        size = allocated_bytes([file]) if file.is_file() else 0
        return [Place(what="cache (it does not open)", where=str(file), n=1, size_bytes=size)] if size else []
    try:
        size = database.size_bytes()
        return [Place(what="cache", where=database.shown, n=1 if size else 0, size_bytes=size)]
    except CacheError:
        return []
    finally:
        database.close()


def _run_places(settings: Settings, results: Path) -> list[Place]:
    files = list(find_run_files(settings, results))
    where = {
        "plans": settings.index_root,
        "known failures": settings.index_root,
        "logs": settings.log_dir,
        "results": str(results),
        "damaged caches": "beside the cache",
    }
    places = []
    for kind, folder in where.items():
        ours = [file for file in files if file.kind == kind]
        total, old = (sum(each.size_bytes for each in part) for part in (ours, [each for each in ours if each.is_old]))
        places.append(Place(what=kind, where=folder, n=len(ours), size_bytes=total, old_bytes=old))
    database = sorted(prefect_home().glob("prefect.db*"))
    size = allocated_bytes(database)
    places.append(Place(what="Prefect's database", where=str(prefect_home()), n=len(database), size_bytes=size))
    return places
