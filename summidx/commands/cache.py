"""`summidx cache`: what the cache holds and how it is used, and its pruning. Heavy imports happen in the commands."""

import json
import sys
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from summidx.durations import read_duration
from summidx.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from summidx.cache.report import CacheReport, Pruned

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)

CacheURLOption = Annotated[
    str | None,
    typer.Option(
        "--cache-url",
        metavar="URL",
        help="URL of the cache; default: cache.sqlite under the index root (under ~/.cache/summidx where that is s3://).",
    ),
]
IndexRootOption = Annotated[
    str | None,
    typer.Option(
        "--index-root",
        metavar="DIR_OR_URI",
        help="Folder of the indexes, or s3://BUCKET/PREFIX; default: SUMMIDX_INDEX_ROOT, else summary-index.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def show(
    context: typer.Context,
    cache_url: CacheURLOption = None,
    index_root: IndexRootOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show what the cache of summaries and vectors holds, and how often it had what was looked up."""
    if context.invoked_subcommand is not None:
        context.obj = {"cache_url": cache_url, "index_root": index_root, "as_json": as_json}
        return
    from summidx.cache.report import read_report
    from summidx.terminal import make_console

    url = _resolve_url(cache_url, index_root)
    report = read_report(url)
    if as_json:
        _print_json(_render_report(report))
    elif report is None:
        typer.echo("there is no cache yet; the first build makes one", err=True)
    else:
        print_report(make_console(sys.stdout), report)


@app.command()
def prune(
    context: typer.Context,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="Remove what was not used for so long: 30d (days) or 8w (weeks)."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Remove what this model made (with --older-than: only what is old, too)."),
    ] = None,
    cache_url: CacheURLOption = None,
    index_root: IndexRootOption = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how much it would be.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove summaries and vectors by age or model, and give their space back. What is removed is paid for again."""
    from summidx.cache import report

    if older_than is None and model is None:
        raise UsageError("prune would remove everything: say what, with --older-than 30d or --model NAME")
    days = None if older_than is None else _parse_age(older_than)
    above = context.obj or {}
    url = _resolve_url(cache_url or above.get("cache_url"), index_root or above.get("index_root"))
    pruned = report.prune(url, older_than_days=days, model=model, dry_run=dry_run)
    if as_json or above.get("as_json"):
        _print_json({**asdict(pruned), "dry_run": dry_run})
    else:
        typer.echo(describe_pruned(pruned, dry_run=dry_run))


@app.command()
def repair(context: typer.Context, cache_url: CacheURLOption = None, index_root: IndexRootOption = None) -> None:
    """Set a damaged SQLite file aside, and carry all that can still be read over into a new one."""
    from summidx.cache.integrity import repair_cache

    above = context.obj or {}
    url = _resolve_url(cache_url or above.get("cache_url"), index_root or above.get("index_root"))
    typer.echo("it was repaired" if repair_cache(url) else "it is whole: nothing was done")


def print_report(console: "Console", report: "CacheReport") -> None:
    """The cache in a few tables: entries by model and age, lookups by day, claims."""
    from rich.table import Table
    from rich.text import Text

    from summidx.escaping import escape_text
    from summidx.keys import shorten_hashes
    from summidx.space import describe_bytes

    console.print(Text(f"{escape_text(report.url)}  {describe_bytes(report.size_bytes)}"), soft_wrap=True)
    if report.entries:
        entries = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        ages = list(report.entries[0].by_age)
        for heading in ("", "model", "entries", "degraded", "made", "last used"):
            entries.add_column(heading, overflow="fold")
        for age in ages:
            entries.add_column(f"≤ {age}" if age != "older" else age, justify="right")
        for each in report.entries:
            entries.add_row(
                each.kind,
                Text(shorten_hashes(escape_text(each.model))),
                str(each.entries),
                str(each.degraded) if each.kind == "summaries" else "",
                each.first_made if each.first_made == each.last_made else f"{each.first_made} to {each.last_made}",
                each.last_used,
                *(str(each.by_age[age] or "") for age in ages),
            )
        console.print(entries)
    else:
        console.print("it is empty", style="dim")
    if report.lookups:
        lookups = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for heading in ("day (UTC)", "", "looked up", "found"):
            lookups.add_column(heading)
        for day in report.lookups:
            lookups.add_row(day.day, day.kind, str(day.lookups), f"{100 * day.hits / max(1, day.lookups):.1f} %")
        console.print(lookups)
    if report.processes:
        console.print(Text(f"at work: {report.processes} processes, which are asking for {report.claims} keys"))


def describe_pruned(pruned: "Pruned", *, dry_run: bool) -> str:
    """What a pruning did, or would do, in one line."""
    from summidx.space import describe_bytes

    what = f"{pruned.summaries} summaries and {pruned.vectors} vectors"
    if dry_run:
        return f"would remove {what}"
    if pruned.space_given_back:
        return f"removed {what}; {describe_bytes(pruned.bytes_freed)} given back"
    return f"removed {what}; their space is used again by what comes next"


def _resolve_url(cache_url: str | None, index_root: str | None) -> str:
    from summidx.settings import load_settings

    overrides: dict[str, object] = {}
    if index_root is not None:
        overrides["index_root"] = index_root
    if cache_url is not None:
        overrides["cache"] = {"url": cache_url}
    return load_settings(overrides).cache_url


def _parse_age(text: str) -> int:
    """Days."""
    try:
        age = read_duration(text)
    except ValueError:
        age = timedelta()
    if age < timedelta(days=1) or age % timedelta(days=1):
        raise UsageError(f"--older-than {text}: write days or weeks, such as 30d or 8w")
    return age.days


def _render_report(report: "CacheReport | None") -> dict[str, object] | None:
    if report is None:
        return None
    rates = [{**asdict(day), "hit_rate": round(day.hits / max(1, day.lookups), 4)} for day in report.lookups]
    return {**asdict(report), "lookups": rates}


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=1))
