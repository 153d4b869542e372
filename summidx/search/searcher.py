"""Search over one or many published indexes."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from summidx.embedding import Embedder
from summidx.errors import StorageUnavailable, StoreError, UnknownIndex, UsageError
from summidx.records import Hit, Level
from summidx.search.query import Query, build_query, limit_terms
from summidx.search.ranking import Candidate, Mode, rank_candidates, rank_files, weigh_names, weigh_terms
from summidx.store.generations import IndexRoot, PublishedIndex
from summidx.store.tables import Match

DEPTH = 300
"""So many of the best by words are candidates; more where more hits are asked for."""

VECTOR_DEPTH = 100
"""So many of the nearest by vectors are."""

INNER_LEVELS = frozenset({Level.FUNCTION, Level.CLASS})


class Searcher:
    """Searches the indexes under one root. An opened index is kept until another generation is published.

    Args:
        root: where the indexes lie.
        embedder: the model that they were built with; not needed for `Mode.BM25`.
    """

    def __init__(self, root: IndexRoot, embedder: Embedder | None = None) -> None:
        self.root = root
        self._embedder = embedder
        self.left_out: dict[str, str] = {}
        self._opened: dict[str, PublishedIndex] = {}

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
            repos: names of the indexes; None: all under the root.
            levels: only these levels; None: all.
            k: how many hits at most.
            mode: what to go by.

        Raises:
            UsageError: nothing to search for, `k` below 1, or a mode that needs an embedder without one.
            UnknownIndex: an index that does not exist, or none at all; the message names what there is.
            StoreError: an index that was named is damaged or was embedded by another model; where none was named,
                such a one is left out (`left_out`: name -> why), and it is an error only if none can be searched.
        """
        if k < 1:
            raise UsageError(f"{k} hits were asked for: ask for 1 or more")
        query = build_query(text)
        vector = self._embed(query) if mode.uses_vectors else None
        indexes = self._open(repos, by_vector=vector is not None)
        depth = max(DEPTH, 2 * k)
        asked = frozenset(Level) if levels is None else frozenset(levels)
        by_content = asked == {Level.FILE}
        read = asked | INNER_LEVELS if by_content else asked

        terms = _weigh_terms(query, indexes) if mode.uses_words else [[] for _ in indexes]
        rows = _find_rows([index.table.bm25(terms[at], depth, levels=read) for at, index in enumerate(indexes)], depth)
        if vector is not None:
            near = max(VECTOR_DEPTH, 2 * k)
            nearest = _find_rows([index.table.nearest(vector, near, levels=read) for index in indexes], near)
            rows = [rows[at] | nearest[at] for at in range(len(indexes))]
        candidates: list[Candidate] = []
        for at, index in enumerate(indexes):
            named = _find_named(index, query, read) if mode.uses_words else {}
            found = rows[at] | named.keys()
            part = list(_build_candidates(index, sorted(found), terms[at], vector, named))
            if by_content:
                files = index.table.find_rows("path", {each.document.path for each in part}, [Level.FILE])
                part += _build_candidates(index, sorted(set(files) - found), terms[at], vector, named)
            candidates += part
        ranked = rank_candidates(candidates, mode)
        if by_content:
            ranked = rank_files(ranked)
        return [_build_hit(candidate, score) for candidate, score in ranked[:k]]

    def _embed(self, query: Query) -> npt.NDArray[np.float32]:
        if self._embedder is None:
            raise UsageError("this mode needs an embedding model: give the Searcher one, or search with mode bm25")
        vector: npt.NDArray[np.float32] = self._embedder.embed([query.text], input_type="query").values[0]
        return vector

    def _open(self, repos: Sequence[str] | None, *, by_vector: bool) -> list[PublishedIndex]:
        names = list(dict.fromkeys(repos)) if repos is not None else self.root.names()
        if not names:
            raise UnknownIndex(
                f"there is nothing to search under {self.root.place.where}; {self.root.describe_names()}"
            )
        self.left_out = {}

        def open_or_leave_out(name: str) -> PublishedIndex | None:
            try:
                return self._open_one(name, by_vector=by_vector)
            except StorageUnavailable:
                raise
            except StoreError as error:
                if repos is not None or len(names) == 1:
                    raise
                self.left_out[name] = str(error)
                return None

        found = [each for each in self.root.each(open_or_leave_out, names) if each is not None]
        if not found:
            raise StoreError(f"none of the {len(names)} indexes can be searched: {next(iter(self.left_out.values()))}")
        return found

    def _open_one(self, name: str, *, by_vector: bool) -> PublishedIndex:
        manifest = self.root.read_manifest(name)
        opened = self._opened.get(name)
        if manifest is None or opened is None or opened.manifest.publish_id != manifest.publish_id:
            opened = self._opened[name] = self.root.open(name)
        ours = self._embedder.identity if self._embedder else ""
        if by_vector and opened.manifest.embedding_model != ours:
            raise StoreError(
                f"the index {name!r} was embedded by {opened.manifest.embedding_model}, the query by {ours}: "
                "name the index's model (--embedding-model, SUMMIDX_EMBEDDING__MODEL), or search with mode bm25"
            )
        return opened


def _weigh_terms(query: Query, indexes: Sequence[PublishedIndex]) -> list[list[tuple[str, float]]]:
    """The terms of the query for each index."""
    words = [word for word, _ in query.terms]
    frequencies = [index.table.document_frequencies(words) for index in indexes]
    here = [{word: each.documents for word, each in found.items()} for found in frequencies]
    in_code = [{word: each.code_documents for word, each in found.items()} for found in frequencies]
    terms = limit_terms(query.terms, sum(map(Counter, here), Counter[str]()))
    everywhere = sum(map(Counter, in_code), Counter[str]())
    code_documents = sum(index.table.code_documents for index in indexes)
    return [
        weigh_terms(terms, here[at], index.table.documents_total, everywhere, code_documents)
        for at, index in enumerate(indexes)
    ]


def _find_named(index: PublishedIndex, query: Query, levels: frozenset[Level]) -> dict[int, float]:
    """Rows of what the query names, and how much it does (`ranking.weigh_names`)."""
    mentions = query.mentions
    rows = index.table.find_rows("name", mentions.names, levels & INNER_LEVELS)
    rows += index.table.find_rows("name", mentions.file_names, levels & {Level.FILE})
    return weigh_names(sorted(index.table.take(rows).items()), mentions)


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
    terms: Sequence[tuple[str, float]],
    vector: npt.NDArray[np.float32] | None,
    named: Mapping[int, float],
) -> Iterator[Candidate]:
    """Candidates with both scores, whichever part found them."""
    if not rows:
        return
    bm25 = {match.row: match.score for match in index.table.bm25(terms, len(rows), rows=rows)}
    nearest = index.table.nearest(vector, len(rows), rows=rows) if vector is not None else []
    similarity = {match.row: match.score for match in nearest}
    for row, document in sorted(index.table.take(rows).items()):
        yield Candidate(index.name, row, document, bm25.get(row), similarity.get(row), named.get(row, 0.0))


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
