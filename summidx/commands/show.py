"""`summidx show`: the tree of summaries of one index, to look around in. Heavy imports happen inside."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from summidx.options import OnlyLevels, ReadFrom, parse_levels
from summidx.records import Document, Level, Manifest, Status

if TYPE_CHECKING:
    from rich.console import Console

    from summidx.search.outline import Outline

SHOWN_IN_TERMINAL = 200
"""Without `--depth` a terminal is shown a tree as deep as so many documents go."""


def show(
    repo: Annotated[str, typer.Argument(help="Name of the index.")],
    path: Annotated[
        str | None,
        typer.Argument(
            help="One part in full, and what is in it: a file, a directory, or an id such as `path::Class.method`."
        ),
    ] = None,
    index_root: ReadFrom = None,
    depth: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="N", help="So many steps down. [default: all; in a terminal, as deep as 200 documents go]"
        ),
    ] = None,
    level: OnlyLevels = None,
    *,
    full: Annotated[
        bool, typer.Option("--full", help="In a terminal, summaries whole; a pipe gets them whole anyway.")
    ] = False,
    no_pager: Annotated[
        bool, typer.Option("--no-pager", help="Print what is longer than the screen, too, at once.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the tree of summaries of one repository, with its ledger; or one part of it in full.

    In a terminal each document is one line, `+12` says how many are in it, and what is longer than the screen opens in
    $PAGER. In a pipe every line has its whole summary.
    """
    from summidx.search.outline import build_outline, cut_roots, find_outline, fit_depth
    from summidx.settings import load_settings
    from summidx.store.generations import IndexRoot
    from summidx.terminal import make_console

    levels = parse_levels(level)
    root = IndexRoot(load_settings({} if index_root is None else {"index_root": index_root}).index_root)
    index = root.open(repo)
    documents = index.table.documents(searchable=False)
    outlines: Sequence[Outline] = build_outline(documents)
    part = None if path is None else find_outline(outlines, path)
    roots = outlines if part is None else [part]
    console = make_console(sys.stdout)
    if depth is None and console.is_terminal and not as_json and len(roots) == 1:
        depth = fit_depth(roots[0], SHOWN_IN_TERMINAL, levels)
    shown = cut_roots(roots, depth=depth, levels=levels)
    if as_json:
        ledger = {} if path is not None else {"ledger": _render_ledger(index.manifest, documents)}
        typer.echo(json.dumps(_render_roots(repo, shown, is_whole=len(roots) == 1) | ledger, indent=1))
        return

    def draw() -> None:
        from summidx.commands.outline_text import print_ledger, print_part, print_tree

        if part is not None:
            print_part(console, repo, part.document)
            print_tree(console, shown[0].children, full=full)
        else:
            print_ledger(console, repo, index.manifest, documents)
            print_tree(console, shown, full=full)

    if console.is_terminal and sys.stdin.isatty() and not no_pager:
        _draw_in_pager(console, draw)
    else:
        draw()


def _draw_in_pager(console: "Console", draw: Callable[[], None]) -> None:
    """Draw at once what fits the screen, and the rest in the user's pager: as git does, with its choice of options."""
    with console.capture() as captured:
        draw()
    text = captured.get()
    if text.count("\n") < console.height:
        console.file.write(text)
        return
    os.environ.setdefault("LESS", "FRX")
    with console.pager(styles=_shows_colours(os.environ.get("PAGER", "less"), os.environ["LESS"])):
        draw()


def _shows_colours(pager: str, options: str) -> bool:
    """Whether a pager shows colours as such: `less` does if it is told to, of others nothing is known."""
    program, _, given = pager.strip().partition(" ")
    return program.rpartition("/")[2] == "less" and "r" in f"{given} {options}".lower()


def _render_ledger(manifest: Manifest, documents: Iterable[Document]) -> dict[str, Any]:
    """What an index as a whole says of itself, and each document that is not ok."""
    faults = [
        {"id": each.id, "status": each.status.value, "reason": each.reason}
        for each in documents
        if each.status is not Status.OK
    ]
    kept = ("commit", "generation", "built_at", "summarizer", "embedding_model", "counts", "skips")
    return {name: getattr(manifest, name) for name in kept} | {"usage": asdict(manifest.usage), "faults": faults}


def _render_roots(repo: str, roots: "Sequence[Outline]", *, is_whole: bool) -> dict[str, Any]:
    if is_whole:
        return _render_outline(roots[0])
    return {
        "id": ".",
        "level": Level.REPO.value,
        "name": repo,
        "summary": "",
        "status": None,
        "origin": None,
        "reason": "this level is not in the index",
        "children": [_render_outline(each) for each in roots],
    }


def _render_outline(outline: "Outline") -> dict[str, Any]:
    document = outline.document
    return {
        "id": document.id,
        "level": document.level.value,
        "name": document.name,
        "summary": document.summary,
        "status": document.status.value,
        "origin": document.origin.value if document.origin else None,
        "reason": document.reason,
        "children": [_render_outline(child) for child in outline.children],
    }
