"""Members that are written outside their type (Go methods, Rust `impl`, `Foo::bar`) and the type that they belong to.

A type that is defined elsewhere gets a class without own source in this file: design 3.1.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from summidx.parsing.syntax import Definition, Syntax
from summidx.records import Level


@dataclass(slots=True)
class Attachment:
    """What belongs to a type by its name."""

    members: list[tuple[int, str]] = field(default_factory=list)
    """(index of the definition, name of the type)."""
    blocks: list[tuple[str, int, int]] = field(default_factory=list)
    """(name of the type, first and last line) of what is the type's own text, where the type is defined here."""


def attach(syntax: Syntax, attachment: Attachment) -> None:
    """Give members their owners, and put the definitions in order: owners before what they own, as in the source."""
    if not attachment.members and not attachment.blocks:
        return
    definitions = syntax.definitions
    types = _types_by_name(definitions, attachment)
    for index, name in attachment.members:
        owner = types[name]
        if not _holds(definitions, index, owner):
            definitions[index].owner = owner
            if definitions[owner].is_elsewhere:
                _stretch(definitions[owner], definitions[index])
    for name, first, last in attachment.blocks:
        if name in types and not definitions[types[name]].is_elsewhere:
            definitions[types[name]].blocks.append((first, last))
    syntax.definitions = list(_in_order(definitions))


def _types_by_name(definitions: list[Definition], attachment: Attachment) -> dict[str, int]:
    """Index of each type that something belongs to; what is not defined here is added."""
    types: dict[str, int] = {}
    attached = {index for index, _ in attachment.members}
    constructors: dict[str, int] = {}
    for index, definition in enumerate(definitions):
        if definition.level is Level.CLASS:
            types.setdefault(definition.name, index)
        elif definition.owner < 0 and index not in attached:
            constructors.setdefault(definition.name, index)
    for name in dict.fromkeys(name for _, name in attachment.members):
        if name in types:
            continue
        if name in constructors:  # a function whose prototype is filled is a class (JavaScript before 2015)
            types[name] = constructors[name]
            definitions[types[name]].level = Level.CLASS
        else:
            types[name] = len(definitions)
            definitions.append(_stand_in(name))
    return types


def _stretch(owner: Definition, member: Definition) -> None:
    """A type that is defined elsewhere reaches here from its first member to its last."""
    first = member.start_line if not owner.start_line else min(owner.start_line, member.start_line)
    owner.first_line = owner.start_line = owner.name_line = first
    owner.header_lines = (first, first)
    owner.end_line = max(owner.end_line, member.end_line)


def _stand_in(name: str) -> Definition:
    return Definition(
        level=Level.CLASS,
        name=name,
        owner=-1,
        first_line=0,
        start_line=0,
        name_line=0,
        header_lines=(0, 0),
        end_line=0,
        indent="",
        signature=name,
        is_elsewhere=True,
    )


def _holds(definitions: list[Definition], outer: int, inner: int) -> bool:
    """Whether `inner` stands in `outer`: it cannot own it then."""
    while inner >= 0:
        if inner == outer:
            return True
        inner = definitions[inner].owner
    return False


def _in_order(definitions: list[Definition]) -> Iterator[Definition]:
    children: dict[int, list[int]] = defaultdict(list)
    for index, definition in enumerate(definitions):
        children[definition.owner].append(index)
    for each in children.values():
        each.sort(key=lambda index: (definitions[index].start_line, index), reverse=True)
    order: list[int] = []
    stack = list(children[-1])
    while stack:
        index = stack.pop()
        order.append(index)
        stack += children[index]
    places = {index: place for place, index in enumerate(order)}
    for index in order:
        definition = definitions[index]
        definition.owner = places[definition.owner] if definition.owner >= 0 else -1
        yield definition
