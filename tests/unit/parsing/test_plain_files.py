"""Files that are not read as code still have a file unit, with words to find them by."""

import json
from collections.abc import Callable

import pytest

from summidx.records import Level, ParsedRepo, SkipReason, Unit

ReadById = Callable[..., dict[str, Unit]]


@pytest.mark.parametrize(
    ("path", "text", "docstring"),
    [
        ("README.md", "[![badge](x)](y)\n\n# A *Tool*\n\nIt does\nthings.\n\nMore.\n", "A *Tool*\n\nIt does things."),
        ("README.rst", "======\nA Tool\n======\n\n.. image:: x\n\nIt does\nthings.\n", "A Tool\n\nIt does things."),
        ("notes.md", "Only a paragraph.\n\n# Later\n", "Only a paragraph."),
        ("notes.md", "# One\n## Two\n\nText.\n", "One\n\nText."),
        ("a.sh", "#!/bin/sh\n\n# Runs it.\n# Twice.\nset -e\n", "Runs it.\nTwice."),
        ("a.swift", "/**\n * Adds.\n */\n// Well.\nlet x = 1\n", "Adds.\nWell."),
        ("a.cu", "#include <stdio.h>\nint main() {}\n", ""),
        ("a.css", "#id { color: red }\n", ""),
        ("a.yaml", "---\n# Settings.\na: 1\n", ""),
        ("a.sql", "-- Tables.\nselect 1\n", "Tables."),
        ("a.html", "<!-- A page.\n-->\n<p>x</p>\n", "A page."),
        ("a.json", '{"a": 1}\n', ""),
    ],
)
def test_the_docstring_is_the_first_thing_said(read_by_id: ReadById, path: str, text: str, docstring: str) -> None:
    unit = read_by_id({path: text})[path]
    assert unit.docstring == docstring
    assert unit.own_source == text.strip("\n")
    assert unit.own_spans == ((1, text.count("\n")),)
    assert unit.level is Level.FILE


def notebook(*cells: tuple[str, str | list[str]]) -> str:
    return json.dumps({"cells": [{"cell_type": kind, "source": source} for kind, source in cells], "nbformat": 4})


def test_a_notebook_is_a_script_with_its_prose_as_comments(read_by_id: ReadById) -> None:
    text = notebook(
        ("markdown", "# Title\n"), ("code", ["import a\n", "a.run()"]), ("raw", "x"), ("code", "def f(): pass")
    )
    units = read_by_id({"n.ipynb": text})
    assert list(units) == ["n.ipynb"]
    assert units["n.ipynb"].own_source == "# # Title\n\nimport a\na.run()\n\ndef f(): pass"
    assert units["n.ipynb"].docstring == "# Title"
    assert (units["n.ipynb"].code_lines, units["n.ipynb"].trivial) == (3, False)


@pytest.mark.parametrize("text", ["not JSON", "[1]", '{"cells": 3}', "[" * 100_000, '{"cells": [{}]}'])
def test_what_only_claims_to_be_a_notebook_is_text_and_a_skip(read: Callable[..., ParsedRepo], text: str) -> None:
    repo = read({"n.ipynb": text, "a.txt": "x"})
    assert [unit.own_source for unit in repo.units] == ["x", text]
    assert [(skip.path, skip.reason) for skip in repo.skips] == [("n.ipynb", SkipReason.UNPARSABLE)]


def test_a_file_of_fewer_than_three_lines_is_trivial(read_by_id: ReadById) -> None:
    units = read_by_id({"two": "a\n\nb\n", "three": "a\nb\nc\n"})
    assert (units["two"].trivial, units["three"].trivial) == (True, False)
