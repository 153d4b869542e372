"""Definitions found by summidx against those of Universal Ctags, on real repositories.

    python benchmarks/ctags.py --language go=/path/to/gin --language go=/path/to/hugo [--samples 20] [--json FILE]

A definition of ctags is found where one of ours has its name, on its line or one beside it. Both read the same files:
those of the language that are neither vendored nor generated nor minified. What is compared is said by KINDS: what
design 3.1 calls a function or a type. Left out, and counted: what stands in a function (it belongs to that function),
and what ctags makes up names for.
"""

import argparse
import importlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from summidx.parsing.budget import Budget
from summidx.parsing.languages import load_language
from summidx.parsing.source import Source, walk
from summidx.parsing.syntax import Definition
from summidx.parsing.text import decode, split_lines
from summidx.records import Level
from summidx.sources import classify

MAX_FILE_BYTES = 1_000_000
LINES_APART = 1
_MADE_UP = re.compile(r"^(?:__anon|Anonymous|anonymous)")


@dataclass(frozen=True)
class Kinds:
    """What of ctags' kinds is a function or a type to us."""

    ctags: str
    """Name of the language, as ctags has it."""
    functions: frozenset[str]
    types: frozenset[str]
    outer_functions: frozenset[str] = frozenset({"function", "method", "generator", "getter", "setter"})
    """Kinds of scopes whose content belongs to a function."""
    not_in: frozenset[str] = frozenset()
    """Kinds of scopes whose members are their own text: methods of a TypeScript interface."""
    options: tuple[str, ...] = ()
    strings: frozenset[str] = frozenset()
    """tree-sitter's kinds of literals over several lines: what ctags sees in them is no code."""
    callbacks: frozenset[str] = frozenset()
    """tree-sitter's kinds of functions without a name, where ctags does not say what stands in one."""


def _kinds(ctags: str, functions: str, types: str, **more: object) -> Kinds:
    return Kinds(ctags, frozenset(functions.split()), frozenset(types.split()), **more)  # type: ignore[arg-type]


_FUNCTIONS = frozenset({"arrow_function", "function_expression"})
KINDS = {
    "javascript": _kinds(
        "JavaScript", "function method generator getter setter", "class",
        strings=frozenset({"template_string"}), callbacks=_FUNCTIONS,
        options=("--map-JavaScript=+.cjs", "--map-JavaScript=+.mjs", "--map-JavaScript=+.jsx"),
    ),
    "typescript": _kinds(
        "TypeScript", "function method generator", "class interface enum alias",
        not_in=frozenset({"interface"}), strings=frozenset({"template_string"}), callbacks=_FUNCTIONS,
        options=("--map-TypeScript=+.tsx", "--map-TypeScript=+.mts", "--map-TypeScript=+.cts"),
    ),
    "java": _kinds("Java", "method", "class interface enum annotation"),
    "go": _kinds("Go", "func", "struct interface type talias"),
    "rust": _kinds("Rust", "function method macro", "struct enum interface typedef"),
    "c": _kinds("C", "function macro", "struct union enum"),
    "cpp": _kinds("C++", "function macro", "class struct union enum"),
    "csharp": _kinds("C#", "method", "class interface struct enum"),
    "ruby": _kinds("Ruby", "method singletonMethod", "class module", strings=frozenset({"heredoc_body"})),
    "php": _kinds("PHP", "function", "class interface trait"),
}  # fmt: skip


@dataclass(frozen=True)
class Tag:
    """A definition as ctags reports it."""

    path: str
    name: str
    line: int
    kind: str
    scope_kind: str
    pattern: str


@dataclass
class Comparison:
    """Counts of one repository and language."""

    files: int = 0
    tags: int = 0
    matched: int = 0
    in_functions: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    missed: list[Tag] = field(default_factory=list)
    ours: int = 0
    ours_only: list[tuple[str, Definition]] = field(default_factory=list)

    @property
    def agreement(self) -> float:
        """Share of ctags' functions and types that were found."""
        return self.matched / self.tags if self.tags else 1.0


