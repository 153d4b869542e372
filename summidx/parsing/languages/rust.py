"""Rust. The functions of an `impl` belong to its type, and so do the other lines of it, if the type is defined here."""

import re
from collections.abc import Iterator, Sequence

import tree_sitter
import tree_sitter_rust

from summidx.parsing.budget import Budget
from summidx.parsing.chains import simple_name
from summidx.parsing.links import Links, ParsedFile
from summidx.parsing.reader import read_syntax
from summidx.parsing.rules import Around, Found, Node, Rules, define, type_name
from summidx.parsing.scopes import resolve_by_scope
from summidx.parsing.source import Source
from summidx.parsing.syntax import Import, Syntax
from summidx.records import Level

FAMILY = "rust"
GRAMMAR = tree_sitter.Language(tree_sitter_rust.language())

_SPECIAL = {
    "new": "creation of a new {}",
    "default": "default value of {}",
    "fmt": "text form of {}",
    "clone": "copy of {}",
    "eq": "equality comparison of {}",
    "cmp": "ordering of {}",
    "partial_cmp": "ordering of {}",
    "hash": "hash of {}",
    "drop": "what happens when {} is dropped",
    "deref": "what {} dereferences to",
    "deref_mut": "what {} dereferences to, to be changed",
    "as_ref": "{} as a reference",
    "borrow": "{} as a reference",
    "from": "conversion into {}",
    "try_from": "conversion into {} that may fail",
    "into": "conversion of {}",
    "from_str": "reading of {} from text",
    "next": "next item of {}",
    "into_iter": "iteration over {}",
    "index": "item access of {}",
    "description": "description of {}",
    "source": "error that {} wraps",
    "len": "length of {}",
    "is_empty": "whether {} is empty",
}


def analyse(text: str, budget: Budget, path: str = "") -> Syntax:  # noqa: ARG001 - Rust has no dialects
    """Read one file: see `read_syntax`."""
    return read_syntax(text, GRAMMAR, RULES, budget)


def resolve_calls(files: Sequence[ParsedFile]) -> Links:
    """Calls in Rust."""
    return resolve_by_scope(files, selves=RULES.selves)


def _type(node: Node, around: Around) -> Found | None:
    body, value = node.child_by_field_name("body"), node.child_by_field_name("type")
    end = value.start_byte if value is not None and node.type == "type_item" else None
    return define(Level.CLASS, node, around, body=body, header_end=end, bases=_bounds(node, around.source))


def _bounds(node: Node, source: Source) -> tuple[str, ...]:
    bounds = node.child_by_field_name("bounds")
    children = bounds.named_children if bounds is not None and node.type == "trait_item" else []
    return tuple(filter(None, (simple_name(source, child) for child in children)))


def _function(node: Node, around: Around) -> Found | None:
    name = node.child_by_field_name("name")
    owner = around.name
    text = around.source.text(name) if name is not None else ""
    gloss = _SPECIAL.get(text, "").format(owner) if owner else ""
    return define(
        Level.FUNCTION, node, around, gloss=gloss, receiver=("Self" if owner else "", owner),
        is_accessor=bool(owner) and (bool(gloss) or re.match(r"(?:get|set|is|has|as|with)_", text) is not None),
    )  # fmt: skip


def _macro(node: Node, around: Around) -> Found | None:
    name = node.child_by_field_name("name")
    return define(Level.FUNCTION, node, around, header_end=name.end_byte if name is not None else None)


def _impl(node: Node, around: Around) -> Found | None:
    of = node.child_by_field_name("type")
    body = node.child_by_field_name("body")
    owner = type_name(around.source.text(of).removeprefix("dyn ")) if of is not None else ""
    return Found(level=None, node=node, body=body, attaches_to=owner, is_block=True)


def _module(node: Node, around: Around) -> Found | None:
    body, name = node.child_by_field_name("body"), node.child_by_field_name("name")
    if body is None or name is None:
        return None
    return Found(level=None, node=node, body=body, is_test=around.source.text(name) in ("tests", "test"))


