"""Expressions as chains of names, members and calls, by the tables of a language's rules."""

import re

from summidx.parsing.rules import Node, Rules
from summidx.parsing.source import Source
from summidx.parsing.syntax import CALL, UNKNOWN, Chain

_MAX_CHAIN = 8
_NAME = re.compile(r"[^\W\d][\w?!=$]*|\$\w+|~\w+")


class Chains:
    """Reads the expressions of one file."""

    def __init__(self, source: Source, rules: Rules) -> None:
        self._source = source
        self._rules = rules

    def called(self, node: Node) -> Chain:
        """The chain of what a call calls; of `new A()`, it is `A`."""
        rules = self._rules
        if node.type in rules.news:
            named = rules.news[node.type]
            of = node.child_by_field_name(named) if named else next(iter(node.named_children), None)
            return (simple_name(self._source, of) or UNKNOWN,)
        fields = rules.calls[node.type]
        name_node = node.child_by_field_name(fields[-1])
        if len(fields) == 1:
            return self.of(name_node)
        if name_node is None:
            return (UNKNOWN,)
        owner = node.child_by_field_name(fields[0])
        name = self._source.text(name_node)[:200]
        return (name,) if owner is None else (*self.of(owner), name)

    def of(self, node: Node | None) -> Chain:
        """The chain of an expression; it starts with UNKNOWN where that is not all names, members and calls."""
        rules = self._rules
        tokens: list[str] = []
        while node is not None and len(tokens) < _MAX_CHAIN:
            kind = node.type
            if kind in rules.names:
                return (self._source.text(node)[:200], *reversed(tokens))
            if kind in rules.news:
                return (*self.called(node), CALL, *reversed(tokens))
            if kind in rules.wrappers:
                node = node.named_child(0) if node.named_child_count else None
                continue
            if kind in rules.members:
                owner, name = (node.child_by_field_name(field) for field in rules.members[kind])
                tokens += reversed(self._members(name))
            elif kind in rules.calls:
                tokens.append(CALL)
                fields = rules.calls[kind]
                owner = node.child_by_field_name(fields[0])
                if len(fields) > 1:
                    tokens.append(simple_name(self._source, node.child_by_field_name(fields[1])) or UNKNOWN)
            else:
                break
            if owner is None:  # `foo()` in Java, `::a` in C++
                return tuple(reversed(tokens))
            node = owner
        return (UNKNOWN, *reversed(tokens))

    def _members(self, node: Node | None) -> Chain:
        """The name of a member; several where they nest to the right (`a::b::c`)."""
        tokens: list[str] = []
        while node is not None and node.type in self._rules.members and len(tokens) < _MAX_CHAIN:
            owner, node = (node.child_by_field_name(field) for field in self._rules.members[node.type])
            tokens.append(simple_name(self._source, owner) or UNKNOWN)
        return (*tokens, simple_name(self._source, node) or UNKNOWN)


def simple_name(source: Source, node: Node | None) -> str:
    """A name as it is written, without type arguments and qualification; "" where there is none."""
    if node is None:
        return ""
    text = source.between(node.start_byte, min(node.end_byte, node.start_byte + 300)).partition("<")[0]
    text = re.split(r"::|[.\\]", text)[-1].strip(" \n\t&*@:#")
    return text if _NAME.fullmatch(text) else ""
