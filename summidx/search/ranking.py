"""Pure: how documents that BM25 and vectors found are put in one order.

The scores of both parts are scaled by their own spread over the candidates and added, BM25 first. That is the sum of
z-scores up to a constant, which no order depends on; the zero is put where nothing matches, so that a document can be
weighed down by a factor. Equal-weight fusion of ranks lost 13 to 16 points of file accuracy against it. What the query
names is evidence of its own. The constants were chosen on a development set (benchmarks/README.md).
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from summidx.records import Document, Level
from summidx.search.mentions import Mentions

K1, B = 1.2, 0.75
"""Of BM25, as LanceDB has them."""

VECTOR_SHARE = 0.5
"""Weight of the vectors' part beside BM25's 1."""

MENTION_SHARE = 1.0
"""Weight of what the query names, in spreads of BM25's scores."""

MAX_NAMESAKES = 5
"""A name that more definitions have tells none of them apart: they are not looked up for it."""

SECONDARY_WEIGHT = 0.3
"""Tests, documentation, examples, vendored and generated code are weighed down, not hidden: half is too much for tests,
which say of a symptom what its issue says."""

CLASS_WEIGHT = 0.8
"""A class has a word of everything that is in it, and is what was meant less often than one of its methods."""

SPREAD_OVER = 100
"""So many of the best by words tell how far scores spread."""

RERANKED = 50
"""So many of the best are read by a cross-encoder, where there is one, however many hits are asked for."""

RERANK_SHARE = 1.0
"""Weight of what it says beside the score. It is not its word alone, since it does not know what a test is, nor what
the query names. Not measured: no weights of a cross-encoder were to be had."""

BEST_OF_FILE = 4
"""So many functions and classes speak for their file, each with half the weight of the one before."""

OWN_SHARE = 0.3
"""Weight of a file's own document beside what is in it."""

IMPORTER_SHARE = 0.15
"""Weight of the best file that imports it, past which it does not go."""


class Mode(StrEnum):
    """What a search goes by: `hybrid` BM25 and summary vectors, `bm25` words alone, `summary` vectors alone."""

    HYBRID = "hybrid"
    BM25 = "bm25"
    SUMMARY = "summary"

    @property
    def uses_words(self) -> bool:
        """Whether BM25 takes part."""
        return self is not Mode.SUMMARY

    @property
    def uses_vectors(self) -> bool:
        """Whether the embedding model takes part."""
        return self is not Mode.BM25


@dataclass(frozen=True, slots=True)
class Candidate:
    """A document of index `repo` that may be a hit.

    `bm25` is None where no word matches, `similarity` where vectors take no part. `named` is 1 where the query names it
    and nothing else by that name, less where others have it too, 0 where it does not.
    """

    repo: str
    row: int
    document: Document
    bm25: float | None
    similarity: float | None
    named: float = 0.0


Ranked = list[tuple[Candidate, float]]


def rank_candidates(candidates: Sequence[Candidate], mode: Mode) -> Ranked:
    """All candidates with their scores, best first; equal scores by repository and place in it.

    Scores are not negative. In the modes of one part they are in that part's own units: BM25 (with what the query
    names on top), or the cosine; until a cross-encoder has its say (`add_said`).
    """
    scores = np.zeros(len(candidates))
    if mode.uses_words:
        bm25 = np.array([each.bm25 or 0.0 for each in candidates])
        spread = _spread(np.sort(bm25)[::-1][:SPREAD_OVER])
        words = bm25 / spread + MENTION_SHARE * np.array([each.named for each in candidates])
        scores += words if mode is Mode.HYBRID else words * spread
    if mode.uses_vectors:
        cosines = np.array([each.similarity or 0.0 for each in candidates])
        if mode is Mode.HYBRID:
            scores += VECTOR_SHARE * (cosines - cosines.min(initial=1.0)) / _spread(cosines)
        else:
            scores += np.clip(cosines, 0.0, None)
    scores *= [_weight(each.document) for each in candidates]
    return _sort(zip(candidates, scores.tolist(), strict=True))


def add_said(ranked: Ranked, said: Sequence[float]) -> list[float]:
    """New scores of ranked candidates, the first of which a cross-encoder has read: what it says is added.

    The others stay behind them, in their order.

    Args:
        ranked: candidates and scores, which are not negative, best first.
        said: of the first ones; only differences count.
    """
    scores = np.array([score for _, score in ranked])
    scores /= _spread(scores[: len(said)])
    values = np.asarray(said, np.float64)
    values = (values - values.min(initial=np.inf)) / _spread(values)
    weights = np.array([_weight(each.document) for each, _ in ranked[: len(said)]])
    scores[: len(said)] += RERANK_SHARE * values * weights
    return list(scores.tolist())


