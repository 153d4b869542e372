"""The LanceDB door: one table of documents, with its words for BM25 and its vectors, and one of word counts.

Filters are built from enums and numbers only, never from text: a path such as `x' OR '1'='1` in a filter string would
select every row. Tables are small (a repository), so vectors are searched exactly, without an index of their own.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, cast

import lancedb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from lancedb.expr import Expr, col
from lancedb.index import FTS
from lancedb.query import BooleanQuery, FullTextQuery, LanceQueryBuilder, LanceVectorQueryBuilder, MatchQuery, Occur
from lancedb.table import Table

from summidx.errors import StorageUnavailable, StoreError
from summidx.records import Document, Level, Origin, Status, Vectors
from summidx.store.names import without_surrogates
from summidx.store.place import TableAddress
from summidx.store.refusals import describe_refusal

_DOCUMENTS = "documents"
_WORDS = "words"
_ROWS_PER_BATCH = 10_000
_STRINGS = pa.list_(pa.string())
_TYPES: Mapping[str, pa.DataType] = {
    "keywords": _STRINGS,
    "imports": _STRINGS,
    "calls": _STRINGS,
    "called_by": _STRINGS,
    "start_line": pa.int32(),
    "end_line": pa.int32(),
    "tokens_in": pa.int32(),
    "tokens_out": pa.int32(),
    "truncated": pa.bool_(),
    "is_test": pa.bool_(),
    "is_secondary": pa.bool_(),
    "search_text": pa.large_string(),
}
_DOCUMENT_COLUMNS = tuple(field.name for field in fields(Document))
_WORD_SCHEMA = pa.schema(
    [
        pa.field("word", pa.string(), nullable=False),
        pa.field("documents", pa.int32()),
        pa.field("code_documents", pa.int32()),
    ]
)
"""`code_documents`: without tests, documentation and the like, whose words would make those of the code seem common."""
_OF_STORAGE = re.compile(r"Generic S3 error|store: \"S3\"|Failed to get AWS credentials|PermissionDenied|error sending")
"""LanceDB's errors have no types of their own: what its client of object storage says is no damage of the index."""
_WHOLE_WORDS = FTS(
    base_tokenizer="whitespace",
    lower_case=False,
    stem=False,
    remove_stop_words=False,
    ascii_folding=False,
    max_token_length=None,
    with_position=False,
)
"""The words are ours already (`tokenize`): LanceDB only counts them."""


@dataclass(frozen=True, slots=True)
class Match:
    """A row that a search found, and its raw score: of BM25, or the cosine of query and vector."""

    row: int
    score: float


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
    schema = _build_schema(vectors.dim)
    words = _count_words(documents)
    try:
        database = lancedb.connect(folder)
        table = database.create_table(
            _DOCUMENTS, pa.Table.from_batches(_iterate_batches(documents, vectors, schema), schema=schema)
        )
        table.create_index("search_text", config=_WHOLE_WORDS)
        database.create_table(_WORDS, words)
    except (RuntimeError, OSError, ValueError) as error:
        raise StoreError(f"the index cannot be written to {folder}: {_first_line(error)}") from error


