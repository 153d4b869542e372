"""What each part of the search is worth: rankings of known fixes with it and without, over many commits.

    summidx dataset history OWNER/NAME=PATH@REVISION ... > dev.jsonl        (benchmarks/search_sets.txt names them)
    python -m benchmarks.search_quality dev.jsonl --repo OWNER/NAME=PATH ... --work FOLDER --name search-dev

Summaries are extractive. Words, query, vectors, evidence and ranking are the product's own functions, and its constants
are what is changed. BM25 is computed here, as LanceDB computes it, and nearest vectors exactly. Differences come with a
paired bootstrap over instances (95 %).
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from benchmarks.harness import start_result, write_result
from benchmarks.search_snapshots import Snapshots, load_snapshots
from benchmarks.search_vectors import Vectors, embed_once
from summidx.embedding import Embedder
from summidx.embedding.models import load_embedder
from summidx.evaluation.datasets import Instance, load_instances
from summidx.evaluation.metrics import LevelResult, normalize_entity, rank_gold
from summidx.records import Document, Level
from summidx.search import query as queries
from summidx.search import ranking
from summidx.search.candidates import DEPTH, INNER_LEVELS, VECTOR_DEPTH
from summidx.search.parts import Part
from summidx.search.ranking import Candidate, Mode
from summidx.settings import EmbeddingSettings
from summidx.store.tokenize import tokenize_code

K1, B = 1.2, 0.75
RESAMPLES = 10_000
FIGURES = {"file@1": ("files", 1), "file@5": ("files", 5), "func@5": ("functions", 5), "func@10": ("functions", 10)}
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Results = list[dict[str, LevelResult]]


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to rank: our own with other constants, or a baseline over the source of functions."""

    name: str
    baseline: str = ""
    """`bm25` or `vectors` over the source of functions; "" for our own."""
    with_tests: bool = True
    """Of a baseline: whether tests and the like are among what it ranks."""
    mode: Mode = Mode.HYBRID
    vectors: str = "summaries"
    """What those of functions are of: `summaries`, `sources`, or the `larger` cosine of both."""
    constants: tuple[tuple[Any, str, Any], ...] = ()
    """(module, constant, value)."""
    columns: tuple[str, ...] = ("searched",)
    named: bool = True


ONE_PART = dict.fromkeys((part for part in Part if part is not Part.NOISE), 1.0)
BASELINES = (
    Variant("BM25 over raw functions", "bm25"),
    Variant("BM25 over raw functions but tests", "bm25", with_tests=False),
    Variant("vectors of raw functions", "vectors"),
    Variant("vectors of raw functions but tests", "vectors", with_tests=False),
)
OURS = Variant("ours (`--mode hybrid`)")
VARIANTS = (
    Variant("words alone (`--mode bm25`)", mode=Mode.BM25),
    Variant("vectors alone (`--mode summary`)", mode=Mode.SUMMARY),
    Variant("vectors of functions from their source", vectors="sources"),
    Variant("vectors of functions from both, the nearer", vectors="larger"),
    Variant("half as much of vectors", constants=((ranking, "VECTOR_SHARE", 0.25),)),
    Variant("twice as much of vectors", constants=((ranking, "VECTOR_SHARE", 1.0),)),
    Variant("without: stop words dropped", constants=((queries, "STOP_WORDS", frozenset()),)),
    Variant("without: parts weighed", constants=((queries, "PART_WEIGHTS", ONE_PART),)),
    Variant("without: names of the query", named=False),
    Variant("without: importers", constants=((ranking, "IMPORTER_SHARE", 0.0),)),
    Variant("without: file's own document", constants=((ranking, "OWN_SHARE", 0.0),)),
    Variant("file as its best function", constants=((ranking, "BEST_OF_FILE", 1),)),
    Variant("classes as functions", constants=((ranking, "CLASS_WEIGHT", 1.0),)),
    Variant("tests and the like not weighed down", constants=((ranking, "SECONDARY_WEIGHT", 1.0),)),
    Variant("tests and the like halved", constants=((ranking, "SECONDARY_WEIGHT", 0.5),)),
    Variant("extractive summaries of functions in the text, too", columns=("bare", "summaries")),
    Variant("without: summaries in the text", columns=("bare",)),
    Variant("source alone as the text", columns=("source",)),
)


