"""Search over one or many published indexes."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from summidx.embedding import Embedder
from summidx.errors import StorageUnavailable, StoreError, UsageError
from summidx.records import Hit, Level
from summidx.search.fleet import PICKED, Fleet, FleetReader
from summidx.search.query import Query, build_query, limit_terms, select_telling
from summidx.search.ranking import (
    Candidate,
    Mode,
    idf,
    rank_candidates,
    rank_files,
    score_words,
    weigh_names,
    weigh_terms,
)
from summidx.search.selection import Names, Selection, match_names
from summidx.store.fleet import read_entries
from summidx.store.fleet_manifest import Entry, count_once
from summidx.store.fleet_tables import FleetFrequency
from summidx.store.generations import IndexRoot, PublishedIndex
from summidx.store.tables import Frequency, Match

K = TypeVar("K")
T = TypeVar("T")
Vector = npt.NDArray[np.float32]

DEPTH = 300
"""So many of the best by words are candidates; more where more hits are asked for."""

VECTOR_DEPTH = 100
"""So many of the nearest by vectors are."""

OPENED_KEPT = 512
"""So many opened indexes are kept for the next query; more where one query needs more. One takes 1.5 MB and an open
file: a process may have 1,024 on most systems."""

HELD_BYTES = 768 * 2**20
"""While less than this is held in memory of what is opened, a query may add what it needs."""

HELD_AFTER = 8
"""An index is held when so many queries have asked it: to read it into memory costs what some ten queries save."""

HELD_AT_ONCE = 64
"""A query that opens more indexes than this holds nothing of them."""

HOLDS_PER_QUERY = 2
"""A query that would be the first to hold more of them leaves these to the next ones: each costs it 0.1 s."""

NEAR_IN = 4
"""Of the repositories that the fleet table picks, so many are also searched by vectors, where words count as well:
twice as many found no more of what a search of all finds, in 40 queries."""

THREADS = 4
"""Indexes are asked by so many threads: LanceDB answers outside of Python."""

INNER_LEVELS = frozenset({Level.FUNCTION, Level.CLASS})


class Searcher:
    """Searches the indexes under one root. An opened index is kept until another generation is published.

    Of more than `PICKED` repositories the fleet table picks those that are opened; without one, all are.

    Args:
        root: where the indexes lie.
        embedder: the model that they were built with; not needed for `Mode.BM25`.
    """

    def __init__(self, root: IndexRoot, embedder: Embedder | None = None) -> None:
        self.root = root
        self._embedder = embedder
        self.left_out: dict[str, str] = {}
        self.slow = ""
        """Why the last search opened more indexes than with a good fleet table; "" where it did not."""
        self._fleet = FleetReader(root)
        self._entries: dict[str, Entry] = {}
        self._opened: dict[str, tuple[str, PublishedIndex]] = {}
        self._uses: Counter[str] = Counter()
        """Queries that wanted each of them."""
        self._threads = ThreadPoolExecutor(max(THREADS, root.place.at_once), thread_name_prefix="summidx-search")

    def search(
        self,
        text: str,
        *,
        repos: Sequence[str] | None = None,
        levels: Iterable[Level] | None = None,
        k: int = 10,
        mode: Mode = Mode.HYBRID,
    ) -> list[Hit]:
        """The k best documents for a query in plain words or code, best first.

        Scores of several indexes compare: a term's weight is its rarity over all of them (`ranking.weigh_terms`), and
        cosines of one model compare by themselves.

        Args:
            text: the query.
            repos: names of the indexes, or patterns (`*`, `?`, `[...]`) of names; None: all under the root. Of several
                commits of one repository that are not named themselves, the one that was built last counts.
            levels: only these levels; None: all.
            k: how many hits at most.
            mode: what to go by.

        Raises:
            UsageError: nothing to search for, `k` below 1, or a mode that needs an embedder without one.
            UnknownIndex: an index that does not exist, or none at all; the message names what there is.
            StoreError: an index that was named is damaged or was embedded by another model; one that was not named is
                left out then (`left_out`: name -> why), and it is an error only if none can be searched.
        """
        if k < 1:
            raise UsageError(f"{k} hits were asked for: ask for 1 or more")
        query = build_query(text)
        self.left_out, self.slow = {}, ""
        versions = self.root.versions()
        names = match_names(self.root, repos, versions)
        vector = self._embed(query) if mode.uses_vectors else None
        selection = self._select(names, versions, query, vector, mode)
        indexes = self._open(selection, versions, by_vector=vector is not None)
        many = selection.fleet is not None
        depth, near = (max(n // 3 if many else n, 2 * k) for n in (DEPTH, VECTOR_DEPTH))
        asked = frozenset(Level) if levels is None else frozenset(levels)
        by_content = asked == {Level.FILE}
        read = asked | INNER_LEVELS if by_content else asked

        # vectors and names are asked in the threads while the words are counted and looked up
        numbers = range(len(indexes))
        likely = [at for at in numbers if mode is Mode.SUMMARY or indexes[at].name not in selection.unlikely]
        nearest: Iterable[list[Match]] = ()
        if vector is None:
            likely = []
        else:
            nearest = self._threads.map(lambda at: indexes[at].table.nearest(vector, near, levels=read), likely)
        by_name = mode.uses_words and not many
        named_in = self._threads.map(lambda at: _find_named(indexes[at], query, read), numbers if by_name else [])

        words = [word for word, _ in query.terms] if mode.uses_words else []
        of_table = selection.fleet.publish_ids if selection.fleet else {}
        uncounted = [each for each in indexes if of_table.get(each.name) != each.manifest.publish_id]
        counts = self._map(lambda index: index.table.document_frequencies(words), uncounted)
        frequencies = dict(zip([each.name for each in uncounted], counts, strict=True))
        weights, terms = _weigh_terms(query, indexes, frequencies, selection)
        found = self._map(lambda at: indexes[at].table.find_words(terms[at], depth, levels=read), numbers)
        by_vector: list[list[Match]] = [[] for _ in indexes]
        for at, matches in zip(likely, nearest, strict=True):
            by_vector[at] = matches
        rows = [
            each | others for each, others in zip(_find_rows(found, depth), _find_rows(by_vector, near), strict=True)
        ]
        all_named = dict(zip(numbers, named_in, strict=False))

        def build(at: int) -> list[Candidate]:
            index = indexes[at]
            named = all_named.get(at, {})
            wanted = rows[at] | named.keys()
            part = list(_build_candidates(index, sorted(wanted), weights, vector, named))
            if many and mode.uses_words:  # what is named is rare, and so among what its words have found
                named = weigh_names([(each.row, each.document) for each in part], query.mentions)
                part = [replace(each, named=named.get(each.row, 0.0)) for each in part]
            if by_content:
                files = index.table.find_rows("path", {each.document.path for each in part}, [Level.FILE])
                part += _build_candidates(index, sorted(set(files) - wanted), weights, vector, named)
            return part

        ranked = rank_candidates([candidate for part in self._map(build, numbers) for candidate in part], mode)
        if by_content:
            ranked = rank_files(ranked)
        return [_build_hit(candidate, score) for candidate, score in ranked[:k]]

    def _embed(self, query: Query) -> npt.NDArray[np.float32]:
        if self._embedder is None:
            raise UsageError("this mode needs an embedding model: give the Searcher one, or search with mode bm25")
        vector: npt.NDArray[np.float32] = self._embedder.embed([query.text], input_type="query").values[0]
        return vector

    def _select(
        self, names: Names, versions: Mapping[str, str], query: Query, vector: Vector | None, mode: Mode
    ) -> Selection:
        """The indexes to open."""
        if not names.matched:
            return Selection(names.named, frozenset(names.named))
        fleet = self._read_fleet() if len(names.matched) > PICKED else None
        known = {**(fleet.entries if fleet else {}), **self._entries}
        entries, unreadable = read_entries(self.root, known, {name: versions[name] for name in names.matched})
        self._entries |= entries
        self.left_out |= unreadable
        counted = count_once(entries.values())
        if not counted and not names.named:
            raise StoreError(
                f"none of the {len(unreadable)} indexes can be searched: {next(iter(unreadable.values()))}"
            )
        if fleet is None or len(counted) <= PICKED:
            if len(counted) > PICKED:
                self.slow = f"{self.slow or 'there is no fleet table'}: all {len(counted)} indexes were searched"
            strict = names.named if names.named or len(counted) > 1 else tuple(counted)
            return Selection((*names.named, *counted), frozenset(strict))
        members = {
            name: each.publish_id for name, each in counted.items() if self._fits(each, by_vector=vector is not None)
        }
        covered = {name: each for name, each in members.items() if fleet.publish_ids.get(name) == each}
        try:
            words = [word for word, _ in query.terms] if mode.uses_words else []
            frequencies = fleet.frequencies(words, self._threads.map)
            terms = limit_terms(query.terms, _sum_documents(frequencies)) if mode.uses_words else []
            telling = select_telling(terms, fleet.rarity(terms, frequencies))
            picked = fleet.pick(telling, frequencies, vector, covered, self._threads.map)
        except StorageUnavailable:
            raise
        except StoreError as error:
            self._fleet.forget()
            self.slow = f"{error}: all {len(members)} indexes were searched"
            return Selection((*names.named, *members), frozenset(names.named))
        others = [name for name in members if name not in covered]
        if len(others) > PICKED:
            self.slow = (
                f"the fleet table does not know {len(others)} of {len(members)} indexes yet: they were all searched"
            )
        return Selection(
            (*names.named, *picked[:PICKED], *others),
            frozenset(names.named),
            fleet,
            frequencies,
            frozenset(picked[NEAR_IN:]),
        )

    def _read_fleet(self) -> Fleet | None:
        try:
            return self._fleet.read()
        except StorageUnavailable:
            raise
        except StoreError as error:
            self.slow = str(error)
            return None

    def _fits(self, entry: Entry, *, by_vector: bool) -> bool:
        """Whether the index can be searched by this query's vector; left out if not."""
        if by_vector and (why := self._describe_other_model(entry.name, entry.embedding_model)):
            self.left_out[entry.name] = why
            return False
        return True

    def _open(self, selection: Selection, versions: Mapping[str, str], *, by_vector: bool) -> list[PublishedIndex]:
        def open_or_leave_out(name: str) -> PublishedIndex | None:
            try:
                return self._open_one(name, versions.get(name, ""), by_vector=by_vector)
            except StorageUnavailable:
                raise
            except StoreError as error:
                if name in selection.strict:
                    raise
                self.left_out[name] = str(error)
                return None

        found = [each for each in self._map(open_or_leave_out, selection.names) if each is not None]
        if not found and self.left_out:
            raise self._nothing_left()
        while len(self._opened) > max(OPENED_KEPT, len(found)):
            del self._opened[next(iter(self._opened))]
        if selection.fleet is None:  # else the next query is about others
            self._hold(found)
        return found

    def _hold(self, indexes: Sequence[PublishedIndex]) -> None:
        """Have what is asked again and again held in memory, as far as there is room."""
        held = sum(opened.table.held_bytes for _, opened in self._opened.values())
        if held < HELD_BYTES and len(indexes) <= HELD_AT_ONCE:
            wanted = [each for each in indexes if self._uses[each.name] >= HELD_AFTER and not each.table.hold]
            for index in wanted[:HOLDS_PER_QUERY]:
                index.table.hold = True

    def _nothing_left(self) -> StoreError:
        why = next(iter(self.left_out.values()), "they are gone")
        return StoreError(f"none of the {len(self.left_out)} indexes can be searched: {why}")

    def _open_one(self, name: str, version: str, *, by_vector: bool) -> PublishedIndex:
        known, opened = self._opened.pop(name, ("", None))
        if opened is None or known != version or not version:
            self._uses.pop(name, None)
            opened = self.root.open(name)
        self._uses[name] += 1
        self._opened[name] = version, opened  # the last one used is the last one closed
        if by_vector and (why := self._describe_other_model(name, opened.manifest.embedding_model)):
            raise StoreError(why)
        return opened

    def _describe_other_model(self, name: str, model: str) -> str:
        ours = self._embedder.identity if self._embedder else ""
        if model == ours:
            return ""
        return (
            f"the index {name!r} was embedded by {model}, the query by {ours}: "
            "name the index's model (--embedding-model, SUMMIDX_EMBEDDING__MODEL), or search with mode bm25"
        )

    def _map(self, call: Callable[[K], T], keys: Sequence[K]) -> list[T]:
        """What `call` returns for each key: LanceDB answers several questions at once sooner than one by one."""
        return [call(keys[0])] if len(keys) == 1 else list(self._threads.map(call, keys))


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
    documents = _sum_documents(selection.frequencies) + sum(map(Counter, here.values()), Counter[str]())
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


def _sum_documents(frequencies: Sequence[Mapping[str, FleetFrequency]]) -> Counter[str]:
    return sum((Counter({word: each.documents for word, each in part.items()}) for part in frequencies), Counter[str]())


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


def _build_hit(candidate: Candidate, score: float) -> Hit:
    document = candidate.document
    return Hit(
        repo=candidate.repo,
        id=document.id,
        level=document.level,
        path=document.path,
        name=document.name,
        qualified_name=document.qualified_name,
        start_line=document.start_line,
        end_line=document.end_line,
        signature=document.signature,
        summary=document.summary,
        status=document.status,
        score=score,
        bm25=candidate.bm25,
        similarity=candidate.similarity,
    )
