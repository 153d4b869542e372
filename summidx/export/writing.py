"""An export from its beginning to its end."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from summidx.export.formats import Format
from summidx.export.lines import iterate_lines
from summidx.export.output import replace_file, replace_folder
from summidx.export.wiki import iterate_pages
from summidx.records import count_where
from summidx.store.generations import PublishedIndex
from summidx.store.parquet import describe_index, write_parquet


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    documents: int
    files: int
    size_bytes: int


def write_lines(index: PublishedIndex, stream: BinaryIO, *, vectors: bool) -> Exported:
    """Write an index as JSON lines, one document each.

    Raises:
        StoreError: it is damaged.
        OSError: nothing more can be written.
    """
    documents = size_bytes = 0
    for line in iterate_lines(index, vectors=vectors):
        size_bytes += stream.write(line)
        documents += 1
    return Exported(documents, 1, size_bytes)


def export_index(index: PublishedIndex, form: Format, output: Path, *, vectors: bool) -> Exported:
    """Write an index to `output`: a file, or for Markdown a folder. It is there as a whole in the end, or as it was.

    Args:
        index: what to export.
        form: as what.
        output: a file, which is replaced; or a folder, which is replaced if it is an export of ours or empty.
        vectors: whether each document's vector is among its fields; pages have none.

    Raises:
        UsageError: `output` cannot be written to, or holds something else.
        StoreError: the index is damaged.
        MachineFault: the disk refused.
    """
    if form is Format.MARKDOWN:
        files, size_bytes = replace_folder(output, _encode_pages(index), describe_index(index.manifest))
        return Exported(count_where(index.manifest.counts), files, size_bytes)
    with replace_file(output) as partial:
        if form is Format.PARQUET:
            documents = write_parquet(partial, index.table, index.manifest, vectors=vectors)
        else:
            with partial.open("wb") as stream:
                documents = write_lines(index, stream, vectors=vectors).documents
        size_bytes = partial.stat().st_size
    return Exported(documents, 1, size_bytes)


def _encode_pages(index: PublishedIndex) -> Iterator[tuple[str, bytes]]:
    for path, text in iterate_pages(index):
        yield path, text.encode()
