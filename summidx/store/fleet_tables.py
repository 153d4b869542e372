"""The LanceDB door of the fleet table: one segment, made of the tables of many indexes.

    documents.lance   a row for each file, directory and repository: of which index and publish it is, words, vector
    words.lance       of each word: how many of those rows hold it, and how many documents of the indexes do

The words of a file's row are its own and, once each, those of the functions and classes in it: who asks for what only
the body of a function says must find its file. The segment is written row by row, and never held in memory.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import lancedb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from lancedb.expr import Expr, col

from summidx.errors import StorageUnavailable, StoreError, UsageError
from summidx.store.lance import (
    DOCUMENTS,
    WORDS,
    add_vector_index,
    describe_fault,
    first_line,
    index_values,
    index_words,
)
from summidx.store.names import escape_name, unescape_name, without_surrogates
from summidx.store.place import TableAddress
from summidx.store.table_reader import TableReader
from summidx.store.tables import IndexTable, OuterRows

_WORDS_AT_ONCE = 64
_ROWS_PER_BATCH = 8_192
_WORD_SCHEMA = pa.schema(
    [
        pa.field("word", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("documents", pa.int64(), nullable=False),
        pa.field("code_documents", pa.int64(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Written:
    """What a segment holds. `members` are the indexes that could be read."""

    rows: int
    documents: int
    code_documents: int
    members: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FleetFrequency:
    """How many rows of the segment hold a word, how many documents of its indexes, and how many of their code."""

    rows: int
    documents: int
    code_documents: int


@dataclass(frozen=True, slots=True)
class FleetMatch:
    """A row that a search found. `score` is of BM25, or the cosine of query and vector."""

    repo: str
    publish_id: str
    score: float
    is_aside: bool


class _Gathering:
    """Rows for the table of documents, one index after the other, and the counts that come with them."""

    def __init__(self, members: Mapping[str, str], open_index: Callable[[str, str], IndexTable], dim: int) -> None:
        self._members = members
        self._open_index = open_index
        self._words: list[pa.Table] = []
        self._dim = dim
        self.rows = self.documents = self.code_documents = 0
        self.read: dict[str, str] = {}
        self.fault: StorageUnavailable | None = None
        self.left_out: dict[str, str] = {}

    def schema(self) -> pa.Schema:
        return pa.schema(
            [
                *(pa.field(name, pa.string(), nullable=False) for name in ("repo", "publish_id", "level")),
                pa.field("is_aside", pa.bool_(), nullable=False),
                pa.field("search_text", pa.large_string(), nullable=False),
                pa.field("vector", pa.list_(pa.float32(), self._dim), nullable=False),
            ]
        )

    def batches(self) -> Iterator[pa.RecordBatch]:
        for name, publish_id in self._members.items():
            try:
                table = self._open_index(name, publish_id)
                _check_dim(table, self._dim)
                outer = table.read_outer()
                words = table.read_words()
                code_documents = table.code_documents
            except StorageUnavailable as error:
                self.fault = error  # on its way through LanceDB it becomes another one
                raise
            except StoreError as error:  # a search meets it as well, and says so
                self.left_out[name] = str(error)
                continue
            yield from self._build(name, publish_id, outer)
            self._count(outer, words)
            self.documents += outer.documents
            self.code_documents += code_documents
            self.read[name] = publish_id

    def words(self) -> pa.Table:
        return self._sum_words()

    def _build(self, name: str, publish_id: str, outer: OuterRows) -> Iterator[pa.RecordBatch]:
        n = len(outer.texts)
        self.rows += n
        for start in range(0, n, _ROWS_PER_BATCH):
            stop = min(n, start + _ROWS_PER_BATCH)
            values = np.ascontiguousarray(outer.vectors[start:stop], np.float32)
            yield pa.RecordBatch.from_arrays(
                [
                    pa.array([escape_name(name)] * (stop - start), pa.string()),
                    pa.array([publish_id] * (stop - start), pa.string()),
                    pa.array([level.value for level in outer.levels[start:stop]], pa.string()),
                    pa.array(outer.aside[start:stop], pa.bool_()),
                    pa.array(outer.texts[start:stop], pa.large_string()),
                    pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1), pa.float32()), self._dim),
                ],
                schema=self.schema(),
            )

    def _count(self, outer: OuterRows, words: pa.Table) -> None:
        rows = outer.frequencies
        zeros = pa.array(np.zeros(len(rows), np.int64))
        of_rows = pa.table(
            {
                "word": pa.array(list(rows), pa.string()),
                "rows": pa.array(list(rows.values()), pa.int64()),
                "documents": zeros,
                "code_documents": zeros,
            },
            schema=_WORD_SCHEMA,
        )
        of_index = pa.table(
            {
                "word": words.column("word"),
                "rows": pa.array(np.zeros(len(words), np.int64)),
                "documents": words.column("documents").cast(pa.int64()),
                "code_documents": words.column("code_documents").cast(pa.int64()),
            },
            schema=_WORD_SCHEMA,
        )
        self._words += [of_rows, of_index]
        if len(self._words) >= _WORDS_AT_ONCE:
            self._words = [self._sum_words()]

    def _sum_words(self) -> pa.Table:
        together = pa.concat_tables([_WORD_SCHEMA.empty_table(), *self._words]).combine_chunks()
        counts = _WORD_SCHEMA.names[1:]
        summed = together.group_by("word").aggregate([(name, "sum") for name in counts])
        columns = [summed.column("word"), *(summed.column(f"{name}_sum") for name in counts)]
        return pa.Table.from_arrays(columns, schema=_WORD_SCHEMA)


def _check_dim(table: IndexTable, dim: int) -> None:
    if table.dim != dim:
        raise StoreError(f"its vectors have {table.dim} dimensions instead of {dim}")


def write_segment(
    folder: Path, members: Mapping[str, str], open_index: Callable[[str, str], IndexTable], dim: int
) -> tuple[Written, dict[str, str]]:
    """Write a segment into `folder`, which is new and has one writer.

    Args:
        folder: where the tables are made.
        members: publish id by name of the index.
        open_index: opens that publish of an index; raises StoreError where it is gone or damaged.
        dim: length of the vectors.

    Returns:
        What was written, and the indexes that could not be read: name -> why.

    Raises:
        StoreError: the disk refused.
    """
    gathering = _Gathering(members, open_index, dim)
    try:
        database = lancedb.connect(folder)
        reader = pa.RecordBatchReader.from_batches(gathering.schema(), gathering.batches())
        table = database.create_table(DOCUMENTS, reader)
        index_words(table)
        index_values(table, "repo")
        add_vector_index(table, gathering.rows)
        words = database.create_table(WORDS, gathering.words())
        index_values(words, "word")
    except (RuntimeError, OSError, ValueError) as error:
        if gathering.fault is not None:
            raise gathering.fault from None
        raise StoreError(f"the fleet table cannot be written to {folder}: {first_line(error)}") from error
    written = Written(gathering.rows, gathering.documents, gathering.code_documents, gathering.read)
    return written, gathering.left_out


class SegmentTable:
    """The tables of one segment, for reading.

    Raises:
        StoreError: at construction and from every method, when they are missing or damaged.
    """

    def __init__(self, address: TableAddress) -> None:
        self.address = address
        self._table = TableReader(address)

    @cached_property
    def _words(self) -> TableReader:
        return TableReader(self.address, WORDS)

    def frequencies(self, words: Iterable[str]) -> dict[str, FleetFrequency]:
        """How often each word is; words that are nowhere are left out."""
        asked = sorted({without_surrogates(word) for word in words})
        if not asked:
            return {}
        found = self._words.read(_WORD_SCHEMA.names, where=col("word").isin(asked)).to_pylist()
        return {row["word"]: FleetFrequency(row["rows"], row["documents"], row["code_documents"]) for row in found}

    def bm25(
        self, terms: Sequence[tuple[str, float]], k: int, *, repos: Sequence[str] | None = None
    ) -> list[FleetMatch]:
        """The k best rows by BM25, nearly; `terms` are words and weights. `repos`: only of these indexes."""
        if not terms:
            return []
        found = self._table.search_words(terms, k, [*_OF_ROW, "_score"], where=_only(repos), exact=False)
        return self._match(found, found.column("_score").to_pylist())

    def nearest(
        self, vector: npt.NDArray[np.float32], k: int, *, repos: Sequence[str] | None = None
    ) -> list[FleetMatch]:
        """The k rows whose vectors have the largest cosine with `vector`, nearly; `repos`: only of these indexes."""
        found = self._table.search_vectors(vector, k, [*_OF_ROW, "_distance"], where=_only(repos))
        return self._match(found, [1.0 - distance for distance in found.column("_distance").to_pylist()])

    def _match(self, found: pa.Table, scores: Sequence[float]) -> list[FleetMatch]:
        repos, publish_ids, aside = (found.column(name).to_pylist() for name in _OF_ROW)
        try:
            names = {repo: unescape_name(repo) for repo in set(repos)}
        except UsageError as error:  # no name that was ever written
            raise describe_fault(self.address, error) from error
        return [
            FleetMatch(names[repo], publish_id, score, is_aside)
            for repo, publish_id, is_aside, score in zip(repos, publish_ids, aside, scores, strict=True)
        ]


def _only(repos: Sequence[str] | None) -> Expr | None:
    return None if repos is None else col("repo").isin([escape_name(name) for name in repos])


_OF_ROW = ("repo", "publish_id", "is_aside")