def files_of(root: Path, language: str) -> list[str]:
    """Paths of the files of a language that are read as code, sorted."""
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name != ".git")
        for name in names:
            file = Path(folder) / name
            path = file.relative_to(root).as_posix()
            if file.is_symlink() or not file.is_file() or file.stat().st_size > MAX_FILE_BYTES:
                continue
            data = file.read_bytes()
            if (
                classify.language_of(path, data) == language
                and not classify.not_text(path, data)
                and not classify.not_read_as_code(path, data)
            ):
                found.append(path)
    return sorted(found)


def read_tags(root: Path, paths: Iterable[str], language: str) -> list[Tag]:
    """Run ctags on some files."""
    kinds = KINDS[language]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as listing:
        listing.write("\n".join(paths))
        listing.flush()
        command = [
            "ctags", "--options=NONE", "--quiet", *kinds.options, f"--language-force={kinds.ctags}",
            "--output-format=json", "--fields=+nKs", "--kinds-C=+defgsu", "-L", listing.name, "-o", "-",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=root, capture_output=True, check=True)
    tags = []
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        row = json.loads(line)
        if row.get("_type") == "tag" and "line" in row:
            tags.append(
                Tag(
                    row["path"], row["name"], row["line"], row["kind"], row.get("scopeKind", ""), row.get("pattern", "")
                )
            )
    return tags


def compare(root: Path, language: str) -> Comparison:
    """Compare one language of one repository."""
    kinds = KINDS[language]
    result = Comparison()
    paths = files_of(root, language)
    result.files = len(paths)
    module = load_language(language)
    assert module is not None
    ours: dict[str, list[Definition]] = {}
    code_lines: dict[str, list[str]] = {}
    for path in paths:
        text = decode((root / path).read_bytes())
        code_lines[path] = split_lines(text)
        ours[path] = [d for d in module.analyse(text, Budget(), path).definitions if not d.is_elsewhere]
    result.ours = sum(map(len, ours.values()))
    ranges: dict[str, list[tuple[int, int, str]]] = {}
    taken: set[int] = set()
    seen: set[tuple[str, str, int]] = set()
    for tag in read_tags(root, paths, language):
        if tag.kind not in kinds.functions | kinds.types:
            continue
        if tag.scope_kind in kinds.outer_functions or is_inside(tag, ours.get(tag.path, ())):
            result.in_functions += 1
            continue
        reason = why_left_out(tag, kinds, code_lines.get(tag.path, []))
        if reason:
            result.left_out[reason] += 1
            continue
        if (tag.path, tag.name, tag.line) in seen:
            continue
        seen.add((tag.path, tag.name, tag.line))
        result.tags += 1
        found = [d for d in ours.get(tag.path, ()) if is_same(d, tag)]
        taken.update(map(id, found))
        if found:
            result.matched += 1
            continue
        where = ranges[tag.path] = ranges.get(tag.path) or no_definitions(language, tag.path, code_lines[tag.path])
        reason = next((why for first, last, why in where if first < tag.line <= last), "")
        if reason:
            result.tags -= 1
            result.left_out[reason] += 1
        else:
            result.missed.append(tag)
    result.ours_only = [(path, d) for path, each in ours.items() for d in each if id(d) not in taken]
    return result


def no_definitions(language: str, path: str, lines: Sequence[str]) -> list[tuple[int, int, str]]:
    """Lines in which nothing is defined, after the grammar: literals, and functions that are passed to a call."""
    kinds = KINDS[language]
    module = importlib.import_module(f"summidx.parsing.languages.{language}")
    grammar = module.GRAMMAR_TSX if path.endswith("x") and language == "typescript" else module.GRAMMAR
    found = []
    for node in walk(Source("\n".join(lines)).parse(grammar, Budget()), Budget()):
        first, last = node.start_point.row + 1, node.end_point.row + 1
        if node.type in kinds.strings:
            found.append((first, last, "in a string"))
        elif node.type == "arguments" and kinds.callbacks:
            found += [
                (child.start_point.row + 1, child.end_point.row + 1, "in a callback")
                for child in node.named_children
                if child.type in kinds.callbacks
            ]
    return found