class Embeds(StrEnum):
    """What is embedded: `all`; the `summaries`, as the product does, which takes half the time; or `none`."""

    ALL = "all"
    SUMMARIES = "summaries"
    NONE = "none"

    def list_variants(self) -> tuple[Variant, list[Variant]]:
        """Ours, and all that is compared with it, itself included; without vectors ours goes by words alone."""
        if self is Embeds.ALL:
            return OURS, [*BASELINES, OURS, *VARIANTS]
        baselines = [each for each in BASELINES if each.baseline == "bm25"]
        variants = [each for each in VARIANTS if each.vectors == "summaries"]
        if self is Embeds.SUMMARIES:
            return OURS, [*baselines, OURS, *variants]
        by_words = [
            replace(each, mode=Mode.BM25)
            for each in variants
            if each.mode is not Mode.SUMMARY and "VECTOR_SHARE" not in {name for _, name, _ in each.constants}
        ]
        return by_words[0], [*baselines, *by_words]


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors of one repository's documents and of what is asked. All are L2-normalised."""

    summaries: Vectors
    """(documents, dim)."""
    sources: Vectors
    """(documents, dim): of functions; 0 of the others."""
    queries: Mapping[str, Vectors]
    """By instance id: of what the product embeds of a query."""
    texts: Mapping[str, Vectors]
    """By instance id: of the whole text."""

    @classmethod
    def of(cls, snapshots: Snapshots, embedder: Embedder | None, folder: Path, *, sources: bool) -> "Embedded":
        """Embed them; what was embedded before lies in `folder`. Without an embedder there are none."""
        if embedder is None:
            nothing = np.zeros((0, 0), np.float32)
            return cls(nothing, nothing, {}, {})
        ids = [each.instance_id for each in snapshots.instances]
        texts = [each.problem_statement for each in snapshots.instances]
        asked = embed_once(embedder, [queries.build_query(text).text for text in texts], "query", folder)
        summaries = embed_once(embedder, snapshots.texts, "document", folder)
        of_sources = whole = np.zeros((0, summaries.shape[1]), np.float32)
        if sources:  # and what is asked of them
            whole = embed_once(embedder, texts, "query", folder)
            of_sources = embed_once(embedder, snapshots.sources, "document", folder)
            of_sources[[not source for source in snapshots.sources]] = 0.0
        return cls(
            summaries=summaries,
            sources=of_sources,
            queries=dict(zip(ids, asked, strict=True)),
            texts=dict(zip(ids, whole, strict=sources)),
        )

    def cosines(self, instance_id: str, rows: Ints, vectors: str) -> dict[int, float]:
        """Of the query with rows of documents."""
        found = self.summaries[rows] @ self.queries[instance_id]
        if vectors != "summaries":
            of_source = self.sources[rows] @ self.queries[instance_id]
            has_source = self.sources[rows].any(axis=1)
            found = np.where(has_source, of_source if vectors == "sources" else np.maximum(found, of_source), found)
        return dict(zip(rows.tolist(), found.tolist(), strict=True))


def rank_raw(
    snapshots: Snapshots, embedded: Embedded, instance: Instance, variant: Variant
) -> tuple[list[str], list[str]]:
    """Files and functions as a baseline ranks them, by the source of functions alone."""
    documents = snapshots.documents
    kept = np.array(
        [
            row
            for row in snapshots.rows[instance.instance_id]
            if documents[row].level is Level.FUNCTION and (variant.with_tests or not ranking.is_aside(documents[row]))
        ],
        np.int64,
    )
    if variant.baseline == "vectors":
        cosines = embedded.sources[kept] @ embedded.texts[instance.instance_id]
        scores = dict(zip(kept.tolist(), cosines.tolist(), strict=True))
    else:
        terms = _count_words(instance.problem_statement)
        scores = _bm25(snapshots, kept, terms, ("source",), code_only=False)
    order = _best(scores)
    return [documents[row].path for row in order], [_entity(documents[row]) for row in order]


