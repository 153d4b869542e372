"""What a change costs: nothing changed, one edit, and 17 commits of one real repository at once.

    python -m benchmarks.incremental --repo PATH            # a git repository of Python code, bare or not

A repository's history is read from its objects; the edits are commits of a clone in a temporary folder.
"""

import argparse
import ast
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.dry_run import SERVED, dry_run
from summidx.engine import Engine
from summidx.hierarchy import Tree
from summidx.pipeline import index_repo
from summidx.records import Document, Level, PinnedRepo, RepoRef, Unit
from summidx.settings import Stage, load_settings
from summidx.store.generations import IndexRoot
from summidx.summarize import SummaryPolicy

SLOTS = 64
COMMITS = 17
VECTOR_TOLERANCE = 1e-3
MARK = "edited_by_the_benchmark"


@dataclass(frozen=True, slots=True)
class Edit:
    """One line that is put into a file. `line` is 0-based: the line before which it goes."""

    what: str
    unit_id: str
    path: str
    line: int
    text: str
    allowed: int
    """Calls: its own, and at most one for each ancestor in the printed tree."""


def git(repo: Path, *arguments: str) -> str:
    """Run git in a clone of our own; hooks and the user's settings have no say."""
    identity = ("-c", "user.name=benchmarks", "-c", "user.email=benchmarks@localhost", "-c", "core.hooksPath=/dev/null")
    done = subprocess.run(
        ["git", "-C", str(repo), *identity, *arguments], check=True, capture_output=True, text=True, errors="replace"
    )
    return done.stdout.strip()


def choose_edits(repo: Path, tree: Tree, policy: SummaryPolicy) -> list[Edit]:
    """An edit of a function, of a method, of a class body and of module-level code: of the first that have a call.

    Each goes into a unit with as many ancestors as there are in this repository for its kind.
    """
    edits = []
    for what, of_kind in (
        ("function", lambda unit, parent: unit.level is Level.FUNCTION and parent.level is Level.FILE),
        ("method", lambda unit, parent: unit.level is Level.FUNCTION and parent.level is Level.CLASS),
        ("class body", lambda unit, _: unit.level is Level.CLASS),
        ("module-level code", lambda unit, _: unit.level is Level.FILE and unit.path.endswith(".py")),
    ):
        found = [
            unit
            for unit in tree.units.values()
            if unit.parent_id is not None
            and not unit.is_test
            and not policy.needs_template(unit)
            and of_kind(unit, tree.units[unit.parent_id])
        ]
        for unit in sorted(found, key=lambda unit: (-tree.depths[unit.id], unit.id)):
            place = find_place(repo / unit.path, unit)
            if place is not None:
                allowed = 1 + len(list(tree.ancestors_of(unit.id)))
                edits.append(Edit(what, unit.id, unit.path, place[0], place[1], allowed))
                break
    return edits


def find_place(path: Path, unit: Unit) -> tuple[int, str] | None:
    """Where a line can be put so that it belongs to `unit` and to no other: (0-based line, its text); None: nowhere."""
    try:
        source = path.read_text(encoding="utf-8")
        module = ast.parse(source)
    except (OSError, ValueError, SyntaxError):
        return None
    if unit.level is Level.FILE:
        return len(source.splitlines()), f"{MARK.upper()} = True"
    for node in ast.walk(module):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name != unit.name:
            continue
        if not unit.start_line <= node.lineno <= unit.end_line:
            continue
        if isinstance(node, ast.ClassDef):
            has_docstring = ast.get_docstring(node) is not None
            statement = next(iter(node.body[has_docstring:]), None)
        else:
            statement = node.body[-1]
        if statement is None or statement.lineno == node.lineno:
            return None
        first = min([statement.lineno, *(each.lineno for each in getattr(statement, "decorator_list", ()))])
        return first - 1, f"{' ' * statement.col_offset}{MARK} = True"
    return None


def commit_edit(repo: Path, base: str, edit: Edit) -> str:
    """Commit an edit on top of `base`, and name the commit."""
    git(repo, "checkout", "--quiet", "--detach", "--force", base)
    path = repo / edit.path
    lines = path.read_text(encoding="utf-8").splitlines()
    lines.insert(edit.line, edit.text)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    git(repo, "commit", "--quiet", "--all", "--message", f"Edit {edit.unit_id}")
    return git(repo, "rev-parse", "HEAD")


