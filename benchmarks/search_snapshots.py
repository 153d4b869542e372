"""The base commits of a data set as rows of words: each distinct file is parsed once, not once for each commit.

Documents have neither callers nor calls here, which need a commit as a whole; search reads neither.
"""

import pickle
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from summidx.documents import build_document, embedding_text
from summidx.evaluation.datasets import Instance
from summidx.keys import INDEX_VERSION
from summidx.parsing.budget import Budget
from summidx.parsing.child import read_file
from summidx.parsing.languages import resolve_calls
from summidx.parsing.links import ParsedFile
from summidx.parsing.syntax import Syntax
from summidx.parsing.units import FileFacts
from summidx.records import ChildSummary, Document, Level, Skip, Summary, SummaryRequest, Unit
from summidx.settings import SourceSettings
from summidx.sources import classify
from summidx.sources.git import GitRepository
from summidx.sources.gitdir import find_git_dir
from summidx.stop import Stop
from summidx.store.tokenize import build_search_text, tokenize_code
from summidx.summarizers.extractive import extract_summary

CPU_S_PER_FILE = 60.0
SOURCE_CHARS = 4_000
Blob = tuple[str, str]
"""(path, id of its content)."""


class Words:
    """Counts of words by row, for all rows of a repository."""

    def __init__(self, vocabulary: dict[str, int]) -> None:
        self._vocabulary = vocabulary
        self._starts, self._columns, self._counts = [0], [], []  # type: ignore[var-annotated]

    def add(self, words: Sequence[str]) -> None:
        """Add a row."""
        for word, n in Counter(words).items():
            self._columns.append(self._vocabulary.setdefault(word, len(self._vocabulary)))
            self._counts.append(n)
        self._starts.append(len(self._columns))

    def build(self) -> Any:  # noqa: ANN401 - scipy has no types
        """The matrix (rows, words), by column."""
        shape = len(self._starts) - 1, len(self._vocabulary)
        counts = np.array(self._counts, np.float32)
        return sparse.csr_matrix((counts, self._columns, self._starts), shape=shape).tocsc()


@dataclass(slots=True)
class Snapshots:
    """The commits of one repository. `rows` and `imports` are by instance id; `rows` are numbers of `documents`."""

    instances: list[Instance]
    documents: list[Document]
    texts: list[str]
    """What the vector of each document stands for."""
    sources: list[str]
    """The source of each function, as far as an embedding model may read it; "" of the others."""
    vocabulary: dict[str, int]
    searched: Any
    """(documents, words): counts of what the product searches."""
    bare: Any
    """(documents, words): the same without summary and keywords."""
    summaries: Any
    """(documents, words): counts of summary and keywords."""
    source: Any
    """(documents, words): counts of the own source alone."""
    rows: dict[str, npt.NDArray[np.int64]]
    imports: dict[str, Mapping[str, tuple[str, ...]]]


def load_snapshots(repo: str, clone: str, instances: Sequence[Instance], folder: Path) -> Snapshots:
    """The snapshots of a repository; what was made before, with the same rows as today's, lies in `folder`."""
    path = folder / f"{repo.replace('/', '__')}-{INDEX_VERSION}.pickle"
    if path.exists():
        with path.open("rb") as file:
            found: Snapshots = pickle.load(file)
        if [each.instance_id for each in found.instances] == [each.instance_id for each in instances]:
            return found
    start = time.perf_counter()
    snapshots = _read_snapshots(clone, instances)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(snapshots))
    print(f"{repo}: {len(snapshots.documents)} documents, {time.perf_counter() - start:.0f} s", flush=True)
    return snapshots


def _read_snapshots(clone: str, instances: Sequence[Instance]) -> Snapshots:
    git = GitRepository(find_git_dir(clone))
    blobs: dict[str, list[Blob]] = {}
    units: dict[Blob, list[Unit]] = {}
    syntaxes: dict[Blob, Syntax] = {}
    for instance in instances:
        _, tree = git.resolve_commit(instance.base_commit)
        found = list(git.iter_blobs(tree, SourceSettings(), Stop()))
        blobs[instance.instance_id] = [(path, str(oid)) for path, oid, size in found if not isinstance(size, Skip)]
        for path, oid, size in found:
            if not isinstance(size, Skip) and (path, str(oid)) not in units:
                units[path, str(oid)], syntax = _parse(path, git.read_blob(oid, path))
                if syntax is not None:
                    syntaxes[path, str(oid)] = syntax
    vocabulary: dict[str, int] = {}
    searched, bare, summaries, source = (Words(vocabulary) for _ in range(4))
    documents: list[Document] = []
    texts: list[str] = []
    sources: list[str] = []
    places: dict[Blob, range] = {}
    for blob, found_units in units.items():
        places[blob] = range(len(documents), len(documents) + len(found_units))
        told = _summarize(found_units)
        for unit in found_units:
            summary = told[unit.id]
            bare.add(build_search_text(unit).split())
            summaries.add(tokenize_code(f"{summary.text} {' '.join(summary.keywords)}"))
            source.add(tokenize_code(unit.own_source))
            document = build_document(unit, summary)
            searched.add(document.search_text.split())
            documents.append(replace(document, search_text=""))
            texts.append(embedding_text(document))
            sources.append(unit.own_source[:SOURCE_CHARS] if unit.level is Level.FUNCTION else "")
    return Snapshots(
        instances=list(instances),
        documents=documents,
        texts=texts,
        sources=sources,
        vocabulary=vocabulary,
        searched=searched.build(),
        bare=bare.build(),
        summaries=summaries.build(),
        source=source.build(),
        rows={
            name: np.array([row for blob in held for row in places.get(blob, ())], np.int64)
            for name, held in blobs.items()
        },
        imports={name: _resolve_imports(held, units, syntaxes) for name, held in blobs.items()},
    )


def _parse(path: str, data: bytes) -> tuple[list[Unit], Syntax | None]:
    if classify.not_text(path, data):
        return [], None
    is_opaque = classify.not_read_as_code(path, data) is not None
    facts = FileFacts(
        path=path,
        language=classify.language_of(path, data),
        is_opaque=is_opaque,
        is_test=classify.is_test_path(path),
        is_secondary=is_opaque or classify.is_secondary_path(path),
    )
    units, syntax, _ = read_file(facts, data, Budget(CPU_S_PER_FILE))
    return units, syntax


def _summarize(units: Sequence[Unit]) -> dict[str, Summary]:
    by_id = {unit.id: unit for unit in units}
    children: dict[str | None, list[Unit]] = defaultdict(list)
    for unit in units:
        children[unit.parent_id].append(unit)
    told: dict[str, Summary] = {}

    def tell(unit: Unit) -> ChildSummary:
        parent = by_id.get(unit.parent_id or "")
        header = parent.signature if parent is not None and parent.level is Level.CLASS else ""
        inner = tuple(sorted(map(tell, children[unit.id]), key=lambda child: child.name))
        told[unit.id] = extract_summary(SummaryRequest(unit=unit, header=header, children=inner))
        return ChildSummary(unit.level, unit.name, unit.signature, told[unit.id].text)

    for file in children[None]:
        tell(file)
    return told


def _resolve_imports(
    held: Sequence[Blob], units: Mapping[Blob, list[Unit]], syntaxes: Mapping[Blob, Syntax]
) -> Mapping[str, tuple[str, ...]]:
    files = [
        ParsedFile(
            blob[0],
            units[blob][0].language,
            syntaxes[blob],
            [unit.id for unit in units[blob][1:]],
            units[blob][0].is_test,
        )
        for blob in held
        if blob in syntaxes
    ]
    return resolve_calls(files).imports
