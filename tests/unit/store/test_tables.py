import math
import shutil
from pathlib import Path

import lancedb
import numpy as np
import pytest

from summidx.errors import StoreError
from summidx.records import Level, Origin, Status, Vectors
from summidx.store import lance, tables
from summidx.store.place import TableAddress
from summidx.store.tables import Frequency, IndexTable, write_table


@pytest.fixture
def write(tmp_path, vectors):
    def write(documents, values=None):
        folder = tmp_path / "generation"
        folder.mkdir()
        write_table(folder, documents, values or vectors(len(documents)))
        return IndexTable(TableAddress(folder))

    return write


def test_documents_come_back_in_their_order_with_all_their_fields(write, document):
    documents = [
        document(
            "z.py::f",
            keywords=("a", "b"),
            imports=("os",),
            calls=(),
            called_by=("x.py::g",),
            is_test=True,
            is_secondary=True,
            truncated=True,
            tokens_in=7,
            tokens_out=8,
        ),
        document("a.py", status=Status.FAILED, origin=None, summary="", reason="Overloaded: 429"),
        document("x' OR '1'='1", status=Status.DEGRADED, origin=Origin.EXTRACTIVE, level=Level.DIRECTORY),
    ]
    table = write(documents)
    assert table.count() == 3
    assert table.dim == 4
    assert table.documents() == documents
    assert table.documents([Level.FILE, Level.DIRECTORY]) == documents[1:]
    assert table.documents([]) == []
    taken = table.take([2, 0])
    assert [(row, each.path, each.search_text, each.imports) for row, (each, _) in sorted(taken.items())] == [
        (row, documents[row].path, documents[row].search_text, documents[row].imports) for row in (0, 2)
    ]
    told = table.tell([2, 0])
    assert [(row, each["id"], each["summary"], each["status"]) for row, each in sorted(told.items())] == [
        (row, documents[row].id, documents[row].summary, documents[row].status) for row in (0, 2)
    ]
    assert (table.take([]), table.tell([])) == ({}, {})


def test_an_index_without_a_document_can_be_written_and_searched(write):
    table = write([], Vectors(np.zeros((0, 4), np.float32)))
    assert table.documents() == []
    assert table.bm25([("retry", 1.0)], 5) == []
    assert table.nearest(np.ones(4, np.float32), 5) == []


def test_more_documents_than_one_batch_keep_their_order(write, document, vectors):
    documents = [document(f"{n}.py") for n in range(10_050)]
    table = write(documents, vectors(10_050))
    assert [each.id for each in table.documents()] == [each.id for each in documents]
    assert table.take([10_049])[10_049][0].path == table.tell([10_049])[10_049]["id"] == "10049.py"


def test_a_folder_whose_relative_path_looks_like_a_uri_is_read(tmp_path, monkeypatch, document, vectors):
    (tmp_path / "s3:x").mkdir()
    write_table(tmp_path / "s3:x", [document("a.py")], vectors(1))
    monkeypatch.chdir(tmp_path)
    table = IndexTable(TableAddress(Path("s3:x")))
    assert table.count() == 1
    table.read_whole()


def test_a_table_of_words_that_is_gone_is_named(write, document):
    table = write([document("a.py")])
    shutil.rmtree(table.address.uri / "words.lance")
    with pytest.raises(StoreError, match="holds no table 'words': the index is damaged"):
        table.document_frequencies(["retry"])


def test_text_that_is_no_unicode_is_escaped(write, document):
    table = write([document("a\udcff.py", summary="\ud800", keywords=("\udc80",), search_text="w\udcff retry")])
    (only,) = table.documents()
    assert (only.id, only.summary, only.keywords) == (r"a\udcff.py", r"\ud800", (r"\udc80",))
    assert table.bm25([("w\udcff", 1.0)], 1) == table.bm25([(r"w\udcff", 1.0)], 1) != []


def test_bm25_is_the_textbook_formula_with_weighted_terms(write, document):
    texts = ["http adapter http send", "http retry", "user name getusername get", "retry " * 9 + "x" * 300]
    table = write([document(f"{n}.py", search_text=text) for n, text in enumerate(texts)])
    words = [text.split() for text in texts]
    average = sum(map(len, words)) / len(words)

    def score(document_words, terms):
        total = 0.0
        for term, weight in terms:
            df = sum(term in each for each in words)
            tf = document_words.count(term)
            idf = math.log(1 + (len(words) - df + 0.5) / (df + 0.5))
            total += weight * idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * len(document_words) / average))
        return total

    terms = [("http", 1.0), ("retry", 2.5), ("http", 1.0), ("unheard", 9.0), ("x" * 300, 0.5)]
    expected = {n: score(each, terms) for n, each in enumerate(words)}
    found = table.bm25(terms, 10)
    assert {match.row for match in found} == {0, 1, 3}
    assert [match.score for match in found] == sorted((match.score for match in found), reverse=True)
    for match in found:
        assert match.score == pytest.approx(expected[match.row], rel=1e-4)


