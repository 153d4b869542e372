"""`summidx show`: whole in a pipe, to look around in in a terminal, the same tree as JSON."""

import io
import json
import os
import sys

import pytest
from rich.console import Console
from terminals import run_in_terminal

from summidx.commands.outline_text import print_ledger, print_part, print_tree
from summidx.search.outline import build_outline, cut_roots
from summidx.terminal import make_console


def test_show_prints_the_ledger_and_the_tree(summidx, http):
    lines = summidx("show", "http").stdout.splitlines()
    assert lines[0] == "http  c1"
    assert lines[1].startswith("10 documents: 4 function, 1 class, 3 file")
    assert "skipped 2 binary" in lines[4]
    assert any("HTTPAdapter  class, extractive  Sends requests" in line for line in lines)


def test_show_as_json_is_a_nested_tree(summidx, http):
    tree = json.loads(summidx("show", "http", "src/http/adapters.py", "--json").stdout)
    adapter = tree["children"][0]
    assert tree["id"] == "src/http/adapters.py"
    assert (adapter["level"], adapter["name"], adapter["status"], adapter["origin"]) == (
        *("class", "src/http/adapters.py::HTTPAdapter".rpartition("::")[2], "ok", "extractive"),
    )
    assert [child["id"].rpartition(".")[2] for child in adapter["children"]] == ["send", "handle_status"]
    assert set(tree) == {"id", "level", "name", "summary", "status", "origin", "reason", "children"}
    assert json.loads(summidx("show", "http", "--json").stdout)["id"] == "."


def test_show_tells_what_failed_and_what_is_degraded_with_the_reasons(summidx, http):
    lines = summidx("show", "http").stdout.splitlines()
    assert lines[2] == "✗ 1 failed: src/http/cookies.py: Overloaded: 429"
    assert lines[3] == "~ 1 degraded: src/http/cookies.py::parse_cookie: InvalidOutput"
    ledger = json.loads(summidx("show", "http", "--json").stdout)["ledger"]
    assert ledger["faults"] == [
        {"id": "src/http/cookies.py::parse_cookie", "status": "degraded", "reason": "InvalidOutput"},
        {"id": "src/http/cookies.py", "status": "failed", "reason": "Overloaded: 429"},
    ]
    assert ledger["counts"]["file"]["failed"] == {"none": 1}
    assert (ledger["commit"], ledger["skips"]) == ("c1", {"binary": 2})


def test_show_without_the_repository_level_still_has_one_root(summidx, corpus, publish_documents):
    publish_documents("http", corpus()[2:])
    tree = json.loads(summidx("show", "http", "--json").stdout)
    assert (tree["level"], tree["name"], tree["status"]) == ("repo", "http", None)
    assert len(tree["children"]) == 4


def test_a_part_is_shown_in_full_with_what_is_in_it_below(summidx, http):
    lines = summidx("show", "http", "src/http/adapters.py::HTTPAdapter").stdout.splitlines()
    assert lines[:4] == [
        "http  src/http/adapters.py::HTTPAdapter",
        "src/http/adapters.py:10-60  python  extractive",
        "def f()",
        "Sends requests over pooled connections.",
    ]
    assert [line.split()[0] for line in lines[4:]] == ["send", "handle_status"]


def test_what_is_known_of_a_part_is_told(corpus_document):
    many = tuple(f"b.py::g{n}" for n in range(20))
    document = corpus_document("a.py::f", "Does.", keywords=("retry", "pool"), calls=many, called_by=("c.py::h",))
    piped = make_console(io.StringIO())
    print_part(piped, "x", document)
    told = piped.file.getvalue().splitlines()
    assert told[-3:] == ["Keywords: retry, pool", f"Calls: {', '.join(many)}", "Called by: c.py::h"]
    shown = terminal(60)
    print_part(shown, "x", document)
    assert "and 8 more" in " ".join(shown.file.getvalue().split())


