from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from summidx.keys import digest
from summidx.records import ChildSummary, Level, Origin, Status, SummaryRequest, Unit
from summidx.summarizers.extractive import EXTRACTIVE_VERSION, extract_summary
from summidx.summarizers.prose import comments, identifiers, readme_lead
from summidx.summarizers.template import render_template

GOLDEN = {
    1: "9b47d9694aec23bca74c110531e1319d3c40b8b2ef10b43ab472152930b1cc6d",
    2: "3ad6c3b7ce5bda51aa5e1365af8ec66af09122755643978ca95bdb2e11e4e5de",
}
"""Hash of some summaries, by EXTRACTIVE_VERSION: when the text moves on purpose, move the version and add a line."""

LICENSED = """// Copyright 2014 A. Author. All rights reserved.
// Use of this source code is governed by a license
// that can be found elsewhere.

package frozen

// Reads what is asked for.
func read() {}
"""


def container(level: Level, **fields) -> Unit:
    defaults = {
        "id": "src/wire/",
        "level": level,
        "path": "src/wire",
        "name": "wire",
        "qualified_name": "src/wire",
        "language": "",
        "start_line": 0,
        "end_line": 0,
        "parent_id": None,
    }
    return Unit(**{**defaults, **fields})


CHILDREN = (
    ChildSummary(Level.CLASS, "Session", "class Session(Base)", "Keeps cookies between requests. And more."),
    ChildSummary(Level.FUNCTION, "get", "def get(url)", "Fetch a page. Another sentence."),
    ChildSummary(Level.FUNCTION, "lost", "def lost()", None),
)
README = """\
[![Build](https://ci.example/badge.svg)](https://ci.example)
<p align="center"><img src="logo.png"></p>

# Wire

Wire is an elegant **HTTP client** for [Python](https://python.org), built for people.
It retries politely.

## Installation

```
pip install wire
```
"""


def test_a_function_leads_with_its_docstring_and_tells_what_it_calls_and_says(make_request):
    assert extract_summary(make_request()).text == (
        "Send a request and return its answer. Waits for a free connection. "
        "Method of class `Session`: `def send(self, request, *, timeout=None)`. "
        "Calls get adapter, invalid schema, send now. "
        'Uses url. Messages: "No connection adapters were found for it". Called by `api.get`.'
    )


def test_keywords_are_frequent_words_of_prose_and_no_identifiers_of_the_code(make_request):
    keywords = extract_summary(make_request()).keywords
    assert "answer" in keywords
    assert "deadline" in keywords
    assert len(keywords) <= 6
    assert not {"send", "request", "adapter", "the", "of"} & set(keywords)


def test_a_readme_is_not_described_by_what_it_quotes():
    assert readme_lead("# Cop\n\n> Role models are so very important.\n\nIt reads Ruby for faults.\n", 20) == (
        "Cop: It reads Ruby for faults."
    )


def test_an_underlined_title_is_none_of_the_text_below_it():
    assert readme_lead("ripgrep (rg)\n------------\nIt searches folders for a pattern.\n", 20) == (
        "ripgrep (rg): It searches folders for a pattern."
    )


@pytest.mark.parametrize(
    ("language", "source"),
    [
        ("go", LICENSED),
        ("go", "//go:build !tiny\n// +build !tiny\n\n// Reads what is asked for.\npackage a\n"),
        ("ruby", "# frozen_string_literal: true\n\n# Reads what is asked for.\nmodule A\nend\n"),
        (
            "c",
            "/* Copyright A.\n *\n * Permission is hereby granted.\n *\n * Reads what is asked for.\n */",
        ),
        ("python", "# -*- coding: utf-8 -*-\n# vim: set et\n# Reads what is asked for.\n"),
    ],
)
def test_neither_a_licence_nor_what_is_told_to_tools_is_a_comment(language, source):
    assert comments(source, language) == ["Reads what is asked for."]


def test_without_a_docstring_it_leads_with_the_name_in_words_and_the_comments(make_request):
    source = dedent(
        """\
        def get_netrc_auth(url):
            # Read the user's netrc file, if there is one.
            # It isn't fatal when it's broken.
            path = find_netrc()  # noqa: PTH
            return parse(path)
        """
    )
    request = make_request(
        own_source=source,
        docstring="",
        name="get_netrc_auth",
        qualified_name="get_netrc_auth",
        signature="def get_netrc_auth(url)",
        callers=(),
    )
    assert extract_summary(request).text == (
        "Get netrc auth. Function: `def get_netrc_auth(url)`. "
        "Read the user's netrc file, if there is one. It isn't fatal when it's broken. "
        "Calls find netrc, parse. Uses path."
    )


def test_a_class_tells_its_methods_with_their_first_sentences(make_request):
    request = make_request(
        level=Level.CLASS,
        name="Session",
        qualified_name="Session",
        signature="class Session(Base)",
        docstring="A session.\n\nArgs:\n    x: nothing",
        own_source='class Session(Base):\n    """A session.\n\n    Args:\n        x: nothing\n    """',
        children=CHILDREN[1:],
        callers=(),
    )
    assert extract_summary(request).text == (
        "A session. Type defined as `class Session(Base)`. Methods: `get` - Fetch a page; `lost`."
    )


def test_a_file_tells_its_docstring_its_classes_and_functions():
    unit = container(
        Level.FILE, path="src/wire/api.py", name="api.py", language="python", docstring="The public API.\n\nMore of it."
    )
    assert extract_summary(SummaryRequest(unit, children=CHILDREN)).text == (
        "The public API. More of it. Python file `src/wire/api.py`. "
        "Classes: `Session` - Keeps cookies between requests. Functions: `get` - Fetch a page; `lost`."
    )


