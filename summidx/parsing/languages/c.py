"""C, and what C++ shares with it: functions, types with a body, and macros that take arguments."""

import re
from collections.abc import Iterator, Sequence

import tree_sitter
import tree_sitter_c

from summidx.parsing.budget import Budget
from summidx.parsing.links import Links, ParsedFile
from summidx.parsing.reader import read_syntax
from summidx.parsing.rules import Around, Found, Node, Rules, define, type_name
from summidx.parsing.scopes import resolve_by_scope
from summidx.parsing.source import Source
from summidx.parsing.syntax import Import, Syntax
from summidx.records import Level

FAMILY = "c"
GRAMMAR = tree_sitter.Language(tree_sitter_c.language())
_MAX_DECLARATORS = 12
_TYPES = ("struct_specifier", "union_specifier", "enum_specifier", "class_specifier")
_KEYWORDS = frozenset({"if", "for", "while", "switch", "return", "else", "do", "sizeof", "catch", "defined"})


def analyse(text: str, budget: Budget, path: str = "") -> Syntax:  # noqa: ARG001 - C has no dialects
    """Read one file: see `read_with_macros`."""
    return read_with_macros(text, GRAMMAR, RULES, budget)


def read_with_macros(text: str, grammar: tree_sitter.Language, rules: Rules, budget: Budget) -> Syntax:
    """Read a file; where that gives errors, read it without its macros as well, and keep what shows more definitions.

    A macro that stands for an attribute, a keyword or nothing (`API void f()`, `f() NOEXCEPT {`) is no C before it is
    expanded. It is blanked only for the parser: lines, signatures and sources are those of the file.
    """
    syntax = read_syntax(text, grammar, rules, budget)
    if not syntax.has_errors:
        return syntax
    blanked = blank_macros(text)
    other = read_syntax(text, grammar, rules, budget, parsed_text=blanked) if blanked != text else syntax
    return max((syntax, other), key=lambda each: (len(each.definitions), -each.error_share, not each.has_errors))


_CAPS = r"\b(?!TEST|BENCHMARK)[A-Z][A-Z0-9]*_[A-Z0-9_]+\b"
_ARGUMENTS = r"(?:\((?:[^()\n]|\([^()\n]*\)){0,300}\))?"
_MACROS = (
    # alone on its line, no function's head
    re.compile(rf"^[ \t]*({_CAPS}{_ARGUMENTS})[ \t]*$(?!\n[ \t]*\{{)", re.MULTILINE),
    # before a declaration, or in the head of a class
    re.compile(rf"(?<![\w.>:(,=+*/&|?-])(?<![(,=] )({_CAPS})(?=[ \t\n]+(?:[A-Za-z_~]|::))"),
    # after the parameters of a function
    re.compile(
        rf"\)(?:[ \t\n]*(?:const|noexcept|override|final))*[ \t\n]*({_CAPS}{_ARGUMENTS})(?=[ \t\n]*(?:[{{;:]|->))"
    ),
)


def blank_macros(text: str) -> str:
    """The text with spaces in the place of macros that stand where C has nothing; `#define` and the like stay."""
    for pattern in _MACROS:
        text = pattern.sub(_blank, text)
    return text


def _blank(match: re.Match[str]) -> str:
    line_start = match.string.rfind("\n", 0, match.start(1)) + 1
    if match.string[line_start : match.start(1)].lstrip().startswith("#"):
        return match[0]
    start, end = match.start(1) - match.start(), match.end(1) - match.start()
    return match[0][:start] + re.sub(r"[^\n]", " ", match[1]) + match[0][end:]


def resolve_calls(files: Sequence[ParsedFile]) -> Links:
    """Calls in C and C++: a name of another file is found where it is the only one."""
    return resolve_by_scope(files, selves=frozenset({"this"}))


def declared_name(node: Node | None) -> Node | None:
    """The name in a declarator: through pointers, references, arrays, functions and brackets."""
    for _ in range(_MAX_DECLARATORS):
        if node is None:
            return None
        inner = node.child_by_field_name("declarator")
        if inner is None and node.type in ("parenthesized_declarator", "reference_declarator", "attributed_declarator"):
            inner = next((c for c in node.named_children if c.type != "ms_call_modifier"), None)
        if inner is None:
            return node
        node = inner
    return None


def _function(node: Node, around: Around) -> Found | None:
    name = declared_name(node.child_by_field_name("declarator"))
    if name is None or name.type != "identifier":
        return None
    text = around.source.text(name)
    if text in _KEYWORDS:  # what a macro made of the code around it
        return None
    return Found(
        level=Level.FUNCTION, name=text, node=node, name_node=name, body=node.child_by_field_name("body"),
    )  # fmt: skip


def typed(node: Node, around: Around) -> Found | None:
    """A struct, union or enum with a body and a name."""
    if node.child_by_field_name("body") is None:
        return None
    return define(Level.CLASS, node, around)


def _typedef(node: Node, around: Around) -> Found | None:
    """`typedef struct { ... } name;`: the type gets the name; where it has its own, that stands."""
    of = node.child_by_field_name("type")
    body = of.child_by_field_name("body") if of is not None and of.type in _TYPES else None
    if of is None or body is None:
        return None
    name = of.child_by_field_name("name") or declared_name(node.child_by_field_name("declarator"))
    if name is None:
        return None
    text = around.source.text(name)
    signature = f"typedef {of.type.removesuffix('_specifier')} {text}"
    return Found(
        level=Level.CLASS, name=text, node=node, name_node=name, body=body, takes=(of,), signature=signature,
        header_end=body.start_byte,
    )  # fmt: skip


def _macro(node: Node, around: Around) -> Found | None:
    value = node.child_by_field_name("value")
    end = value.start_byte if value is not None else None
    return define(Level.FUNCTION, node, around, body=None, header_end=end)


def declared(node: Node, source: Source) -> Iterator[tuple[str, str]]:
    """`T a, *b;` of parameters, variables and fields."""
    annotation = node.child_by_field_name("type")
    of = type_name(source.text(annotation)) if annotation is not None else ""
    if not of or annotation is None or annotation.type in ("primitive_type", "sized_type_specifier"):
        return
    for declarator in node.children_by_field_name("declarator"):
        name = declared_name(declarator)
        if name is not None and name.type in ("identifier", "field_identifier"):
            yield source.text(name), of


def included(node: Node, source: Source) -> Iterator[Import]:
    """`#include "a/b.h"`."""
    path = node.child_by_field_name("path")
    if path is not None:
        yield Import(source.text(path).strip('"<>'), 0, "", "")


RULES = Rules(
    definitions={
        "function_definition": _function,
        "struct_specifier": typed,
        "union_specifier": typed,
        "enum_specifier": typed,
        "type_definition": _typedef,
        "preproc_function_def": _macro,
    },
    branches=frozenset(
        {
            "if_statement", "conditional_expression", "switch_statement", "for_statement", "while_statement",
            "do_statement", "goto_statement",
        }
    ),
    prologue=frozenset(),
    doc_comment=re.compile(r"/\*|//"),
    names=frozenset({"identifier", "field_identifier", "type_identifier", "namespace_identifier", "this"}),
    members={"field_expression": ("argument", "field")},
    calls={"call_expression": ("function",)},
    wrappers=frozenset({"parenthesized_expression", "pointer_expression"}),
    bindings={"parameter_declaration": declared, "declaration": declared, "field_declaration": declared},
    imports={"preproc_include": included},
)  # fmt: skip
