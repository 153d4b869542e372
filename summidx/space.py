"""Room on the disks that a run writes to: what is free, and what its indexes will likely take."""

import os
from dataclasses import dataclass
from pathlib import Path

from summidx.errors import UsageError
from summidx.index_uri import is_uri, local_folder
from summidx.plan import Plan
from summidx.settings import Settings, Stage
from summidx.store.generations import IndexRoot

ASSUMED_SHARE = 5.0
"""Bytes of an index for each byte of its source, where no index is there to tell: 2.5 to 5.3 on this repository and on
Python packages of 0.4 to 1.6 MB, with vectors of 384 dimensions."""
ASSUMED_FIXED_BYTES = 300_000
"""Of an index, however small its source is."""
CACHE_SHARE = 1.0
"""Bytes that the cache grows by for each byte of a new index, where nothing of it is cached yet: 0.6 by the vectors
(384 dimensions), the rest by an LLM's summaries."""


@dataclass(frozen=True, slots=True)
class FreeSpace:
    """One file system that a run writes to."""

    what: str
    """What lies there: `indexes, cache, logs`; `staging` instead of indexes, where those are on object storage."""
    path: Path
    free_bytes: int
    """Free to this user."""
    size_bytes: int
    has_inodes: bool
    """A file can be made."""


def free_spaces(settings: Settings) -> list[FreeSpace]:
    """The file systems that a run writes to; that of the indexes first."""
    # an index for object storage is on this disk until it is uploaded
    on_disk = {"staging": local_folder()} if is_uri(settings.index_root) else {"indexes": Path(settings.index_root)}
    places = {**on_disk, "logs": Path(settings.log_dir)}
    if settings.cache_url.startswith("sqlite:///"):
        places["cache"] = Path(settings.cache_url.removeprefix("sqlite:///"))
    by_device: dict[int, list[str]] = {}
    paths: dict[int, Path] = {}
    for what, place in places.items():
        path = next((each for each in (place, *place.absolute().parents) if each.is_dir()), Path("/"))
        device = path.stat().st_dev
        by_device.setdefault(device, []).append(what)
        paths.setdefault(device, path)
    return [_measure(", ".join(whats), paths[device]) for device, whats in by_device.items()]


def estimate_bytes(plan: Plan, settings: Settings) -> int:
    """What a run will likely add under the index root, in bytes; a new index stands beside the one that it replaces.

    An index that is there already tells its next size; others are guessed from the size of their source.
    """
    if settings.stage is Stage.SUMMARIES:
        return 0
    root = IndexRoot(settings.index_root)
    sizes = {each.pin.name: size for each in plan.repos if each.has_index and (size := root.size_bytes(each.pin.name))}
    known = [each for each in plan.repos if each.pin.name in sizes and each.size_bytes]
    sources = sum(each.size_bytes for each in known)
    share = max(0.1, sum(sizes[each.pin.name] for each in known) / sources) if sources else ASSUMED_SHARE
    return sum(sizes.get(each.pin.name) or ASSUMED_FIXED_BYTES + int(share * each.size_bytes) for each in plan.to_build)


def check_space(plan: Plan, settings: Settings) -> list[str]:
    """Make sure that there is room for what a run is about to build; returns warnings, a line each.

    Raises:
        UsageError: there is next to nothing (`min_free_mb`): it could not even write down what it does.
    """
    if not plan.to_build:
        return []
    needed = estimate_bytes(plan, settings)
    warnings = []
    for space in free_spaces(settings):
        free, likely = describe_bytes(space.free_bytes), _needed_for(space, needed, settings)
        if not space.has_inodes:
            raise UsageError(
                f"no file can be made on the disk of the {space.what} ({space.path}): it has no free inode, so nothing "
                "can be built: delete files, or name another place (--index-root, --cache-url, --log-dir)"
            )
        if space.free_bytes < settings.min_free_mb * 2**20:
            raise UsageError(
                f"{free} are free on the disk of the {space.what} ({space.path}), and this run likely needs "
                f"{describe_bytes(likely)}: nothing was built; free some (`summidx disk` shows what takes it, `summidx "
                f"prune` removes what is old), name another place, or set min_free_mb below {settings.min_free_mb}"
            )
        if space.free_bytes < likely:
            warnings.append(
                f"{free} are free on the disk of the {space.what} ({space.path}), and this run likely needs "
                f"{describe_bytes(likely)}: what finds no room fails, and is built when there is some"
            )
    return warnings


def describe_bytes(n: int) -> str:
    """A number of bytes for people: 2.1 GB."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n >= size:
            return f"{n / size:,.1f} {unit}"
    return f"{n / 1e3:,.1f} kB"


def _needed_for(space: FreeSpace, needed: int, settings: Settings) -> int:
    likely = needed if "indexes" in space.what else 0
    return likely + (
        int(CACHE_SHARE * needed) if "cache" in space.what and settings.cache.policy == "read-write" else 0
    )


def _measure(what: str, path: Path) -> FreeSpace:
    found = os.statvfs(path)
    return FreeSpace(
        what,
        path,
        found.f_bavail * found.f_frsize,
        found.f_blocks * found.f_frsize,
        has_inodes=not found.f_files or found.f_favail > 0,
    )
