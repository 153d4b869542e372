"""Which of very many repositories a query is about: the fleet table is asked, and only those are opened."""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from summidx.errors import StoreError
from summidx.search.ranking import BEST_OF_FILE, SECONDARY_WEIGHT, VECTOR_SHARE, idf, weigh_terms
from summidx.store.fleet_manifest import Entry, FleetManifest, Segment, parse_fleet
from summidx.store.fleet_tables import FleetFrequency, FleetMatch, SegmentTable
from summidx.store.generations import IndexRoot

PICKED = 16
"""So many repositories are opened for a query at most, beside those that the fleet table does not know yet. Each costs
some 12 ms of CPU; benchmarks/README.md says what others hold."""

WORDS_DEPTH = 400
"""So many of the best rows by words speak for their repositories."""

VECTORS_DEPTH = 200
"""So many of the nearest by vectors do."""

PREFILTER_BELOW = 0.7
"""Where less of a segment than this may be picked, the others are left out before the search, else after it."""

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""`map`, or that of an executor."""


class Fleet:
    """The fleet table, opened: one manifest and its segments.

    Args:
        root: the indexes.
        manifest: of the table.

    Raises:
        StoreError: from every method, where a segment is missing or damaged.
    """

    def __init__(self, root: IndexRoot, manifest: FleetManifest) -> None:
        self.entries: Mapping[str, Entry] = {entry.name: entry for entry in manifest.entries}
        self.publish_ids = {name: each for segment in manifest.segments for name, each in segment.members.items()}
        self.code_documents = sum(segment.code_documents for segment in manifest.segments)
        self._segments = manifest.segments
        self._rows = sum(segment.rows for segment in manifest.segments)
        self._place = root.place.fleet()
        self._tables: dict[str, SegmentTable] = {}
        self._lock = threading.Lock()

    def frequencies(self, words: Sequence[str], run: Map = map) -> list[dict[str, FleetFrequency]]:
        """How often each word is, in each segment. `run`: as for `pick`."""
        return list(run(lambda segment: self._open(segment).frequencies(words), self._segments))

    def rarity(
        self, terms: Sequence[tuple[str, float]], found: Sequence[Mapping[str, FleetFrequency]]
    ) -> dict[str, float]:
        """What each word adds to a row's score, but for how often the row has it."""
        rows = _sum_rows(found)
        return {word: weight * idf(self._rows, rows[word]) for word, weight in terms}

    def find_near(
        self, vector: npt.NDArray[np.float32] | None, members: Mapping[str, str], run: Map = map
    ) -> Iterable[list[FleetMatch]]:
        """What is nearest to the vector in each segment, for `pick`; nothing without a vector.

        An executor's `run` looks for it from now on, while words are counted.
        """
        if vector is None:
            return ()
        segments = [(each, only) for each, only in self._searched(members) if each.dim == len(vector)]
        return run(lambda part: self._open(part[0]).nearest(vector, VECTORS_DEPTH, repos=part[1]), segments)

    def pick(
        self,
        terms: Sequence[tuple[str, float]],
        found: Sequence[Mapping[str, FleetFrequency]],
        near: Iterable[list[FleetMatch]],
        members: Mapping[str, str],
        run: Map = map,
    ) -> list[str]:
        """Names of the repositories that a query is about, the likeliest first.

        Args:
            terms: (word, weight); () where words do not count.
            found: `frequencies` of the words.
            near: `find_near` of the query's vector.
            members: publish id by name of the indexes that may be picked.
            run: as `map`; that of an executor asks several segments at once.
        """
        rows = _sum_rows(found)
        counted = {each.generation: part for each, part in zip(self._segments, found, strict=True)}

        def find(part: tuple[Segment, list[str] | None]) -> list[FleetMatch]:
            segment, only = part
            here = {word: each.rows for word, each in counted[segment.generation].items()}
            weighed = weigh_terms(terms, here, segment.rows, rows, self._rows)
            return self._open(segment).bm25(weighed, WORDS_DEPTH, repos=only)

        by_words = list(chain.from_iterable(run(find, self._searched(members))))
        by_vectors = chain.from_iterable(near)
        return rank_repositories(_select(by_words, members, WORDS_DEPTH), _select(by_vectors, members, VECTORS_DEPTH))

    def _searched(self, members: Mapping[str, str]) -> list[tuple[Segment, list[str] | None]]:
        """The segments that hold some of them, each with the only names to look for; None: all, and choose after."""
        searched: list[tuple[Segment, list[str] | None]] = []
        for segment in self._segments:
            live = [name for name, publish_id in segment.members.items() if members.get(name) == publish_id]
            if live:
                searched.append((segment, live if len(live) < PREFILTER_BELOW * len(segment.members) else None))
        return searched

    def _open(self, segment: Segment) -> SegmentTable:
        with self._lock:
            table = self._tables.get(segment.generation)
            if table is None:
                table = SegmentTable(self._place.files(segment.generation).table)
                self._tables[segment.generation] = table
        return table


