"""TypeScript, with TSX: what JavaScript has, and types."""

import re
from collections.abc import Sequence
from dataclasses import replace

import tree_sitter
import tree_sitter_typescript

from summidx.parsing.budget import Budget
from summidx.parsing.chains import simple_name
from summidx.parsing.languages import javascript
from summidx.parsing.links import Links, ParsedFile
from summidx.parsing.reader import read_syntax
from summidx.parsing.rules import Around, Found, Node
from summidx.parsing.source import Source
from summidx.parsing.syntax import Syntax
from summidx.records import Level

FAMILY = "javascript"
GRAMMAR = tree_sitter.Language(tree_sitter_typescript.language_typescript())
GRAMMAR_TSX = tree_sitter.Language(tree_sitter_typescript.language_tsx())
_JSX_PATH = re.compile(r"\.[jt]sx$", re.IGNORECASE)


def analyse(text: str, budget: Budget, path: str = "") -> Syntax:
    """Read one file, a `.tsx` by the grammar that knows JSX: see `read_syntax`."""
    return read_syntax(text, GRAMMAR_TSX if _JSX_PATH.search(path) else GRAMMAR, RULES, budget)


def resolve_calls(files: Sequence[ParsedFile]) -> Links:
    """Calls in JavaScript and TypeScript."""
    return javascript.resolve_calls(files)


def _type(node: Node, around: Around) -> Found | None:
    """An interface, an enum, an alias of a type."""
    name = node.child_by_field_name("name")
    if name is None:
        return None
    body = node.child_by_field_name("body")
    value = node.child_by_field_name("value")
    return Found(
        level=Level.CLASS, name=around.source.text(name), node=node, name_node=name, body=body,
        header_end=value.start_byte if value is not None else None, bases=_extended(node, around.source),
    )  # fmt: skip


def _extended(node: Node, source: Source) -> tuple[str, ...]:
    clause = next((child for child in node.named_children if child.type == "extends_type_clause"), None)
    children = clause.named_children if clause is not None else []
    return tuple(filter(None, (simple_name(source, child) for child in children)))


def _signature(node: Node, around: Around) -> Found | None:
    """A function or method without a body: an overload, abstract, declared. Those of interfaces are their text."""
    name = node.child_by_field_name("name")
    is_text = around.kind in ("interface_declaration", "type_alias_declaration")
    if name is None or is_text or (node.type == "method_signature" and not around.name):
        return None
    return Found(
        level=Level.FUNCTION, name=javascript.property_name(around.source, name), node=node, name_node=name,
        is_stand_in=node.type != "abstract_method_signature",
    )  # fmt: skip


def _namespace(node: Node, around: Around) -> Found:  # noqa: ARG001 - the signature is that of all rules
    return Found(level=None, node=node, body=node.child_by_field_name("body"))


RULES = replace(
    javascript.RULES,
    definitions={
        **javascript.RULES.definitions,
        "abstract_class_declaration": javascript.RULES.definitions["class_declaration"],
        "interface_declaration": _type,
        "enum_declaration": _type,
        "type_alias_declaration": _type,
        "function_signature": _signature,
        "method_signature": _signature,
        "abstract_method_signature": _signature,
        "public_field_definition": javascript.RULES.definitions["field_definition"],
        "internal_module": _namespace,
        "module": _namespace,
    },
    members={**javascript.RULES.members, "nested_identifier": ("object", "property")},
    bindings={
        "variable_declarator": javascript.bound_variable,
        "public_field_definition": javascript.bound_variable,
        "required_parameter": javascript.bound_variable,
        "optional_parameter": javascript.bound_variable,
    },
)
