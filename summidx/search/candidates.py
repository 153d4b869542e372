"""Candidates for a query, from the open indexes: found by words, by vectors and by name, and scored by all of them."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from summidx.records import Level
from summidx.search.query import Query, limit_terms, select_telling
from summidx.search.ranking import Candidate, Mode, idf, score_words, weigh_names, weigh_terms
from summidx.search.selection import Selection
from summidx.store.fleet_tables import FleetFrequency
from summidx.store.generations import PublishedIndex
from summidx.store.held import Match
from summidx.store.tables import Frequency

K = TypeVar("K")
T = TypeVar("T")
Vector = npt.NDArray[np.float32]

DEPTH = 300
"""So many of the best by words are candidates; more where more hits are asked for."""

VECTOR_DEPTH = 100
"""So many of the nearest by vectors are."""

INNER_LEVELS = frozenset({Level.FUNCTION, Level.CLASS})


@dataclass(frozen=True, slots=True)
class Asked:
    """What a search is for. Without a `vector` words alone are asked."""

    query: Query
    vector: Vector | None
    mode: Mode
    levels: frozenset[Level]
    k: int
    """Hits."""

    @property
    def by_content(self) -> bool:
        """Whether files are looked for, which are ranked by what is in them."""
        return self.levels == {Level.FILE}

    @property
    def read(self) -> frozenset[Level]:
        """The levels of what is looked up."""
        return self.levels | INNER_LEVELS if self.by_content else self.levels


def gather_candidates(
    asked: Asked, indexes: Sequence[PublishedIndex], selection: Selection, threads: Executor
) -> list[Candidate]:
    """All candidates of all indexes; those that the fleet table picked are many, and each is asked for fewer."""
    many = selection.fleet is not None
    depth, near = (max(n // 3 if many else n, 2 * asked.k) for n in (DEPTH, VECTOR_DEPTH))
    # Vectors and names are asked in the threads while the words are counted and looked up.
    by_vector = _ask_nearest(asked, indexes, selection, near, threads)
    by_name: Iterable[dict[int, float]] = ()
    if asked.mode.uses_words and not many:
        by_name = threads.map(lambda index: _find_named(index, asked.query, asked.read), indexes)
    weights, by_words = _ask_words(asked, indexes, selection, depth, threads)
    rows = [one | other for one, other in zip(_find_rows(by_words, depth), _find_rows(by_vector(), near), strict=True)]
    named_in = list(by_name) or [{} for _ in indexes]

    def build(at: int) -> list[Candidate]:
        index, named = indexes[at], named_in[at]
        wanted = rows[at] | named.keys()
        part = list(_build_candidates(index, sorted(wanted), weights, asked.vector, named))
        if many and asked.mode.uses_words:  # what is named is rare, and so among what its words have found
            named = weigh_names([(each.row, each.document) for each in part], asked.query.mentions)
            part = [replace(each, named=named.get(each.row, 0.0)) for each in part]
        if asked.by_content:
            files = index.table.find_rows("path", {each.document.path for each in part}, [Level.FILE])
            part += _build_candidates(index, sorted(set(files) - wanted), weights, asked.vector, named)
        return part

    return [each for part in map_at_once(threads, build, range(len(indexes))) for each in part]


def map_at_once(threads: Executor, call: Callable[[K], T], keys: Sequence[K]) -> list[T]:
    """What `call` returns for each key: LanceDB answers several questions at once sooner than one by one."""
    return [call(keys[0])] if len(keys) == 1 else list(threads.map(call, keys))


def sum_documents(frequencies: Sequence[Mapping[str, FleetFrequency]]) -> Counter[str]:
    """How many documents hold each word, in all segments of the fleet table together."""
    return sum((Counter({word: each.documents for word, each in part.items()}) for part in frequencies), Counter[str]())


def _ask_nearest(
    asked: Asked, indexes: Sequence[PublishedIndex], selection: Selection, near: int, threads: Executor
) -> Callable[[], list[list[Match]]]:
    """Begin to look for the nearest by vectors in each index; what is returned waits for them."""
    vector = asked.vector
    likely = [
        at for at, each in enumerate(indexes) if asked.mode is Mode.SUMMARY or each.name not in selection.unlikely
    ]
    if vector is None:
        return lambda: [[] for _ in indexes]
    found = threads.map(lambda at: indexes[at].table.nearest(vector, near, levels=asked.read), likely)

    def wait() -> list[list[Match]]:
        by_place = dict(zip(likely, found, strict=True))
        return [by_place.get(at, []) for at in range(len(indexes))]

    return wait


def _ask_words(
    asked: Asked, indexes: Sequence[PublishedIndex], selection: Selection, depth: int, threads: Executor
) -> tuple[dict[str, float], list[list[Match]]]:
    """What each word of the query is worth, and the best by words in each index."""
    words = [word for word, _ in asked.query.terms] if asked.mode.uses_words else []
    of_table = selection.fleet.publish_ids if selection.fleet else {}
    uncounted = [each for each in indexes if of_table.get(each.name) != each.manifest.publish_id]
    counts = map_at_once(threads, lambda index: index.table.document_frequencies(words), uncounted)
    frequencies = dict(zip([each.name for each in uncounted], counts, strict=True))
    weights, terms = _weigh_terms(asked.query, indexes, frequencies, selection)
    found = map_at_once(
        threads, lambda at: indexes[at].table.find_words(terms[at], depth, levels=asked.read), range(len(indexes))
    )
    return weights, found


def _weigh_terms(
    query: Query,
    indexes: Sequence[PublishedIndex],
    frequencies: Mapping[str, Mapping[str, Frequency]],
    selection: Selection,
) -> tuple[dict[str, float], list[list[tuple[str, float]]]]:
    """The words of the query, each as rare as it is over all indexes, opened or not.

    Args:
        query: the query.
        indexes: the opened indexes.
        frequencies: of the query's words, by name of those indexes that the fleet table does not count.
        selection: what the fleet table counts.

    Returns:
        What each word adds to a document's score, but for how often the document has it; and for each index the terms
        by which it finds candidates, made to compare (`ranking.weigh_terms`) where its own counts are known. Where the
        fleet table has them together with others', a word is taken to be as rare in one index as in all.
    """
    counted = [index for index in indexes if index.name in frequencies]
    here = {name: {word: each.documents for word, each in found.items()} for name, found in frequencies.items()}
    of_fleet = [Counter({word: each.code_documents for word, each in part.items()}) for part in selection.frequencies]
    in_code = [Counter({word: each.code_documents for word, each in found.items()}) for found in frequencies.values()]
    documents = sum_documents(selection.frequencies) + sum(map(Counter, here.values()), Counter[str]())
    terms = limit_terms(query.terms, documents)
    everywhere = sum((*of_fleet, *in_code), Counter[str]())
    code_documents = sum(index.table.code_documents for index in counted)
    if selection.fleet is not None:
        code_documents += selection.fleet.code_documents
    weights = {word: weight * idf(code_documents, everywhere[word]) for word, weight in terms}
    telling = select_telling(terms, weights)
    by_index = [
        weigh_terms(
            telling if index.table.is_large else terms,
            here[index.name],
            index.table.documents_total,
            everywhere,
            code_documents,
        )
        if index.name in here
        else telling
        for index in indexes
    ]
    return weights, by_index


def _find_named(index: PublishedIndex, query: Query, levels: frozenset[Level]) -> dict[int, float]:
    """Rows of what the query names, and how much it does (`ranking.weigh_names`)."""
    mentions = query.mentions
    rows = index.table.find_rows("name", mentions.names, levels & INNER_LEVELS)
    rows += index.table.find_rows("name", mentions.file_names, levels & {Level.FILE})
    return weigh_names([(row, each) for row, (each, _) in sorted(index.table.take(rows).items())], mentions)


def _find_rows(found: Sequence[Sequence[Match]], depth: int) -> list[set[int]]:
    """Of what each index found, the rows of the best `depth` over all."""
    best = sorted(((-match.score, at, match.row) for at, matches in enumerate(found) for match in matches))[:depth]
    rows: list[set[int]] = [set() for _ in found]
    for _, at, row in best:
        rows[at].add(row)
    return rows


def _build_candidates(
    index: PublishedIndex,
    rows: Sequence[int],
    weights: Mapping[str, float],
    vector: Vector | None,
    named: Mapping[int, float],
) -> Iterator[Candidate]:
    """Candidates with both scores, whichever part found them."""
    if not rows:
        return
    average = index.table.average_words if weights else 0.0
    for row, (document, similarity) in sorted(index.table.take(rows, vector).items()):
        bm25 = score_words(document.search_text, weights, average)
        yield Candidate(index.name, row, document, bm25, similarity, named.get(row, 0.0))
