"""The source of a file and tree-sitter's tree of it, and what is needed to walk a tree of any depth.

A tree may be 100,000 levels deep: nothing here recurses, no node is asked for its parent (which searches from the
root), none is turned into a string (`str(node)` overflows the C stack), and no query is run (tree-sitter's take time
that is quadratic in the depth: 98 s where a walk takes 0.1 s).
"""

from collections.abc import Iterator

import tree_sitter

from summidx.parsing.budget import Budget

_CHUNK_BYTES = 65_536
_POLL_NODES = 2_000


class Source:
    """The UTF-8 source of a file, and what its nodes say.

    Text is cut out of the source here: `Node.text` of a tree whose source was read by calls takes 75 us.
    """

    def __init__(self, text: str) -> None:
        self._data = text.encode("utf-8")

    def parse(self, grammar: tree_sitter.Language, budget: Budget) -> tree_sitter.Tree:
        """Parse it. There is always a tree; what is not of the language stands in it as ERROR nodes.

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
            return tree_sitter.Parser(grammar).parse(read, encoding="utf8", progress_callback=is_spent)
        except ValueError:
            budget.check()
            raise

    def text(self, node: tree_sitter.Node) -> str:
        """Source text of a node."""
        return self._data[node.start_byte : node.end_byte].decode("utf-8", "replace")

    def between(self, start_byte: int, end_byte: int) -> str:
        """Source text from one byte to another."""
        return self._data[start_byte:end_byte].decode("utf-8", "replace")

    def starts_line(self, node: tree_sitter.Node) -> bool:
        """Whether nothing but white space stands before a node on its line."""
        start = node.start_byte
        return not self._data[start - node.start_point.column : start].strip(b" \t\f")


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


def error_share(root: tree_sitter.Node) -> float:
    """Share of the source, from 0 to 1, in which no statement could be made out."""
    if not root.has_error:
        return 0.0
    errors = [root] if root.is_error else [child for child in root.children if child.is_error]
    return sum(node.end_byte - node.start_byte for node in errors) / max(1, root.end_byte - root.start_byte)