def test_a_directory_and_the_repository_tell_their_readme_and_entries():
    children = (
        ChildSummary(Level.DIRECTORY, "auth", "", "Who may come in. Python."),
        ChildSummary(Level.FILE, "api.py", "", "The public API."),
    )
    directory = extract_summary(SummaryRequest(container(Level.DIRECTORY, own_source=README), children=children))
    assert directory.text == (
        "Wire is an elegant HTTP client for Python, built for people. It retries politely. Directory `src/wire/`. "
        "Directories: `auth` - Who may come in. Files: `api.py` - The public API."
    )
    repo = extract_summary(SummaryRequest(container(Level.REPO, own_source="", name="wire"), children=children))
    assert repo.text.startswith("Wire. Repository `wire`. Directories: `auth`")


def test_a_markdown_file_tells_its_first_paragraph_and_its_sections():
    unit = container(Level.FILE, path="README.md", name="README.md", language="markdown", own_source=README)
    assert extract_summary(SummaryRequest(unit)).text == (
        "Wire is an elegant HTTP client for Python, built for people. It retries politely. "
        "Markdown file `README.md`. Sections: Installation."
    )


def test_a_settings_file_tells_what_it_mentions():
    unit = container(
        Level.FILE,
        path="pyproject.toml",
        name="pyproject.toml",
        language="toml",
        own_source='# How this is built.\n[build-system]\nrequires = ["hatchling>=1"]\nbuild-backend = "hatchling"\n',
    )
    text = extract_summary(SummaryRequest(unit)).text
    assert text.startswith("How this is built. TOML file `pyproject.toml`. Mentions build, system, requires, backend")


def test_hundreds_of_children_are_named_within_bounds_and_the_rest_is_counted():
    children = tuple(ChildSummary(Level.FILE, f"file_{n}.py", "", "Reads a thing. " * 20) for n in range(900))
    text = extract_summary(SummaryRequest(container(Level.DIRECTORY), children=children)).text
    assert len(text.split()) < 200
    assert "`file_0.py` - Reads a thing" in text
    left = int(text.rpartition("; and ")[2].split()[0])
    assert left == 900 - text.count("`file_")


def test_what_a_docstring_hides_does_not_reach_the_terminal(make_request):
    text = extract_summary(make_request(docstring="Send\x1b[31m it\u202e\u200b safely.\x07", own_source="")).text
    assert text.startswith("Send it safely.")
    assert text.isprintable()


def test_it_is_ready_to_stand_in_for_a_model(make_request):
    summary = extract_summary(make_request())
    assert (summary.origin, summary.status, summary.key) == (Origin.EXTRACTIVE, Status.OK, "")


def test_the_version_moves_when_the_text_moves(make_request):
    requests = [
        make_request(),
        make_request(docstring="", level=Level.CLASS, children=CHILDREN),
        *(SummaryRequest(container(level, own_source=README), children=CHILDREN) for level in Level),
        SummaryRequest(container(Level.FILE, language="markdown", own_source=README)),
        SummaryRequest(container(Level.FILE, language="go", own_source=LICENSED)),
    ]
    found = digest([[s.text, list(s.keywords)] for s in map(extract_summary, requests)])
    assert found == GOLDEN[EXTRACTIVE_VERSION]


ANY_TEXT = st.text(alphabet=st.characters(codec=None), max_size=400)


@given(level=st.sampled_from(Level), name=ANY_TEXT, docstring=ANY_TEXT, source=ANY_TEXT, language=ANY_TEXT)
def test_any_unit_at_all_gets_a_text_that_can_be_printed(level, name, docstring, source, language):
    unit = container(
        level, name=name, qualified_name=name, docstring=docstring, own_source=source, language=language, signature=name
    )
    summary = extract_summary(SummaryRequest(unit, children=(ChildSummary(level, name, name, docstring),)))
    assert summary.text.strip() == summary.text != ""
    assert summary.text.replace("\n", "").isprintable()
    assert all(word.isprintable() for word in summary.keywords)


HOSTILE = [
    "/*", "/* ", "'", '"', '"\\', "# a ", "#", "# ", "((((", "<!--", "<a", "![", "[a](", "[a][", "`", "` ", ":", ":a",
    "__a (", "*a ", "e.g. A ", "```a\n", "~~~\n", "---\n", ".. x\n ", "|a ", "\n ", " ", "\t\n", '"' * 3, "'" * 3 + "a",
    "a-", "a'", "\\", "{", "::", ">>> a\n", "Args:\n", ". A", "\x1b[", "\x1b]", "&'a ", "=\n",
]  # fmt: skip


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", HOSTILE)
def test_no_source_keeps_it_busy(make_request, piece):
    """A pattern that backtracks over long stretches would hang here; the time limit is the judge."""
    for source in (piece * (200_000 // len(piece)), f"# {piece}" + " " * 200_000 + "x"):
        extract_summary(make_request(own_source=source, docstring=""))
        extract_summary(SummaryRequest(container(Level.FILE, language="markdown", own_source=source)))
        extract_summary(make_request(own_source="", docstring=source))
        render_template(make_request(own_source="", docstring=source, signature=source, name=source).unit)


def test_pinned_commits_are_no_words():
    source = "uses: actions/checkout@df26d4f13ea111d4ec1a7dddef6063fa\nname: deploy\n"
    assert set(identifiers(source)) == {"uses", "actions", "checkout", "name", "deploy"}