@pytest.mark.parametrize("word", ["the", "retries", "Retry", "café", "http"])
def test_words_are_neither_stemmed_folded_nor_dropped(write, document, word):
    near = {"the": "thee", "retries": "retry", "Retry": "retry", "café": "cafe", "http": "httpadapter"}[word]
    table = write([document("a.py", search_text=f"{word} x"), document("b.py", search_text=f"{near} x")])
    assert [match.row for match in table.bm25([(word, 1.0)], 5)] == [0]


def test_hostile_ids_and_words_select_nothing_else(write, document):
    hostile = "x' OR '1'='1"
    table = write([document(hostile, search_text=hostile), document("b.py", search_text="b")])
    assert [match.row for match in table.bm25([(hostile, 1.0)], 5)] == [0]
    assert [match.row for match in table.bm25([("'1'='1", 1.0)], 5)] == [0]
    found = table.document_frequencies([hostile, "'1'='1", '" OR 1=1 --', "b"])
    assert found == {"'1'='1": Frequency(1, 1), "b": Frequency(1, 1)}
    assert table.find_rows("name", [hostile, "' OR '1'='1"], list(Level)) == [0]


def test_nearest_is_the_exact_cosine(write, document, vectors):
    values = vectors(30)
    table = write([document(f"{n}.py") for n in range(30)], values)
    query = values.values[7] * 3
    found = table.nearest(query, 30)
    cosines = values.values @ values.values[7]
    assert [match.row for match in found] == list(np.argsort(-cosines))
    assert [match.score for match in found] == pytest.approx(sorted(cosines, reverse=True), abs=1e-5)
    with pytest.raises(StoreError, match="4 dimensions"):
        table.nearest(np.ones(3, np.float32), 1)


def test_filters_come_before_the_limit(write, document):
    documents = [document(f"{n}.py") for n in range(20)] + [document("z.py::f", search_text="retry " + "pad " * 50)]
    values = np.tile(np.eye(1, 4, dtype=np.float32), (21, 1))
    values[20] = [0, 1, 0, 0]
    table = write(documents, Vectors(values))
    query = np.eye(1, 4, dtype=np.float32)[0]
    for condition in ({"levels": [Level.FUNCTION]}, {"rows": [20]}, {"levels": [Level.FUNCTION], "rows": [3, 20]}):
        assert [match.row for match in table.bm25([("retry", 1.0)], 1, **condition)] == [20]
        assert [match.row for match in table.nearest(query, 1, **condition)] == [20]
    assert table.bm25([("retry", 1.0)], 1, rows=[]) == []


def test_document_frequencies_count_documents_not_words(write, document):
    table = write(
        [
            document("a.py", search_text="a a b"),
            document("b.py", search_text="a"),
            document("tests/test_a.py", search_text="a", is_test=True),
            document("README.md", search_text="a", is_secondary=True),
        ]
    )
    assert table.document_frequencies(["a", "b", "c"]) == {"a": Frequency(4, 2), "b": Frequency(1, 1)}
    assert table.document_frequencies([]) == {}
    assert (table.documents_total, table.code_documents) == (4, 2)


@pytest.mark.parametrize("hold", [False, True])
def test_an_index_from_before_code_was_counted_by_itself_is_read(write, document, hold):
    table = write([document("a.py", search_text="a b"), document("tests/test_a.py", search_text="a", is_test=True)])
    lancedb.connect(table.address.uri).open_table("words").drop_columns(["code_documents"])

    table = IndexTable(table.address)
    table.hold = hold

    assert table.document_frequencies(["a", "b"]) == {"a": Frequency(2, 2), "b": Frequency(1, 1)}
    assert table.read_words().column_names == ["word", "documents", "code_documents"]


def test_rows_are_found_by_exact_names_and_paths(write, document):
    table = write([document("a.py"), document("a.py::f"), document("b.py::A.f"), document("b.py::g")])
    assert table.find_rows("name", ["f", "a"], [Level.FUNCTION]) == [1, 2]
    assert table.find_rows("path", ["a.py"], [Level.FILE]) == [0]
    assert table.find_rows("path", ["a.py"], []) == table.find_rows("path", [], [Level.FILE]) == []


