"""The commands `summidx eval` and `summidx dataset`. Heavy imports happen inside."""

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from summidx.errors import UsageError
from summidx.options import ReadFrom, Rerank
from summidx.search.ranking import Mode

app = typer.Typer(help="Make data sets for `summidx eval`, and the lists of commits to index for them.")

FileArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FILE.jsonl",
        help="Instances, one JSON object a line: instance_id, repo, base_commit, problem_statement, and files and "
        "entities, edit_functions, or a patch.",
    ),
]


def evaluate_indexes(
    file: FileArgument,
    index_root: ReadFrom = None,
    mode: Annotated[Mode, typer.Option(help="What the search goes by.")] = Mode.HYBRID,
    embedding_model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The model that the indexes were embedded by. [default: as set]")
    ] = None,
    rerank: Rerank = None,
    *,
    locagent_filter: Annotated[
        bool,
        typer.Option("--locagent-filter", help="Leave out what LocAgent leaves out: 274 of SWE-bench Lite's 300 stay."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure how well the indexes find what fixes of known issues changed.

    The index of an instance is the one named INSTANCE_ID, else REPO@BASE_COMMIT, else REPO (`/` as `__`); `summidx
    dataset repos` lists the commits to build.
    """
    from summidx.evaluation.datasets import load_instances
    from summidx.evaluation.evaluate import build_report, evaluate
    from summidx.search.searcher import Searcher
    from summidx.settings import load_settings
    from summidx.store.generations import IndexRoot
    from summidx.terminal import make_console, print_evaluation

    instances = load_instances(file)
    overrides: dict[str, Any] = {} if index_root is None else {"index_root": index_root}
    if embedding_model is not None:
        overrides["embedding"] = {"model": embedding_model}
    settings = load_settings(overrides)
    embedder = None
    if mode.uses_vectors:
        from summidx.embedding.models import load_embedder

        embedder = load_embedder(settings.embedding, force_cpu=True)  # one query at a time is not worth a GPU
    reranker = None
    if rerank is not None:
        from summidx.embedding.models import load_reranker

        reranker = load_reranker(rerank)  # fifty texts for each of many queries
    root = IndexRoot(settings.index_root)
    judged = evaluate(
        instances,
        root,
        Searcher(root, embedder, reranker),
        mode,
        locagent_filter=locagent_filter,
        progress=_show_progress if sys.stderr.isatty() else None,
    )
    report = build_report(judged)
    if as_json:
        typer.echo(json.dumps(report, indent=1))
    else:
        print_evaluation(make_console(sys.stdout), report)
    if not report["n"]:
        raise UsageError(
            f"none of the {len(judged)} instances has an index under {root.place.where}: list the commits to build "
            "with `summidx dataset repos`, and build them with `python flows/build.py --repos-file`"
        )


def _show_progress(done: int, of: int) -> None:
    typer.echo(f"\r{done}/{of}", err=True, nl=done == of)


@app.command("repos")
def list_repos(
    file: FileArgument,
    repos_root: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the clones: OWNER/NAME, OWNER__NAME or NAME in it."),
    ] = None,
    repo: Annotated[
        list[str] | None, typer.Option("--repo", metavar="OWNER/NAME=PATH", help="A clone by itself; repeatable.")
    ] = None,
) -> None:
    """Print a line NAME=PATH@COMMIT for each commit that a data set needs: the --repos-file of a build."""
    from summidx.evaluation.datasets import build_specs, load_instances

    instances = load_instances(file)
    given = _parse_clones(repo or ())
    sources = {name: given.get(name) or _find_clone(name, repos_root) for name in sorted({i.repo for i in instances})}
    for line in build_specs(instances, sources):
        typer.echo(line)


@app.command("history")
def list_fixes(
    repo: Annotated[
        list[str],
        typer.Argument(metavar="OWNER/NAME=PATH[@REVISION]...", help="Clones, and where their history begins."),
    ],
    limit: Annotated[int, typer.Option(min=1, help="Instances of each repository at most.")] = 50,
    *,
    strip_names: Annotated[
        bool, typer.Option("--strip-names", help="Take the names of what is to be found out of the queries.")
    ] = False,
) -> None:
    """Print a data set made of repositories' own histories: commits that fix something in one or two functions.

    The query is the commit's message, the commit to search is its parent.
    """
    from summidx.evaluation.history import iterate_fixes
    from summidx.stop import Stop

    for name, spec in _parse_clones(repo).items():
        path, at, revision = spec.rpartition("@")
        source, start = (path, revision) if at else (spec, "HEAD")
        for instance in iterate_fixes(name, source, start, Stop(), limit=limit, strip_names=strip_names):
            record = asdict(instance)
            del record["patch"]
            typer.echo(json.dumps(record))


def _parse_clones(values: Iterable[str]) -> dict[str, str]:
    clones = {}
    for value in values:
        name, _, path = value.partition("=")
        if not name or not path:
            raise UsageError(f"{value!r} names no clone: write OWNER/NAME=PATH")
        clones[name] = str(Path(path).absolute())
    return clones


def _find_clone(repo: str, repos_root: Path | None) -> str:
    if repos_root is None:
        raise UsageError(f"where is the clone of {repo}? Give --repos-root DIR, or --repo {repo}=PATH")
    names = (repo, repo.replace("/", "__"), repo.rpartition("/")[2])
    for name in (*names, *(f"{name}.git" for name in names)):
        if (repos_root / name).is_dir():
            return str((repos_root / name).absolute())
    raise UsageError(
        f"there is no clone of {repo} under {repos_root} ({', '.join(names)}): clone it, or name it by --repo"
    )
