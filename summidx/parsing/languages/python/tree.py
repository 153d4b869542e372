"""tree-sitter's tree of a Python file, and what is needed to walk one of any depth.

A tree may be 100,000 levels deep: nothing here recurses, no node is asked for its parent (which searches from the
root), and none is turned into a string (`str(node)` overflows the C stack).
"""

import unicodedata
from collections.abc import Iterator

import tree_sitter
import tree_sitter_python

from summidx.parsing.budget import Budget
from summidx.parsing.syntax import CALL, UNKNOWN, Chain

_LANGUAGE = tree_sitter.Language(tree_sitter_python.language())
_CHUNK_BYTES = 65_536
_POLL_NODES = 2_000
_MAX_CHAIN = 8


class Source:
    """The UTF-8 source of a file, and what its nodes say.

    Text is cut out of the source here: `Node.text` of a tree whose source was read by calls takes 75 us.
    """

    def __init__(self, text: str) -> None:
        self._data = text.encode("utf-8")

    def parse(self, budget: Budget) -> tree_sitter.Tree:
        """Parse it. There is always a tree; what is no Python stands in it as ERROR nodes.

        Raises:
            OverBudget: the budget is used up.
        """
        data = self._data

        def read(offset: int, _point: tree_sitter.Point) -> bytes:
            return data[offset : offset + _CHUNK_BYTES]

        def is_spent(_offset: int, _has_error: bool) -> bool:  # noqa: FBT001 - the signature is tree-sitter's
            return budget.is_spent

        # A parser per file: one that was cancelled does not start afresh. Only a source that is read by calls can be.
        try:
            return tree_sitter.Parser(_LANGUAGE).parse(read, encoding="utf8", progress_callback=is_spent)
        except ValueError:
            budget.check()
            raise

    def text(self, node: tree_sitter.Node) -> str:
        """Source text of a node."""
        return self._data[node.start_byte : node.end_byte].decode("utf-8", "replace")

    def name(self, node: tree_sitter.Node) -> str:
        """An identifier, as Python compares them (NFKC)."""
        name = self.text(node)
        return name if name.isascii() else unicodedata.normalize("NFKC", name)

    def starts_line(self, node: tree_sitter.Node) -> bool:
        """Whether nothing but white space stands before a node on its line."""
        start = node.start_byte
        return not self._data[start - node.start_point.column : start].strip(b" \t\f")

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


def walk(tree: tree_sitter.Tree, budget: Budget) -> Iterator[tree_sitter.Node]:
    """Yield all nodes, outer before inner, in the order of the source.

    Raises:
        OverBudget: the budget is used up.
    """
    cursor = tree.walk()
    n = 0
    while True:
        node = cursor.node
        assert node is not None  # noqa: S101 - only a cursor of an empty tree has none
        yield node
        n += 1
        if n % _POLL_NODES == 0:
            budget.check()
        if cursor.goto_first_child():
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return
