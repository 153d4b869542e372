"""JavaScript, with JSX; and what TypeScript shares with it.

Besides classes and functions, what people write for them: `const f = () => ...`, `exports.f = function ...`,
`Foo.prototype.f = ...`, `app.f = function ...` and the methods of an object that has a name. A function without a name
at the top of a file (a wrapper, a callback) owns nothing: what is declared in it belongs to the file.
"""

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import tree_sitter
import tree_sitter_javascript

from summidx.parsing.budget import Budget
from summidx.parsing.chains import simple_name
from summidx.parsing.links import Links, ParsedFile
from summidx.parsing.reader import read_syntax
from summidx.parsing.rules import Around, Define, Found, Node, Rules, child_of_kind, type_name
from summidx.parsing.scopes import resolve_by_scope
from summidx.parsing.source import Source
from summidx.parsing.syntax import Import, Syntax
from summidx.records import Level

FAMILY = "javascript"
GRAMMAR = tree_sitter.Language(tree_sitter_javascript.language())

_FUNCTIONS = frozenset({"function_expression", "arrow_function", "generator_function", "function"})
_CLASSES = frozenset({"class", "class_declaration", "abstract_class_declaration"})
_EXPORTS = frozenset({"exports", "module", "module.exports"})
_SUFFIXES = (
    ".ts", ".tsx", ".d.ts", ".js", ".jsx", ".mjs", ".cjs", ".mts", ".cts", ".vue",
    "/index.ts", "/index.tsx", "/index.js", "/index.jsx", "/index.mjs", "/index.cjs", "/index.d.ts",
)  # fmt: skip
_ACCESSOR = re.compile(r"(?:get|set|is|has)[A-Z_]\w*$")
_SPECIAL = {
    "constructor": "initialisation of a new {}",
    "toString": "text form of {}",
    "toJSON": "JSON form of {}",
    "valueOf": "primitive value of {}",
    "[Symbol.iterator]": "iteration over {}",
    "[Symbol.asyncIterator]": "asynchronous iteration over {}",
    "[Symbol.toPrimitive]": "primitive value of {}",
    "[Symbol.toStringTag]": "tag of {} in text",
    "[Symbol.hasInstance]": "instance check of {}",
    "[Symbol.dispose]": "disposal of {}",
    "[Symbol.asyncDispose]": "asynchronous disposal of {}",
}


def analyse(text: str, budget: Budget, path: str = "") -> Syntax:  # noqa: ARG001 - one grammar reads JSX too
    """Read one file: see `read_syntax`."""
    return read_syntax(text, GRAMMAR, RULES, budget)


def resolve_calls(files: Sequence[ParsedFile]) -> Links:
    """Calls in JavaScript and TypeScript."""
    return resolve_by_scope(files, selves=RULES.selves, find_module=_find_module)


def _find_module(importer: str, each: Import, paths: frozenset[str]) -> str | None:
    """Relative modules, as bundlers find them: with or without suffix, `.js` written for `.ts`, folders by `index`."""
    if not each.module.startswith("."):
        return None
    stem = posixpath.normpath(posixpath.join(posixpath.dirname(importer), each.module))
    if stem in paths:
        return stem
    stems = [stem, re.sub(r"\.[cm]?jsx?$", "", stem)]
    return next(
        (each + suffix for each in dict.fromkeys(stems) for suffix in _SUFFIXES if each + suffix in paths), None
    )


def _is_local(around: Around) -> bool:
    """Whether a variable or an object there is nobody's business: in a function, or in one that is passed on."""
    return around.in_function or around.kind in _FUNCTIONS


def property_name(source: Source, node: Node | None) -> str:
    """A name of a property as it is written: `a`, `#a`, `[Symbol.iterator]`; without quotes."""
    return " ".join(source.text(node)[:200].split()).strip("\"'`") if node is not None else ""


def _exported(node: Node, around: Around) -> Found | None:
    """`export ...` belongs to what it exports, with the decorators before it."""
    inner = node.child_by_field_name("declaration") or node.child_by_field_name("value")
    if inner is None or around.in_function:
        return None
    define = around.definitions.get(inner.type)
    found = define(inner, around) if define is not None else None
    if (found is None or found.level is None) and inner.type in _FUNCTIONS | _CLASSES:
        level = Level.CLASS if inner.type in _CLASSES else Level.FUNCTION
        found = Found(level=level, name="default", node=inner, body=inner.child_by_field_name("body"))
    if found is None or found.level is None:
        return None
    return replace(found, outer=node, takes=(inner, *found.takes))


