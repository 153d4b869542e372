"""`summidx fleet`: brings the fleet table up to date. Heavy imports happen inside."""

import json
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer


def refresh(
    index_root: Annotated[
        str | None,
        typer.Option(
            "--index-root",
            metavar="DIR_OR_URI",
            help="Folder of the indexes, or s3://BUCKET/PREFIX; default: SUMMIDX_INDEX_ROOT, else summary-index.",
        ),
    ] = None,
    *,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Write all of it anew, whatever is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Bring the table up to date from which a search over more than 16 repositories learns which of them to open.

    Every run that publishes an index does so at its end. It holds nothing that the indexes do not: it can be deleted,
    and a search is right without it, only slower.
    """
    from summidx.escaping import escape_text
    from summidx.settings import load_settings
    from summidx.store.fleet import FLEET_FROM, refresh_fleet
    from summidx.store.generations import IndexRoot

    overrides: dict[str, Any] = {} if index_root is None else {"index_root": index_root}
    root = IndexRoot(load_settings(overrides).index_root)
    done = refresh_fleet(root, rebuild=rebuild, tell=_show_progress if sys.stderr.isatty() else _show_nothing)
    for name, why in done.left_out.items():
        typer.echo(f"warning: the index {escape_text(repr(name))} is left out: {escape_text(why)}", err=True)
    if as_json:
        typer.echo(json.dumps(asdict(done), indent=1))
    elif not done.segments:
        typer.echo(f"{done.repositories} repositories: all are searched, and no table is needed below {FLEET_FROM}")
    else:
        what = f"{done.written} indexes read and written" if done.written else "up to date"
        typer.echo(f"{done.repositories} repositories, {done.rows} rows in {done.segments} segments: {what}")


def _show_progress(done: int, of: int) -> None:
    typer.echo(f"\r{done}/{of}", err=True, nl=done >= of)


def _show_nothing(done: int, of: int) -> None:
    """For who does not watch."""
