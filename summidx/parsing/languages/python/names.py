"""The names of a Python scope: imports, bindings and calls, one small collector per kind of node."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import tree_sitter

from summidx.parsing.languages.python.tree import PythonSource
from summidx.parsing.syntax import CALL, UNKNOWN, Call, Chain, Import, Names, Value


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node stands: the scope's names, and for a method its receiver and the names of its class."""

    source: PythonSource
    names: Names
    index: int
    in_header: bool
    receiver: str
    owner_names: Names | None


def bases_of(source: PythonSource, definition: tree_sitter.Node) -> tuple[Chain, ...]:
    """Base classes of a class, those that are names; `Generic[T]` counts as `Generic`."""
    arguments = definition.child_by_field_name("superclasses")
    bases = []
    for node in arguments.named_children if arguments else ():
        base = node.child_by_field_name("value") if node.type == "subscript" else node
        if base is not None and base.type in ("identifier", "attribute"):
            bases.append(source.chain(base))
    return tuple(bases)


def _collect_import(node: tree_sitter.Node, place: Place) -> None:
    for child in node.children_by_field_name("name"):
        module, alias = _imported(place.source, child)
        top = module.partition(".")[0]
        place.names.imports.append(Import(module, 0, "", alias or top, binds_top=not alias))


def _collect_import_from(node: tree_sitter.Node, place: Place) -> None:
    source = node.child_by_field_name("module_name")
    if source is None:
        return
    level, module = 0, ""
    if source.type == "relative_import":
        for child in source.named_children:
            if child.type == "import_prefix":
                level = place.source.text(child).count(".")
            else:
                module = _dotted(place.source, child)
    else:
        module = _dotted(place.source, source)
    for child in node.children_by_field_name("name"):
        name, alias = _imported(place.source, child)
        place.names.imports.append(Import(module, level, name, alias or name))
    if any(child.type == "wildcard_import" for child in node.named_children):
        place.names.imports.append(Import(module, level, "*", ""))


def _imported(source: PythonSource, node: tree_sitter.Node) -> tuple[str, str]:
    """(dotted name, alias or "") of one entry of an import."""
    if node.type != "aliased_import":
        return _dotted(source, node), ""
    name, alias = node.child_by_field_name("name"), node.child_by_field_name("alias")
    return (_dotted(source, name) if name else "", source.name(alias) if alias else "")


def _dotted(source: PythonSource, node: tree_sitter.Node) -> str:
    return ".".join(source.name(child) for child in node.named_children if child.type == "identifier")


def _collect_call(node: tree_sitter.Node, place: Place) -> None:
    chain = place.source.chain(node.child_by_field_name("function"))
    if chain[-1] != UNKNOWN:
        place.names.calls.append(Call(chain, place.in_header))


def _collect_assignment(node: tree_sitter.Node, place: Place) -> None:
    left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
    annotation = place.source.annotation(node.child_by_field_name("type"))
    if annotation:
        value: Value | None = Value((*annotation, CALL), place.index)
    else:
        value = _value_of(right, place)
    if left is None or (right is not None and right.type == "none" and not annotation):
        return
    if left.type == "attribute":
        owner = left.child_by_field_name("object")
        attribute = left.child_by_field_name("attribute")
        if (
            place.owner_names
            and owner is not None
            and attribute is not None
            and place.source.text(owner) == place.receiver
        ):
            place.owner_names.bind(place.source.name(attribute), value, annotated=bool(annotation))
    elif left.type == "identifier":
        place.names.bind(place.source.name(left), value, annotated=bool(annotation))
    else:
        _bind_targets(left, place)


def _value_of(node: tree_sitter.Node | None, place: Place) -> Value | None:
    if node is None or node.type not in ("identifier", "attribute", "call", "await", "parenthesized_expression"):
        return None
    chain = place.source.chain(node)
    return None if chain[0] == UNKNOWN else Value(chain, place.index)


def _collect_walrus(node: tree_sitter.Node, place: Place) -> None:
    name = node.child_by_field_name("name")
    if name is not None:
        place.names.bind(place.source.name(name), _value_of(node.child_by_field_name("value"), place))


def _collect_left(node: tree_sitter.Node, place: Place) -> None:
    left = node.child_by_field_name("left")
    if left is not None:
        _bind_targets(left, place)


def _collect_children(node: tree_sitter.Node, place: Place) -> None:
    for child in node.named_children:
        _bind_targets(child, place)


def _collect_parameters(node: tree_sitter.Node, place: Place) -> None:
    for child in node.named_children:
        name = child.child_by_field_name("name") if child.type.endswith("default_parameter") else child
        if child.type == "typed_parameter":
            name = child.named_child(0)
        if name is None:
            continue
        annotation = place.source.annotation(child.child_by_field_name("type"))
        if name.type == "identifier" and annotation:
            place.names.bind(place.source.name(name), Value((*annotation, CALL), place.index), annotated=True)
        elif not (name.type == "identifier" and place.source.name(name) == place.receiver):
            _bind_targets(name, place)


def _bind_targets(node: tree_sitter.Node, place: Place) -> None:
    for identifier in _targets(node):
        place.names.bind(place.source.name(identifier))


_PATTERNS = frozenset(
    {
        "pattern_list", "tuple_pattern", "list_pattern", "list_splat_pattern", "dictionary_splat_pattern", "tuple",
        "list", "list_splat", "parenthesized_expression", "expression_list",
    }
)  # fmt: skip


def _targets(node: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    stack = [node]
    while stack:
        node = stack.pop()
        if node.type == "identifier":
            yield node
        elif node.type in _PATTERNS:
            stack += node.named_children


COLLECTORS: dict[str, Callable[[tree_sitter.Node, Place], None]] = {
    "import_statement": _collect_import,
    "import_from_statement": _collect_import_from,
    "call": _collect_call,
    "assignment": _collect_assignment,
    "named_expression": _collect_walrus,
    "for_statement": _collect_left,
    "for_in_clause": _collect_left,
    "as_pattern_target": _collect_children,
    "parameters": _collect_parameters,
    "lambda_parameters": _collect_parameters,
}
"""By kind of node. Names bound by patterns of `match`, `del` and `global` are passed over: they hide few functions."""