def test_the_tree_can_be_cut_by_depth_and_level(summidx, http):
    def ids(*options):
        def walk(node):
            return [node["id"], *(each for child in node["children"] for each in walk(child))]

        return walk(json.loads(summidx("show", "http", "--json", *options).stdout))

    assert ids("--depth", "1") == [".", "src/http/", "tests/test_adapters.py::test_handle_status", "docs/guide.md"]
    assert ids("--level", "directory,class") == [".", "src/http/", "src/http/adapters.py::HTTPAdapter"]
    assert ids("--depth", "0") == ["."]
    lines = summidx("show", "http", "--depth", "1").stdout.splitlines()
    assert lines[5] == "http-client  repo, extractive  An HTTP client."
    assert "src/http/  directory, extractive  +6  The library." in lines[6]


def test_the_tree_shows_marks_origins_and_reasons(corpus, manifest):
    console = make_console(io.StringIO())
    print_ledger(console, "http", manifest(corpus(), skips={"binary": 3}), corpus())
    print_tree(console, build_outline(corpus()), full=False)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "http  c1"
    assert lines[4] == "summaries extractive, embedding hashing, built 2026-11-24T10:00:00+00:00; skipped 3 binary"
    assert lines[5] == "http-client  repo, extractive  An HTTP client."
    assert "│   ├── src/http/adapters.py  file, extractive  Transport adapters and their connection pools." in lines
    assert "│   └── ✗ src/http/cookies.py  file, failed: Overloaded: 429" in lines
    assert any("~ parse_cookie  function, extractive, degraded: InvalidOutput  Reads" in line for line in lines)


def terminal(width):
    kept = {"highlight": False, "markup": False, "emoji": False, "color_system": None}
    return Console(file=io.StringIO(), force_terminal=True, width=width, **kept)


@pytest.mark.parametrize("width", [30, 60, 120])
def test_in_a_terminal_each_document_is_one_line_that_fits_with_names_as_they_are_in_their_folder(corpus, width):
    console = terminal(width)
    print_tree(console, cut_roots(build_outline(corpus()), depth=3), full=False)
    hint, *lines = console.file.getvalue().splitlines()
    assert hint.startswith("+N: so many more")
    lines = [line for line in lines if line[0] in "h├└│"]  # the hint is wrapped
    assert len(lines) == 8
    assert all(len(line) <= width for line in lines)
    assert lines[2].startswith("│   ├── adapters.py")
    if width == 120:
        assert "class HTTPAdapter  +2  Sends requests over" in lines[3]
        assert "✗ cookies.py  failed: Overloaded: 429" in lines[4]


def test_in_a_terminal_summaries_are_whole_where_that_is_asked_for(corpus_document):
    console = terminal(40)
    print_tree(console, build_outline([corpus_document("a.py", "word " * 60)]), full=True)
    assert console.file.getvalue().count("word") == 60


PAGER = """
import sys
text = sys.stdin.read()
open("paged.txt", "w").write(text)
"""


@pytest.fixture
def in_terminal(tmp_path, root, http):
    """Run `summidx show http ...` in a terminal of so many rows, with a pager that writes down what it gets."""
    (tmp_path / "pager.py").write_text(PAGER)

    def run(*arguments, rows, **environment):
        script = "from summidx.cli import app; app()"
        command = [sys.executable, "-c", script, "show", "http", *arguments, "--index-root", str(root.path)]
        kept = {name: value for name, value in os.environ.items() if name not in ("LESS", "COLUMNS", "LINES")}
        environment = kept | {"PAGER": f"{sys.executable} {tmp_path / 'pager.py'}"} | environment
        shown = run_in_terminal(command, cwd=tmp_path, env=environment, columns=100, rows=rows)
        assert shown.code == 0, shown.raw
        paged = tmp_path / "paged.txt"
        return shown, paged.read_text() if paged.exists() else None

    return run


def test_what_fits_the_screen_is_shown_at_once_in_colours(in_terminal):
    shown, paged = in_terminal(rows=40)
    assert paged is None
    assert any("class HTTPAdapter  Sends requests" in line for line in shown.lines)
    assert "\x1b[" in shown.raw


def test_what_does_not_fit_opens_in_the_pager_without_colours_it_may_not_know(in_terminal):
    shown, paged = in_terminal(rows=8)
    assert "class HTTPAdapter  Sends requests" in paged
    assert "\x1b" not in paged
    assert not any("HTTPAdapter" in line for line in shown.lines)