class FleetReader:
    """Reads the fleet table of an index root, again when it has been refreshed."""

    def __init__(self, root: IndexRoot) -> None:
        self._root = root
        self._data: bytes | None = None
        self._fleet: Fleet | None = None

    def read(self) -> Fleet | None:
        """The fleet table as it is now; None where there is none.

        Raises:
            StoreError: its manifest is damaged or of another version of summidx, or cannot be read.
        """
        place = self._root.place.fleet()
        data = place.read_current().data
        if data is None:
            return None
        if self._fleet is None or data != self._data:
            try:
                self._fleet = Fleet(self._root, parse_fleet(data))
            except ValueError as error:
                raise StoreError(f"the manifest of the fleet table {place.where} cannot be used ({error})") from None
            self._data = data
        return self._fleet

    def forget(self) -> None:
        """Open it anew the next time."""
        self._fleet = None


def rank_repositories(words: Iterable[FleetMatch], near: Iterable[FleetMatch]) -> list[str]:
    """Pure: repositories by what was found in them, best first.

    A repository's score in each part is the decayed sum of the best few of its documents, as a file's is of its
    functions; the parts are scaled by their spread over the repositories and added, the vectors with their share.
    """
    near = list(near)
    floor = min((match.score for match in near), default=0.0)
    by_words = _sum_best((match, match.score) for match in words)
    by_vectors = _sum_best((match, match.score - floor) for match in near)
    scores: dict[str, float] = defaultdict(float)
    for part, share in ((by_words, 1.0), (by_vectors, VECTOR_SHARE)):
        spread = float(np.std(list(part.values()))) if part else 0.0
        for repo, score in part.items():
            scores[repo] += share * score / (spread if spread > 1e-9 else 1.0)
    return sorted(scores, key=lambda repo: (-scores[repo], repo))


def _sum_rows(found: Sequence[Mapping[str, FleetFrequency]]) -> Counter[str]:
    return sum((Counter({word: each.rows for word, each in part.items()}) for part in found), Counter[str]())


def _sum_best(scored: Iterable[tuple[FleetMatch, float]]) -> dict[str, float]:
    by_repo: dict[str, list[float]] = defaultdict(list)
    for match, score in scored:
        by_repo[match.repo].append(score * (SECONDARY_WEIGHT if match.is_aside else 1.0))
    return {
        repo: sum(score / 2**at for at, score in enumerate(sorted(scores, reverse=True)[:BEST_OF_FILE]))
        for repo, scores in by_repo.items()
    }


def _select(matches: Iterable[FleetMatch], members: Mapping[str, str], depth: int) -> list[FleetMatch]:
    """The best of those that are of a current publish."""
    live = [match for match in matches if members.get(match.repo) == match.publish_id]
    return sorted(live, key=lambda match: (-match.score, match.repo))[:depth]
