"""The parser against Python's own, on real code: the standard library that this interpreter runs."""

import ast
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from summidx.parsing.budget import Budget
from summidx.parsing.languages.python import analyse
from summidx.parsing.text import decode, split_lines
from summidx.parsing.units import FileFacts, build_units
from summidx.records import Level, Unit

LIBRARY = Path(sysconfig.get_path("stdlib"))
PACKAGES = ["asyncio", "email", "json", "importlib", "unittest", "concurrent", "http", "xml", "logging", "ctypes"]
FILES = sorted([*LIBRARY.glob("*.py"), *(path for name in PACKAGES for path in (LIBRARY / name).rglob("*.py"))])

Row = tuple[str, str, int, str]
"""(qualified name, level, first line, docstring)."""


def definitions(tree: ast.Module) -> Iterator[Row]:
    """What Python itself sees: every function and class that is not inside a function."""
    stack: list[tuple[ast.AST, str]] = [(tree, "")]
    while stack:
        node, prefix = stack.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                line = min([child.lineno, *(decorator.lineno for decorator in child.decorator_list)])
                is_class = isinstance(child, ast.ClassDef)
                level = Level.CLASS if is_class else Level.FUNCTION
                yield prefix + child.name, level, line, ast.get_docstring(child) or ""
                if is_class:
                    stack.append((child, f"{prefix}{child.name}."))
            else:
                stack.append((child, prefix))


def parse_both(path: Path) -> tuple[ast.Module, list[Unit], int]:
    data = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in the library's own strings
        tree = ast.parse(data)
    text = decode(data, declared=True)
    lines = split_lines(text)
    return tree, build_units(FileFacts(path.name, "python"), lines, analyse(text, Budget())), len(lines)


@pytest.fixture(scope="module")
def library() -> list[tuple[Path, ast.Module, list[Unit], int]]:
    return [(path, *parse_both(path)) for path in FILES]


def test_the_sample_is_large(library: list[tuple[Path, ast.Module, list[Unit], int]]) -> None:
    assert len(library) > 250
    assert sum(len(units) for _, _, units, _ in library) > 9000


def test_every_definition_is_found_with_name_line_and_docstring_and_none_extra(
    library: list[tuple[Path, ast.Module, list[Unit], int]],
) -> None:
    for path, tree, units, _ in library:
        found = sorted((u.qualified_name, str(u.level), u.start_line, u.docstring) for u in units[1:])
        assert found == sorted(definitions(tree)), path
        assert units[0].docstring == (ast.get_docstring(tree) or ""), path


def test_every_line_is_owned_by_exactly_one_unit(library: list[tuple[Path, ast.Module, list[Unit], int]]) -> None:
    for path, _, units, n_lines in library:
        spans = sorted(span for unit in units for span in unit.own_spans)
        assert [first for first, _ in spans] == [1, *(last + 1 for _, last in spans[:-1])][: len(spans)], path
        assert (spans[-1][1] if spans else 0) == n_lines, path


def test_ids_are_unique_and_parents_exist(library: list[tuple[Path, ast.Module, list[Unit], int]]) -> None:
    for path, _, units, _ in library:
        ids = {unit.id for unit in units}
        assert len(ids) == len(units), path
        assert all(unit.parent_id in ids for unit in units[1:]), path


def test_the_own_source_of_a_function_is_python_that_defines_it(
    library: list[tuple[Path, ast.Module, list[Unit], int]],
) -> None:
    """Dedenting a method must not break it; a function has no child that is elided."""
    checked = 0
    for path, _, units, _ in library:
        for unit in units:
            if unit.level is Level.FUNCTION:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    (node,) = ast.parse(unit.own_source).body
                assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef), (path, unit.id)
                assert node.name == unit.name
                checked += 1
    assert checked > 8000
