"""What one language says of its syntax tree, and `reader` needs to know: the seam between all languages and one.

Kinds of nodes are named as in the language's grammar. A language is an instance of `Rules`: tables where tables do, and
functions where it takes a look at the node.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import tree_sitter

from summidx.parsing.source import Source
from summidx.parsing.syntax import Import
from summidx.records import Level

Node = tree_sitter.Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A definition, or a stretch of code that owns what stands in it.

    `level` None: no unit, but a container. What stands in it belongs to what holds it (a namespace), to the type
    `attaches_to` (a Rust `impl`, a JavaScript prototype), or to nobody (`is_closed`: a function without a name).
    """

    level: Level | None
    name: str = ""
    node: Node
    """Where the header starts: decorators and annotations stand before it."""
    name_node: Node | None = None
    outer: Node | None = None
    """All that belongs to it (`export`, decorators, `template <...>`), where that is more than `node`."""
    body: Node | None = None
    takes: tuple[Node, ...] = ()
    """Nodes inside that are part of this definition, and none of their own."""
    attaches_to: str = ""
    """Name of the type that it is a member of, wherever that type is defined."""
    is_block: bool = False
    """Its lines are the type's own, if the type is defined in this file."""
    is_closed: bool = False
    is_stand_in: bool = False
    is_accessor: bool = False
    is_test: bool = False
    gloss: str = ""
    bases: tuple[str, ...] = ()
    receiver: tuple[str, str] = ("", "")
    """A method's name for its object, and the type of it."""
    signature: str = ""
    """The header, where the text of the node does not say it: a type of a `type (...)`."""
    header_end: int | None = None
    """Byte at which the header ends, where that is not the start of the body."""


@dataclass(frozen=True, slots=True)
class Around:
    """What a definition stands in, as its rule sees it."""

    source: Source
    kind: str = ""
    """Kind of the innermost definition's or container's node around it; "" at the top of the file."""
    name: str = ""
    """Name of the type around it; "" where there is none."""
    in_function: bool = False
    definitions: "Mapping[str, Define]" = field(default_factory=dict)
    """All rules for definitions, for one that has another in it (`export`)."""


Define = Callable[[Node, Around], Found | None]
Bind = Callable[[Node, Source], Iterable[tuple[str, str]]]
"""Yields (name, name of its type)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """One language."""

    definitions: Mapping[str, Define]
    branches: frozenset[str]
    comments: frozenset[str] = frozenset({"comment"})
    attributes: frozenset[str] = frozenset()
    """Nodes that stand before a definition, as its siblings, and belong to it."""
    prologue: frozenset[str] = frozenset()
    """Nodes that may stand before the comment that describes the file."""
    doc_comment: re.Pattern[str] = re.compile(r"/\*\*(?!/)|///(?!/)|//!|/\*!")
    """A comment that starts so describes what follows it."""
    file_comment: re.Pattern[str] | None = None
    """A comment at the top of a file that starts so describes the file. None: one that `doc_comment` knows."""
    clean_doc: Callable[[str], str] = str
    """The last word on the text of a doc comment, from which the marks are taken."""
    elision: str = " { ... }"
    """Stands for the body of a child in its owner's text."""
    closing_words: frozenset[str] = frozenset()
    """Words that only close a block: a line of nothing else is no line of code."""
    names: frozenset[str]
    """Kinds of expressions that are a name."""
    members: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Kinds of `a.b`, with the fields of both."""
    calls: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Kinds of calls, with the field of what is called, or those of the object and the name."""
    news: Mapping[str, str] = field(default_factory=dict)
    """Kinds of `new A()`, with the field of the class; "" for its first named child."""
    wrappers: frozenset[str] = frozenset()
    """Kinds of expressions that stand for their first named child: brackets, `await`."""
    selves: frozenset[str] = frozenset({"this"})
    """Names of a method's own object."""
    bindings: Mapping[str, Bind] = field(default_factory=dict)
    imports: Mapping[str, Callable[[Node, Source], Iterable[Import]]] = field(default_factory=dict)
    exact_case: bool = True
    """Whether names that differ in case differ."""


def child_of_kind(node: Node, *kinds: str) -> Node | None:
    """The first named child of one of `kinds`."""
    return next((child for child in node.named_children if child.type in kinds), None)


_GENERIC = re.compile(r"<[^<>]*>|\[[^\[\]]*\]|\([^()]*\)")
_WORD = re.compile(r"[^\W\d]\w*")
_NO_TYPE = frozenset(
    """
    const volatile struct enum union class final readonly static mut dyn impl ref out in params unsigned signed nullable
    var let auto mutable typename register extern inline
    """.split()  # noqa: SIM905
)


def type_name(text: str) -> str:
    """The class that a written type names, without qualification: `const std::vector<Foo> &` is `vector`; else ""."""
    text = text[:200]
    for _ in range(4):
        text, n = _GENERIC.subn(" ", text)
        if not n:
            break
    words = [word for word in _WORD.findall(text.partition("|")[0].partition("=")[0]) if word not in _NO_TYPE]
    return words[-1] if words else ""


def define(level: Level | None, node: Node, around: Around, /, **more: object) -> Found | None:
    """A definition as most grammars have it: a node with a `name` and a `body`; None where it has no name."""
    name = node.child_by_field_name("name")
    if name is None:
        return None
    found: dict[str, object] = {
        "name": around.source.text(name), "name_node": name, "node": node, "body": node.child_by_field_name("body"),
    }  # fmt: skip
    return Found(level=level, **(found | more))  # type: ignore[arg-type]


def pass_through(node: Node, around: Around) -> Found:  # noqa: ARG001 - the signature is that of all rules
    """A namespace: what stands in it belongs to what holds it."""
    return Found(level=None, node=node, body=node.child_by_field_name("body"))


def closed(node: Node, around: Around) -> Found:  # noqa: ARG001 - the signature is that of all rules
    """A piece of code without a name, such as a class without one: what stands in it belongs to what holds it."""
    return Found(level=None, node=node, is_closed=True)


def after_attributes(node: Node, *kinds: str) -> Node:
    """The first child that is no attribute, annotation or decorator: there the header starts."""
    return next((child for child in node.children if child.type not in kinds), node)


_GETTER = re.compile(r"(get|is|has|should|can)(?=[A-Z_])")
_SETTER = re.compile(r"(set|with)(?=[A-Z_])")


def accessor_gloss(name: str, owner: str) -> str:
    """`getFooBar` of A as words; "" for what is no accessor by its name."""
    for pattern, words in ((_GETTER, "value of"), (_SETTER, "setting of")):
        match = pattern.match(name[:1].lower() + name[1:])
        if match:
            rest = name[match.end() :].lstrip("_")
            told = rest if rest[1:2].isupper() else rest[:1].lower() + rest[1:]
            return f"{words} `{told}` of {owner}"
    return ""
