"""What takes the disk: the indexes by generation, the cache, and what runs left. Nothing is changed."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from summidx.cache.database import Database
from summidx.errors import CacheError, StoreError, UsageError
from summidx.records import Manifest
from summidx.retention import find_run_files, prefect_home
from summidx.settings import Settings
from summidx.space import FreeSpace, allocated_bytes, free_spaces
from summidx.store.generations import IndexRoot
from summidx.store.names import unescape_name
from summidx.store.pruning import kept_generations
from summidx.store.staging import list_staging


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexUse:
    """What the folder of one index takes, in bytes on the disk."""

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
        places=(*_index_places(settings, indexes), *_cache_place(settings), *_run_places(settings, results)),
        indexes=tuple(indexes),
        free=tuple(free_spaces(settings)),
    )


def measure_indexes(root: IndexRoot) -> list[IndexUse]:
    """What each folder of an index takes, those without a published index included.

    Raises:
        StoreError: the index root cannot be read.
    """
    try:
        folders = [entry for entry in root.path.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"the index root {root.path} cannot be read: {error.strerror}") from error
    uses = []
    for folder in folders:
        try:
            name = unescape_name(folder.name)
        except UsageError:  # not ours
            continue
        use = _measure_index(root, name, folder)
        if use.total_bytes:
            uses.append(use)
    return uses


def _measure_index(root: IndexRoot, name: str, folder: Path) -> IndexUse:
    manifest: Manifest | None = None
    is_damaged = False
    try:
        manifest = root.read_manifest(name)
    except StoreError:
        is_damaged = True
    current = root.generation_folder(name, manifest) if manifest else None
    sizes = {"current_bytes": 0, "previous_bytes": 0, "building_bytes": 0, "left_bytes": 0}
    generations = [entry for entry in (folder / "generations").glob("*") if entry.is_dir()]
    kept = kept_generations(folder, manifest) if manifest and generations else set()
    for entry in generations:
        which = "current_bytes" if entry == current else "previous_bytes" if entry in kept else "left_bytes"
        sizes[which] += _folder_bytes(entry)
    for staging in list_staging(folder):
        sizes["building_bytes" if staging.lives else "left_bytes"] += _folder_bytes(staging.path)
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


def _folder_bytes(folder: Path) -> int:
    return allocated_bytes(path for path in folder.rglob("*"))
