"""What units a Python file has: ids, lines, signatures, docstrings, and what a template says all of."""

from pathlib import Path

import pytest

from summidx.parsing.budget import Budget, OverBudget
from summidx.parsing.languages import load_language
from summidx.parsing.languages.python import analyse
from summidx.parsing.text import split_lines
from summidx.parsing.units import FileFacts, build_units
from summidx.records import Level, Unit

CONSTRUCTS = Path(__file__).with_name("constructs.py.txt").read_text(encoding="utf-8")


def units_of(text: str, path: str = "c.py") -> dict[str, Unit]:
    """The units of one file by their id, without `path::`."""
    units = build_units(FileFacts(path, "python"), split_lines(text), analyse(text, Budget()))
    return {unit.id.removeprefix(f"{path}::"): unit for unit in units}


@pytest.fixture(scope="module")
def constructs() -> dict[str, Unit]:
    return units_of(CONSTRUCTS)


FETCH = (
    "async def fetch(url: str, *, timeout_s: float = 1.5, headers: Mapping[str, str] | None = None, "
    'text="keeps  its   spaces", many=...) -> "bytes | None"'
)
EXPECTED = [
    # id, start and end line, own spans, signature, docstring, code lines, trivial
    ("fetch", 19, 44, [(17, 44)], FETCH, "Fetch.\n\n   Deeper.\nBack.", 12, False),
    ("bare", 48, 48, [(48, 48)], "def bare()", "", 1, True),
    ("one_line", 49, 49, [(49, 49)], "def one_line(x, /, y=1)", "", 1, True),
    (
        "Outer", 52, 90, [(52, 60), (63, 63), (68, 68), (72, 73), (75, 75), (78, 78), (84, 84), (88, 88)],
        "class Outer(Base, metaclass=Meta)", "Parenthesised and joined.", 13, False,
    ),
    ("Outer.__init__", 61, 62, [(61, 62)], "def __init__(self, n: int) -> None", "", 2, True),
    ("Outer.size", 64, 67, [(64, 67)], "def size(self) -> int", "How many.", 3, True),
    ("Outer.size@69", 69, 71, [(69, 71)], "def size(self, value: int) -> None", "", 3, True),
    ("Outer.where", 74, 74, [(74, 74)], "def where(self)", "", 1, True),
    ("Outer.where@76", 76, 77, [(76, 77)], "def where(self)", "", 2, True),
    ("Outer.Inner", 80, 83, [(79, 80)], "class Inner[T: (int, str)](Generic[T])", "", 2, False),
    ("Outer.Inner.Innermost", 81, 83, [(81, 82)], "class Innermost", "Deep.", 2, False),
    (
        "Outer.Inner.Innermost.leaf", 83, 83, [(83, 83)],
        "def leaf(self, *args: int, **kwargs: object) -> None", "", 1, True,
    ),
    ("Outer.walk", 85, 87, [(85, 87)], "async def walk(self) -> It[int]", "", 3, False),
    ("Outer.__len__", 89, 90, [(89, 90)], "def __len__(self)", "", 2, True),
    ("fallback", 96, 101, [(96, 101)], "def fallback()", "", 6, False),
    ("in_blocks", 106, 107, [(106, 107)], "def in_blocks()", "", 2, True),
    ("parse@110", 110, 111, [(110, 111)], "def parse(x: int) -> int", "", 2, True),
    ("parse@112", 112, 113, [(112, 113)], "def parse(x: str) -> str", "", 2, True),
    ("parse", 114, 116, [(114, 116)], "def parse(x)", "The implementation.", 2, True),
    ("parse@119", 119, 120, [(119, 120)], "def parse(x, y)", "", 2, True),
    ("Tabs", 124, 127, [(124, 124)], "class Tabs", "", 2, False),
    ("Tabs.method", 125, 127, [(125, 127)], "def method(self)", "Raw \\d.", 2, True),
    ("broken", 128, 129, [(128, 129)], "def broken(", "", 2, True),
    ("after_the_error", 131, 132, [(131, 132)], "def after_the_error()", "Found.", 1, True),
]  # fmt: skip


def test_every_construct_gives_exactly_these_units(constructs: dict[str, Unit]) -> None:
    found = [
        (
            unit_id,
            unit.start_line,
            unit.end_line,
            list(unit.own_spans),
            unit.signature,
            unit.docstring,
            unit.code_lines,
            unit.trivial,
        )
        for unit_id, unit in constructs.items()
        if unit.level is not Level.FILE
    ]
    assert found == EXPECTED


def test_the_file_unit_owns_what_no_definition_does(constructs: dict[str, Unit]) -> None:
    unit = constructs["c.py"]
    assert (unit.level, unit.name, unit.qualified_name, unit.parent_id) == (Level.FILE, "c.py", "c.py", None)
    assert (unit.start_line, unit.end_line) == (1, len(CONSTRUCTS.splitlines()))
    assert unit.docstring == "Everything that a Python file can define.\n\nIndented text stays indented."
    assert not unit.trivial


