"""Expressions of a Python file: what names, chains and annotations its nodes stand for."""

import unicodedata

import tree_sitter
import tree_sitter_python

from summidx.parsing.source import Source
from summidx.parsing.syntax import CALL, UNKNOWN, Chain

GRAMMAR = tree_sitter.Language(tree_sitter_python.language())
_MAX_CHAIN = 8


class PythonSource(Source):
    """The source of a Python file."""

    def name(self, node: tree_sitter.Node) -> str:
        """An identifier, as Python compares them (NFKC)."""
        name = self.text(node)
        return name if name.isascii() else unicodedata.normalize("NFKC", name)

    def chain(self, node: tree_sitter.Node | None) -> Chain:
        """The chain of an expression; it starts with UNKNOWN where that is not all names, attributes and calls."""
        tokens: list[str] = []
        while node is not None and len(tokens) < _MAX_CHAIN:
            if node.type == "identifier":
                tokens.append(self.name(node))
                return tuple(reversed(tokens))
            if node.type == "attribute":
                attribute = node.child_by_field_name("attribute")
                tokens.append(self.name(attribute) if attribute else UNKNOWN)
                node = node.child_by_field_name("object")
            elif node.type == "call":
                tokens.append(CALL)
                node = node.child_by_field_name("function")
            elif node.type in ("parenthesized_expression", "await") and node.named_child_count == 1:
                node = node.named_child(0)
            else:
                break
        return (UNKNOWN, *reversed(tokens))

    def annotation(self, node: tree_sitter.Node | None) -> Chain | None:
        """The class that an annotation names: of `Foo`, `"a.Foo"`, `Foo | None` and `Optional[Foo]`; else None."""
        for _ in range(6):
            if node is None:
                return None
            kinds = [child.type for child in node.named_children]
            if node.type == "type" and len(kinds) == 1:
                node = node.named_child(0)
            elif node.type == "string":
                name = self.text(node).strip("\"'")
                parts = name.removesuffix("| None").strip().split(".")
                return tuple(parts) if all(part.isidentifier() for part in parts) else None
            elif node.type == "binary_operator" and "none" in kinds and len(kinds) == 2:
                node = node.named_child(1 - kinds.index("none"))
            elif node.type == "generic_type" and len(kinds) == 2 and self.text(node.named_child(0)) == "Optional":
                arguments = node.named_child(1)
                node = arguments.named_child(0) if arguments.named_child_count == 1 else None
            elif node.type in ("identifier", "attribute"):
                chain = self.chain(node)
                return None if UNKNOWN in chain or CALL in chain else chain
            else:
                return None
        return None