def test_rows_that_do_not_fit_together_are_refused(tmp_path, document, vectors):
    with pytest.raises(StoreError, match="2 documents came with 1 vectors"):
        write_table(tmp_path, [document("a.py"), document("b.py")], vectors(1))
    with pytest.raises(StoreError, match=r"'a\.py' comes more than once"):
        write_table(tmp_path, [document("a.py"), document("a.py")], vectors(2))


def test_a_folder_without_a_table_is_damaged_and_is_not_made(tmp_path):
    with pytest.raises(StoreError, match="build it again"):
        IndexTable(TableAddress(tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()


def test_a_damaged_table_says_so_in_one_line(write, document):
    table = write([document("a.py")])
    for path in (table.address.uri / "documents.lance" / "data").iterdir():
        path.write_bytes(b"")
    with pytest.raises(StoreError, match="is damaged") as caught:
        IndexTable(table.address).documents()
    assert "\n" not in str(caught.value)


def test_a_disk_that_refuses_is_a_store_error(tmp_path, document, vectors):
    file = tmp_path / "file"
    file.write_bytes(b"")
    with pytest.raises(StoreError, match="cannot be written"):
        write_table(file / "generation", [document("a.py")], vectors(1))


def test_a_large_table_is_searched_by_an_approximate_index_and_holds_nothing(write, document, vectors, monkeypatch):
    for module in (lance, tables):
        monkeypatch.setattr(module, "APPROXIMATE_FROM_ROWS", 2_000)
    documents = [document(f"{n}.py", name=f"n{n}", search_text=f"word{n} retry") for n in range(2_500)]
    known = vectors(2_500, 16)
    table = write(documents, known)
    table.hold = True
    kinds = {
        index.columns[0]: index.index_type
        for index in lancedb.connect(table.address.uri).open_table("documents").list_indices()
    }
    assert (kinds["vector"], kinds["name"]) == ("IvfFlat", "BTree")
    same = 0
    for row in range(0, 2_500, 250):
        exact = [match.row for match in table.nearest(known.values[row], 10, exact=True)]
        assert exact[0] == row
        same += len(set(exact) & {match.row for match in table.nearest(known.values[row], 10)})
    assert same >= 80
    assert table.nearest(known.values[7], 1)[0].score == pytest.approx(1.0, abs=1e-5)
    assert table.document_frequencies(["word7", "retry", "none"]) == {
        "word7": tables.Frequency(1, 1),
        "retry": tables.Frequency(2_500, 2_500),
    }
    assert table.find_rows("name", ["n9"], [Level.FILE]) == [9]
    ((document, cosine),) = table.take([9], known.values[9]).values()
    assert (document.path, round(cosine, 4)) == ("9.py", 1.0)
    assert table.held_bytes == 0


def test_what_is_held_in_memory_answers_as_the_table_does(write, document, vectors):
    documents = [document(f"{n}.py", name=f"n{n % 7}", search_text=f"word{n} retry") for n in range(50)]
    known = vectors(50, 16)
    table = write(documents, known)

    def ask():
        near = table.nearest(known.values[3], 5, levels=[Level.FILE])
        return (
            [(match.row, round(match.score, 5)) for match in near],
            table.document_frequencies(["word7", "retry", "none"]),
            table.find_rows("name", ["n3", "n5"], [Level.FILE]),
            {row: (each.path, round(cosine, 5)) for row, (each, cosine) in table.take([9, 2], known.values[3]).items()},
            table.tell([9, 2]),
        )

    before = ask()
    table.hold = True
    assert ask() == before
    assert table.held_bytes > 0


def test_a_table_of_several_files_finds_the_same_rows(write, document, vectors, monkeypatch):
    known = vectors(50, 16)
    table = write([document(f"{n}.py", search_text=f"word{n} retry") for n in range(50)], known)

    def ask():
        return (
            table.find_words([("word7", 2.0), ("retry", 1.0)], 5),
            table.bm25([("word7", 2.0), ("retry", 1.0)], 5, levels=[Level.FILE]),
            table.nearest(known.values[3], 5),
        )

    in_one = ask()
    assert [matches[0].row for matches in in_one] == [7, 7, 3]
    monkeypatch.setattr(tables, "_ROWS_PER_FILE", 10)
    assert ask() == in_one