def rank_files(ranked: Ranked) -> Ranked:
    """The files among ranked candidates, by what is in them: scores anew, best first.

    A file's score is the decayed sum of the best few of its functions and classes, a share of its own, and a share of
    the best file that imports it, past which it is not lifted. Only what is among the candidates counts.
    """
    inner: dict[tuple[str, str], list[float]] = defaultdict(list)
    files: dict[tuple[str, str], tuple[Candidate, float]] = {}
    for candidate, score in ranked:
        place = candidate.repo, candidate.document.path
        if candidate.document.level is Level.FILE:
            files[place] = candidate, score
        elif candidate.document.level in (Level.FUNCTION, Level.CLASS):
            inner[place].append(score)
    scores = {
        place: OWN_SHARE * own + sum(score / 2**at for at, score in enumerate(inner[place][:BEST_OF_FILE]))
        for place, (_, own) in files.items()
    }
    best_importer: dict[tuple[str, str], float] = defaultdict(float)
    for (repo, path), (candidate, _) in files.items():
        if not is_aside(candidate.document):
            for module in candidate.document.imports:
                best_importer[repo, module] = max(best_importer[repo, module], scores[repo, path])

    def lift(repo: str, path: str) -> float:
        importer = max(best_importer.get((repo, name), 0.0) for name in _module_names(path))
        own = scores[repo, path]
        return float(max(own, min(own + IMPORTER_SHARE * importer, 0.99 * importer)))

    return _sort((candidate, lift(repo, path)) for (repo, path), (candidate, _) in files.items())


def weigh_names(documents: Iterable[tuple[int, Document]], mentions: Mentions) -> dict[int, float]:
    """How much the query names each of the documents that may have one of its names, by row; others are left out.

    Args:
        documents: all functions and classes of an index whose name is among `mentions.names`, and all files whose name
            is among `mentions.file_names`, by row.
        mentions: what the query names.
    """
    found = list(documents)
    namesakes = Counter(each.name for _, each in found if not is_aside(each) and each.level is not Level.FILE)
    named: dict[int, float] = {}
    for row, document in found:
        if document.level is Level.FILE:
            if mentions.has_path(document.path):
                named[row] = 1.0
        elif ".".join(document.qualified_name.split(".")[-2:]) in mentions.names and "." in document.qualified_name:
            named[row] = 1.0
        elif document.name in mentions.names and namesakes[document.name] <= MAX_NAMESAKES:
            named[row] = 1.0 / (1.0 + math.log2(max(1, namesakes[document.name])))
    return named


def _module_names(path: str) -> list[str]:
    """What an import may call a file: the dotted ends of its path. `src/a/b.py` is src.a.b, a.b and b."""
    folder, _, name = path.rpartition("/")
    stem = name.rpartition(".")[0] or name
    parts = [part for part in folder.split("/") if part] + ([stem] if stem not in ("__init__", "index", "mod") else [])
    return [".".join(parts[at:]) for at in range(len(parts))] or [stem]


def idf(documents: int, frequency: int) -> float:
    """Weight of a word that `frequency` of `documents` hold, as BM25 in LanceDB has it."""
    return math.log1p((documents - frequency + 0.5) / (frequency + 0.5))


def weigh_terms(
    terms: Sequence[tuple[str, float]],
    here: Mapping[str, int],
    documents_here: int,
    everywhere: Mapping[str, int],
    documents_everywhere: int,
) -> list[tuple[str, float]]:
    """The terms that one index holds, weighed so that its BM25 scores compare with those of other indexes.

    A table weighs a word by how rare it is in that table, tests included, so that a word rare in one repository and
    common in another would score high in the one that has least to do with it. Multiplying a term's weight by (idf
    over the code of all) / (idf here) puts the rarity in the code of all searched indexes in its place.

    Args:
        terms: (word, weight).
        here: document frequencies in this index, as its table counts them.
        documents_here: number of documents in this index.
        everywhere: document frequencies in the code of all searched indexes.
        documents_everywhere: number of documents of code in them.
    """
    return [
        (word, weight * idf(documents_everywhere, everywhere.get(word, 0)) / idf(documents_here, here[word]))
        for word, weight in terms
        if here.get(word, 0) > 0
    ]


def score_words(text: str, weights: Mapping[str, float], average_words: float) -> float | None:
    """BM25 of a document, as LanceDB has it (k1 1.2, b 0.75); None where it holds none of the words.

    Args:
        text: its words, separated by spaces.
        weights: weight of each word times its rarity (`idf`).
        average_words: mean number of words of the documents of its index.
    """
    words = text.split()
    counts = Counter(filter(weights.__contains__, words))
    norm = K1 * (1 - B + B * len(words) / max(average_words, 1e-9))
    scores = [weights[word] * n * (K1 + 1) / (n + norm) for word, n in counts.items()]
    return sum(scores) if scores else None


def _sort(scored: Iterable[tuple[Candidate, float]]) -> Ranked:
    return sorted(scored, key=lambda pair: (-pair[1], pair[0].repo, pair[0].row))


def _spread(scores: npt.NDArray[np.float64]) -> float:
    spread = float(scores.std()) if len(scores) else 0.0
    return spread if spread > 1e-9 else 1.0


def is_aside(document: Document) -> bool:
    """Whether search weighs a document down."""
    return document.is_test or document.is_secondary


def _weight(document: Document) -> float:
    weight = SECONDARY_WEIGHT if is_aside(document) else 1.0
    return weight * CLASS_WEIGHT if document.level is Level.CLASS else weight
