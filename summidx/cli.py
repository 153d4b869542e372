"""The `summidx` command: arguments in, lines or JSON out. Heavy imports happen inside the commands."""

import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

import summidx
from summidx.commands import cache as cache_command
from summidx.commands import eval as eval_command
from summidx.commands.disk import prune, show_disk
from summidx.commands.doctor import examine
from summidx.commands.export import export
from summidx.commands.fleet import refresh
from summidx.commands.plan import plan_build
from summidx.commands.report import show_report
from summidx.commands.show import show
from summidx.errors import StoreError, SummidxError, UnknownIndex, UsageError
from summidx.options import OnlyLevels, ReadFrom, Rerank, parse_levels
from summidx.records import Manifest, Status, count_where
from summidx.search.ranking import Mode

if TYPE_CHECKING:
    from summidx.settings import Settings
    from summidx.store.generations import IndexRoot


DEBUG = "SUMMIDX_DEBUG"
"""Set, an error that nobody raised on purpose shows its traceback."""


class _Commands(TyperGroup):
    """Turns errors into one line and an exit code: 2 for unusable arguments and unknown indexes, else 1."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - typer's own types for it are private
        try:
            return super().invoke(ctx)
        except SummidxError as error:
            told, code = str(error), 2 if isinstance(error, UsageError | UnknownIndex) else 1
        except Exception as error:
            # Typer's own (which can show themselves), and a reader of ours that went away, are Typer's business.
            if isinstance(error, typer.Exit | typer.Abort | BrokenPipeError) or hasattr(error, "show"):
                raise
            if os.environ.get(DEBUG):
                raise
            told, code = f"{type(error).__name__}: {error}", 1
            if not isinstance(error, OSError | MemoryError):
                told += f" (a fault of summidx: please report it, with the traceback that {DEBUG}=1 shows)"
        from summidx.escaping import escape_text

        typer.echo(f"error: {escape_text(told)}", err=True)
        raise typer.Exit(code)


app = typer.Typer(
    cls=_Commands,
    help="Read and search summary indexes of code repositories. `python flows/build.py --help` says how to build them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(cache_command.app, name="cache")
app.add_typer(eval_command.app, name="dataset")

app.command("plan", context_settings={"token_normalize_func": lambda token: token.replace("_", "-")})(plan_build)
app.command("doctor", context_settings={"token_normalize_func": lambda token: token.replace("_", "-")})(examine)
app.command("eval")(eval_command.evaluate_indexes)
app.command("show")(show)
app.command("export")(export)
app.command("disk")(show_disk)
app.command("prune")(prune)
app.command("fleet")(refresh)
app.command("report", context_settings={"token_normalize_func": lambda token: token.replace("_", "-")})(show_report)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _print_version(value: bool) -> None:  # noqa: FBT001 - the signature is typer's
    if value:
        typer.echo(f"summidx {summidx.__version__}")
        raise typer.Exit


@app.callback()
def prepare(
    *,
    version: Annotated[  # noqa: ARG001 - typer calls `_print_version` for it
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Read and search summary indexes of code repositories."""
    for stream in (sys.stdout, sys.stderr):  # a terminal without UTF-8 shows escapes instead of failing
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@app.command()
def search(  # noqa: PLR0913 - its options
    query: Annotated[str, typer.Argument(help="What to look for, in plain words or code; `-` reads standard input.")],
    index_root: ReadFrom = None,
    repo: Annotated[
        list[str] | None,
        typer.Option(
            "--repo",
            metavar="NAME",
            help="Search this index only, or those that a pattern fits (`team-*`); repeatable.",
        ),
    ] = None,
    level: OnlyLevels = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many hits at most.")] = 10,
    mode: Annotated[
        Mode, typer.Option(help="What to go by: words and summary vectors, words alone, or summary vectors alone.")
    ] = Mode.HYBRID,
    embedding_model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The model that the indexes were embedded by. [default: as set]")
    ] = None,
    rerank: Rerank = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Search for code in plain words.

    Of several commits of one repository the one that was built last is searched, unless --repo names others.
    """
    from summidx.escaping import escape_text
    from summidx.search.searcher import Searcher
    from summidx.search.selection import match_names
    from summidx.terminal import make_console, print_hits

    levels = parse_levels(level)
    settings, root = _load(index_root, embedding_model=embedding_model)
    if repo:
        match_names(root, repo, root.versions())  # before a model is loaded for nothing
    embedder = None
    if mode.uses_vectors:
        from summidx.embedding.models import load_embedder

        embedder = load_embedder(settings.embedding, force_cpu=True)  # one query is not worth waking a GPU that is busy
    reranker = None
    if rerank is not None:
        from summidx.embedding.models import load_reranker

        reranker = load_reranker(rerank, force_cpu=True)
    text = sys.stdin.read() if query == "-" else query
    searcher = Searcher(root, embedder, reranker)
    hits = searcher.search(text, repos=repo or None, levels=levels, k=k, mode=mode)
    for name, why in searcher.left_out.items():
        typer.echo(f"warning: the index {name!r} is left out: {why}", err=True)
    if searcher.slow:
        typer.echo(f"slow: {escape_text(searcher.slow)}; `summidx fleet` brings it up to date", err=True)
    if as_json:
        _print_json([asdict(hit) for hit in hits])
    else:
        print_hits(make_console(sys.stdout), hits)


@app.command("list")
def list_indexes(index_root: ReadFrom = None, *, as_json: JsonOption = False) -> None:
    """List the indexes under the index root."""
    from summidx.terminal import make_console, print_indexes

    _, root = _load(index_root)
    indexes = root.each(lambda name: _read_index(root, name), root.names())
    if as_json:
        _print_json([_render_index(name, manifest, error) for name, manifest, error in indexes])
    elif indexes:
        print_indexes(make_console(sys.stdout), indexes)
    else:
        typer.echo(f"under {root.place.where}: {root.describe_names()}", err=True)
    damaged = [name for name, manifest, _ in indexes if manifest is None]
    if damaged:
        raise StoreError(f"{len(damaged)} of {len(indexes)} indexes cannot be read: {', '.join(damaged)}: build again")


def _load(index_root: str | None, *, embedding_model: str | None = None) -> tuple["Settings", "IndexRoot"]:
    from summidx.settings import load_settings
    from summidx.store.generations import IndexRoot

    overrides: dict[str, Any] = {} if index_root is None else {"index_root": index_root}
    if embedding_model is not None:
        overrides["embedding"] = {"model": embedding_model}
    settings = load_settings(overrides)
    return settings, IndexRoot(settings.index_root)


def _read_index(root: "IndexRoot", name: str) -> tuple[str, Manifest | None, str]:
    try:
        return name, root.require_manifest(name), ""
    except StoreError as error:
        return name, None, str(error)


def _render_index(name: str, manifest: Manifest | None, error: str) -> dict[str, Any]:
    if manifest is None:
        return {"name": name, "error": error}
    return {
        "name": name,
        "commit": manifest.commit,
        "documents": count_where(manifest.counts),
        "failed": count_where(manifest.counts, status=Status.FAILED),
        "degraded": count_where(manifest.counts, status=Status.DEGRADED),
        "model": manifest.summarizer,
        "embedding_model": manifest.embedding_model,
        "built_at": manifest.built_at,
        "generation": manifest.generation,
        "source": manifest.source,
        "counts": manifest.counts,
        "skips": manifest.skips,
    }


def _print_json(value: object) -> None:
    """As ASCII: what an index holds cannot steer a terminal from inside JSON either."""
    typer.echo(json.dumps(value, indent=1))
