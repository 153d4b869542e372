"""Reads a file by the rules of its language: definitions, their headers and comments, and the names they use.

One walk over the tree. Functions nested in functions, and types in functions, belong to the outer function. What stands
in a namespace, or in a function without a name at the top of a file, belongs to the file.
"""

import re
from dataclasses import dataclass

import tree_sitter

from summidx.parsing.attachment import Attachment, attach
from summidx.parsing.budget import Budget
from summidx.parsing.chains import Chains
from summidx.parsing.comments import bare_comment, is_directive, is_legal
from summidx.parsing.rules import Around, Found, Node, Rules
from summidx.parsing.source import Source, error_share, walk
from summidx.parsing.syntax import CALL, UNKNOWN, Call, Definition, Syntax, Value
from summidx.parsing.text import bound, indent_of, split_lines
from summidx.records import Level

MAX_SIGNATURE_CHARS = 2000
MAX_NAME_CHARS = 200
_CLOSING = re.compile(r"[\s{}()\[\];,]*")
_HEADER_COMMENT = re.compile(r"/\*.*?\*/|(?<![:\w])//[^\n]*", re.DOTALL)
_HEADER_END = re.compile(r"\s*(?:\{|=>|=|;|:)?\s*$")


def read_syntax(
    text: str, grammar: tree_sitter.Language, rules: Rules, budget: Budget, *, parsed_text: str | None = None
) -> Syntax:
    """Read one file, whole: what cannot be parsed is passed over, and what follows it is not lost.

    Args:
        text: its source, with LF line ends and no byte order mark.
        grammar: of the language, or of its dialect.
        rules: of the language.
        budget: polled while it is parsed and walked.
        parsed_text: what the parser gets to see instead; of the same length in bytes, line by line.

    Raises:
        OverBudget: the budget is used up.
    """
    source = Source(text)
    parsed = source if parsed_text is None else Source(parsed_text)
    return _Reader(source, split_lines(text), rules).read(parsed.parse(grammar, budget), budget)


@dataclass(slots=True)
class _Scope:
    """What the walk is in. `index`: the unit that owns what stands in it, -1 the file."""

    index: int
    kind: str
    end_byte: int
    body_byte: int
    is_function: bool
    attaches_to: str = ""
    is_test: bool = False


@dataclass(slots=True)
class _Comment:
    start_row: int
    node: Node
    is_attribute: bool = False