def rank(snapshots: Snapshots, embedded: Embedded, instance: Instance, variant: Variant) -> tuple[list[str], list[str]]:
    """Files and entities (functions and classes), best first."""
    rows = snapshots.rows[instance.instance_id]
    documents = snapshots.documents
    query = queries.build_query(instance.problem_statement)
    mode = variant.mode
    scores = _bm25(snapshots, rows, query.terms, variant.columns, code_only=True) if mode.uses_words else {}
    cosines = embedded.cosines(instance.instance_id, rows, variant.vectors) if mode.uses_vectors else {}
    best, nearest = _best(scores), _best(cosines)

    def find(is_read: Callable[[Document], bool]) -> set[int]:
        by_words = [row for row in best if is_read(documents[row])][:DEPTH]
        return {*by_words, *[row for row in nearest if is_read(documents[row])][:VECTOR_DEPTH]}

    mentions = query.mentions
    here = [(int(row), documents[row]) for row in rows]
    named = (
        ranking.weigh_names(
            [
                (row, each)
                for row, each in here
                if each.name in (mentions.file_names if each.level is Level.FILE else mentions.names)
            ],
            mentions,
        )
        if variant.named and mode.uses_words
        else {}
    )

    def build(found: set[int]) -> list[Candidate]:
        return [
            Candidate("", row, documents[row], scores.get(row), cosines.get(row), named.get(row, 0.0))
            for row in sorted(found)
        ]

    inner = find(lambda document: document.level in INNER_LEVELS)
    entities = ranking.rank_candidates(
        build(inner | {row for row in named if documents[row].level in INNER_LEVELS}), mode
    )
    found = find(lambda _: True) | named.keys()
    paths = {documents[row].path for row in found}
    found |= {row for row, each in here if each.level is Level.FILE and each.path in paths}
    imports = snapshots.imports[instance.instance_id]
    candidates = [
        replace(each, document=replace(each.document, imports=imports.get(each.document.path, ())))
        if each.document.level is Level.FILE
        else each
        for each in build(found)
    ]
    files = ranking.rank_files(ranking.rank_candidates(candidates, mode))
    return [each.document.path for each, _ in files], [_entity(each.document) for each, _ in entities]


def evaluate(repos: Sequence[tuple[Snapshots, Embedded]], variant: Variant) -> Results:
    """Results of all instances under a variant."""
    results = []
    order = rank_raw if variant.baseline else rank
    with ExitStack() as stack:
        for module, constant, value in variant.constants:
            stack.enter_context(patch.object(module, constant, value))
        for snapshots, embedded in repos:
            for instance in snapshots.instances:
                files, entities = order(snapshots, embedded, instance, variant)
                gold = map(normalize_entity, instance.entities or ())
                results.append(
                    {"files": rank_gold(instance.files or (), files), "functions": rank_gold(gold, entities)}
                )
    return results


def compare(results: Results, reference: Results) -> dict[str, dict[str, Any]]:
    """Each figure, its difference from the reference's and its 95 % interval by paired bootstrap, in points."""
    random = np.random.default_rng(0)
    picks = random.integers(0, len(results), (RESAMPLES, len(results)))
    figures = {}
    for name, (level, k) in FIGURES.items():
        ours = np.array([100.0 * each[level].hits(k) for each in results])
        theirs = np.array([100.0 * each[level].hits(k) for each in reference])
        low, high = np.percentile((ours - theirs)[picks].mean(axis=1), [2.5, 97.5])
        figures[name] = {
            "value": round(float(ours.mean()), 1),
            "difference": round(float((ours - theirs).mean()), 1),
            "interval": [round(float(low), 1), round(float(high), 1)],
        }
    return figures


def _best(scores: Mapping[int, float]) -> list[int]:
    """Rows, best first."""
    return sorted(scores, key=lambda row: (-scores[row], row))


def _count_words(text: str) -> list[tuple[str, float]]:
    counts: dict[str, float] = defaultdict(float)
    for word in tokenize_code(text):
        counts[word] += 1.0
    return list(counts.items())


def _entity(document: Document) -> str:
    return normalize_entity(f"{document.path}:{document.qualified_name}")


