"""Many repositories, generated and real, and their indexes row by row."""

import shutil
import sysconfig
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lancedb
import pygit2

from benchmarks.scaling import list_sizes, make_repositories
from summidx.store.generations import IndexRoot

FOLDERS = ("partd", "jinja2")
REPOSITORIES = ("yarl", "tenacity")
"""Packages that summidx depends on, as they are installed: as plain folders, and as git repositories made of them."""


@dataclass(frozen=True)
class Fleet:
    """Repositories by name."""

    sources: Mapping[str, Path]

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.sources)

    def part(self, which: slice) -> "Fleet":
        """Some of them: first the generated ones, the smallest first, then the real ones."""
        return Fleet(dict(list(self.sources.items())[which]))

    def write_list(self, path: Path, revisions: Mapping[str, str] | None = None) -> Path:
        """A file for `--repos-file`."""
        at = {name: f"@{revision}" for name, revision in (revisions or {}).items()}
        path.write_text("".join(f"{name}={source}{at.get(name, '')}\n" for name, source in self.sources.items()))
        return path


def make_fleet(root: Path, *, generated: int, functions: float, real: int) -> Fleet:
    """Make repositories with a heavy tail in size, and add real code.

    Args:
        root: a new folder.
        generated: how many are generated.
        functions: their mean size.
        real: how many plain folders, and how many git repositories, of real code.
    """
    refs = make_repositories(root / "generated", list_sizes(generated, functions))
    sources = {ref.name: Path(ref.source) for ref in refs}
    site = Path(sysconfig.get_path("purelib"))
    sources |= {f"{name}-folder": site / name for name in FOLDERS[:real]}
    for name in REPOSITORIES[:real]:
        path = sources[name] = root / "real" / name
        shutil.copytree(site / name, path, ignore=shutil.ignore_patterns("__pycache__"))
        commit_all(path)
    return Fleet(sources)


def commit_all(path: Path, change: Mapping[str, str] | None = None) -> str:
    """Commit a folder as it is, or in a bare repository its last commit with other files written into it; its id."""
    author = pygit2.Signature("A. Author", "author@example.org", 1_700_000_000, 0)
    if change is None:
        repo = pygit2.init_repository(path, initial_head="main")
        repo.index.add_all()
        return str(repo.create_commit("HEAD", author, author, "all", repo.index.write_tree(), []))
    repo = pygit2.Repository(path)
    head = repo.head.peel(pygit2.Commit)
    index = pygit2.Index()
    index.read_tree(head.tree)
    for name, text in change.items():
        index.add(pygit2.IndexEntry(name, repo.create_blob(text.encode()), pygit2.enums.FileMode.BLOB))
    return str(repo.create_commit("HEAD", author, author, "change", index.write_tree(repo), [head.id]))


def read_rows(root: Path, name: str) -> list[dict[str, Any]]:
    """All rows of a published index, whole, sorted by id."""
    index = IndexRoot(root)
    folder = index.generation_folder(name, index.require_manifest(name))
    rows: list[dict[str, Any]] = lancedb.connect(folder).open_table("documents").to_arrow().to_pylist()
    return sorted(rows, key=lambda row: str(row["id"]))


def find_differences(root: Path, oracle: Path, names: Iterable[str]) -> list[str]:
    """What is lost, twice there or not as in the oracle; nothing where all indexes are as they should be."""
    found = []
    for name in sorted(names):
        if IndexRoot(root).find_manifest(name) is None:
            found.append(f"{name}: not published")
            continue
        rows, expected = read_rows(root, name), read_rows(oracle, name)
        times = Counter(row["id"] for row in rows)
        found += [f"{name}: {n} documents {id_}" for id_, n in times.items() if n > 1]
        found += [f"{name}: lost {row['id']}" for row in expected if row["id"] not in times]
        there = {row["id"]: row for row in expected}
        found += [
            f"{name}: {row['id']}: {[key for key in row if row[key] != there.get(row['id'], {}).get(key)]}"
            for row in rows
            if row != there.get(row["id"])
        ]
    return found