def _class(node: Node, around: Around) -> Found | None:
    name = node.child_by_field_name("name")
    if name is None:
        return None
    return Found(
        level=Level.CLASS, name=around.source.text(name), node=_header(node), name_node=name, outer=node,
        body=node.child_by_field_name("body"), bases=bases_of(node, around.source),
    )  # fmt: skip


def _header(node: Node) -> Node:
    """Where the header starts: a class's decorators stand in it."""
    return next((child for child in node.children if child.type != "decorator"), node)


def bases_of(node: Node, source: Source) -> tuple[str, ...]:
    """What a class extends and implements."""
    heritage = child_of_kind(node, "class_heritage")
    clauses = heritage.named_children if heritage is not None else []
    bases = [
        child for clause in clauses for child in (clause.named_children or [clause]) if child.type != "type_arguments"
    ]
    return tuple(filter(None, (simple_name(source, base) for base in bases)))


def _function(node: Node, around: Around) -> Found | None:
    name = node.child_by_field_name("name")
    if name is None:
        return None
    return Found(
        level=Level.FUNCTION, name=around.source.text(name), node=node, name_node=name,
        body=node.child_by_field_name("body"),
    )  # fmt: skip


def _closure(node: Node, around: Around) -> Found | None:
    """A function that is only passed on, or kept in a local variable: what is declared in it belongs to the file.

    One that names itself (`on("mount", function mounted() ...)`) is a function as any other.
    """
    if node.child_by_field_name("name") is not None and not _is_local(around):
        return _function(node, around)
    is_closed = around.in_function or bool(around.name)
    return Found(level=None, node=node, body=node.child_by_field_name("body"), is_closed=is_closed)


def _wrapper(node: Node, around: Around) -> Found | None:
    """`(function () {...})()` and `define([...], function () {...})`: modules, before there were any."""
    function, arguments = node.child_by_field_name("function"), node.child_by_field_name("arguments")
    if function is None or arguments is None or around.in_function or around.name:
        return None
    called: Node | None = function
    if function.type == "parenthesized_expression":
        called = child_of_kind(function, *_FUNCTIONS)
    elif function.type == "member_expression":  # `(function () {...}.call(this))`
        called = function.child_by_field_name("object")
        if called is not None and called.type == "parenthesized_expression":
            called = child_of_kind(called, *_FUNCTIONS)
    is_definer = function.type == "identifier" and around.source.text(function) in ("define", "factory")
    if called is None or not (called.type in _FUNCTIONS or is_definer):
        return None
    passed = [child for child in arguments.named_children if child.type in _FUNCTIONS]
    return Found(level=None, node=node, takes=(called, *passed)) if called.type in _FUNCTIONS or passed else None


def _method(node: Node, around: Around) -> Found | None:
    name = property_name(around.source, node.child_by_field_name("name"))
    body = node.child_by_field_name("body")
    if not name or around.kind in _FUNCTIONS:
        return None
    kinds = {child.type for child in node.children if not child.is_named}
    of = around.name or "the object"
    gloss = _SPECIAL.get(name, "").format(of)
    if not gloss and kinds & {"get", "set"}:
        gloss = f"{'getter' if 'get' in kinds else 'setter'} of property `{name}` of {of}"
    return Found(
        level=Level.FUNCTION, name=name, node=node, name_node=node.child_by_field_name("name"), body=body,
        gloss=gloss, is_stand_in="set" in kinds,
        is_accessor=bool(gloss and name != "constructor") or bool(_ACCESSOR.match(name)),
    )  # fmt: skip


def _field(node: Node, around: Around) -> Found | None:
    """`handler = () => ...` in a class."""
    value = node.child_by_field_name("value")
    name = node.child_by_field_name("name") or node.child_by_field_name("property")
    if value is None or value.type not in _FUNCTIONS or name is None:
        return None
    return _valued(node, name, value, property_name(around.source, name))


