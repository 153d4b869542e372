"""The LanceDB door: one table of documents, with its words for BM25 and its vectors, and one of word counts.

Filters are built from enums and numbers only, never from text: a path such as `x' OR '1'='1` in a filter string would
select every row. Most tables are small (a repository), so vectors are searched exactly, and what search reads is held
in memory; a table of 50,000 rows and more has indexes over vectors (an approximate one) and names, and is never held.
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import lancedb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.expr import Expr, col, lit

from summidx.errors import StoreError
from summidx.records import Document, Level, Vectors
from summidx.store.columns import (
    AVERAGE_WORDS,
    DOCUMENT_COLUMNS,
    HIT_COLUMNS,
    RANKED_COLUMNS,
    ROWS_PER_BATCH,
    TOLD_COLUMNS,
    build_document,
    build_ranked,
    build_schema,
    count_average,
    count_words,
    iterate_batches,
    with_code_documents,
)
from summidx.store.held import HeldRows, Match, cosines_of, rank_matches, vectors_of
from summidx.store.lance import (
    APPROXIMATE_FROM_ROWS,
    DOCUMENTS,
    WORDS,
    add_vector_index,
    first_line,
    index_values,
    index_words,
)
from summidx.store.names import without_surrogates
from summidx.store.place import TableAddress
from summidx.store.table_reader import TableReader, faults_of

_ROWS_PER_FILE = 2**20
"""LanceDB begins another file past so many (`max_rows_per_file`). In one file, its id of a row is the row's place."""
OUTER_LEVELS = (Level.FILE, Level.DIRECTORY, Level.REPO)


@dataclass(frozen=True, slots=True)
class OuterRows:
    """The files, directories and the repository of an index, in the writer's order, as the fleet table takes them."""

    levels: Sequence[Level]
    aside: Sequence[bool]
    """Tests, documentation and the like."""
    texts: Sequence[str]
    """Words for BM25. A file's: its own and, once each, those of the functions and classes in it that it lacks."""
    vectors: npt.NDArray[np.float32]
    """(rows, dim), L2-normalised."""
    frequencies: Mapping[str, int]
    """How many of the rows hold each word."""
    documents: int
    """Of the index: all levels."""


@dataclass(frozen=True, slots=True)
class Frequency:
    """How many documents hold a word: all, and those that are neither tests nor secondary."""

    documents: int
    code_documents: int


def write_table(folder: Path, documents: Sequence[Document], vectors: Vectors) -> None:
    """Write the tables of one generation into `folder`, which is new and has one writer.

    Args:
        folder: where the tables are made.
        documents: the rows; their ids are unique.
        vectors: (len(documents), dim), in the same order.

    Raises:
        StoreError: rows and vectors do not fit together, an id comes twice, or the disk refused.
    """
    if len(documents) != len(vectors):
        raise StoreError(f"{len(documents)} documents came with {len(vectors)} vectors: this is a bug in summidx")
    repeated = [document_id for document_id, n in Counter(each.id for each in documents).items() if n > 1]
    if repeated:
        raise StoreError(f"the id {repeated[0]!r} comes more than once: this is a bug in the parser of its language")
    average = count_average([document.search_text for document in documents])
    schema = build_schema(vectors.dim).with_metadata({AVERAGE_WORDS: repr(average).encode()})
    words = count_words(documents)
    try:
        database = lancedb.connect(folder)
        table = database.create_table(
            DOCUMENTS, pa.Table.from_batches(iterate_batches(documents, vectors, schema), schema=schema)
        )
        index_words(table)
        word_table = database.create_table(WORDS, words)
        add_vector_index(table, len(documents))
        if len(documents) >= APPROXIMATE_FROM_ROWS:
            index_values(table, "name")
            index_values(word_table, "word")
    except (RuntimeError, OSError, ValueError) as error:
        raise StoreError(f"the index cannot be written to {folder}: {first_line(error)}") from error


