"""`summidx export`: what is written, and what is refused."""

import json

import pyarrow.parquet as pq
import pytest


def read_lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_json_lines_go_to_a_file_with_the_names_of_search(summidx, http, tmp_path):
    file = tmp_path / "http.jsonl"
    done = summidx("export", "http", "--output", str(file))
    assert done.stdout == f"10 documents, {file.stat().st_size / 1e3:.1f} kB: {file}\n"
    first, *others = read_lines(file.read_text())
    assert len(others) == 9
    hit = json.loads(summidx("search", "cookie", "--json").stdout)[0]
    assert set(hit) - set(first) == {"score", "bm25", "similarity"}
    assert not {"vector", "search_text"} & set(first)
    assert (first["repo"], first["id"], first["level"], first["status"]) == ("http", ".", "repo", "ok")


def test_json_lines_go_to_standard_output_for_a_pipe_and_cannot_steer_a_terminal(
    summidx, corpus_document, publish_documents
):
    publish_documents("x", [corpus_document("a.py", "evil \x1b]0;title\x07 \u202e été")])
    done = summidx("export", "x", "-o", "-", "--vectors")
    (line,) = read_lines(done.stdout)
    assert line["summary"] == "evil \x1b]0;title\x07 \u202e été"
    assert done.stdout.isascii()
    assert len(line["vector"]) == 256
    assert sum(value * value for value in line["vector"]) == pytest.approx(1, abs=1e-5)


def test_parquet_has_vectors_unless_they_are_left_out(summidx, http, tmp_path):
    file = tmp_path / "x.parquet"
    for option, has_vector in (([], True), (["--no-vectors"], False)):
        assert summidx("export", "http", "--format", "parquet", "--output", str(file), *option).exit_code == 0
        assert ("vector" in pq.read_schema(file).names) is has_vector
    assert pq.read_table(file).num_rows == 10


def test_a_wiki_is_a_folder_of_pages(summidx, http, tmp_path):
    folder = tmp_path / "wiki"
    done = summidx("export", "http", "--format", "markdown", "--output", str(folder), "--json")
    told = json.loads(done.stdout)
    pages = list(folder.rglob("*.md"))
    assert (told["documents"], told["files"]) == (10, len(pages))
    assert (told["index"], told["format"], told["output"]) == ("http", "markdown", str(folder))
    assert (folder / "src/http/adapters.py.md").is_file()
    assert summidx("export", "http", "--format", "markdown", "--output", str(folder)).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["htp", "-o", "x"], "error: there is no index 'htp'"),
        (
            ["http", "-o", "-", "--format", "parquet"],
            "error: only --format jsonl, without --json, goes to standard output",
        ),
        (["http", "-o", "s3://bucket/x"], "error: --output 's3://bucket/x' is no file or folder"),
        (["http", "-o", ""], "error: --output '' is no file or folder"),
        (["http", "-o", "."], "error: . is no regular file"),
        (["http", "-o", "taken", "--format", "markdown"], "error: taken is not replaced, since it holds 'mine'"),
        (["http"], "Missing option"),
        (["http", "-o", "x", "--format", "csv"], "csv"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_a_line(summidx, http, tmp_path, arguments, said):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").touch()
    done = summidx("export", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr
    assert sorted(each.name for each in tmp_path.iterdir()) == ["indexes", "taken"]


def test_an_index_that_is_damaged_leaves_no_half_of_a_file(summidx, http, root, tmp_path):
    for lost in root.index_folder("http").glob("generations/*/documents.lance/data/*"):
        lost.unlink()
    done = summidx("export", "http", "-o", "x.jsonl")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "damaged" in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["indexes"]
