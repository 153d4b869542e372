"""Pure: what a document is in a row of an index's tables, and back."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa

from summidx.records import Document, Level, Origin, Status, Vectors
from summidx.store.names import without_surrogates

ROWS_PER_BATCH = 10_000
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
DOCUMENT_COLUMNS = tuple(field.name for field in fields(Document))
RANKED_COLUMNS = (
    "level",
    "path",
    "name",
    "qualified_name",
    "imports",
    "is_test",
    "is_secondary",
    "search_text",
)
"""What candidates are ranked by, beside their vectors: hundreds for a query, and each column costs by itself."""
HIT_COLUMNS = ("id", "start_line", "end_line", "signature", "summary", "status")
"""What the few that are shown say beside that."""
AVERAGE_WORDS = b"average_words"
"""Key of what is kept in the schema of the documents; absent in an index that was built before."""
TOLD_COLUMNS = tuple(name for name in DOCUMENT_COLUMNS if name != "search_text")
WORD_SCHEMA = pa.schema(
    [
        pa.field("word", pa.string(), nullable=False),
        pa.field("documents", pa.int32()),
        pa.field("code_documents", pa.int32()),
    ]
)
"""`code_documents`: without tests, documentation and the like, whose words would make those of the code seem common."""


def count_words(documents: Sequence[Document]) -> pa.Table:
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
    return pa.table(columns, schema=WORD_SCHEMA)


def with_code_documents(words: pa.Table) -> pa.Table:
    """Word counts of whichever version: before index version 4, those of code were not counted by themselves."""
    if "code_documents" in words.column_names:
        return words
    return words.append_column("code_documents", words.column("documents"))


def count_average(texts: Sequence[str]) -> float:
    """Mean number of words of the texts; 0 without any."""
    return sum(len(without_surrogates(text).split()) for text in texts) / len(texts) if texts else 0.0


def build_schema(dim: int) -> pa.Schema:
    """Of the table of documents, whose vectors have `dim` dimensions."""
    return pa.schema(
        [
            pa.field("row", pa.int32(), nullable=False),
            *(pa.field(name, _TYPES.get(name, pa.string()), nullable=name == "origin") for name in DOCUMENT_COLUMNS),
            pa.field("vector", pa.list_(pa.float32(), dim), nullable=False),
        ]
    )


def iterate_batches(documents: Sequence[Document], vectors: Vectors, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """All rows, `ROWS_PER_BATCH` at a time: documents and vectors in the same order."""
    for start in range(0, len(documents), ROWS_PER_BATCH):
        part = documents[start : start + ROWS_PER_BATCH]
        values = np.ascontiguousarray(vectors.values[start : start + len(part)])
        columns = [
            pa.array(range(start, start + len(part)), pa.int32()),
            *(
                pa.array([_clean(getattr(each, name)) for each in part], schema.field(name).type)
                for name in DOCUMENT_COLUMNS
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


def build_ranked(found: pa.Table) -> list[Document]:
    """The documents of `RANKED_COLUMNS`, whose other fields are empty."""
    columns = [found.column(name).to_pylist() for name in RANKED_COLUMNS]
    return [
        Document(
            id="",
            level=Level(level),
            path=path,
            name=name,
            qualified_name=qualified_name,
            language="",
            start_line=0,
            end_line=0,
            signature="",
            summary="",
            keywords=(),
            imports=tuple(imports),
            calls=(),
            called_by=(),
            status=Status.FAILED,  # as that of every document without a summary
            origin=None,
            reason="",
            truncated=False,
            is_test=is_test,
            is_secondary=is_secondary,
            content_hash="",
            summary_key="",
            model="",
            prompt_version="",
            tokens_in=0,
            tokens_out=0,
            search_text=search_text,
        )
        for level, path, name, qualified_name, imports, is_test, is_secondary, search_text in zip(*columns, strict=True)
    ]


def build_document(row: dict[str, Any]) -> Document:
    """The document of a row's columns, of which `search_text` may be left out."""
    values: dict[str, Any] = {"search_text": ""}
    values.update({name: tuple(value) if isinstance(value, list) else value for name, value in row.items()})
    origin = row["origin"]
    values.update(
        level=Level(row["level"]), status=Status(row["status"]), origin=None if origin is None else Origin(origin)
    )
    return Document(**values)
