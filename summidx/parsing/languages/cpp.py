"""C++: what C has, and classes, namespaces and templates. `Foo::bar` belongs to the class of that name."""

from collections.abc import Sequence
from dataclasses import replace

import tree_sitter
import tree_sitter_cpp

from summidx.parsing.budget import Budget
from summidx.parsing.chains import simple_name
from summidx.parsing.languages import c
from summidx.parsing.links import Links, ParsedFile
from summidx.parsing.rules import Around, Found, Node, accessor_gloss, child_of_kind, closed, define, pass_through
from summidx.parsing.source import Source
from summidx.parsing.syntax import Syntax
from summidx.records import Level

FAMILY = "c"
GRAMMAR = tree_sitter.Language(tree_sitter_cpp.language())
_MAX_SCOPES = 12
_SPECIAL = {
    "begin": "start of the iteration over {}",
    "end": "end of the iteration over {}",
    "size": "number of elements of {}",
    "empty": "whether {} is empty",
    "swap": "exchange with another {}",
    "hash": "hash of {}",
    "str": "text form of {}",
    "to_string": "text form of {}",
}


def analyse(text: str, budget: Budget, path: str = "") -> Syntax:  # noqa: ARG001 - C++ has no dialects
    """Read one file: see `c.read_with_macros`."""
    return c.read_with_macros(text, GRAMMAR, RULES, budget)


def resolve_calls(files: Sequence[ParsedFile]) -> Links:
    """Calls in C and C++."""
    return c.resolve_calls(files)


def _qualified(node: Node, source: Source) -> tuple[Node | None, list[str]]:
    """The innermost name of `a::B<T>::c`, and what stands before it."""
    scopes: list[str] = []
    inner: Node | None = node
    for _ in range(_MAX_SCOPES):
        if inner is None or inner.type != "qualified_identifier":
            break
        scope = inner.child_by_field_name("scope")
        if scope is not None:
            scopes.append(simple_name(source, scope))
        inner = inner.child_by_field_name("name")
    return inner, [scope for scope in scopes if scope]


def _function(node: Node, around: Around) -> Found | None:
    declarator = node.child_by_field_name("declarator")
    name = c.declared_name(declarator)
    while declarator is not None and declarator.type in ("pointer_declarator", "reference_declarator"):
        declarator = next((child for child in declarator.named_children if "declarator" in child.type), None)
    if declarator is not None and declarator.type in ("operator_cast", "qualified_identifier"):
        name = declarator
    if name is None:
        return None
    inner, scopes = _qualified(name, around.source)
    if inner is None:
        return None
    text = _function_name(inner, around.source)
    if not text or text in ("if", "for", "while", "switch", "return", "else", "catch"):
        return None
    owner = scopes[-1] if scopes else ""
    of = owner or around.name
    gloss = _gloss(text, of) if of else ""
    return Found(
        level=Level.FUNCTION, name=text, node=node, name_node=inner, body=node.child_by_field_name("body"),
        attaches_to=owner if owner != around.name else "", gloss=gloss, is_accessor=bool(gloss),
        header_end=_header_end(node),
    )  # fmt: skip


def _header_end(node: Node) -> int | None:
    """Where the header ends: before the initialisers of a constructor."""
    initialisers = child_of_kind(node, "field_initializer_list")
    return initialisers.start_byte if initialisers is not None else None


def _function_name(node: Node, source: Source) -> str:
    if node.type == "operator_cast":
        of = node.child_by_field_name("type")
        return f"operator {source.text(of)}" if of is not None else "operator"
    text = " ".join(source.text(node)[:200].split())
    return text.partition("<")[0] if node.type == "template_function" else text


def _gloss(name: str, owner: str) -> str:
    if name == owner:
        return f"initialisation of a new {owner}"
    if name.startswith("~"):
        return f"destruction of {owner}"
    if name.startswith("operator"):
        operator = name.removeprefix("operator").strip()
        return f"conversion of {owner} to {operator}" if operator[:1].isalpha() else f"operator `{operator}` of {owner}"
    return _SPECIAL.get(name, "").format(owner) or accessor_gloss(name, owner)


def _class(node: Node, around: Around) -> Found | None:
    name, body = node.child_by_field_name("name"), node.child_by_field_name("body")
    if name is None or body is None:
        return None
    inner, _ = _qualified(name, around.source)
    clause = child_of_kind(node, "base_class_clause")
    bases = [simple_name(around.source, child) for child in (clause.named_children if clause is not None else [])]
    text = simple_name(around.source, inner)
    if not text:
        return None
    return Found(level=Level.CLASS, name=text, node=node, name_node=inner, body=body, bases=tuple(filter(None, bases)))


def _template(node: Node, around: Around) -> Found | None:
    """`template <...>` belongs to what it makes a template of."""
    inner = node
    taken: list[Node] = []
    while inner.type == "template_declaration" and len(taken) < _MAX_SCOPES:
        below = child_of_kind(inner, *_TEMPLATED)
        if below is None:
            return None
        inner = below
        taken.append(inner)
    if inner.type == "template_declaration":
        return None
    found = around.definitions[inner.type](inner, around)
    if found is None or found.level is None:
        return None
    end = found.header_end if found.header_end or found.body is None else found.body.start_byte
    return replace(found, node=node, outer=node, header_end=end, takes=(*found.takes, *taken))


_TEMPLATED = frozenset(
    {"function_definition", "class_specifier", "struct_specifier", "union_specifier", "template_declaration"}
)

RULES = replace(
    c.RULES,
    definitions={
        **c.RULES.definitions,
        "function_definition": _function,
        "class_specifier": _class,
        "struct_specifier": _class,
        "union_specifier": _class,
        "enum_specifier": _class,
        "template_declaration": _template,
        "namespace_definition": pass_through,
        "linkage_specification": pass_through,
        "lambda_expression": closed,
        "concept_definition": lambda node, around: define(Level.CLASS, node, around),
    },
    branches=c.RULES.branches | {"for_range_loop", "try_statement"},
    members={
        "field_expression": ("argument", "field"), "qualified_identifier": ("scope", "name"),
    },
    news={"new_expression": "type"},
)  # fmt: skip
