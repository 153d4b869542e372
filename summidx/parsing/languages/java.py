"""Java. Methods of classes without a name belong to what holds the class."""

import re
from collections.abc import Iterator, Sequence

import tree_sitter
import tree_sitter_java

from summidx.parsing.budget import Budget
from summidx.parsing.chains import simple_name
from summidx.parsing.links import Links, ParsedFile
from summidx.parsing.reader import read_syntax
from summidx.parsing.rules import Around, Found, Node, Rules, accessor_gloss, child_of_kind, closed, define, type_name
from summidx.parsing.scopes import resolve_by_scope
from summidx.parsing.source import Source
from summidx.parsing.syntax import Import, Syntax
from summidx.records import Level

FAMILY = "java"
GRAMMAR = tree_sitter.Language(tree_sitter_java.language())

_SPECIAL = {
    "toString": "text form of {}",
    "equals": "equality comparison of {}",
    "hashCode": "hash of {}",
    "compareTo": "ordering of {}",
    "clone": "copy of {}",
    "close": "closing of {}",
    "finalize": "finalisation of {}",
    "iterator": "iteration over {}",
    "size": "number of elements of {}",
    "isEmpty": "whether {} is empty",
}
_INLINE_TAG = re.compile(r"\{@(?:code|link|linkplain|literal|value|inheritDoc)\s*([^{}]*)\}")
_MARKUP = re.compile(
    r"</?(?:p|code|pre|ul|ol|li|b|i|em|strong|tt|br|a|h[1-6]|table|tr|td|th|dl|dt|dd)\b[^<>]*>", re.IGNORECASE
)


def analyse(text: str, budget: Budget, path: str = "") -> Syntax:  # noqa: ARG001 - Java has no dialects
    """Read one file: see `read_syntax`."""
    return read_syntax(text, GRAMMAR, RULES, budget)


def resolve_calls(files: Sequence[ParsedFile]) -> Links:
    """Calls in Java."""
    return resolve_by_scope(files, selves=RULES.selves, find_module=_find_module)


def _find_module(importer: str, each: Import, paths: frozenset[str]) -> str | None:
    """The file of an imported class: the source folders of the importer, by its own place, and the usual ones."""
    path = each.module.replace(".", "/") + ".java"
    folders = importer.split("/")[:-1]
    for depth in range(len(folders), -1, -1):
        found = "/".join([*folders[:depth], path])
        if found in paths:
            return found
    return None


def clean_javadoc(text: str) -> str:
    """Javadoc as plain text."""
    text = _INLINE_TAG.sub(lambda match: f"`{match[1].strip()}`" if match[1].strip() else "", text)
    return _MARKUP.sub(" ", text).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").strip()


def _header(node: Node) -> Node:
    """Where the header starts: after the annotations."""
    first = next(iter(node.children), node)
    if first.type != "modifiers":
        return first
    words = [child for child in first.children if child.type not in ("annotation", "marker_annotation")]
    return words[0] if words else (first.next_sibling or node)


def _class(node: Node, around: Around) -> Found | None:
    bases = [node.child_by_field_name("superclass"), node.child_by_field_name("interfaces")]
    bases.append(child_of_kind(node, "extends_interfaces"))
    names = [
        simple_name(around.source, each)
        for base in bases
        if base is not None
        for child in base.named_children
        for each in (child.named_children if child.type == "type_list" else [child])
    ]
    return define(Level.CLASS, node, around, node=_header(node), outer=node, bases=tuple(filter(None, names)))


def _method(node: Node, around: Around) -> Found | None:
    name = node.child_by_field_name("name")
    if name is None:
        return None
    text, owner = around.source.text(name), around.name
    gloss = _SPECIAL.get(text, "").format(owner) or accessor_gloss(text, owner)
    if node.type in ("constructor_declaration", "compact_constructor_declaration"):
        gloss = f"initialisation of a new {owner}"
    return define(
        Level.FUNCTION, node, around, node=_header(node), outer=node, gloss=gloss,
        is_accessor=bool(gloss),
    )  # fmt: skip


def _typed(node: Node, source: Source) -> Iterator[tuple[str, str]]:
    annotation = node.child_by_field_name("type")
    of = type_name(source.text(annotation)) if annotation is not None else ""
    names = [node.child_by_field_name("name")]
    for declarator in node.children_by_field_name("declarator"):
        names.append(declarator.child_by_field_name("name"))
        value = declarator.child_by_field_name("value")
        if not of and value is not None and value.type == "object_creation_expression":
            of = simple_name(source, value.child_by_field_name("type"))
    for name in names:
        if name is not None and of:
            yield source.text(name), of


def _import(node: Node, source: Source) -> Iterator[Import]:
    words = source.text(node).strip().rstrip(";").split()
    parts = words[-1].split(".") if len(words) > 1 else []
    if "static" in words and len(parts) > 2:
        parts.pop()
    if parts:
        if parts[-1] == "*":
            yield Import(".".join(parts[:-1]), 0, "*", "")
        else:
            yield Import(".".join(parts), 0, "", parts[-1])


RULES = Rules(
    definitions={
        "class_declaration": _class,
        "interface_declaration": _class,
        "enum_declaration": _class,
        "record_declaration": _class,
        "annotation_type_declaration": _class,
        "method_declaration": _method,
        "constructor_declaration": _method,
        "compact_constructor_declaration": _method,
        "annotation_type_element_declaration": _method,
        "object_creation_expression": closed,
        "enum_constant": closed,
        "lambda_expression": closed,
    },
    branches=frozenset(
        {
            "if_statement", "ternary_expression", "switch_expression", "switch_statement", "for_statement",
            "enhanced_for_statement", "while_statement", "do_statement", "try_statement",
            "try_with_resources_statement",
        }
    ),
    comments=frozenset({"line_comment", "block_comment"}),
    prologue=frozenset(),
    doc_comment=re.compile(r"/\*\*(?!/)|///(?!/)"),
    clean_doc=clean_javadoc,
    names=frozenset({"identifier", "this", "super", "type_identifier"}),
    members={"field_access": ("object", "field"), "method_reference": ("object", "method")},
    calls={"method_invocation": ("object", "name")},
    news={"object_creation_expression": "type"},
    wrappers=frozenset({"parenthesized_expression"}),
    bindings={
        "formal_parameter": _typed, "local_variable_declaration": _typed, "field_declaration": _typed,
        "resource": _typed, "enhanced_for_statement": _typed,
    },
    imports={"import_declaration": _import},
)  # fmt: skip