def _valued(node: Node, name_node: Node, value: Node, name: str, attaches_to: str = "") -> Found:
    body = value.child_by_field_name("body")
    return Found(
        level=Level.FUNCTION, name=name, node=node, name_node=name_node, body=value, attaches_to=attaches_to,
        header_end=body.start_byte if body is not None else None,
        is_accessor=bool(_ACCESSOR.match(name)),
    )  # fmt: skip


def _variables(node: Node, around: Around) -> Found | None:
    """`const f = () => ...`, `const Foo = class ...`, and an object with methods."""
    declarators = [child for child in node.named_children if child.type == "variable_declarator"]
    if len(declarators) != 1:
        return None
    found = _declarator(declarators[0], around)
    return replace(found, node=node, outer=node, takes=(declarators[0],)) if found is not None else None


def _declarator(node: Node, around: Around) -> Found | None:
    name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
    if name is None or value is None or name.type != "identifier" or _is_local(around):
        return None
    text = around.source.text(name)
    if value.type in _FUNCTIONS:
        return _valued(node, name, value, text)
    if value.type in _CLASSES:
        body = value.child_by_field_name("body")
        return Found(
            level=Level.CLASS, name=text, node=node, name_node=name, body=value,
            header_end=body.start_byte if body is not None else None, bases=bases_of(value, around.source),
        )  # fmt: skip
    if value.type == "object" and _has_methods(value):
        return Found(level=Level.CLASS, name=text, node=node, name_node=name, body=value)
    return None


def _has_methods(node: Node) -> bool:
    return any(
        child.type == "method_definition"
        or (
            child.type == "pair"
            and (value := child.child_by_field_name("value")) is not None
            and value.type in _FUNCTIONS
        )
        for child in node.named_children
    )


def _assignment(node: Node, around: Around) -> Found | None:
    """`exports.f = function ...`, `Foo.prototype.f = ...`, `app.f = ...`, `Foo.prototype = {...}`."""
    left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
    while right is not None and right.type == "assignment_expression":
        right = right.child_by_field_name("right")
    if left is None or right is None or left.type != "member_expression" or _is_local(around):
        return None
    owner, member = left.child_by_field_name("object"), left.child_by_field_name("property")
    if owner is None or member is None or owner.end_byte - owner.start_byte > 100:
        return None
    of, name = around.source.text(owner), around.source.text(member)
    if right.type == "object" and name == "prototype":
        return Found(level=None, node=node, outer=node, body=right, attaches_to=of, is_block=True)
    if right.type not in _FUNCTIONS | _CLASSES:
        return None
    if of == "module" and name == "exports":
        inner = right.child_by_field_name("name")
        name, of = around.source.text(inner) if inner is not None else "exports", ""
    of = "" if of in _EXPORTS else re.split(r"\.", of.removesuffix(".prototype"))[-1]
    if of and not of.isidentifier() and not re.fullmatch(r"[\w$]+", of):
        return None
    of = "" if of in ("this", "window", "global", "globalThis", "self", "root", around.name) else of
    found = _valued(node, member, right, name, of)
    return replace(found, level=Level.CLASS, header_end=None) if right.type in _CLASSES else found


def _pair(node: Node, around: Around) -> Found | None:
    """`name: function ...` in an object."""
    key, value = node.child_by_field_name("key"), node.child_by_field_name("value")
    if key is None or value is None or value.type not in _FUNCTIONS or _is_local(around):
        return None
    return _valued(node, key, value, property_name(around.source, key))


def _call(node: Node, source: Source) -> Iterator[Import]:
    """`require("./x")` that is not bound to a name, and `import("./x")`."""
    function, arguments = node.child_by_field_name("function"), node.child_by_field_name("arguments")
    if function is None or arguments is None or arguments.named_child_count != 1:
        return
    if source.between(function.start_byte, min(function.end_byte, function.start_byte + 9)) in ("require", "import"):
        argument = arguments.named_child(0)
        if argument is not None and argument.type == "string":
            yield Import(source.text(argument).strip("\"'"), 0, "", "")


