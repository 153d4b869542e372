"""What people see: whole, wrapped for a terminal, on one line in a pipe, and never steering the terminal."""

import io

import pytest
from rich.console import Console

from summidx.commands.outline_text import print_ledger, print_part, print_tree
from summidx.records import Hit, Level, Status
from summidx.search.outline import build_outline
from summidx.terminal import (
    describe_counts,
    describe_faults,
    escape_text,
    make_console,
    print_hits,
    print_indexes,
)

HOSTILE = "a\x1b[31m[bold red]red[/] \u202egnp.exe\u200b \x9b31m\ud800 :smile:\r\n\x07b"
STEERING = {"\x1b", "\u202e", "\u200b", "\x9b", "\ud800", "\r", "\x07"}


def make_hit(**values):
    defaults = {
        "repo": "http",
        "id": "src/adapters.py::Adapter.send",
        "level": Level.FUNCTION,
        "path": "src/adapters.py",
        "name": "send",
        "qualified_name": "Adapter.send",
        "start_line": 42,
        "end_line": 60,
        "signature": "def send(self)",
        "summary": "Sends a request " * 20,
        "status": Status.OK,
        "score": 3.14159,
        "bm25": 2.5,
        "similarity": 0.5,
    }
    return Hit(**(defaults | values))


def terminal(width):
    return Console(
        file=io.StringIO(),
        force_terminal=True,
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
        color_system=None,
    )


def test_escapes_stand_for_what_would_steer_a_terminal():
    assert escape_text(HOSTILE) == (r"a\x1b[31m[bold red]red[/] \u202egnp.exe\u200b \x9b31m\ud800 :smile: \x07b")
    assert escape_text("plain été 日本") == "plain été 日本"


def test_nothing_of_an_index_steers_the_terminal_or_is_taken_for_markup(corpus_document, manifest):
    console = make_console(io.StringIO())
    fields = {"path": HOSTILE, "qualified_name": HOSTILE, "repo": HOSTILE, "summary": HOSTILE}
    print_hits(console, [make_hit(**fields), make_hit()])
    document = corpus_document("a.py", HOSTILE, name=HOSTILE, path=HOSTILE, reason=HOSTILE)
    hostile = manifest([document], summarizer=HOSTILE, embedding_model=HOSTILE, commit=HOSTILE, built_at=HOSTILE)
    print_ledger(console, HOSTILE, hostile, [document])
    print_tree(console, build_outline([document]), full=False)
    print_part(console, HOSTILE, document)
    print_indexes(console, [(HOSTILE, hostile, ""), ("x", None, HOSTILE)])
    text = console.file.getvalue()
    assert not STEERING & set(text)
    assert text.count("[bold red]red[/]") == text.count(r"\u202e") > 10


@pytest.mark.parametrize("width", [40, 80, 120])
def test_in_a_terminal_summaries_are_wrapped_and_places_stay_whole(width):
    console = terminal(width)
    path = "src/a/very/long/path/to/a/module/in/a/deep/folder/that/does/not/fit/anywhere.py"
    print_hits(console, [make_hit(path=path)])
    head, *summary = console.file.getvalue().splitlines()
    assert head == f" 1  {path}:42  Adapter.send  function  3.14"
    assert len(summary) > 1
    assert all(len(line) <= width and line.startswith("    ") and line[-1] != " " for line in summary)
    assert " ".join(" ".join(summary).split()) == ("Sends a request " * 20).strip()


def test_in_a_pipe_each_thing_is_on_one_line_without_colours():
    console = make_console(io.StringIO())
    print_hits(console, [make_hit(), make_hit(repo="other", start_line=0, qualified_name="src/adapters.py")])
    lines = console.file.getvalue().splitlines()
    assert lines == [
        " 1  src/adapters.py:42  Adapter.send  function in http  3.14",
        "    " + ("Sends a request " * 20).strip(),
        " 2  src/adapters.py  function in other  3.14",
        "    " + ("Sends a request " * 20).strip(),
    ]


def test_failed_and_degraded_documents_are_marked():
    console = make_console(io.StringIO())
    print_hits(console, [make_hit(summary="", status=Status.FAILED), make_hit(summary="x", status=Status.DEGRADED)])
    assert "    ✗ no summary" in console.file.getvalue()
    assert "    ~ x" in console.file.getvalue()


def test_the_ledger_in_words(corpus, manifest):
    assert describe_counts(manifest(corpus()).counts) == (
        "10 documents: 4 function, 1 class, 3 file, 1 directory, 1 repo; 8 ok (8 extractive), "
        "1 degraded (1 extractive), 1 failed"
    )
    assert describe_counts({}) == "0 documents: none; nothing"


def test_of_many_faults_the_first_few_are_named(corpus_document):
    faults = [
        corpus_document(f"m{i}.py", "", status=Status.FAILED, origin=None, reason="Overloaded: 503") for i in range(5)
    ]
    assert describe_faults([*faults, corpus_document("ok.py", "Fine.")]) == [
        "✗ 5 failed: m0.py: Overloaded: 503; m1.py: Overloaded: 503; m2.py: Overloaded: 503; and 2 more"
    ]
    assert describe_faults([corpus_document("ok.py", "Fine.")]) == []
