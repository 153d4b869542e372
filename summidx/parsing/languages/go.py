"""Go. Methods belong to the type of their receiver; a comment directly above a declaration describes it."""

import re
from collections.abc import Iterator, Sequence

import tree_sitter
import tree_sitter_go

from summidx.parsing.budget import Budget
from summidx.parsing.chains import simple_name
from summidx.parsing.links import Links, ParsedFile
from summidx.parsing.reader import read_syntax
from summidx.parsing.rules import Around, Found, Node, Rules, child_of_kind, closed, define, type_name
from summidx.parsing.scopes import resolve_by_scope
from summidx.parsing.source import Source
from summidx.parsing.syntax import Import, Syntax
from summidx.records import Level

FAMILY = "go"
GRAMMAR = tree_sitter.Language(tree_sitter_go.language())

_SPECIAL = {
    "String": "text form of {}",
    "GoString": "Go syntax of {}",
    "Error": "error message of {}",
    "Unwrap": "error that {} wraps",
    "Len": "length of {}",
    "Less": "ordering of two elements of {}",
    "Swap": "exchange of two elements of {}",
    "MarshalJSON": "JSON form of {}",
    "UnmarshalJSON": "reading of {} from JSON",
    "MarshalText": "text form of {}",
    "UnmarshalText": "reading of {} from text",
    "MarshalBinary": "binary form of {}",
    "UnmarshalBinary": "reading of {} from binary",
}


def analyse(text: str, budget: Budget, path: str = "") -> Syntax:  # noqa: ARG001 - Go has no dialects
    """Read one file: see `read_syntax`."""
    return read_syntax(text, GRAMMAR, RULES, budget)


def resolve_calls(files: Sequence[ParsedFile]) -> Links:
    """Calls in Go: a package is a folder."""
    return resolve_by_scope(files, selves=RULES.selves)


def _type(node: Node, around: Around) -> Found | None:
    """One of `type (...)`."""
    kind = node.child_by_field_name("type")
    header = around.source.between(node.start_byte, _type_header_end(kind) or node.end_byte)
    return define(Level.CLASS, node, around, body=kind, signature=f"type {header}")


def _type_header_end(kind: Node | None) -> int | None:
    """Where the header of a struct or interface ends; None for other types, which are all header."""
    if kind is None or kind.type not in ("struct_type", "interface_type"):
        return None
    return kind.start_byte + len(kind.type.removesuffix("_type"))


def _one_type(node: Node, around: Around) -> Found | None:
    """`type A struct {...}`: with the keyword; of `type (...)`, each by itself."""
    specs = [child for child in node.named_children if child.type in ("type_spec", "type_alias")]
    if len(specs) != 1 or any(child.type == "(" for child in node.children):
        return None
    kind = specs[0].child_by_field_name("type")
    end = _type_header_end(kind)
    return define(
        Level.CLASS, specs[0], around, node=node, takes=(specs[0],), body=kind, header_end=end or node.end_byte
    )


def _function(node: Node, around: Around) -> Found | None:
    return define(Level.FUNCTION, node, around)


def _method(node: Node, around: Around) -> Found | None:
    receiver = node.child_by_field_name("receiver")
    parameter = child_of_kind(receiver, "parameter_declaration") if receiver is not None else None
    of = parameter.child_by_field_name("type") if parameter is not None else None
    if parameter is None or of is None:
        return None
    owner = re.sub(r"\W", "", around.source.text(of).partition("[")[0])
    name = parameter.child_by_field_name("name")
    found = define(
        Level.FUNCTION, node, around, attaches_to=owner,
        receiver=(around.source.text(name) if name is not None else "", owner),
    )  # fmt: skip
    if found is None:
        return None
    gloss = _SPECIAL.get(found.name, "").format(owner)
    is_accessor = bool(gloss) or re.match(r"(?:Get|Set|Is|Has)[A-Z]", found.name) is not None
    return define(
        Level.FUNCTION, node, around, attaches_to=owner, receiver=found.receiver, gloss=gloss, is_accessor=is_accessor
    )


def _parameters(node: Node, source: Source) -> Iterator[tuple[str, str]]:
    """`a, b T` of parameters, fields and variables."""
    annotation = node.child_by_field_name("type")
    of = type_name(source.text(annotation).lstrip("*[]")) if annotation is not None else ""
    for name in node.children_by_field_name("name"):
        yield source.text(name), of


def _short(node: Node, source: Source) -> Iterator[tuple[str, str]]:
    """`x := &T{}`, `x := NewT()`: the type by its literal, or by the name of its constructor."""
    left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
    if left is None or right is None:
        return
    names = [child for child in left.named_children if child.type == "identifier"]
    for position, name in enumerate(names):
        value = right.named_child(position) if position < right.named_child_count else None
        if value is not None and value.type == "unary_expression":
            value = value.child_by_field_name("operand")
        of = ""
        if value is not None and value.type == "composite_literal":
            of = simple_name(source, value.child_by_field_name("type"))
        elif value is not None and value.type == "call_expression":
            function = source.text(value)[:100].partition("(")[0].rpartition(".")[2]
            of = function.removeprefix("New") if function.startswith("New") else ""
        if of or (value is not None and value.type == "func_literal"):
            yield source.text(name), of


def _import(node: Node, source: Source) -> Iterator[Import]:
    path, alias = node.child_by_field_name("path"), node.child_by_field_name("name")
    if path is not None:
        module = source.text(path).strip('"`')
        bound = source.text(alias) if alias is not None else module.rpartition("/")[2]
        yield Import(module, 0, "", bound)


RULES = Rules(
    definitions={
        "function_declaration": _function,
        "method_declaration": _method,
        "type_declaration": _one_type,
        "type_spec": _type,
        "type_alias": _type,
        "func_literal": closed,
    },
    branches=frozenset(
        {"if_statement", "for_statement", "expression_switch_statement", "type_switch_statement", "select_statement"}
    ),
    doc_comment=re.compile(r"//|/\*"),
    prologue=frozenset(),
    names=frozenset({"identifier", "package_identifier", "field_identifier", "type_identifier"}),
    members={"selector_expression": ("operand", "field")},
    calls={"call_expression": ("function",)},
    news={"composite_literal": "type"},
    wrappers=frozenset({"parenthesized_expression", "unary_expression"}),
    selves=frozenset(),
    bindings={
        "parameter_declaration": _parameters, "field_declaration": _parameters, "var_spec": _parameters,
        "short_var_declaration": _short,
    },
    imports={"import_spec": _import},
)  # fmt: skip
