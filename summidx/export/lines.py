"""An index as JSON lines: one document each, with the names that `Document` has, in the order of the index."""

import json
from collections.abc import Iterator

from summidx.store.generations import PublishedIndex


def iterate_lines(index: PublishedIndex, *, vectors: bool) -> Iterator[bytes]:
    """The lines of an index, as ASCII: what it holds cannot steer a terminal.

    `repo`, then the fields of `Document` but its words for BM25; `vector`, if asked for, is a list of numbers that are
    float32.

    Raises:
        StoreError: it is damaged.
    """
    for batch in index.table.batches(vectors=vectors):
        for row in batch.to_pylist():
            if vectors:
                row["vector"] = [float(f"{value:.9g}") for value in row["vector"]]  # as many digits as float32 has
            yield json.dumps({"repo": index.name, **row}).encode() + b"\n"