class IndexTable:
    """The table of one generation, for reading; nothing is written. A row's number is its place in the writer's order.

    Raises:
        StoreError: at construction and from every method, when the table is missing or damaged.
    """

    hold = False
    """Keep what search reads of a small table in memory: 16 MB for 5,000 documents."""

    def __init__(self, address: TableAddress) -> None:
        self.address = address
        self._held: HeldRows | None = None
        self._holding = threading.Lock()
        self._table = TableReader(address)

    @cached_property
    def _words(self) -> TableReader:
        return TableReader(self.address, WORDS)

    @cached_property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._table.schema.field("vector").type.list_size)

    def count(self) -> int:
        """Number of rows."""
        return self._table.count()

    def read_whole(self) -> None:
        """Read every row of both tables, vectors included, and ask the index of words once."""
        for table in (self._table, self._words):
            whole = table.read_all()
            with faults_of(self.address):
                whole.validate(full=True)
        values = vectors_of(self._table.read(["vector"]), self.dim)
        words = self._words.read(["word"], limit=1).to_pylist()
        if not np.isfinite(values).all():
            raise StoreError(f"the index in {self.address.uri} is damaged (a vector holds no numbers): build it again")
        if not all(self.bm25([(row["word"], 1.0)], 1) for row in words):
            raise StoreError(f"the index in {self.address.uri} is damaged (it does not find its words): build it again")

    def documents(self, levels: Iterable[Level] | None = None, *, searchable: bool = True) -> list[Document]:
        """All documents, or those of some levels, in the order in which they were written.

        Without `searchable` their words for BM25 are not read, which are most of their bytes.
        """
        columns = DOCUMENT_COLUMNS if searchable else TOLD_COLUMNS
        return self._read_documents(columns, _filter(levels, None))

    def told_schema(self, *, vectors: bool) -> pa.Schema:
        """Names and types of the columns that `batches` gives."""
        names = [*TOLD_COLUMNS, *(["vector"] if vectors else [])]
        return pa.schema([field for name in names for field in [build_schema(self.dim).field(name)]])

    def batches(self, *, vectors: bool, rows_per_batch: int = ROWS_PER_BATCH) -> Iterator[pa.RecordBatch]:
        """All rows, without their words for BM25, in the order in which they were written; a part at a time.

        Args:
            vectors: whether they have the column `vector`.
            rows_per_batch: so many rows are in memory at once.

        Raises:
            StoreError: the table is damaged, or has not the rows that it counts.
        """
        columns = [*TOLD_COLUMNS, *(["vector"] if vectors else [])]
        for start in range(0, self.count(), rows_per_batch):
            end = min(start + rows_per_batch, self.count())
            part = (col("row") >= lit(start)) & (col("row") < lit(end))
            found = self._table.read(["row", *columns], where=part, limit=rows_per_batch).sort_by("row")
            if found.column("row").to_pylist() != list(range(start, end)):
                raise StoreError(f"the index in {self.address.uri} is damaged (rows are missing): build it again")
            yield from found.select(columns).combine_chunks().to_batches()

    def read(self, rows: Sequence[int]) -> list[Document]:
        """The documents of some rows, in the writer's order, whole but for their words for BM25."""
        if not rows:
            return []
        return self._read_documents(TOLD_COLUMNS, _filter(None, rows))

    def take(
        self, rows: Sequence[int], vector: npt.NDArray[np.float32] | None = None
    ) -> dict[int, tuple[Document, float | None]]:
        """The documents of some rows, with what they are ranked by (`RANKED_COLUMNS`): the other fields are empty.

        Each with the cosine of its vector and `vector`, or None without one.
        """
        if not rows:
            return {}
        wanted = sorted(rows)
        held = self._read_held_or_not()
        columns = [*RANKED_COLUMNS, *(["vector"] if vector is not None and held is None else [])]
        found = self._take(wanted, columns, held)
        cosines: Sequence[float | None] = [None] * len(wanted)
        if vector is not None:
            cosines = cosines_of(
                held.vectors[wanted] if held is not None else vectors_of(found, self.dim), vector
            ).tolist()
        documents = zip(build_ranked(found), cosines, strict=True)
        return dict(zip(found.column("row").to_pylist(), documents, strict=True))

    def tell(self, rows: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Of some rows what a hit says and is not ranked by (`HIT_COLUMNS`)."""
        if not rows:
            return {}
        found = self._take(sorted(rows), HIT_COLUMNS, self._read_held_or_not())
        return {row.pop("row"): row for row in found.to_pylist()}

    def _take(self, rows: list[int], columns: Sequence[str], held: HeldRows | None) -> pa.Table:
        """Rows, which are in order, with the column `row`."""
        if held is not None:
            return held.columns.select(["row", *columns]).take(pa.array(rows))
        # one writer wrote all rows at once, and none is ever deleted: a row's number is its offset
        return self._table.take(rows, ["row", *columns])

    @cached_property
    def documents_total(self) -> int:
        """Number of rows, counted once."""
        return self.count()

    @property
    def is_large(self) -> bool:
        """Whether it has indexes beside that of words, and is never held in memory."""
        return self.documents_total >= APPROXIMATE_FROM_ROWS

    @cached_property
    def code_documents(self) -> int:
        """Number of rows that are neither tests nor secondary (`Document.is_secondary`), counted once."""
        return self._table.count("NOT is_test AND NOT is_secondary")

    @cached_property
    def average_words(self) -> float:
        """Mean number of words of a document, counted once; 0 in an index without documents."""
        kept = (self._table.schema.metadata or {}).get(AVERAGE_WORDS)
        if kept is not None:
            return float(kept)
        return count_average(self._table.read(["search_text"]).column("search_text").to_pylist())

    def document_frequencies(self, words: Iterable[str]) -> dict[str, Frequency]:
        """Number of documents that hold each word; words that none holds are left out."""
        asked = sorted({without_surrogates(word) for word in words})
        if not asked:
            return {}
        if self._is_held():
            held = self._held_words
            rows = held.filter(pc.is_in(held.column("word"), value_set=pa.array(asked, pa.string()))).to_pylist()
        else:
            columns = self._words.schema.names
            rows = with_code_documents(self._words.read(columns, where=col("word").isin(asked))).to_pylist()
        return {row["word"]: Frequency(row["documents"], row["code_documents"]) for row in rows}

    def _is_held(self) -> bool:
        return self.hold and not self.is_large

    def _read_held_or_not(self) -> HeldRows | None:
        """What is held, looked up once: `hold` may turn true at any moment."""
        return self._read_held() if self._is_held() else None

    @cached_property
    def _held_words(self) -> pa.Table:
        return self.read_words().combine_chunks()

    def _read_held(self) -> HeldRows:
        """By one scan. Not a `cached_property`, which would let one table after the other be read (Python 3.11)."""
        with self._holding:
            if self._held is None:
                self._held = self._scan()
        return self._held

    def _scan(self) -> HeldRows:
        return HeldRows.of(self._table.read(["row", *RANKED_COLUMNS, *HIT_COLUMNS, "vector"]), self.dim)

    def read_words(self) -> pa.Table:
        """Of each word how many documents hold it, and how many of those of code: `word`, `documents`, ..."""
        return with_code_documents(self._words.read_all())

    def read_outer(self) -> OuterRows:
        """The files, directories and the repository; one row more for what has no file's row (`--levels`)."""
        columns = ["row", "level", "path", "is_test", "is_secondary", "search_text"]
        outer = frozenset(level.value for level in OUTER_LEVELS)
        rows = self._table.read(columns).sort_by("row").to_pylist()
        inner: dict[str, set[str]] = defaultdict(set)
        for row in rows:
            if row["level"] not in outer:
                inner[row["path"]].update(row["search_text"].split())
        kept = [row for row in rows if row["level"] in outer]
        texts = []
        frequencies: Counter[str] = Counter()
        for row in kept:
            text = row["search_text"]
            words = set(text.split())
            further = inner.pop(row["path"], set()) - words if row["level"] == Level.FILE else set()
            texts.append(" ".join([text, *sorted(further)]))
            frequencies.update(words)
            frequencies.update(further)
        vectors = self._read_vectors(None if inner else outer)
        values = [vectors[row["row"]] for row in kept]
        if inner:
            words = set().union(*inner.values())
            texts.append(" ".join(sorted(words)))
            frequencies.update(words)
            mean = np.mean([vectors[row["row"]] for row in rows if row["path"] in inner], axis=0)
            values.append(mean / max(float(np.linalg.norm(mean)), 1e-9))
        return OuterRows(
            levels=[*(Level(row["level"]) for row in kept), *([Level.REPO] if inner else [])],
            aside=[*(row["is_test"] or row["is_secondary"] for row in kept), *([False] if inner else [])],
            texts=texts,
            vectors=np.array(values, np.float32).reshape(len(texts), self.dim),
            frequencies=frequencies,
            documents=len(rows),
        )

    def _read_vectors(self, levels: Iterable[str] | None) -> dict[int, npt.NDArray[np.float32]]:
        found = self._table.read(["row", "vector"], where=None if levels is None else col("level").isin(sorted(levels)))
        return dict(zip(found.column("row").to_pylist(), vectors_of(found, self.dim), strict=True))

    def find_rows(self, column: Literal["name", "path"], values: Iterable[str], levels: Iterable[Level]) -> list[int]:
        """Rows of some levels whose `column` is exactly one of `values`, in the writer's order."""
        wanted = sorted({without_surrogates(value) for value in values})
        among = [level.value for level in levels]
        if not wanted or not among:
            return []
        held = self._read_held_or_not()
        if held is not None:
            return held.find_rows(column, wanted, among)
        condition = col(column).isin(wanted) & col("level").isin(among)
        return sorted(self._table.read(["row"], where=condition).column("row").to_pylist())

    def paths(self, levels: Iterable[Level]) -> list[str]:
        """The paths of documents of some levels, each once, in the writer's order."""
        condition = col("level").isin([level.value for level in levels])
        found = self._table.read(["row", "path"], where=condition)
        return list(dict.fromkeys(found.sort_by("row").column("path").to_pylist()))

    def bm25(
        self,
        terms: Sequence[tuple[str, float]],
        k: int,
        *,
        levels: Iterable[Level] | None = None,
        rows: Sequence[int] | None = None,
    ) -> list[Match]:
        """The k best rows by BM25 (k1 1.2, b 0.75), best first; rows without any of the terms are never among them.

        Args:
            terms: words of `tokenize_code` and weights, which multiply their scores; a word given twice counts twice.
            k: how many.
            levels: only these; None: all.
            rows: only these; None: all.
        """
        if not terms or k < 1:
            return []
        return self._search_words(terms, k, _filter(levels, rows), exact=True)

    def find_words(
        self, terms: Sequence[tuple[str, float]], k: int, *, levels: Iterable[Level] | None = None
    ) -> list[Match]:
        """The same in half the time, with scores that are nearly right: to find what is then scored (`score_words`)."""
        if not terms or k < 1:
            return []
        return self._search_words(terms, k, _filter(levels, None), exact=False)

    def nearest(
        self,
        vector: npt.NDArray[np.float32],
        k: int,
        *,
        levels: Iterable[Level] | None = None,
        rows: Sequence[int] | None = None,
        exact: bool = False,
    ) -> list[Match]:
        """The k rows whose vectors have the largest cosine with `vector`, best first.

        Exact in a table of few rows, nearly so in one with an index for that.

        Args:
            vector: (dim,) float32.
            k: how many.
            levels: only these; None: all.
            rows: only these, exactly; None: all.
            exact: do not use an approximate index.
        """
        if vector.shape != (self.dim,):
            raise StoreError(f"the query's vector has shape {vector.shape}, but the index holds {self.dim} dimensions")
        if k < 1 or (rows is not None and not rows):
            return []
        held = self._read_held_or_not()
        if held is not None:
            return held.nearest(vector, k, levels, rows)
        found = self._table.search_vectors(
            vector,
            k,
            [*self._row_columns, "_distance"],
            where=_filter(levels, rows),
            exact=exact,
            row_ids=self._is_one_file,
        )
        return rank_matches(Match(row, 1.0 - distance) for row, distance in self._scores(found, "_distance"))

    @property
    def held_bytes(self) -> int:
        """What of the table is held in memory."""
        words: pa.Table | None = self.__dict__.get("_held_words")
        held = self._held.nbytes if self._held else 0
        return int(held + (words.nbytes if words is not None else 0))

    def _search_words(
        self, terms: Sequence[tuple[str, float]], k: int, condition: Expr | None, *, exact: bool
    ) -> list[Match]:
        columns = [*self._row_columns, "_score"]
        found = self._table.search_words(terms, k, columns, where=condition, exact=exact, row_ids=self._is_one_file)
        return rank_matches(Match(row, score) for row, score in self._scores(found, "_score"))

    @property
    def _is_one_file(self) -> bool:
        return self.documents_total < _ROWS_PER_FILE

    @property
    def _row_columns(self) -> list[str]:
        """What a search must read to know the rows: to read the column `row` takes a seventh to a quarter more time."""
        return [] if self._is_one_file else ["row"]

    def _scores(self, found: pa.Table, column: str) -> Iterator[tuple[int, float]]:
        rows = found.column("_rowid" if self._is_one_file else "row")
        return zip(rows.to_pylist(), found.column(column).to_pylist(), strict=True)

    def _read_documents(self, columns: Sequence[str], condition: Expr | None) -> list[Document]:
        """In the writer's order."""
        found = self._table.read(["row", *columns], where=condition).sort_by("row").drop_columns(["row"])
        with faults_of(self.address):
            return [build_document(row) for batch in found.to_batches() for row in batch.to_pylist()]


def _filter(levels: Iterable[Level] | None, rows: Sequence[int] | None) -> Expr | None:
    conditions = []
    wanted = None if levels is None else {Level(level) for level in levels}
    if wanted is not None and wanted != set(Level):  # a condition on all costs a look at every row
        conditions.append(col("level").isin(sorted(level.value for level in wanted)))
    if rows is not None:
        conditions.append(col("row").isin([int(row) for row in rows]))
    if not conditions:
        return None
    return conditions[0] if len(conditions) == 1 else conditions[0] & conditions[1]