def test_each_line_is_owned_by_exactly_one_unit(constructs: dict[str, Unit]) -> None:
    owned = sorted(n for unit in constructs.values() for a, b in unit.own_spans for n in range(a, b + 1))
    assert owned == list(range(1, len(split_lines(CONSTRUCTS)) + 1))


def test_a_class_reads_its_methods_as_signatures_in_their_place(constructs: dict[str, Unit]) -> None:
    assert constructs["Outer"].own_source == (
        "class Outer(Base, metaclass=Meta):  # why\n"
        "\n"
        "    # above the docstring\n"
        '    ("Parenthesised "  # a comment between\n'
        "     'and joined.')\n"
        "\n"
        "    field: int = 1\n"
        "    other = [n for n in range(3)]\n"
        "\n"
        "    def __init__(self, n: int) -> None: ...\n"
        "\n"
        "    def size(self) -> int: ...\n"
        "\n"
        "    def size(self, value: int) -> None: ...\n"
        "\n"
        '    if os.name == "nt":\n'
        "        def where(self): ...\n"
        "    else:\n"
        "        def where(self): ...\n"
        "\n"
        "    class Inner[T: (int, str)](Generic[T]): ...\n"
        "\n"
        "    async def walk(self) -> It[int]: ...\n"
        "\n"
        "    def __len__(self): ..."
    )


def test_a_file_reads_its_definitions_as_signatures_in_their_place(constructs: dict[str, Unit]) -> None:
    source = constructs["c.py"].own_source
    assert "try:\n    import fast\nexcept ImportError:\n    def fallback(): ...\n" in source
    assert '        with open("x") as f:\n            def in_blocks(): ...\n' in source
    assert source.endswith('def after_the_error(): ...\nif __name__ == "__main__":\n    bare()')


def test_own_source_is_dedented_and_starts_with_the_comment_directly_above(constructs: dict[str, Unit]) -> None:
    assert constructs["Outer.Inner"].own_source == (
        "# Before the inner class.\nclass Inner[T: (int, str)](Generic[T]):\n    class Innermost: ..."
    )
    assert constructs["Outer.Inner.Innermost"].own_source.startswith('class Innermost:\n    """Deep."""\n    def leaf(')
    assert constructs["fetch"].own_source.startswith("# A comment block\n# directly above")
    assert constructs["fetch"].own_source.endswith("return helper(url)\n    # still inside")
    assert constructs["Tabs.method"].own_source == 'def method(self):\n\tr"""Raw \\d."""\n\treturn 1'


def test_moving_a_method_to_another_depth_keeps_its_own_source(constructs: dict[str, Unit]) -> None:
    """Equal own source is an equal key: a method that moves is not summarised again."""
    shallow = units_of("class A:\n    def f(self):\n        s = '''\nat the margin'''\n        return s\n")["A.f"]
    deep = units_of(
        "class A:\n    class B:\n        def f(self):\n            s = '''\nat the margin'''\n            return s\n"
    )["A.B.f"]
    assert shallow.own_source == deep.own_source


def test_parents_are_the_enclosing_class_or_the_file(constructs: dict[str, Unit]) -> None:
    assert constructs["Outer.Inner.Innermost.leaf"].parent_id == "c.py::Outer.Inner.Innermost"
    assert constructs["Outer.where@76"].parent_id == "c.py::Outer"
    assert constructs["in_blocks"].parent_id == "c.py"


@pytest.mark.parametrize(
    ("unit_id", "gloss"),
    [
        ("Outer.__init__", "initialisation of a new Outer"),
        ("Outer.__len__", "length of Outer"),
        ("Outer.size", "property `size` of Outer"),
        ("Outer.size@69", "setter of property `size` of Outer"),
        ("Outer.walk", ""),
        ("fetch", ""),
    ],
)
def test_special_methods_and_accessors_are_put_in_words(constructs: dict[str, Unit], unit_id: str, gloss: str) -> None:
    assert constructs[unit_id].gloss == gloss


def test_methods_of_a_second_definition_of_a_class_have_ids_of_their_own() -> None:
    units = units_of(
        "if x:\n class C:\n  def m(self): pass\nelse:\n class C:\n  def m(self): pass\n  def n(self): pass\n"
    )
    assert {key: unit.parent_id for key, unit in units.items() if key != "c.py"} == {
        "C": "c.py",
        "C.m": "c.py::C",
        "C@5": "c.py",
        "C.m@6": "c.py::C@5",
        "C.n": "c.py::C@5",
    }


def trivial(text: str, unit_id: str) -> bool:
    return units_of(text)[unit_id].trivial


LONG_DUNDER = "class C:\n    def __eq__(self, o):\n        a = 1\n        b = 2\n        c = 3\n        return a\n"