def _required(node: Node, source: Source) -> Iterator[Import]:
    """`const x = require("./x")`, `const { a, b: c } = require("./x")`."""
    name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
    if name is None or value is None or value.type != "call_expression":
        return
    for each in _call(value, source):
        if name.type == "identifier":
            yield replace(each, name="default", bound=source.text(name))
            yield replace(each, name="", bound=source.text(name))
        elif name.type == "object_pattern":
            for child in name.named_children:
                key, alias = child.child_by_field_name("key"), child.child_by_field_name("value")
                bound = source.text(alias or child)
                yield replace(each, name=source.text(key or child), bound=bound)


def _imported(node: Node, source: Source) -> Iterator[Import]:
    """`import a, { b as c }, * as d from "./x"` and `export { a } from "./x"`."""
    from_node = node.child_by_field_name("source")
    clause = child_of_kind(node, "import_require_clause")
    if clause is not None:
        from_node = clause.child_by_field_name("source")
    if from_node is None:
        return
    module = source.text(from_node).strip("\"'")
    names = list(_clauses(node, source))
    for name, bound in names:
        yield Import(module, 0, name, bound)
    if not names:
        yield Import(module, 0, "*" if node.type == "export_statement" else "", "")


def _clauses(node: Node, source: Source) -> Iterator[tuple[str, str]]:
    stack = [child for child in node.named_children if child.type != "string"]
    while stack:
        child = stack.pop()
        if child.type in ("import_specifier", "export_specifier"):
            name, alias = child.child_by_field_name("name"), child.child_by_field_name("alias")
            if name is not None:
                yield source.text(name), source.text(alias or name)
        elif child.type in ("namespace_import", "namespace_export", "import_require_clause"):
            bound = child_of_kind(child, "identifier")
            yield "", source.text(bound) if bound is not None else ""
        elif child.type == "identifier":
            yield "default", source.text(child)
        elif child.type in ("import_clause", "named_imports", "export_clause"):
            stack += child.named_children


def bound_variable(node: Node, source: Source) -> Iterator[tuple[str, str]]:
    """(name, type) of a variable: of its annotation, or of the class whose instance it is made."""
    name = node.child_by_field_name("name") or node.child_by_field_name("pattern")
    value, annotation = node.child_by_field_name("value"), node.child_by_field_name("type")
    if name is None or name.type not in ("identifier", "property_identifier", "private_property_identifier"):
        return
    of = type_name(source.text(annotation).lstrip(": ")) if annotation is not None else ""
    if not of and value is not None and value.type == "new_expression":
        of = simple_name(source, value.child_by_field_name("constructor"))
    if of or node.type != "variable_declarator" or value is None or value.type not in (*_FUNCTIONS, "call_expression"):
        yield source.text(name), of


_DEFINITIONS: Mapping[str, Define] = {
    "export_statement": _exported,
    "call_expression": _wrapper,
    "class_declaration": _class,
    "function_declaration": _function,
    "generator_function_declaration": _function,
    "function_expression": _closure,
    "arrow_function": _closure,
    "generator_function": _closure,
    "method_definition": _method,
    "field_definition": _field,
    "lexical_declaration": _variables,
    "variable_declaration": _variables,
    "variable_declarator": _declarator,
    "assignment_expression": _assignment,
    "pair": _pair,
}

RULES = Rules(
    definitions=_DEFINITIONS,
    branches=frozenset(
        {
            "if_statement", "ternary_expression", "switch_statement", "for_statement", "for_in_statement",
            "while_statement", "do_statement", "try_statement",
        }
    ),
    comments=frozenset({"comment", "html_comment", "hash_bang_line"}),
    attributes=frozenset({"decorator"}),
    doc_comment=re.compile(r"/\*\*(?!/)"),
    file_comment=re.compile(r"/\*|//"),
    names=frozenset({"identifier", "this", "super", "property_identifier", "type_identifier"}),
    members={"member_expression": ("object", "property")},
    calls={"call_expression": ("function",)},
    news={"new_expression": "constructor"},
    wrappers=frozenset({"parenthesized_expression", "await_expression", "non_null_expression"}),
    bindings={"variable_declarator": bound_variable, "field_definition": bound_variable},
    imports={
        "import_statement": _imported, "export_statement": _imported, "variable_declarator": _required,
        "call_expression": _call,
    },
)  # fmt: skip
