"""`summidx disk` and `summidx prune`: what takes the disk, and its removal. Heavy imports happen inside."""

import json
import sys
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from summidx.durations import read_duration
from summidx.errors import StoreError, UsageError
from summidx.options import CacheURL, IndexRoot, LogDir

if TYPE_CHECKING:
    from rich.console import Console

    from summidx.disk import DiskUse
    from summidx.settings import Settings

LARGEST_SHOWN = 10

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def show_disk(
    index_root: IndexRoot = None, cache_url: CacheURL = None, log_dir: LogDir = None, *, as_json: JsonOption = False
) -> None:
    """Show what takes the disk: indexes, what dead writers left, the cache, plans, logs, results; and what is free."""
    from summidx.disk import measure_disk
    from summidx.retention import prefect_results
    from summidx.terminal import make_console

    use = measure_disk(_load(index_root, cache_url, log_dir), prefect_results())
    if as_json:
        told = asdict(use) | {"free": [{**asdict(each), "path": str(each.path)} for each in use.free]}
        typer.echo(json.dumps(told, indent=1))
    else:
        print_disk(make_console(sys.stdout), use)


def prune(
    index_root: IndexRoot = None,
    cache_url: CacheURL = None,
    log_dir: LogDir = None,
    *,
    missing: Annotated[
        bool, typer.Option("--missing", help="Remove indexes whose source no longer exists on this machine.")
    ] = False,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="AGE", help="Remove indexes that were built longer ago: 30d, 8w (with --missing: those of both)."
        ),
    ] = None,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="Go on where that is more than half of all indexes.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would be.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove indexes that nobody needs, and what runs and dead writers left. What is being built is left alone.

    Without --missing and --older-than no index is removed. What runs left is deleted when it is older than `keep_days`,
    as every run does, too. The cache has a pruning of its own: `summidx cache prune`.
    """
    from summidx.disk import measure_indexes
    from summidx.retention import prefect_results, sweep_runs
    from summidx.store.generations import IndexRoot as Root
    from summidx.store.pruning import find_prunable, remove_index, sweep_index

    settings = _load(index_root, cache_url, log_dir)
    root = Root(settings.index_root)
    age = None if older_than is None else _parse_age(older_than)
    found = find_prunable(root, missing=missing, older_than=age)
    n = len(root.names())
    if not (confirm or dry_run) and 2 * len(found) > n:
        raise UsageError(
            f"{len(found)} of {n} indexes would be removed ({found[0].name}: {found[0].why}): nothing was; see that "
            "the disk with the repositories is mounted and look with --dry-run, then add --confirm"
        )
    removed: list[dict[str, Any]] = []
    for each in found:
        kept = "" if dry_run else remove_index(root, each)
        removed.append({"name": each.name, "why": each.why, "bytes": each.size_bytes, "kept": kept})
    left = [each for each in measure_indexes(root) if each.left_bytes and not each.is_damaged]
    if not dry_run:
        for use in left:
            sweep_index(root, use.name)
    files = sweep_runs(settings, prefect_results(), dry_run=dry_run)
    done = {
        "dry_run": dry_run,
        "indexes": removed,
        "left_by_dead_writers_bytes": sum(each.left_bytes for each in left),
        "run_files": len(files),
        "run_files_bytes": sum(each.size_bytes for each in files),
    }
    if as_json:
        typer.echo(json.dumps(done, indent=1))
    else:
        _tell_pruned(done)
    if still_there := [each["name"] for each in removed if each["kept"] == "it is being built"]:
        raise StoreError(f"left alone, since they are being built: {', '.join(still_there)}; prune them later")


def print_disk(console: "Console", use: "DiskUse") -> None:
    """What each kind takes, the largest indexes, and what is free."""
    from rich.table import Table
    from rich.text import Text

    from summidx.escaping import escape_text
    from summidx.space import describe_bytes

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    for heading in ("number", "size", "to be pruned"):
        table.add_column(heading, justify="right")
    table.add_column("where", overflow="fold")
    for each in use.places:
        old = describe_bytes(each.old_bytes) if each.old_bytes else ""
        table.add_row(each.what, str(each.n), describe_bytes(each.size_bytes), old, Text(escape_text(each.where)))
    console.print(table)
    if use.indexes:
        largest = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        largest.add_column("largest indexes")
        for heading in ("current", "previous", "being built", "left"):
            largest.add_column(heading, justify="right")
        for index in use.indexes[:LARGEST_SHOWN]:
            sizes = (index.current_bytes, index.previous_bytes, index.building_bytes, index.left_bytes)
            name = escape_text(index.name) + (" (damaged)" if index.is_damaged else "")
            largest.add_row(Text(name), *(describe_bytes(size) if size else "" for size in sizes))
        console.print(largest)
    for space in use.free:
        console.print(
            f"{describe_bytes(space.free_bytes)} free of {describe_bytes(space.size_bytes)} for {space.what}",
            soft_wrap=True,
        )


def _tell_pruned(done: dict[str, Any]) -> None:
    from summidx.escaping import escape_text
    from summidx.space import describe_bytes

    would = "would be " if done["dry_run"] else ""
    for each in done["indexes"]:
        what = f"left alone: {each['kept']}" if each["kept"] else f"{would}removed, {describe_bytes(each['bytes'])}"
        typer.echo(f"{escape_text(each['name'])}: {what} ({escape_text(each['why'])})")
    typer.echo(
        f"{describe_bytes(done['left_by_dead_writers_bytes'])} left by dead writers and {done['run_files']} old files "
        f"of runs ({describe_bytes(done['run_files_bytes'])}) {would}deleted"
    )


def _load(index_root: str | None, cache_url: str | None, log_dir: str | None) -> "Settings":
    from summidx.request import BuildRequest

    return BuildRequest.from_parameters({"index_root": index_root}).settings(log_dir=log_dir, cache_url=cache_url)


def _parse_age(text: str) -> timedelta:
    try:
        return read_duration(text)
    except ValueError:
        raise UsageError(f"--older-than {text}: write an age, such as 30d or 8w") from None
