"""`summidx export`: an index as files for others. Heavy imports happen inside."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from summidx.errors import UsageError
from summidx.export.formats import Format
from summidx.index_uri import is_uri
from summidx.options import ReadFrom

STANDARD_OUTPUT = "-"


def export(
    repo: Annotated[str, typer.Argument(help="Name of the index.")],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="The file to write; for markdown the folder, which must be new, empty, or of an earlier export. `-`: "
            "standard output, for jsonl.",
        ),
    ],
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="jsonl: a line of JSON for each document; parquet: a table for dataframes and SQL; markdown: a wiki, "
            "a page for each directory and file.",
        ),
    ] = Format.JSONL,
    index_root: ReadFrom = None,
    *,
    vectors: Annotated[
        bool | None,
        typer.Option("--vectors/--no-vectors", help="Include the vectors. [default: in parquet, not in jsonl]"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Export an index: JSON lines, Parquet, or a wiki of Markdown pages. The output is written whole or not at all.

    A row or line has the names that `summidx search --json` uses, and all else that the index knows of a document; the
    column `vector` is a fixed-size list of float32, of length 1.
    """
    from summidx.export.writing import export_index, write_lines
    from summidx.settings import load_settings
    from summidx.store.generations import IndexRoot

    if output == STANDARD_OUTPUT and (form is not Format.JSONL or as_json):
        raise UsageError("only --format jsonl, without --json, goes to standard output: name a place with --output")
    if not output or is_uri(output):
        raise UsageError(f"--output {output!r} is no file or folder: name one of this machine, and copy it from there")
    with_vectors = form is Format.PARQUET if vectors is None else vectors
    index = IndexRoot(load_settings({} if index_root is None else {"index_root": index_root}).index_root).open(repo)
    if output == STANDARD_OUTPUT:
        write_lines(index, sys.stdout.buffer, vectors=with_vectors)
        sys.stdout.buffer.flush()
        return
    done = export_index(index, form, Path(output), vectors=with_vectors)
    if as_json:
        typer.echo(json.dumps({"index": repo, "format": form.value, "output": output} | asdict(done)))
    else:
        from summidx.escaping import escape_text
        from summidx.space import describe_bytes

        pages = f" on {done.files} pages" if form is Format.MARKDOWN else ""
        typer.echo(f"{done.documents} documents{pages}, {describe_bytes(done.size_bytes)}: {escape_text(output)}")
