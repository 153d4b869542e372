"""C#. Properties with code are functions; a documentation comment is read without its XML."""

import re
from collections.abc import Iterator, Sequence

import tree_sitter
import tree_sitter_c_sharp

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

FAMILY = "csharp"
GRAMMAR = tree_sitter.Language(tree_sitter_c_sharp.language())

_SPECIAL = {
    "ToString": "text form of {}",
    "Equals": "equality comparison of {}",
    "GetHashCode": "hash of {}",
    "CompareTo": "ordering of {}",
    "Clone": "copy of {}",
    "Dispose": "disposal of {}",
    "DisposeAsync": "asynchronous disposal of {}",
    "GetEnumerator": "iteration over {}",
    "Finalize": "finalisation of {}",
}
_KEPT = re.compile(r"<(summary|remarks|value|returns)>\s*(.*?)\s*</\1>", re.DOTALL)
_REFERENCE = re.compile(r"<(?:see|seealso|paramref|typeparamref)\s+\w+=\"(?:[A-Z]:)?([^\"]*)\"\s*/?>(?:</see>)?")
_TAG = re.compile(r"</?\w[^<>]*>")


def analyse(text: str, budget: Budget, path: str = "") -> Syntax:  # noqa: ARG001 - C# has no dialects
    """Read one file: see `read_syntax`."""
    return read_syntax(text, GRAMMAR, RULES, budget)


def resolve_calls(files: Sequence[ParsedFile]) -> Links:
    """Calls in C#: a type of another file is found where it is the only one of its name."""
    return resolve_by_scope(files, selves=RULES.selves)


def clean_xml(text: str) -> str:
    """A documentation comment as plain text: its summary, then its remarks."""
    kept = dict(_KEPT.findall(text))
    parts = [kept[name] for name in ("summary", "value", "remarks") if name in kept] or [
        "Returns " + kept["returns"] if "returns" in kept else re.sub(r"<param\b.*?</param>", "", text, flags=re.DOTALL)
    ]
    plain = (_TAG.sub("", _REFERENCE.sub(lambda match: f"`{match[1].rpartition('.')[2]}`", part)) for part in parts)
    return "\n\n".join(" ".join(part.split()) for part in plain).replace("&lt;", "<").replace("&gt;", ">").strip()


def _class(node: Node, around: Around) -> Found | None:
    clause = child_of_kind(node, "base_list")
    bases = [simple_name(around.source, child) for child in (clause.named_children if clause is not None else [])]
    return define(
        Level.CLASS, node, around, node=after_attributes(node, "attribute_list"), outer=node,
        bases=tuple(filter(None, bases)),
    )  # fmt: skip


def _method(node: Node, around: Around) -> Found | None:
    owner = around.name
    more: dict[str, object] = {}
    name = node.child_by_field_name("name")
    text = around.source.text(name) if name is not None else ""
    gloss = _SPECIAL.get(text, "").format(owner) or accessor_gloss(text, owner)
    if node.type == "constructor_declaration":
        gloss = f"initialisation of a new {owner}"
        initialiser = child_of_kind(node, "constructor_initializer")
        more["header_end"] = initialiser.start_byte if initialiser is not None else None
    elif node.type == "destructor_declaration":
        text, gloss = f"~{text}", f"finalisation of {owner}"
    elif node.type in ("operator_declaration", "conversion_operator_declaration"):
        text, name = _operator(node, around.source)
        gloss = f"{text} of {owner}"
    return Found(
        level=Level.FUNCTION, name=text, name_node=name, node=after_attributes(node, "attribute_list"), outer=node,
        body=node.child_by_field_name("body"), gloss=gloss, is_accessor=bool(gloss), **more,  # type: ignore[arg-type]
    ) if text else None  # fmt: skip


def _operator(node: Node, source: Source) -> tuple[str, Node | None]:
    operator = node.child_by_field_name("operator")
    of = node.child_by_field_name("type")
    if node.type == "conversion_operator_declaration":
        return (f"operator {source.text(of)}" if of is not None else "operator"), of
    return (f"operator {source.text(operator)}" if operator is not None else "operator"), operator


def _property(node: Node, around: Around) -> Found | None:
    """A property or indexer whose accessors have code; one without is a field of its type."""
    accessors, value = node.child_by_field_name("accessors"), node.child_by_field_name("value")
    if value is not None and value.type != "arrow_expression_clause":
        value = None
    has_code = value is not None or any(
        child.child_by_field_name("body") is not None
        for child in (accessors.named_children if accessors is not None else [])
    )
    if not has_code:
        return None
    name = node.child_by_field_name("name")
    text = around.source.text(name) if name is not None else "this[]"
    gloss = f"property `{text}` of {around.name}" if name is not None else f"item access of {around.name}"
    return Found(
        level=Level.FUNCTION, name=text, name_node=name, node=after_attributes(node, "attribute_list"), outer=node,
        body=accessors or value, gloss=gloss, is_accessor=True,
    )  # fmt: skip


def _typed(node: Node, source: Source) -> Iterator[tuple[str, str]]:
    """`T a`, `T a = ...` and `var a = new T()`."""
    annotation = node.child_by_field_name("type")
    of = type_name(source.text(annotation)) if annotation is not None else ""
    name = node.child_by_field_name("name")
    if name is not None and of:
        yield source.text(name), of
    for declarator in node.named_children:
        if declarator.type == "variable_declarator":
            inner = declarator.child_by_field_name("name")
            value = child_of_kind(declarator, "object_creation_expression")
            made = simple_name(source, value.child_by_field_name("type")) if value is not None else ""
            if inner is not None and (of or made):
                yield source.text(inner), of or made


def _using(node: Node, source: Source) -> Iterator[Import]:
    words = source.text(node).strip().rstrip(";").split()
    yield Import(words[-1], 0, "", "")


RULES = Rules(
    definitions={
        "class_declaration": _class,
        "struct_declaration": _class,
        "interface_declaration": _class,
        "enum_declaration": _class,
        "record_declaration": _class,
        "delegate_declaration": _class,
        "method_declaration": _method,
        "constructor_declaration": _method,
        "destructor_declaration": _method,
        "operator_declaration": _method,
        "conversion_operator_declaration": _method,
        "property_declaration": _property,
        "indexer_declaration": _property,
        "event_declaration": _property,
        "namespace_declaration": pass_through,
        "lambda_expression": closed,
    },
    branches=frozenset(
        {
            "if_statement", "conditional_expression", "switch_statement", "switch_expression", "for_statement",
            "foreach_statement", "while_statement", "do_statement", "try_statement", "using_statement",
            "lock_statement",
        }
    ),
    prologue=frozenset({"using_directive", "preproc_region", "preproc_nullable", "preproc_pragma"}),
    doc_comment=re.compile(r"///(?!/)|/\*\*(?![*/])"),
    clean_doc=clean_xml,
    names=frozenset({"identifier", "this", "base"}),
    members={"member_access_expression": ("expression", "name")},
    calls={"invocation_expression": ("function",)},
    news={"object_creation_expression": "type"},
    wrappers=frozenset({"parenthesized_expression", "await_expression"}),
    bindings={"parameter": _typed, "variable_declaration": _typed, "property_declaration": _typed},
    imports={"using_directive": _using},
)  # fmt: skip