def _bound(node: Node, source: Source) -> Iterator[tuple[str, str]]:
    """`x: T`, and `let x = T::new()`, `let x = T { ... }`."""
    name = node.child_by_field_name("pattern") or node.child_by_field_name("name")
    annotation, value = node.child_by_field_name("type"), node.child_by_field_name("value")
    if name is None or name.type not in ("identifier", "field_identifier"):
        return
    of = type_name(source.text(annotation)) if annotation is not None else ""
    if not of and value is not None and value.type == "struct_expression":
        of = simple_name(source, value.child_by_field_name("name"))
    elif not of and value is not None and value.type == "call_expression":
        path = source.text(value)[:120].partition("(")[0].split("::")
        of = path[-2] if len(path) > 1 and path[-2][:1].isupper() else ""
    if of or (value is not None and value.type == "closure_expression"):
        yield source.text(name), type_name(of)


def _use(node: Node, source: Source) -> Iterator[Import]:
    """`use a::{b, c as d, e::*}`: one import for each name."""
    argument = node.child_by_field_name("argument")
    stack = [(argument, "")] if argument is not None else []
    while stack:
        each, prefix = stack.pop()
        if each.type == "scoped_use_list":
            path, inner = each.child_by_field_name("path"), each.child_by_field_name("list")
            below = _join(prefix, source.text(path) if path is not None else "")
            stack += [(child, below) for child in reversed(inner.named_children if inner is not None else [])]
        elif each.type == "use_list":
            stack += [(child, prefix) for child in reversed(each.named_children)]
        elif each.type == "use_wildcard":
            yield Import(_join(prefix, source.text(each).removesuffix("*").removesuffix("::")), 0, "*", "")
        else:
            path, alias = each.child_by_field_name("path"), each.child_by_field_name("alias")
            if each.type != "use_as_clause":
                path, alias = each, None
            whole = _join(prefix, source.text(path)) if path is not None else prefix
            module, _, name = whole.rpartition("::")
            if source.text(each).endswith("self"):
                module, name = whole, ""
            bound = source.text(alias) if alias is not None else whole.rpartition("::")[2]
            yield Import(module or name, 0, name if module else "", bound)


def _join(prefix: str, path: str) -> str:
    return "::".join(filter(None, (prefix, path if path != "self" or not prefix else "")))


def clean_rustdoc(text: str) -> str:
    """Rust's documentation up to its first heading (`# Examples`), as what a docstring says."""
    return re.split(r"^#{1,3} ", text, maxsplit=1, flags=re.MULTILINE)[0].strip() or text


RULES = Rules(
    definitions={
        "struct_item": _type,
        "enum_item": _type,
        "union_item": _type,
        "trait_item": _type,
        "type_item": lambda node, around: _type(node, around) if not around.name else None,
        "function_item": _function,
        "function_signature_item": _function,
        "macro_definition": _macro,
        "impl_item": _impl,
        "mod_item": _module,
        "foreign_mod_item": lambda node, around: Found(level=None, node=node),  # noqa: ARG005
    },
    branches=frozenset({"if_expression", "match_expression", "for_expression", "while_expression", "loop_expression"}),
    comments=frozenset({"line_comment", "block_comment"}),
    attributes=frozenset({"attribute_item"}),
    prologue=frozenset({"inner_attribute_item"}),
    doc_comment=re.compile(r"///(?!/)|/\*\*(?![*/])"),
    file_comment=re.compile(r"//!|/\*!"),
    clean_doc=clean_rustdoc,
    names=frozenset({"identifier", "self", "type_identifier", "field_identifier", "crate", "super"}),
    members={"field_expression": ("value", "field"), "scoped_identifier": ("path", "name")},
    calls={
        "call_expression": ("function",), "macro_invocation": ("macro",), "generic_function": ("function",),
    },
    news={"struct_expression": "name"},
    wrappers=frozenset({"parenthesized_expression", "await_expression", "try_expression", "reference_expression"}),
    selves=frozenset({"self", "Self"}),
    bindings={"parameter": _bound, "let_declaration": _bound, "field_declaration": _bound},
    imports={"use_declaration": _use},
)  # fmt: skip