def _bm25(
    snapshots: Snapshots,
    rows: Ints,
    terms: Sequence[tuple[str, float]],
    columns: Sequence[str],
    *,
    code_only: bool,
) -> dict[int, float]:
    """Scores by row; rarity of words over the code alone, or over all rows (without a bound on terms)."""
    if not len(rows):
        return {}
    total = len(snapshots.documents)
    is_here, is_code = np.zeros(total, bool), np.zeros(total, bool)
    is_here[rows] = True
    is_code[rows] = [not (code_only and ranking.is_aside(snapshots.documents[row])) for row in rows]
    lengths = sum((_lengths(snapshots, name) for name in columns), np.zeros(total))
    norm = K1 * (1 - B + B * lengths / max(1.0, float(lengths[rows].mean())))
    known = []
    for word, weight in terms:
        counts = _counts(snapshots, word, columns)
        held = np.flatnonzero((counts > 0) & is_here)
        if len(held):
            known.append((int(is_code[held].sum()), word, weight, held, counts[held]))
    if code_only:
        frequencies = {word: len(held) for _, word, _, held, _ in known}
        kept = {word for word, _ in queries.limit_terms(terms, frequencies)}
        known = [each for each in known if each[1] in kept]
    n = int(is_code.sum())
    scores = np.zeros(total)
    for frequency, _, weight, held, counts in known:
        scores[held] += weight * ranking.idf(n, frequency) * counts * (K1 + 1) / (counts + norm[held])
    return {int(row): float(scores[row]) for row in rows if scores[row] > 0}


_LENGTHS: dict[tuple[int, str], Floats] = {}


def _lengths(snapshots: Snapshots, column: str) -> Floats:
    key = id(snapshots), column
    if key not in _LENGTHS:
        _LENGTHS[key] = np.asarray(getattr(snapshots, column).sum(axis=1)).ravel()
    return _LENGTHS[key]


def _counts(snapshots: Snapshots, word: str, columns: Sequence[str]) -> Floats:
    counts = np.zeros(len(snapshots.documents))
    column = snapshots.vocabulary.get(word)
    if column is not None:
        for name in columns:
            matrix = getattr(snapshots, name)
            part = slice(matrix.indptr[column], matrix.indptr[column + 1])
            counts[matrix.indices[part]] += matrix.data[part]
    return counts


def render_table(figures: Sequence[tuple[str, Mapping[str, Mapping[str, Any]]]]) -> Iterator[str]:
    """The result as lines of a Markdown table: figures of what is compared with, differences of the others."""
    yield f"| | {' | '.join(FIGURES)} |"
    yield f"| --- |{' --- |' * len(FIGURES)}"
    for name, row in figures:
        cells = [
            f"{cell['value']} ({cell['difference']:+}, {cell['interval'][0]} to {cell['interval'][1]})"
            if cell["interval"] != [0.0, 0.0] or cell["difference"]
            else f"{cell['value']}"
            for cell in row.values()
        ]
        yield f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Measure all variants on a data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--repo", action="append", default=[], metavar="OWNER/NAME=PATH", help="a clone; repeatable")
    parser.add_argument("--work", type=Path, required=True, help="folder in which parsed snapshots are kept")
    parser.add_argument("--name", default="search-dev", help="of the result")
    parser.add_argument("--model", default=EmbeddingSettings().model, help="of sentence-transformers")
    parser.add_argument("--vectors", type=Embeds, choices=Embeds, default=Embeds.ALL, help="what is embedded")
    parser.add_argument("--no-write", action="store_true", help="print only")
    arguments = parser.parse_args()
    clones = dict(each.partition("=")[::2] for each in arguments.repo)
    by_repo: dict[str, list[Instance]] = defaultdict(list)
    for instance in load_instances(arguments.file):
        if instance.repo in clones:
            by_repo[instance.repo].append(instance)
    embeds: Embeds = arguments.vectors
    embedder = None if embeds is Embeds.NONE else load_embedder(EmbeddingSettings(model=arguments.model))
    repos = []
    for repo, found in sorted(by_repo.items()):
        snapshots = load_snapshots(repo, clones[repo], found, arguments.work)
        embedded = Embedded.of(snapshots, embedder, arguments.work, sources=embeds is Embeds.ALL)
        repos.append((snapshots, embedded))
    reference, variants = embeds.list_variants()
    ours = evaluate(repos, reference)
    figures = [(each.name, compare(ours if each is reference else evaluate(repos, each), ours)) for each in variants]
    counts = {repo: len(found) for repo, found in sorted(by_repo.items())}
    print("\n".join(render_table(figures)))
    if not arguments.no_write:
        named = [{"variant": name, **row} for name, row in figures]
        write_result(
            {
                **start_result(arguments.name),
                "instances": counts,
                "model": embedder.identity if embedder else None,
                "figures": named,
            }
        )


if __name__ == "__main__":
    main()
