"""An index as Parquet, read back by a reader of its own."""

import json

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from summidx.errors import StoreError
from summidx.records import Status
from summidx.store.parquet import write_parquet
from summidx.store.place import TableAddress
from summidx.store.tables import IndexTable, write_table


@pytest.fixture
def write(tmp_path, vectors):
    def write(documents):
        (tmp_path / "generation").mkdir()
        write_table(tmp_path / "generation", documents, vectors(len(documents)))
        return IndexTable(TableAddress(tmp_path / "generation"))

    return write


def test_each_document_is_a_row_with_its_vector_and_the_file_says_what_it_is_of(
    tmp_path, write, document, manifest, vectors
):
    failed = document("b.py", status=Status.FAILED, origin=None, summary="")
    documents = [document("a.py::f", calls=("b.py::g", "c.py::h"), tokens_in=7), failed]
    file = tmp_path / "x.parquet"
    assert write_parquet(file, write(documents), manifest(documents), vectors=True) == 2
    found = pq.read_table(file)
    assert found.schema.field("vector").type == pa.list_(pa.float32(), 4)
    assert [found.schema.field(name).type for name in ("start_line", "is_test", "calls", "level")] == [
        *(pa.int32(), pa.bool_(), pa.list_(pa.string()), pa.string()),
    ]
    first, second = found.to_pylist()
    assert (first["repo"], first["id"], first["tokens_in"]) == ("repo", "a.py::f", 7)
    assert first["calls"] == ["b.py::g", "c.py::h"]
    assert (second["status"], second["origin"]) == ("failed", None)
    np.testing.assert_array_equal(np.stack(found.column("vector").to_numpy()), vectors(2).values)
    about = json.loads(found.schema.metadata[b"summidx"])
    assert (about["commit"], about["embedding_model"], about["dim"]) == ("c1", "hashing", 4)


def test_vectors_and_words_for_bm25_can_be_left_out(tmp_path, write, document, manifest):
    documents = [document("a.py")]
    file = tmp_path / "x.parquet"
    write_parquet(file, write(documents), manifest(documents), vectors=False)
    assert not {"vector", "search_text", "row"} & set(pq.read_schema(file).names)


def test_rows_come_a_part_at_a_time_in_the_order_of_the_index(write, document):
    ids = [f"{n}.py" for n in range(25)]
    table = write([document(each) for each in ids])
    parts = [part.column("id").to_pylist() for part in table.batches(vectors=True, rows_per_batch=10)]
    assert [len(part) for part in parts] == [10, 10, 5]
    assert [each for part in parts for each in part] == ids
    assert table.documents(searchable=False)[3].search_text == ""
    assert table.documents(searchable=False)[3].summary == "Summary of 3.py."


def test_an_index_without_a_document_is_a_file_without_a_row(tmp_path, write, manifest):
    file = tmp_path / "x.parquet"
    assert write_parquet(file, write([]), manifest([]), vectors=True) == 0
    assert pq.read_table(file).num_rows == 0


def test_rows_that_are_missing_are_damage_and_not_a_shorter_file(write, document):
    table = write([document(f"{n}.py") for n in range(5)])
    lancedb.connect(table.address.uri).open_table("documents").delete("row = 2")
    table = IndexTable(table.address)
    with pytest.raises(StoreError, match="rows are missing"):
        list(table.batches(vectors=False))