class _Reader:
    def __init__(self, source: Source, lines: list[str], rules: Rules) -> None:
        self._source = source
        self._lines = lines
        self._rules = rules
        self._syntax = Syntax(elision=rules.elision)
        self._scopes: list[_Scope] = []
        self._opened: set[int] = set()
        """Ids of nodes that a definition around them has taken."""
        self._comments: dict[int, _Comment] = {}
        """Comments and attributes that start a line, by the row on which they end."""
        self._top: list[_Comment] = []
        """Comments before the first statement."""
        self._is_at_top = True
        self._attachment = Attachment()
        self._chains = Chains(source, rules)

    def read(self, tree: tree_sitter.Tree, budget: Budget) -> Syntax:
        rules, syntax = self._rules, self._syntax
        syntax.error_share = error_share(tree.root_node)
        syntax.has_errors = tree.root_node.has_error
        known = (
            rules.definitions.keys() | rules.branches | rules.comments | rules.attributes | rules.calls.keys()
            | rules.news.keys() | rules.bindings.keys() | rules.imports.keys()
        )  # fmt: skip
        top_end = 0
        root_id = tree.root_node.id
        for node in walk(tree, budget):
            kind = node.type
            if self._is_at_top and node.id != root_id and node.start_byte >= top_end:
                top_end = node.end_byte
                if not self._is_prologue(kind, node):
                    self._is_at_top = False
            if kind not in known or not node.is_named:
                continue
            if kind in rules.comments:
                self._note(node)
            elif kind in rules.attributes:
                self._note_attribute(node)
            else:
                self._visit(kind, node)
        self._claim_comments()
        self._describe_file()
        self._note_closing_lines()
        attach(syntax, self._attachment)
        return syntax

    def _is_prologue(self, kind: str, node: Node) -> bool:
        """Whether the comment that describes the file may still come after a node: `"use strict"`, `<?php`."""
        if kind in self._rules.comments or kind in self._rules.prologue or not node.is_named:
            return True
        return kind == "expression_statement" and self._source.between(node.start_byte, node.start_byte + 1) in "\"'"

    def _note_attribute(self, node: Node) -> None:
        end = node.end_point
        if self._source.starts_line(node) and not self._lines[end.row].encode("utf-8")[end.column :].strip():
            self._comments[end.row] = _Comment(node.start_point.row, node, is_attribute=True)

    def _note(self, comment: Node) -> None:
        if not self._source.starts_line(comment):
            return
        first, last = comment.start_point.row, comment.end_point.row
        if last > first and comment.end_point.column == 0:
            last -= 1
        if comment.end_point.row < len(self._lines) and last == comment.end_point.row:
            rest = self._lines[last].encode("utf-8")[comment.end_point.column :]
            if rest.strip():  # code after it on its line
                last -= 1
        self._syntax.comment_lines.update(range(first + 1, last + 2))
        if last >= first:
            found = _Comment(first, comment)
            self._comments[last] = found
            if self._is_at_top:
                self._top.append(found)

    def _scope_of(self, node: Node) -> _Scope | None:
        while self._scopes and node.start_byte >= self._scopes[-1].end_byte:
            self._scopes.pop()
        return self._scopes[-1] if self._scopes else None

    def _visit(self, kind: str, node: Node) -> None:
        rules = self._rules
        scope = self._scope_of(node)
        if kind in rules.definitions and node.id not in self._opened:
            owner = self._syntax.definitions[scope.index] if scope and scope.index >= 0 else None
            around = Around(
                self._source,
                kind=scope.kind if scope else "",
                name=(scope.attaches_to if scope else "") or (owner.name if owner else ""),
                in_function=bool(scope and scope.is_function),
                definitions=rules.definitions,
            )
            found = rules.definitions[kind](node, around)
            if found is not None:
                self._open(found, scope)
                scope = self._scope_of(node)
        index = scope.index if scope else -1
        names = self._syntax.definitions[index].names if index >= 0 else self._syntax.names
        if kind in rules.branches and scope and index >= 0 and node.start_byte >= scope.body_byte:
            self._syntax.definitions[index].has_branches = True
        if kind in rules.calls or kind in rules.news:
            chain = self._chains.called(node)
            if chain[-1] not in (UNKNOWN, CALL):
                names.calls.append(Call(chain))
        if kind in rules.bindings:
            for name, of_type in rules.bindings[kind](node, self._source):
                if name:
                    names.bind(name, Value((of_type, CALL), -1) if of_type else None)
        if kind in rules.imports:
            self._syntax.names.imports.extend(rules.imports[kind](node, self._source))

    def _open(self, found: Found, scope: _Scope | None) -> None:
        outer = found.outer or found.node
        self._opened.add(found.node.id)
        for taken in (found.body, *found.takes):
            if taken is not None:
                self._opened.add(taken.id)
        body_byte = found.body.start_byte if found.body is not None else outer.end_byte
        in_function = bool(scope and scope.is_function)
        is_test = found.is_test or bool(scope and scope.is_test)
        holder = scope.index if scope else -1
        if in_function or found.level is None or not found.name:
            closed = in_function or found.is_closed
            attaches_to = found.attaches_to or (scope.attaches_to if scope and not closed else "")
            if found.is_block and found.attaches_to and not in_function:
                first, last = self._rows(outer)
                self._attachment.blocks.append((found.attaches_to, first + 1, last + 1))
            self._scopes.append(
                _Scope(holder, found.node.type, outer.end_byte, body_byte, closed, attaches_to, is_test)
            )
            return
        index = len(self._syntax.definitions)
        definition = self._build(found, outer, holder)
        definition.is_test = is_test
        self._syntax.definitions.append(definition)
        attaches_to = found.attaches_to or (scope.attaches_to if scope else "")
        if attaches_to:
            self._attachment.members.append((index, attaches_to))
        is_function = found.level is Level.FUNCTION
        self._scopes.append(_Scope(index, found.node.type, outer.end_byte, body_byte, is_function, "", is_test))

    @staticmethod
    def _rows(node: Node) -> tuple[int, int]:
        first = node.start_point.row
        return first, max(first, node.end_point.row - (node.end_point.column == 0))

    def _build(self, found: Found, outer: Node, owner: int) -> Definition:
        first_row, last_row = self._rows(outer)
        header_row = found.node.start_point.row
        name_node = found.name_node or found.node
        header_end = found.header_end
        if header_end is None:
            header_end = found.body.start_byte if found.body is not None else outer.end_byte
        header = self._source.between(found.node.start_byte, header_end)
        definition = Definition(
            level=found.level or Level.FUNCTION,
            name=bound(" ".join(found.name.split()).replace("::", "."), MAX_NAME_CHARS),
            owner=owner,
            first_line=first_row + 1,
            start_line=first_row + 1,
            name_line=name_node.start_point.row + 1,
            header_lines=(header_row + 1, min(last_row, header_row + header.rstrip().count("\n")) + 1),
            end_line=last_row + 1,
            indent=indent_of(self._lines[first_row]) if first_row < len(self._lines) else "",
            signature=build_signature(found.signature or header),
            gloss=found.gloss,
            is_accessor=found.is_accessor,
            is_stand_in=found.is_stand_in,
            bases=tuple((base,) for base in found.bases if base),
        )
        receiver, of_type = found.receiver
        if receiver and of_type:
            definition.names.bind(receiver, Value((of_type, CALL), -1))
        return definition

    def _claim_comments(self) -> None:
        """Give each definition the comments and attributes directly above it; those that are docs describe it."""
        for definition in self._syntax.definitions:
            row = definition.start_line - 2
            indent = definition.indent
            docs: list[str] = []
            while row in self._comments:
                above = self._comments[row]
                if indent_of(self._lines[above.start_row]) != indent:
                    break
                if above.is_attribute:
                    definition.start_line = above.start_row + 1
                else:
                    docs.append(self._source.text(above.node))
                if above in self._top:
                    self._top.remove(above)
                row = above.start_row - 1
            definition.first_line = row + 2
            definition.docstring = self._clean(docs[::-1])

    def _clean(self, comments: list[str]) -> str:
        """The text of those comments in a row that describe what follows: the last kind of them only."""
        kept: list[str] = []
        for comment in reversed(comments):
            if is_directive(comment) or not self._rules.doc_comment.match(comment):
                if kept:
                    break
                continue
            if is_legal(comment) or (comment.startswith("/*") and kept):
                break
            kept.append(comment)
            if comment.startswith("/*"):
                break
        text = bare_comment("\n".join(comment.rstrip() for comment in reversed(kept)))
        return self._rules.clean_doc(text) if text else ""

    def _describe_file(self) -> None:
        """The first comment at the top of the file that is no licence, with those that follow it without a gap."""
        pattern = self._rules.file_comment or self._rules.doc_comment
        docs: list[str] = []
        last_row = -2
        for comment in self._top:
            text = self._source.text(comment.node)
            if docs and comment.start_row != last_row + 1:
                break
            last_row = comment.node.end_point.row - (comment.node.end_point.column == 0)
            if text.startswith("#!") or is_directive(text) or not pattern.match(text):
                continue
            if docs and text.startswith("/*"):
                break
            docs.append(text)
            if text.startswith("/*") or is_legal(text):
                if is_legal(text):
                    docs, last_row = [], -2
                    continue
                break
        text = bare_comment("\n".join(each.rstrip() for each in docs))
        self._syntax.docstring = self._rules.clean_doc(text) if text and not is_legal(text) else ""

    def _note_closing_lines(self) -> None:
        words = self._rules.closing_words
        for number, line in enumerate(self._lines, 1):
            if len(line) < 200 and (_CLOSING.fullmatch(line) or line.strip() in words):
                self._syntax.closing_lines.add(number)


def build_signature(header: str) -> str:
    """A header on one line, without comments, and without what opens its body."""
    text = _HEADER_COMMENT.sub(" ", header[: 4 * MAX_SIGNATURE_CHARS])
    text = " ".join(text.split())
    text = re.sub(r"([(\[]) ", r"\1", re.sub(r",? ([)\]])", r"\1", text))
    return bound(_HEADER_END.sub("", text), MAX_SIGNATURE_CHARS)
