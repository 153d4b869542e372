"""Comments without their marks. Pure, and the same for every language."""

import re

_BLOCK = re.compile(r"\A/\*[*!]*<?|\*+/\Z")
_STAR = re.compile(r"^[ \t]*\*+(?=\s|$|[^*/\s])[ \t]?")
_LINE = re.compile(r"^[ \t]*(?://+!?<?|#+(?!\[)|--+|;+)[ \t]?")
_LEGAL = re.compile(
    r"copyright|licen[cs]ed?\b|warrant(?:y|ies)|spdx-|all rights reserved|redistribution and use|hereby granted"
    r"|\"as is\"",
    re.IGNORECASE,
)
_MACHINE = re.compile(
    r"^\W*(?:eslint|jshint|jslint|global|globals|prettier|tslint|@ts-|@flow|istanbul|c8|v8|nolint|go:|\+build|rubocop|"
    r"frozen_string_literal|encoding|coding|typed|-\*-|vim|#region|#endregion|noinspection|clang-format|NOLINT|phpcs|"
    r"@phpstan|@psalm|<reference|sourceMappingURL)\b",
    re.IGNORECASE,
)


def is_legal(comment: str) -> bool:
    """Whether a comment is a licence: it says nothing of the code."""
    return _LEGAL.search(comment[:2_000]) is not None


def is_directive(comment: str) -> bool:
    """Whether a comment speaks to a tool: a linter, a compiler, an editor."""
    return _MACHINE.match(comment) is not None


def bare_comment(comment: str) -> str:
    """The text of one comment, or of line comments that follow each other, without marks, dedented."""
    if comment.startswith("/*"):
        lines = _BLOCK.sub("", comment.strip()).split("\n")
        starred = [line for line in lines[1:] if line.strip()]
        if starred and all(line.lstrip().startswith("*") for line in starred):
            lines = [lines[0], *(_STAR.sub("", line) for line in lines[1:])]
    elif comment.startswith("=begin"):
        lines = [line for line in comment.split("\n") if not line.startswith(("=begin", "=end"))]
    else:
        lines = [_LINE.sub("", line) for line in comment.split("\n")]
    first, rest = lines[0].strip() if lines else "", lines[1:]
    indents = [len(line) - len(line.lstrip(" \t")) for line in rest if line.strip()]
    cut = min(indents, default=0)
    return "\n".join([first, *(line[cut:].rstrip() for line in rest)]).strip()