def is_inside(tag: Tag, definitions: Sequence[Definition]) -> bool:
    """Whether a tag stands in the body of a function that is not it; ctags does not always say so."""
    return any(
        d.level is Level.FUNCTION and d.header_lines[1] < tag.line <= d.end_line and not is_same(d, tag)
        for d in definitions
    )


def why_left_out(tag: Tag, kinds: Kinds, lines: Sequence[str]) -> str:
    """Why a tag is not compared, or ""."""
    line = lines[tag.line - 1] if 0 < tag.line <= len(lines) else ""
    name = re.escape(tag.name)
    reasons = {
        "no name": _MADE_UP.match(tag.name) is not None,
        f"member of {tag.scope_kind}": tag.scope_kind in kinds.not_in,
        "renamed import": tag.kind == "alias" and not re.search(rf"\btype\s+{name}\s*(?:[<=]|$)", line),
        "object": kinds.ctags == "JavaScript" and tag.kind == "class"
        and not re.search(r"\b(?:class|function|prototype)\b", line),
        "constant macro": kinds.ctags in ("C", "C++") and tag.kind == "macro"
        and not re.search(rf"{name}\(", line),
        "associated type": tag.kind == "typedef" and tag.scope_kind in ("implementation", "interface"),
    }  # fmt: skip
    return next((reason for reason, holds in reasons.items() if holds), "")


def is_same(definition: Definition, tag: Tag) -> bool:
    """Whether a definition of ours is what a tag tells of."""
    names = {definition.name, definition.name.rpartition(".")[2], definition.name.lstrip("#~$")}
    name = tag.name.replace(" ", "") if tag.name.startswith("operator") else tag.name.rpartition(".")[2]
    if definition.signature.startswith(f"{tag.name}({definition.name})"):  # `TEST(foo) {`: to us it is foo
        return definition.name_line == tag.line
    return name in {each.replace(" ", "") for each in names} and abs(definition.name_line - tag.line) <= LINES_APART


def render(language: str, root: Path, found: Comparison, samples: int) -> dict[str, object]:
    """One row of the table, as JSON."""
    chosen = random.Random(0)
    commit = root / ".commit"
    return {
        "language": language,
        "repository": root.name.replace("+", "/"),
        "commit": commit.read_text().strip() if commit.exists() else "",
        "files": found.files,
        "ctags": found.tags,
        "found": found.matched,
        "agreement": round(found.agreement, 4),
        "ours": found.ours,
        "ours_only": len(found.ours_only),
        "in_functions": found.in_functions,
        "left_out": dict(sorted(found.left_out.items())),
        "missed_by_kind": dict(Counter(tag.kind for tag in found.missed).most_common()),
        "missed": [
            f"{tag.path}:{tag.line} {tag.kind} {tag.name}"
            for tag in chosen.sample(found.missed, min(samples, len(found.missed)))
        ],
        "ours_only_sample": [
            f"{path}:{d.name_line} {d.level} {d.name}"
            for path, d in chosen.sample(found.ours_only, min(samples, len(found.ours_only)))
        ],
    }


def main() -> int:
    """Compare what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--language", action="append", required=True, metavar="LANGUAGE=FOLDER")
    parser.add_argument("--samples", type=int, default=10, help="disagreements that are shown")
    parser.add_argument("--json", type=Path, help="file that the table is written to")
    options = parser.parse_args()
    rows = []
    for each in options.language:
        language, _, folder = each.partition("=")
        row = render(language, Path(folder), compare(Path(folder), language), options.samples)
        rows.append(row)
        print(json.dumps(row, indent=1), flush=True)
        if options.json:
            options.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
