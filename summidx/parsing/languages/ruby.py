"""Ruby. A module is a type; a comment directly above a definition describes it."""

import re
from collections.abc import Iterator, Sequence

import tree_sitter
import tree_sitter_ruby

from summidx.parsing.budget import Budget
from summidx.parsing.chains import simple_name
from summidx.parsing.links import Links, ParsedFile
from summidx.parsing.reader import read_syntax
from summidx.parsing.rules import Around, Found, Node, Rules, define
from summidx.parsing.scopes import resolve_by_scope
from summidx.parsing.source import Source
from summidx.parsing.syntax import Import, Syntax
from summidx.records import Level

FAMILY = "ruby"
GRAMMAR = tree_sitter.Language(tree_sitter_ruby.language())

_SPECIAL = {
    "initialize": "initialisation of a new {}",
    "to_s": "text form of {}",
    "to_str": "text form of {}",
    "inspect": "text representation of {}",
    "to_h": "hash form of {}",
    "to_a": "array form of {}",
    "to_json": "JSON form of {}",
    "as_json": "JSON form of {}",
    "to_proc": "{} as a procedure",
    "hash": "hash of {}",
    "eql?": "equality comparison of {}",
    "==": "equality comparison of {}",
    "===": "case comparison of {}",
    "<=>": "ordering of {}",
    "each": "iteration over {}",
    "[]": "item access of {}",
    "[]=": "item assignment of {}",
    "<<": "appending to {}",
    "call": "calling of {}",
    "respond_to_missing?": "whether {} answers to a missing method",
    "method_missing": "answer of {} to a missing method",
    "initialize_copy": "copying of {}",
    "marshal_dump": "state of {} for storage",
    "marshal_load": "restoration of {} from stored state",
    "empty?": "whether {} is empty",
    "size": "number of elements of {}",
    "length": "number of elements of {}",
}


def analyse(text: str, budget: Budget, path: str = "") -> Syntax:  # noqa: ARG001 - Ruby has no dialects
    """Read one file: see `read_syntax`."""
    return read_syntax(text, GRAMMAR, RULES, budget)


def resolve_calls(files: Sequence[ParsedFile]) -> Links:
    """Calls in Ruby: a constant of another file is found where it is the only one of its name."""
    return resolve_by_scope(files, selves=RULES.selves, find_module=None)


def _class(node: Node, around: Around) -> Found | None:
    name, superclass = node.child_by_field_name("name"), node.child_by_field_name("superclass")
    if name is None:
        return None
    base = simple_name(around.source, superclass.named_child(0)) if superclass is not None else ""
    end = superclass.end_byte if superclass is not None else name.end_byte
    return define(
        Level.CLASS, node, around, name=around.source.text(name).removeprefix("::"), header_end=end,
        bases=(base,) if base else (),
    )  # fmt: skip


def _method(node: Node, around: Around) -> Found | None:
    name, parameters = node.child_by_field_name("name"), node.child_by_field_name("parameters")
    if name is None:
        return None
    text, owner = around.source.text(name), around.name
    gloss = _SPECIAL.get(text, "").format(owner) if owner else ""
    if owner and not gloss and text.endswith("="):
        gloss = f"setter of `{text[:-1]}` of {owner}"
    last = parameters or name
    return define(
        Level.FUNCTION, node, around, gloss=gloss, is_accessor=bool(gloss), is_stand_in=False,
        header_end=last.end_byte,
    )  # fmt: skip


def _singleton_class(node: Node, around: Around) -> Found:  # noqa: ARG001 - the signature is that of all rules
    return Found(level=None, node=node, body=node.child_by_field_name("body"))


def _assignment(node: Node, around: Around) -> Found | None:
    """`Point = Struct.new(...) do ... end`, `Class.new`, `Module.new`, `Data.define`."""
    left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
    if left is None or right is None or left.type != "constant" or right.type != "call" or around.in_function:
        return None
    text = around.source.text(right)[:40]
    if not re.match(r"(?:::)?(?:Struct\.new|Class\.new|Module\.new|Data\.define)\b", text):
        return None
    block = right.child_by_field_name("block")
    return Found(
        level=Level.CLASS, name=around.source.text(left), node=node, name_node=left, body=block,
    )  # fmt: skip


def _call_import(node: Node, source: Source) -> Iterator[Import]:
    """`require "x"`, `require_relative "x"`."""
    method, arguments = node.child_by_field_name("method"), node.child_by_field_name("arguments")
    if method is None or arguments is None or node.child_by_field_name("receiver") is not None:
        return
    if source.between(method.start_byte, min(method.end_byte, method.start_byte + 20)) in (
        "require",
        "require_relative",
    ):
        first = arguments.named_child(0) if arguments.named_child_count else None
        if first is not None and first.type == "string":
            yield Import(source.text(first).strip("\"'"), 0, "", "")


def _assigned(node: Node, source: Source) -> Iterator[tuple[str, str]]:
    """`x = Foo.new(...)`, `@x = Foo.new(...)`."""
    left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
    if left is None or right is None or left.type not in ("identifier", "instance_variable"):
        return
    match = re.match(r"((?:::)?[A-Z]\w*(?:::[A-Z]\w*)*)\.new\b", source.text(right)[:150])
    if match:
        yield source.text(left), match[1].rpartition("::")[2]


RULES = Rules(
    definitions={
        "class": _class,
        "module": _class,
        "method": _method,
        "singleton_method": _method,
        "singleton_class": _singleton_class,
        "assignment": _assignment,
    },
    branches=frozenset(
        {
            "if", "unless", "if_modifier", "unless_modifier", "conditional", "case", "case_match", "while", "until",
            "for", "while_modifier", "until_modifier", "begin", "rescue", "rescue_modifier", "do_block", "block",
        }
    ),
    prologue=frozenset(),
    doc_comment=re.compile(r"#|=begin"),
    elision="; ... end",
    closing_words=frozenset({"end", "else", "begin", "ensure", "private", "protected", "end)"}),
    names=frozenset({"identifier", "constant", "self", "instance_variable", "super"}),
    members={"scope_resolution": ("scope", "name")},
    calls={"call": ("receiver", "method")},
    wrappers=frozenset({"parenthesized_statements"}),
    selves=frozenset({"self"}),
    bindings={"assignment": _assigned},
    imports={"call": _call_import},
)  # fmt: skip
