"""Files, classes and functions become one tree, whatever order they come in."""

import random

from summidx.hierarchy import REPO_ID, build_tree
from summidx.records import Level, Unit


def file_unit(path, *, source="", docstring="", is_test=False):
    return Unit(
        id=path,
        level=Level.FILE,
        path=path,
        name=path.rsplit("/", 1)[-1],
        qualified_name=path,
        language="python",
        start_line=1,
        end_line=9,
        parent_id=None,
        own_source=source,
        docstring=docstring,
        is_test=is_test,
    )


def code_unit(unit_id, parent_id, level=Level.FUNCTION):
    path, name = unit_id.split("::")
    return Unit(
        id=unit_id,
        level=level,
        path=path,
        name=name.rsplit(".", 1)[-1],
        qualified_name=name,
        language="python",
        start_line=1,
        end_line=2,
        parent_id=parent_id,
    )


UNITS = [
    file_unit("README.md", source="# Click\n\nComposable.", docstring="Click. Composable."),
    file_unit("pyproject.toml", source="[project]\nname = 'click'"),
    file_unit("src/click/core.py"),
    code_unit("src/click/core.py::Command", "src/click/core.py", Level.CLASS),
    code_unit("src/click/core.py::Command.invoke", "src/click/core.py::Command"),
    code_unit("src/click/core.py::main", "src/click/core.py"),
    file_unit("src/click/README.md", source="inner"),
    file_unit("tests/deep/test_core.py", is_test=True),
    file_unit("tests/conftest.py", is_test=True),
]


def test_each_unit_stands_once_under_its_parent_in_printing_order():
    tree = build_tree(UNITS, "click")
    assert list(tree.units) == [
        ".",
        "README.md",
        "pyproject.toml",
        "src/click/",
        "src/click/README.md",
        "src/click/core.py",
        "src/click/core.py::Command",
        "src/click/core.py::Command.invoke",
        "src/click/core.py::main",
        "tests/",
        "tests/conftest.py",
        "tests/deep/",
        "tests/deep/test_core.py",
    ]
    assert tree.depths["src/click/core.py::Command.invoke"] == 4
    assert list(tree.ancestors_of("src/click/core.py::Command.invoke")) == [
        "src/click/core.py::Command",
        "src/click/core.py",
        "src/click/",
        REPO_ID,
    ]


def test_a_folder_whose_only_child_is_a_folder_is_joined_with_it():
    tree = build_tree([file_unit("a/b/c/x.py"), file_unit("a/b/c/y.py"), file_unit("top.py")], "r")
    assert tree.children[REPO_ID] == ("a/b/c/", "top.py")


def test_the_order_of_reading_changes_nothing():
    shuffled = UNITS[:]
    random.Random(7).shuffle(shuffled)
    assert build_tree(shuffled, "click") == build_tree(UNITS, "click")


def test_readme_and_manifest_are_what_the_repository_and_its_folders_read_of_their_own():
    tree = build_tree(UNITS, "click")
    repo = tree.units[REPO_ID]
    assert repo.own_source == "# Click\n\nComposable.\n\n[project]\nname = 'click'"
    assert (repo.name, repo.qualified_name, repo.docstring) == ("click", "click", "Click. Composable.")
    assert tree.units["src/click/"].own_source == "inner"


def test_a_folder_of_tests_only_is_a_test_and_the_repository_never_is():
    tree = build_tree(UNITS, "click")
    assert tree.units["tests/"].is_test
    assert tree.units["tests/deep/"].is_test
    assert not tree.units["src/click/"].is_test
    assert not build_tree([file_unit("tests/test_x.py", is_test=True)], "r").units[REPO_ID].is_test


def test_an_empty_repository_is_a_tree_of_its_root():
    tree = build_tree([], "empty")
    assert list(tree.units) == [REPO_ID]


def test_nesting_of_any_depth_is_walked():
    parent, units = "deep.py", [file_unit("deep.py")]
    for depth in range(3000):
        unit = code_unit("deep.py::" + "C" * (depth + 1), parent, Level.CLASS)
        units.append(unit)
        parent = unit.id
    assert build_tree(units, "r").depths[parent] == 3001