@pytest.mark.parametrize(
    ("text", "unit_id", "expected"),
    [
        pytest.param("def f():\n    '''Doc.'''\n    # why\n\n    return 1\n", "f", True, id="2 code lines"),
        pytest.param("def f():\n    a = 1\n    return a\n", "f", False, id="3 code lines"),
        pytest.param("def f(\n    a,\n    b,\n    c,\n):\n    return 1\n", "f", True, id="a header counts as one"),
        pytest.param(LONG_DUNDER, "C.__eq__", True, id="dunder of 5"),
        pytest.param(LONG_DUNDER.replace("c = 3", "c = 3\n        d = 4"), "C.__eq__", False, id="dunder of 6"),
        pytest.param(LONG_DUNDER.replace("b = 2", "b = 2 if o else 3"), "C.__eq__", False, id="dunder that branches"),
        pytest.param(LONG_DUNDER.replace("b = 2", "b = [i for i in o]"), "C.__eq__", False, id="dunder that loops"),
        pytest.param(LONG_DUNDER.replace("__eq__", "equal"), "C.equal", False, id="method of 5"),
        pytest.param("class C:\n    '''Doc.'''\n", "C", True, id="class of 1"),
        pytest.param("class C:\n    a = 1\n    b = 2\n", "C", False, id="class of 3"),
        pytest.param("class C:\n    def f(self): pass\n", "C", False, id="class with a method"),
        pytest.param("def f(): pass\n", "c.py", False, id="file with a function"),
        pytest.param("'''Doc.'''\nimport a\nimport b\n", "c.py", True, id="file of 2"),
        pytest.param("import a\nimport b\nimport c\n", "c.py", False, id="file of 3"),
        pytest.param("", "c.py", True, id="empty file"),
    ],
)
def test_what_is_trivial(text: str, unit_id: str, expected: bool) -> None:
    assert trivial(text, unit_id) is expected


def test_an_empty_file_has_a_file_unit_that_owns_no_line() -> None:
    (unit,) = units_of("").values()
    assert (unit.own_spans, unit.start_line, unit.end_line, unit.own_source) == ((), 1, 1, "")


@pytest.mark.parametrize(
    "docstring",
    ["f'no {x}'", "b'no'", "'a' 'b' f'{x}'", "'no', 1", "x = 'no'", "'no'.strip()"],
)
def test_what_is_no_docstring(docstring: str) -> None:
    assert units_of(f"def f():\n    {docstring}\n")["f"].docstring == ""


def test_a_form_feed_before_a_definition_does_not_move_it() -> None:
    units = units_of("import a\n\f\n\f# about f\n\fdef f():\n    return 1\n")
    assert units["f"].own_spans == ((3, 5),)


def test_signatures_are_bounded() -> None:
    parameters = ", ".join(f"argument_{i}: int" for i in range(1000))
    signature = units_of(f"def f({parameters}): pass\n")["f"].signature
    assert len(signature) == 2000
    assert signature.endswith("...")


def test_a_definition_without_a_name_leaves_the_ones_around_it() -> None:
    units = units_of("def a(): pass\n\ndef (x):\n    return 1\n\nclass :\n    y = 2\n\ndef b(): pass\n")
    assert {"a", "b"} <= units.keys()
    owned = sorted(n for unit in units.values() for first, last in unit.own_spans for n in range(first, last + 1))
    assert owned == list(range(1, 10))


DEEP = 100_000


@pytest.mark.parametrize(
    "nested",
    [
        pytest.param("f(" * DEEP + ")" * DEEP, id="calls"),
        pytest.param("a" + ".b()" * DEEP, id="method chain"),
        pytest.param("x = " + "[" * DEEP + "]" * DEEP, id="lists"),
        pytest.param("(" * DEEP + "'doc'" + ")" * DEEP, id="parentheses"),
        pytest.param("x = " + "lambda: " * DEEP + "1", id="lambdas"),
        pytest.param("(" * DEEP, id="unclosed"),
    ],
)
def test_nesting_of_any_depth_loses_nothing_before_it(nested: str) -> None:
    units = units_of(f"def before():\n    return 1\n\n{nested}\n")
    assert "before" in units


def test_classes_nested_a_hundred_deep_keep_their_names() -> None:
    text = "".join(f"{' ' * i}class C{i}:\n" for i in range(99)) + " " * 99 + "def f(self): pass\n"
    assert ".".join(f"C{i}" for i in range(99)) + ".f" in units_of(text)


def test_a_file_past_its_cpu_time_is_given_up() -> None:
    with pytest.raises(OverBudget):
        analyse("x = [" + "a + b, " * 200_000 + "]\n", Budget(0.0))


def test_a_language_is_a_module_of_its_name_and_nothing_else_is() -> None:
    assert load_language("python") is not None
    assert load_language("markdown") is None
    assert load_language("../python") is None
    assert load_language("os.path") is None
