"""Indexes for `benchmarks.search`: the files of real, indexed packages, recombined; the same ones for the same options.

An index takes two thirds of its files from one package and the rest from all. One word in ten is another in each index
(`name` becomes `name17`), in the words of all its documents alike: repositories have names of their own, and equal
files in many of them would be equal answers. Vectors are those of the packages (hashed bags of words), each moved a
little.
"""

import os
import pickle
import random
import re
import shutil
import uuid
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from summidx.embedding.hashing import HashingEmbedder
from summidx.records import Counts, Document, Level, Manifest, Usage, Vectors, count_documents
from summidx.store.current import render_manifest
from summidx.store.generations import IndexRoot, generation_name

DIM = 384
EMBEDDER = HashingEmbedder(DIM)
Floats = npt.NDArray[np.float32]

OWN_WORDS = 10
"""One word in so many is an index's own."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of a package, with the functions and classes in it: rows of `Pool`."""

    package: str
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pool:
    """All documents of the packages."""

    documents: tuple[Document, ...]
    vectors: Floats
    """(documents, DIM), L2-normalised."""
    files: tuple[File, ...]
    directories: tuple[int, ...]
    repos: tuple[int, ...]


def load_pool(folder: Path) -> Pool:
    """Read the indexes of real packages, built by the product; what was read is kept beside them for the next time."""
    kept = folder / ".pool.pickle"
    if kept.exists():
        pool: Pool = pickle.loads(kept.read_bytes())
        return pool
    root = IndexRoot(folder)
    documents: list[Document] = []
    files: list[File] = []
    for name in root.names():
        start = len(documents)
        found = root.open(name).table.documents()
        documents += found
        by_path: dict[str, list[int]] = defaultdict(list)
        for row, document in enumerate(found, start):
            if document.level not in (Level.DIRECTORY, Level.REPO):
                by_path[document.path].append(row)
        files += [File(name, tuple(rows)) for rows in by_path.values()]
    texts = [f"{each.qualified_name}: {each.summary}" for each in documents]
    pool = Pool(
        tuple(documents),
        EMBEDDER.embed(texts, input_type="document").values,
        tuple(files),
        tuple(row for row, each in enumerate(documents) if each.level is Level.DIRECTORY),
        tuple(row for row, each in enumerate(documents) if each.level is Level.REPO),
    )
    partial_file = kept.with_suffix(f".{os.getpid()}")
    partial_file.write_bytes(pickle.dumps(pool))
    partial_file.replace(kept)
    return pool


def build_index(pool: Pool, number: int, size: int) -> tuple[list[Document], Vectors]:
    """Documents and vectors of one index; `size` documents."""
    chance = random.Random(number)
    packages = sorted({file.package for file in pool.files})
    own = [file for file in pool.files if file.package == packages[number % len(packages)]]
    rows = [chance.choice(pool.repos), *chance.sample(pool.directories, min(len(pool.directories), size // 100))]
    copies = ["", *(f"d{at}/" for at in range(len(rows) - 1))]
    while len(rows) < size:
        file = chance.choice(own if chance.random() < 2 / 3 else pool.files)
        rows += file.rows
        copies += [f"m{len(copies)}/"] * len(file.rows)
    rename = _Renaming(number)
    documents = [_place(pool.documents[row], copy, rename) for row, copy in zip(rows, copies, strict=True)][:size]
    generator = np.random.default_rng(number)
    values = pool.vectors[rows[:size]] + generator.normal(scale=0.2 / DIM**0.5, size=(size, DIM)).astype(np.float32)
    return documents, Vectors(values / np.linalg.norm(values, axis=1, keepdims=True))


class _Renaming(dict[str, str]):
    """What a word is called in one index."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __missing__(self, word: str) -> str:
        is_own = len(word) > 3 and zlib.crc32(f"{self._number} {word}".encode()) % OWN_WORDS == 0
        self[word] = renamed = f"{word}{self._number}" if is_own else word
        return renamed


def _place(document: Document, copy: str, rename: _Renaming) -> Document:
    path = f"{copy}{document.path}"
    return replace(
        document,
        id=f"{copy}{document.id}",
        path=path,
        calls=(),
        called_by=(),
        search_text=" ".join([rename[word] for word in document.search_text.split()]),
    )


def original_id(document_id: str) -> str:
    """The id that a document of `build_index` has in its package: many indexes have copies of it."""
    return re.sub(r"^[md]\d+/", "", document_id)


def publish_index(
    folder: Path, name: str, documents: Sequence[Document], vectors: Vectors, *, publish: int = 1
) -> None:
    """Publish an index as a build does, but without the sync of the file system."""
    root = IndexRoot(folder)
    manifest = _describe(name, publish, count_documents(documents))
    root.place.create()
    index = root.place.index(name)
    staging = index.begin(name, manifest.generation)
    staging.write(documents, vectors, [])
    with index.exclusive():
        index.settle(staging, generation_name(manifest))
        index.swap_current(render_manifest(manifest), manifest.publish_id, index.read_current())


def copy_index(folder: Path, name: str, other: str) -> None:
    """Publish the tables of another index under a name of its own, as another repository's."""
    root = IndexRoot(folder)
    source = root.require_manifest(other)
    manifest = _describe(name, 1, source.counts)
    target = root.generation_folder(name, manifest)
    target.parent.mkdir(parents=True)
    shutil.copytree(root.generation_folder(other, source), target)
    index = root.place.index(name)
    index.swap_current(render_manifest(manifest), manifest.publish_id, index.read_current())


def _describe(name: str, publish: int, counts: Counts) -> Manifest:
    return Manifest(
        name=name,
        publish_id=uuid.uuid4().hex,
        generation="g1",
        build_key=f"k{publish}",
        source=f"/repos/{name}",
        commit=f"{publish:040x}",
        tree=f"{publish:040x}",
        counts=counts,
        skips={},
        usage=Usage(durations_s={}),
        summarizer="extractive",
        embedding_model=EMBEDDER.identity,
        dim=DIM,
        prompt_version="1",
        tool_version="0",
        built_at="2026-11-28T00:00:00+00:00",
    )


def publish_number(folder: Path, pool_folder: Path, size: int, number: int, publish: int = 1) -> int:
    """Make and publish the index of a number; for worker processes, which load the pool once. Returns its documents."""
    if pool_folder not in _pools:
        _pools[pool_folder] = load_pool(pool_folder)
    documents, vectors = build_index(_pools[pool_folder], number + 100_000 * (publish - 1), size)
    publish_index(folder, f"repo-{number:05d}", documents, vectors, publish=publish)
    return len(documents)


_pools: dict[Path, Pool] = {}
