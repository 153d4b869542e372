"""PHP, also where it stands in HTML."""

import re
from collections.abc import Iterator, Sequence

import tree_sitter
import tree_sitter_php

from summidx.parsing.budget import Budget
from summidx.parsing.chains import simple_name
from summidx.parsing.links import Links, ParsedFile
from summidx.parsing.reader import read_syntax
from summidx.parsing.rules import (
    Around,
    Found,
    Node,
    Rules,
    accessor_gloss,
    after_attributes,
    child_of_kind,
    closed,
    define,
    pass_through,
    type_name,
)
from summidx.parsing.scopes import resolve_by_scope
from summidx.parsing.source import Source
from summidx.parsing.syntax import Import, Syntax
from summidx.records import Level

FAMILY = "php"
GRAMMAR = tree_sitter.Language(tree_sitter_php.language_php())

_SPECIAL = {
    "__construct": "initialisation of a new {}",
    "__destruct": "destruction of {}",
    "__toString": "text form of {}",
    "__get": "reading of missing properties of {}",
    "__set": "writing of missing properties of {}",
    "__isset": "whether a missing property of {} is set",
    "__unset": "removal of a missing property of {}",
    "__call": "calls of missing methods of {}",
    "__callStatic": "calls of missing static methods of {}",
    "__invoke": "calling of {}",
    "__clone": "copying of {}",
    "__serialize": "state of {} for storage",
    "__unserialize": "restoration of {} from stored state",
    "__sleep": "properties of {} that are stored",
    "__wakeup": "restoration of {} from stored state",
    "__debugInfo": "what is shown of {} when it is dumped",
    "__set_state": "restoration of an exported {}",
    "jsonSerialize": "JSON form of {}",
    "toJson": "JSON form of {}",
    "toArray": "array form of {}",
    "count": "number of elements of {}",
    "getIterator": "iteration over {}",
    "offsetGet": "item access of {}",
    "offsetSet": "item assignment of {}",
    "offsetExists": "whether {} has an item",
    "offsetUnset": "item removal of {}",
}


def analyse(text: str, budget: Budget, path: str = "") -> Syntax:  # noqa: ARG001 - one grammar reads HTML with PHP too
    """Read one file: see `read_syntax`."""
    return read_syntax(text, GRAMMAR, RULES, budget)


def resolve_calls(files: Sequence[ParsedFile]) -> Links:
    """Calls in PHP."""
    return resolve_by_scope(files, selves=RULES.selves)


def _class(node: Node, around: Around) -> Found | None:
    clauses = [child for child in node.named_children if child.type in ("base_clause", "class_interface_clause")]
    bases = [simple_name(around.source, child) for clause in clauses for child in clause.named_children]
    return define(
        Level.CLASS, node, around, node=after_attributes(node, "attribute_list"), outer=node,
        bases=tuple(filter(None, bases)),
    )  # fmt: skip


def _method(node: Node, around: Around) -> Found | None:
    name = node.child_by_field_name("name")
    text, owner = (around.source.text(name) if name is not None else ""), around.name
    gloss = _SPECIAL.get(text, "").format(owner) or accessor_gloss(text, owner)
    return define(
        Level.FUNCTION, node, around, node=after_attributes(node, "attribute_list"), outer=node, gloss=gloss,
        is_accessor=bool(gloss),
    )  # fmt: skip


def _function(node: Node, around: Around) -> Found | None:
    return define(Level.FUNCTION, node, around, node=after_attributes(node, "attribute_list"), outer=node)


def _assignment(node: Node, around: Around) -> Found | None:
    """`$f = function () {...}` outside of functions and types."""
    left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
    if left is None or right is None or around.in_function or around.name or left.type != "variable_name":
        return None
    if right.type not in ("anonymous_function", "arrow_function"):
        return None
    body = right.child_by_field_name("body")
    return Found(
        level=Level.FUNCTION, name=around.source.text(left).lstrip("$"), node=node, name_node=left, body=right,
        header_end=body.start_byte if body is not None else None,
    )  # fmt: skip


def _typed(node: Node, source: Source) -> Iterator[tuple[str, str]]:
    """Parameters, properties and promoted properties with a type."""
    annotation = node.child_by_field_name("type")
    of = type_name(source.text(annotation).lstrip("?")) if annotation is not None else ""
    if not of or annotation is None or annotation.type == "primitive_type":
        return
    names = [node.child_by_field_name("name")]
    names += [child.child_by_field_name("name") for child in node.named_children if child.type == "property_element"]
    for name in names:
        if name is not None:
            text = source.text(name)
            yield text, of
            if node.type != "simple_parameter":
                yield text.lstrip("$"), of


def _assigned(node: Node, source: Source) -> Iterator[tuple[str, str]]:
    """`$x = new Foo()`, `$this->x = new Foo()`."""
    left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
    if left is None or right is None or left.type != "variable_name" or right.type != "object_creation_expression":
        return
    of = simple_name(source, next(iter(right.named_children), None))
    if of:
        yield source.text(left), of


def _use(node: Node, source: Source) -> Iterator[Import]:
    """Imported classes and functions, one by one or in groups, renamed or not."""
    prefix = child_of_kind(node, "namespace_name")
    group = node.child_by_field_name("body")
    start = source.text(prefix) if prefix is not None and group is not None else ""
    for clause in (group or node).named_children:
        if clause.type != "namespace_use_clause":
            continue
        path, alias = next(iter(clause.named_children), None), clause.child_by_field_name("alias")
        if path is not None:
            whole = "\\".join(filter(None, (start, source.text(path).strip("\\"))))
            yield Import(whole, 0, "", source.text(alias) if alias is not None else whole.rpartition("\\")[2])


RULES = Rules(
    definitions={
        "class_declaration": _class,
        "interface_declaration": _class,
        "trait_declaration": _class,
        "enum_declaration": _class,
        "method_declaration": _method,
        "function_definition": _function,
        "namespace_definition": pass_through,
        "assignment_expression": _assignment,
        "anonymous_function": closed,
        "arrow_function": closed,
    },
    branches=frozenset(
        {
            "if_statement", "conditional_expression", "switch_statement", "match_expression", "for_statement",
            "foreach_statement", "while_statement", "do_statement", "try_statement",
        }
    ),
    prologue=frozenset({"php_tag", "declare_statement"}),
    doc_comment=re.compile(r"/\*\*(?![*/])"),
    file_comment=re.compile(r"/\*"),
    names=frozenset({"variable_name", "name", "relative_scope"}),
    members={
        "member_access_expression": ("object", "name"), "nullsafe_member_access_expression": ("object", "name"),
        "class_constant_access_expression": ("object", "name"),
    },
    calls={
        "function_call_expression": ("function",), "member_call_expression": ("object", "name"),
        "nullsafe_member_call_expression": ("object", "name"), "scoped_call_expression": ("scope", "name"),
    },
    news={"object_creation_expression": ""},
    wrappers=frozenset({"parenthesized_expression"}),
    selves=frozenset({"$this", "self", "static"}),
    bindings={
        "simple_parameter": _typed, "property_promotion_parameter": _typed, "property_declaration": _typed,
        "assignment_expression": _assigned,
    },
    imports={"namespace_use_declaration": _use},
)  # fmt: skip