class IndexTable:
    """The table of one generation, for reading; nothing is written. A row's number is its place in the writer's order.

    Raises:
        StoreError: at construction and from every method, when the table is missing or damaged.
    """

    def __init__(self, address: TableAddress) -> None:
        self.address = address
        uri = address.uri
        if isinstance(uri, Path) and not (uri / f"{_DOCUMENTS}.lance").is_dir():  # connecting would make the folder
            raise StoreError(f"{uri} holds no table: the index is damaged, build it again")
        try:
            self._database = lancedb.connect(uri, storage_options=dict(address.options) or None)
            self._table = self._database.open_table(_DOCUMENTS)
        except (RuntimeError, OSError, ValueError) as error:
            raise self._damaged(error) from error

    @cached_property
    def _words(self) -> Table:
        return self._database.open_table(_WORDS)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._table.schema.field("vector").type.list_size)

    def count(self) -> int:
        """Number of rows."""
        try:
            return int(self._table.count_rows())
        except (RuntimeError, OSError, ValueError) as error:
            raise self._damaged(error) from error

    def read_whole(self) -> None:
        """Read every row of both tables, vectors included, and ask the index of words once."""
        try:
            for table in (self._table, self._words):
                table.to_arrow().validate(full=True)
            rows = self._table.search().select(["vector"]).limit(max(1, self.count())).to_arrow()
            values = rows.column("vector").combine_chunks().flatten().to_numpy(zero_copy_only=False)
            words = self._words.search().limit(1).to_arrow().to_pylist()
        except (RuntimeError, OSError, ValueError) as error:
            raise self._damaged(error) from error
        if not np.isfinite(values).all():
            raise StoreError(f"the index in {self.address.uri} is damaged (a vector holds no numbers): build it again")
        if not all(self.bm25([(row["word"], 1.0)], 1) for row in words):
            raise StoreError(f"the index in {self.address.uri} is damaged (it does not find its words): build it again")

    def documents(self, levels: Iterable[Level] | None = None) -> list[Document]:
        """All documents, or those of some levels, in the order in which they were written."""
        query = self._table.search().select(["row", *_DOCUMENT_COLUMNS]).limit(max(1, self.count()))
        found = self._read_documents(query, _filter(levels, None))
        return [document for _, document in sorted(found, key=itemgetter(0))]

    def take(self, rows: Sequence[int]) -> dict[int, Document]:
        """The documents of some rows."""
        if not rows:
            return {}
        query = self._table.search().select(["row", *_DOCUMENT_COLUMNS]).limit(len(rows))
        return dict(self._read_documents(query, _filter(None, rows)))

    @cached_property
    def documents_total(self) -> int:
        """Number of rows, counted once."""
        return self.count()

    @cached_property
    def code_documents(self) -> int:
        """Number of rows that are neither tests nor secondary (`Document.is_secondary`), counted once."""
        try:
            return int(self._table.count_rows("NOT is_test AND NOT is_secondary"))
        except (RuntimeError, OSError, ValueError) as error:
            raise self._damaged(error) from error

    def document_frequencies(self, words: Iterable[str]) -> dict[str, Frequency]:
        """Number of documents that hold each word; words that none holds are left out."""
        asked = sorted({without_surrogates(word) for word in words})
        if not asked:
            return {}
        try:
            query = self._words.search().where(col("word").isin(asked)).limit(len(asked))
            rows = query.to_arrow().to_pylist()
        except (RuntimeError, OSError, ValueError) as error:
            raise self._damaged(error) from error
        return {row["word"]: Frequency(row["documents"], row["code_documents"]) for row in rows}

    def find_rows(self, column: Literal["name", "path"], values: Iterable[str], levels: Iterable[Level]) -> list[int]:
        """Rows of some levels whose `column` is exactly one of `values`, in the writer's order."""
        wanted = sorted({without_surrogates(value) for value in values})
        among = [level.value for level in levels]
        if not wanted or not among:
            return []
        condition = col(column).isin(wanted) & col("level").isin(among)
        try:
            found = self._table.search().where(condition).select(["row"]).limit(max(1, self.count())).to_arrow()
        except (RuntimeError, OSError, ValueError) as error:
            raise self._damaged(error) from error
        return sorted(found.column("row").to_pylist())

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
        clauses = [(Occur.SHOULD, _match_word(word, weight)) for word, weight in terms]
        query = self._table.search(BooleanQuery(clauses), query_type="fts").select(["row", "_score"]).limit(k)
        return _rank(Match(row, score) for row, score in self._read_scores(query, _filter(levels, rows), "_score"))

    def nearest(
        self,
        vector: npt.NDArray[np.float32],
        k: int,
        *,
        levels: Iterable[Level] | None = None,
        rows: Sequence[int] | None = None,
    ) -> list[Match]:
        """The k rows whose vectors have the largest cosine with `vector`, best first; exact.

        Args:
            vector: (dim,) float32.
            k: how many.
            levels: only these; None: all.
            rows: only these; None: all.
        """
        if vector.shape != (self.dim,):
            raise StoreError(f"the query's vector has shape {vector.shape}, but the index holds {self.dim} dimensions")
        if k < 1:
            return []
        query = cast(
            LanceVectorQueryBuilder, self._table.search(vector, vector_column_name="vector", query_type="vector")
        )
        query = query.distance_type("cosine").select(["row", "_distance"]).limit(k)
        distances = self._read_scores(query, _filter(levels, rows), "_distance")
        return _rank(Match(row, 1.0 - distance) for row, distance in distances)

    def _read_scores(self, query: LanceQueryBuilder, condition: Expr | None, column: str) -> list[tuple[int, float]]:
        try:
            found = (query if condition is None else query.where(condition)).to_arrow().to_pylist()
        except (RuntimeError, OSError, ValueError) as error:
            raise self._damaged(error) from error
        return [(row["row"], row[column]) for row in found]

    def _read_documents(self, query: LanceQueryBuilder, condition: Expr | None) -> Iterator[tuple[int, Document]]:
        try:
            batches = (query if condition is None else query.where(condition)).to_arrow().to_batches()
            for batch in batches:
                for row in batch.to_pylist():
                    yield row.pop("row"), _build_document(row)
        except (RuntimeError, OSError, ValueError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> StoreError:
        if self.address.options and _OF_STORAGE.search(str(error)):
            return StorageUnavailable(
                f"the object storage of {self.address.uri} does not answer or refuses, so the index cannot be read: "
                f"{describe_refusal(str(error))}"
            )
        return StoreError(f"the index in {self.address.uri} is damaged ({_first_line(error)}): build it again")


def _count_words(documents: Sequence[Document]) -> pa.Table:
    """The table of word counts."""
    everywhere: Counter[str] = Counter()
    in_code: Counter[str] = Counter()
    for document in documents:
        words = set(without_surrogates(document.search_text).split())
        everywhere.update(words)
        if not (document.is_test or document.is_secondary):
            in_code.update(words)
    columns = {
        "word": list(everywhere),
        "documents": list(everywhere.values()),
        "code_documents": [in_code[word] for word in everywhere],
    }
    return pa.table(columns, schema=_WORD_SCHEMA)


def _build_schema(dim: int) -> pa.Schema:
    return pa.schema(
        [
            pa.field("row", pa.int32(), nullable=False),
            *(pa.field(name, _TYPES.get(name, pa.string()), nullable=name == "origin") for name in _DOCUMENT_COLUMNS),
            pa.field("vector", pa.list_(pa.float32(), dim), nullable=False),
        ]
    )


def _iterate_batches(documents: Sequence[Document], vectors: Vectors, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(documents), _ROWS_PER_BATCH):
        part = documents[start : start + _ROWS_PER_BATCH]
        values = np.ascontiguousarray(vectors.values[start : start + len(part)])
        columns = [
            pa.array(range(start, start + len(part)), pa.int32()),
            *(
                pa.array([_clean(getattr(each, name)) for each in part], schema.field(name).type)
                for name in _DOCUMENT_COLUMNS
            ),
            pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1), pa.float32()), vectors.dim),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _clean(value: object) -> object:
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, tuple):
        return [without_surrogates(each) for each in value]
    return value


def _build_document(row: dict[str, Any]) -> Document:
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    origin = row["origin"]
    values.update(
        level=Level(row["level"]), status=Status(row["status"]), origin=None if origin is None else Origin(origin)
    )
    return Document(**values)


def _match_word(word: str, weight: float) -> FullTextQuery:
    # mypy does not see the defaults of these fields
    return MatchQuery(without_surrogates(word), "search_text", boost=weight)  # type: ignore[call-arg]


def _rank(matches: Iterable[Match]) -> list[Match]:
    return sorted(matches, key=lambda match: (-match.score, match.row))


def _filter(levels: Iterable[Level] | None, rows: Sequence[int] | None) -> Expr | None:
    conditions = []
    if levels is not None:
        conditions.append(col("level").isin([Level(level).value for level in levels]))
    if rows is not None:
        conditions.append(col("row").isin([int(row) for row in rows]))
    if not conditions:
        return None
    return conditions[0] if len(conditions) == 1 else conditions[0] & conditions[1]


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
