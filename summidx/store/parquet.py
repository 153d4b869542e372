"""An index as one Parquet file, for dataframes and SQL: the only writer of Parquet.

One row for each document, in the order of the index, under the names that `Document` has. Levels, statuses and origins
are strings (`origin` is null where a document failed), `keywords`, `imports`, `calls` and `called_by` lists of strings,
lines and tokens int32, flags booleans; `repo` is the name of the index. `vector`, if asked for, is a fixed-size list of
float32 of L2 norm 1: the embedding of `qualified name: summary`. The words for BM25 are left out. The file's own
metadata holds, under `summidx`, what the index says of itself as JSON (`describe_index`).
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from summidx.records import Manifest
from summidx.store.tables import IndexTable


def write_parquet(file: Path, table: IndexTable, manifest: Manifest, *, vectors: bool) -> int:
    """Write every row to a new file, some thousand at a time.

    Returns:
        How many rows.

    Raises:
        StoreError: the index is damaged.
        OSError: the disk refused.
    """
    schema = table.told_schema(vectors=vectors)
    schema = schema.insert(0, pa.field("repo", pa.string(), nullable=False))
    schema = schema.with_metadata({"summidx": json.dumps(describe_index(manifest))})
    rows = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in table.batches(vectors=vectors):
            repo = pa.array([manifest.name] * batch.num_rows, pa.string())
            writer.write_batch(pa.RecordBatch.from_arrays([repo, *batch.columns], schema=schema))
            rows += batch.num_rows
    return rows


def describe_index(manifest: Manifest) -> dict[str, object]:
    """What an index says of itself, for who reads an export of it."""
    names = ("name", "commit", "generation", "built_at", "summarizer", "embedding_model", "dim", "tool_version")
    return {name: getattr(manifest, name) for name in names}
