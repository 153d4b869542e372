"""Headers and docstrings of Python definitions, as text."""

import ast
import inspect
import re
import warnings
from collections.abc import Iterator

import tree_sitter

from summidx.parsing.languages.python.tree import PythonSource
from summidx.parsing.syntax import LineRange
from summidx.parsing.text import bound

MAX_DEFAULT_CHARS = 60
MAX_SIGNATURE_CHARS = 2000

_OPENING = frozenset("([{")
_CLOSING = frozenset(")]},")


def header_end(definition: tree_sitter.Node) -> int:
    """Byte at which the header of a function or class ends: at its colon, else at its body, else at its own end."""
    end = definition.end_byte
    for child in definition.children:
        if child.type == ":":
            end = child.start_byte
        elif child.type == "block":
            return min(end, child.start_byte)
    return end


def build_signature(source: PythonSource, definition: tree_sitter.Node) -> str:
    """The header on one line: `async def f(x: int = 1) -> str`, `class A(B)`.

    Without decorators, comments, trailing comma and trailing colon. A default longer than MAX_DEFAULT_CHARS becomes
    `...`; the whole is cut at MAX_SIGNATURE_CHARS.
    """
    pieces: list[str] = []
    last, last_end = "", definition.start_byte
    is_trailing_comma = False
    size = 0
    for text, start, end, may_trail in _tokens(source, definition, header_end(definition)):
        if is_trailing_comma and text == ")":
            pieces.pop()
        if start > last_end and last not in _OPENING and text not in _CLOSING and pieces:
            pieces.append(" ")
        pieces.append(text)
        last, last_end, is_trailing_comma = text, end, may_trail
        size += len(text)
        if size > MAX_SIGNATURE_CHARS:
            break
    return bound("".join(pieces), MAX_SIGNATURE_CHARS)


def _tokens(source: PythonSource, definition: tree_sitter.Node, end: int) -> Iterator[tuple[str, int, int, bool]]:
    """Yield (text, start byte, end byte, whether it may be a trailing comma) of a header's tokens."""
    cursor = definition.walk()
    while True:
        node = cursor.node
        if node is None or node.start_byte >= end:
            return
        is_default = cursor.field_name == "value" and node.end_byte - node.start_byte > MAX_DEFAULT_CHARS
        if is_default:
            yield "...", node.start_byte, node.end_byte, False
        elif node.type == "string" or (node.child_count == 0 and node.type not in ("comment", "line_continuation")):
            text = source.text(node)
            text = " ".join(text.split()) if "\n" in text else text
            yield text, node.start_byte, node.end_byte, text == "," and cursor.depth == 2
        if not (is_default or node.type == "string") and cursor.goto_first_child():
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return


def read_docstring(source: PythonSource, body: tree_sitter.Node | None) -> tuple[str, LineRange | None]:
    """The docstring of a block or module, cleaned as `inspect.cleandoc` does, and its lines; ("", None) without one.

    As Python has it: the first statement, when it is a string, or several next to each other, that is neither bytes nor
    an f-string.
    """
    statement = next((child for child in body.named_children if child.type != "comment"), None) if body else None
    if statement is None or statement.type != "expression_statement" or statement.child_count != 1:
        return "", None
    node = statement.named_child(0) if statement.named_child_count else None
    while node is not None and node.type == "parenthesized_expression":
        inner = [child for child in node.named_children if child.type != "comment"]
        node = inner[0] if len(inner) == 1 else None
    if node is None or node.type not in ("string", "concatenated_string"):
        return "", None
    pieces = [node] if node.type == "string" else [child for child in node.named_children if child.type == "string"]
    texts = [_string_value(source.text(piece)) for piece in pieces]
    if any(text is None for text in texts):
        return "", None
    lines = (statement.start_point.row + 1, statement.end_point.row + 1)
    return inspect.cleandoc("".join(text or "" for text in texts)), lines


def _string_value(literal: str) -> str | None:
    """The value of a string literal; None for bytes, f-strings and template strings."""
    match = re.match(r"[A-Za-z]*", literal)
    prefix = match.group().lower() if match else ""
    if set(prefix) & set("bft"):
        return None
    if "\\" not in literal or "r" in prefix:
        quote = 3 if literal[len(prefix) :].startswith(('"""', "'''")) else 1
        return literal[len(prefix) + quote : -quote]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes are the author's business
        try:
            value = ast.literal_eval(literal)
        except (SyntaxError, ValueError):
            value = literal[len(prefix) :].strip("\"'")
    return value if isinstance(value, str) else None
