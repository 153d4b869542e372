"""Search over one or many published indexes."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from summidx.documents import embedding_text
from summidx.embedding import Embedder, Reranker
from summidx.errors import StorageUnavailable, StoreError, UsageError
from summidx.records import Hit, Level, Status
from summidx.search.candidates import Asked, Vector, gather_candidates, map_at_once, sum_documents
from summidx.search.fleet import PICKED, Fleet, FleetReader
from summidx.search.query import Query, build_query, limit_terms, select_telling
from summidx.search.ranking import RERANKED, Candidate, Mode, Ranked, add_said, rank_candidates, rank_files
from summidx.search.selection import Names, Selection, match_names
from summidx.store.fleet import read_entries
from summidx.store.fleet_manifest import Entry, count_once
from summidx.store.generations import IndexRoot, PublishedIndex

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


class Searcher:
    """Searches the indexes under one root. An opened index is kept until another generation is published.

    Of more than `PICKED` repositories the fleet table picks those that are opened; without one, all are.

    Args:
        root: where the indexes lie.
        embedder: the model that they were built with; not needed for `Mode.BM25`.
        reranker: reads the best hits with the query, and has its say in their order; None: nobody does.
    """

    def __init__(self, root: IndexRoot, embedder: Embedder | None = None, reranker: Reranker | None = None) -> None:
        self.root = root
        self._embedder = embedder
        self._reranker = reranker
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
            EmbeddingError: a model failed.
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
        asked = Asked(query, vector, mode, frozenset(Level) if levels is None else frozenset(levels), k)
        ranked = rank_candidates(gather_candidates(asked, indexes, selection, self._threads), mode)
        if asked.by_content:
            ranked = rank_files(ranked)
        best = ranked[: k if self._reranker is None else max(k, RERANKED)]
        hits = self._build_hits(best, {index.name: index for index in indexes})
        return hits if self._reranker is None else _rerank(hits, best, self._reranker, query)[:k]

    def _embed(self, query: Query) -> Vector:
        if self._embedder is None:
            raise UsageError("this mode needs an embedding model: give the Searcher one, or search with mode bm25")
        vector: Vector = self._embedder.embed([query.text], input_type="query").values[0]
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
            near = fleet.find_near(vector, covered, self._threads.map)
            words = [word for word, _ in query.terms] if mode.uses_words else []
            frequencies = fleet.frequencies(words, self._threads.map)
            terms = limit_terms(query.terms, sum_documents(frequencies)) if mode.uses_words else []
            telling = select_telling(terms, fleet.rarity(terms, frequencies))
            picked = fleet.pick(telling, frequencies, near, covered, self._threads.map)
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

        found = [each for each in map_at_once(self._threads, open_or_leave_out, selection.names) if each is not None]
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

    def _build_hits(self, ranked: Ranked, indexes: Mapping[str, PublishedIndex]) -> list[Hit]:
        rows: dict[str, list[int]] = defaultdict(list)
        for candidate, _ in ranked:
            rows[candidate.repo].append(candidate.row)
        if not rows:
            return []
        found = map_at_once(self._threads, lambda name: indexes[name].table.tell(rows[name]), list(rows))
        told = dict(zip(rows, found, strict=True))
        return [_build_hit(candidate, score, told[candidate.repo][candidate.row]) for candidate, score in ranked]


def _rerank(hits: Sequence[Hit], ranked: Ranked, reranker: Reranker, query: Query) -> list[Hit]:
    """The hits of ranked candidates in the order that comes of what the reranker says of what their vectors say."""
    said = reranker.score(query.text, [embedding_text(hit) for hit in hits[:RERANKED]]).tolist()
    scored = [replace(hit, score=score) for hit, score in zip(hits, add_said(ranked, said), strict=True)]
    return sorted(scored, key=lambda hit: -hit.score)  # equal ones as they were


def _build_hit(candidate: Candidate, score: float, told: Mapping[str, Any]) -> Hit:
    document = candidate.document
    return Hit(
        repo=candidate.repo,
        id=told["id"],
        level=document.level,
        path=document.path,
        name=document.name,
        qualified_name=document.qualified_name,
        start_line=told["start_line"],
        end_line=told["end_line"],
        signature=told["signature"],
        summary=told["summary"],
        status=Status(told["status"]),
        score=score,
        bm25=candidate.bm25,
        similarity=candidate.similarity,
    )
