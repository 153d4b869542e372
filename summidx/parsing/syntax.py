"""What a language says of one file: definitions, and the names by which they call each other.

Pure data, without nodes of a parser, so that what is built on it (`units`, `calls`) is the same for every language.
Lines are 1-based and inclusive.
"""

from dataclasses import dataclass, field

from summidx.records import Level

LineRange = tuple[int, int]

Chain = tuple[str, ...]
"""An expression that calls and assignments are resolved by: `a.b().c` is `("a", "b", "()", "c")`.

The first token is a name, or `UNKNOWN` where the expression starts with something that has none.
"""

CALL = "()"
UNKNOWN = "?"


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name.

    `module` is as written, without the `level` leading dots; `name` is what is taken from it: "" for the module
    itself, `*` for all. `bound` is the name that it gets here, `binds_top` that this is the first part of `module` only
    (`import a.b` binds `a`).
    """

    module: str
    level: int
    name: str
    bound: str
    binds_top: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """A call, by the expression that is called. `in_header`: in decorators or defaults, out of the function's scope."""

    chain: Chain
    in_header: bool = False


@dataclass(frozen=True, slots=True)
class Value:
    """What a name stands for: an expression, to be looked up in the scope of definition `scope` (-1: the file)."""

    chain: Chain
    scope: int


@dataclass(slots=True)
class Names:
    """The names of one scope: a file, a class, or a function with all that is nested in it."""

    imports: list[Import] = field(default_factory=list)
    values: dict[str, Value | None] = field(default_factory=dict)
    """Assigned or annotated names; None where assignments contradict each other or say nothing."""
    annotated: set[str] = field(default_factory=set)
    """Those of `values` whose annotation says what they are."""
    calls: list[Call] = field(default_factory=list)

    def bind(self, name: str, value: Value | None = None, *, annotated: bool = False) -> None:
        """Record that `name` is bound in this scope, to `value` where that is known."""
        if name in self.annotated:
            return
        if annotated and value:
            self.annotated.add(name)
            self.values[name] = value
        elif name not in self.values:
            self.values[name] = value
        elif self.values[name] != value:
            self.values[name] = None


@dataclass(slots=True, kw_only=True)
class Definition:
    """A function or class that is a unit."""

    level: Level
    name: str
    owner: int
    """Index of the definition that holds it, -1: the file."""
    first_line: int
    """First line that it owns: comments directly above belong to it."""
    start_line: int
    """First decorator, else the line on which it begins."""
    name_line: int
    header_lines: LineRange
    """The lines that `signature` stands for."""
    end_line: int
    indent: str
    signature: str
    docstring: str = ""
    docstring_lines: LineRange | None = None
    gloss: str = ""
    is_accessor: bool = False
    """An accessor or an operation that the language defines (`__len__`): trivial when short and without branch."""
    has_branches: bool = False
    blocks: list[LineRange] = field(default_factory=list)
    """Lines elsewhere in the file that are its own too, but for its members: Rust's `impl`."""
    is_elsewhere: bool = False
    """The type is defined in another file: it has no own source here, only members."""
    is_test: bool = False
    """Test code, whatever its file is."""
    is_stand_in: bool = False
    """An overload, a setter: of several of one qualified name, another one is meant by it."""
    names: Names = field(default_factory=Names)
    bases: tuple[Chain, ...] = ()
    receiver: str = ""
    """A method's name for its object or class (`self`, `cls`)."""
    receives_class: bool = False
    is_property: bool = False
    returns: Value | None = None


@dataclass(slots=True, kw_only=True)
class Syntax:
    """A file as its language reads it. `definitions` stand in the order of the source, owners before what they own."""

    definitions: list[Definition] = field(default_factory=list)
    docstring: str = ""
    docstring_lines: LineRange | None = None
    comment_lines: set[int] = field(default_factory=set)
    """Lines that hold nothing but a comment."""
    closing_lines: set[int] = field(default_factory=set)
    """Lines that only close what others have opened: no lines of code."""
    elision: str = ": ..."
    """Stands for the body of a child in its owner's text."""
    names: Names = field(default_factory=Names)
    error_share: float = 0.0
    """Share of the source, from 0 to 1, in which no statement could be made out."""
    has_errors: bool = False
    """Whether anything in it could not be made out."""