def list_commits(repo: Path, n: int, *, far_apart: bool) -> list[str]:
    """`n` commits of the main line: the newest, or spread evenly over the newer half of the history."""
    line = git(repo, "rev-list", "--first-parent", "HEAD").splitlines()
    if far_apart:
        line = line[: max(n, len(line) // 2) : max(1, len(line) // 2 // n)]
    return line[:n]


def measure_edits(repo: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Nothing changed, then one edit of each kind, each from the same commit and the same cache."""
    base = git(repo, "rev-parse", "HEAD")
    first = dry_run(RepoRef("edited", str(repo), base))
    settings = load_settings()
    edits = choose_edits(repo, first.tree, SummaryPolicy(frozenset(settings.levels), settings.tests))
    with harness.workplace() as folder, harness.running_server(slots=SLOTS, service_scale=0.0) as server:

        def build(revision: str, *more: str) -> dict[str, int | str]:
            server.reset()
            options_ = [*_llm_options(server, folder, options), "--repo", f"edited={repo}@{revision}", *more]
            watched = harness.run_build(folder, options_)
            (repository,) = watched.repositories()
            counts = ("vectors_embedded", "vectors_reused")
            used = {name: repository["report"]["usage"][name] for name in counts}
            generation = repository["report"]["generation"]
            ending = repository["ending"]
            return {"calls": server.status()["received"], "ending": ending, **used, "generation": generation}

        cold = build(base)
        unchanged = build(base)
        forced = build(base, "--no-skip-existing")
        edited = []
        for edit in edits:
            done = build(commit_edit(repo, base, edit))
            edited.append(
                {
                    "edit": edit.what,
                    "unit": edit.unit_id,
                    "calls": done["calls"],
                    "allowed": edit.allowed,
                    "vectors_embedded": done["vectors_embedded"],
                    "target_met": 1 <= int(done["calls"]) <= edit.allowed,
                }
            )
    return {
        "commit": base[:12],
        "units": len(first.tree.units),
        "cold": {"calls": cold["calls"], "distinct_expected": len(first.keys)},
        "nothing_changed": {
            "calls": unchanged["calls"],
            "ending": unchanged["ending"],
            "new_generation": unchanged["generation"] != cold["generation"],
            "target_met": unchanged["calls"] == 0 and unchanged["generation"] == cold["generation"],
        },
        "nothing_changed_but_built_again": {"calls": forced["calls"], "vectors_embedded": forced["vectors_embedded"]},
        "edits": edited,
    }


def measure_commits(repo: Path, commits: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    """All `commits` started at once on 2 workers, against what they ask together; each index against a cold one."""
    names = [f"c{number:02d}" for number in range(len(commits))]
    refs = [RepoRef(name, str(repo), commit) for name, commit in zip(names, commits, strict=True)]
    dry_runs = [dry_run(ref) for ref in refs]
    union = frozenset().union(*(each.keys for each in dry_runs))
    with harness.workplace() as folder, harness.running_server(slots=SLOTS, service_scale=options.scale) as server:
        specs = [option for ref in refs for option in ("--repo", f"{ref.name}={ref.source}@{ref.revision}")]
        watched = harness.run_build(folder, [*_llm_options(server, folder, options), *specs])
        record = server.record()
        differences = _compare_with_cold(refs, folder / "index", options) if options.compare else None
    calls = record["received"]
    sizes = [len(each.keys) for each in dry_runs]
    return {
        "commits": [commit[:12] for commit in commits],
        "distinct_in_one": {"smallest": min(sizes), "newest": sizes[0], "largest": max(sizes)},
        "asked_by_all": sum(sizes),
        "distinct_in_union": len(union),
        "calls": calls,
        "prompts_asked_twice": calls - len({prompt for *_, prompt in record["requests"]}),
        "calls_of_distinct": round(calls / len(union), 4),
        "target_met": calls <= 1.02 * len(union) and not differences,
        "calls_of_newest_commit": round(calls / sizes[0], 3),
        "calls_of_mean_commit": round(calls * len(sizes) / sum(sizes), 3),
        "command_s": round(watched.seconds, 1),
        "cold_builds_that_differ": "not compared" if differences is None else differences,
    }


def _compare_with_cold(refs: Iterable[RepoRef], index_root: Path, options: argparse.Namespace) -> list[str]:
    """Build each commit by itself, with a cache of its own, and name each column of each commit that differs."""
    found: list[str] = []
    with harness.running_server(slots=SLOTS, service_scale=0.0) as server:
        for ref in refs:
            with harness.workplace() as folder:
                build_cold(ref, folder, server.base_url, options.embedding_model)
                found.extend(f"{ref.name}: {what}" for what in compare_indexes(index_root, folder, ref.name))
    return found


def build_cold(ref: RepoRef, index_root: Path, base_url: str, embedding_model: str) -> None:
    """Build one repository in this process, with nothing to go by."""
    settings = load_settings(
        {
            "index_root": str(index_root),
            "stage": Stage.BOTH,
            "llm": {"provider": "openai", "base_url": base_url},
            "embedding": {"model": embedding_model},
        }
    )
    with closing(Engine(settings, served_model=SERVED)) as engine:
        pinned = PinnedRepo(ref.name, ref.source, ref.revision or "", engine.build_key(ref.name), "cold")
        index_repo(pinned, engine)


def compare_indexes(one: Path, other: Path, name: str) -> list[str]:
    """What differs between two indexes of one name, column by column; vectors within VECTOR_TOLERANCE."""
    (documents, vectors), (others, other_vectors) = (_read_index(root, name) for root in (one, other))
    if documents.keys() != others.keys():
        return [f"ids ({len(documents.keys() ^ others.keys())} in one only)"]
    differing = []
    for column in (field.name for field in fields(Document)):
        rows = [id_ for id_, row in documents.items() if getattr(row, column) != getattr(others[id_], column)]
        if rows:
            differing.append(f"{column} of {len(rows)} rows, first {rows[0]}")
    gaps = [float(np.abs(vectors[id_] - other_vectors[id_]).max()) for id_ in documents]
    if max(gaps, default=0.0) > VECTOR_TOLERANCE:
        differing.append(f"vectors by up to {max(gaps):.2g}")
    return differing


def _read_index(root: Path, name: str) -> tuple[Mapping[str, Document], Mapping[str, Any]]:
    """Documents and vectors by id."""
    import lancedb

    index = IndexRoot(root)
    folder = index.generation_folder(name, index.require_manifest(name))
    documents = {document.id: document for document in index.open(name).table.documents()}
    table = lancedb.connect(str(folder)).open_table("documents")
    rows = table.search().select(["id", "vector"]).limit(len(documents)).to_list()
    return documents, {row["id"]: np.asarray(row["vector"], dtype=np.float32) for row in rows}


def _llm_options(server: harness.Server, folder: Path, options: argparse.Namespace) -> list[str]:
    return [
        *("--llm-provider", "openai", "--llm-base-url", server.base_url, "--llm-concurrency", str(SLOTS)),
        *("--num-processes", "2", "--index-root", str(folder / "index"), "--embedding-model", options.embedding_model),
        "--force-cpu",
    ]


def main() -> None:
    """Read the options, run, write the result."""
    parser = argparse.ArgumentParser(description="What a change costs.")
    parser.add_argument("--repo", required=True, help="a git repository of Python code, bare or not")
    parser.add_argument("--name", default="", help="of the repository, for the result")
    parser.add_argument("--commits", type=int, default=COMMITS)
    parser.add_argument("--scale", type=float, default=1.0, help="times the service time, for the commits at once")
    parser.add_argument("--embedding-model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--compare", action=argparse.BooleanOptionalAction, default=True, help="with cold builds")
    parser.add_argument("--parts", default="edits,adjacent,far-apart")
    parser.add_argument("--write", action=argparse.BooleanOptionalAction, default=True, help="the result's file")
    options = parser.parse_args()

    result = harness.start_result("incremental")
    parts = options.parts.split(",")
    with harness.workplace() as folder:
        clone = folder / "clone"
        subprocess.run(["git", "clone", "--quiet", options.repo, str(clone)], check=True)
        head = git(clone, "rev-parse", "HEAD")
        result |= {
            "repository": options.name or Path(options.repo).resolve().name.removesuffix(".git"),
            "head": head,
            "embedding_model": options.embedding_model,
        }
        for part in parts:
            if part == "edits":
                result[part] = measure_edits(clone, options)
                git(clone, "checkout", "--quiet", "--detach", "--force", head)
            else:
                commits = list_commits(clone, options.commits, far_apart=part == "far-apart")
                result[part] = measure_commits(clone, commits, options)
            print(json.dumps({part: result[part]}, indent=1), file=sys.stderr, flush=True)
    print(harness.write_result(result) if options.write else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
