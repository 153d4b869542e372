"""Functions and classes of a Python file, in one walk over its tree.

Functions nested in functions, and classes in functions, belong to the outer function. What stands in an `if`, `try`,
`with`, loop or `match` of a module or class belongs to that module or class.
"""

from dataclasses import dataclass

import tree_sitter

from summidx.parsing.budget import Budget
from summidx.parsing.languages.python import names
from summidx.parsing.languages.python.headers import build_signature, header_end, read_docstring
from summidx.parsing.languages.python.operations import build_gloss, is_property, is_special, is_write_accessor
from summidx.parsing.languages.python.tree import GRAMMAR, PythonSource
from summidx.parsing.source import error_share, walk
from summidx.parsing.syntax import Call, Definition, Names, Syntax, Value
from summidx.parsing.text import indent_of, split_lines
from summidx.records import Level

_BRANCHES = frozenset(
    {
        "if_statement", "conditional_expression", "match_statement", "for_statement", "while_statement",
        "with_statement", "try_statement", "list_comprehension", "set_comprehension", "dictionary_comprehension",
        "generator_expression",
    }
)  # fmt: skip
_DEFINITIONS = frozenset({"decorated_definition", "function_definition", "class_definition"})
_MAKES_CLASS_METHOD = frozenset({"__new__", "__init_subclass__", "__class_getitem__"})


def analyse(text: str, budget: Budget, path: str = "") -> Syntax:  # noqa: ARG001 - Python has no dialects
    """Read one Python file, whole: what cannot be parsed is passed over, and what follows it is not lost.

    Args:
        text: its source, with LF line ends and no byte order mark.
        budget: polled while it is parsed and walked.
        path: of the file.

    Raises:
        OverBudget: the budget is used up.
    """
    source = PythonSource(text)
    return _Reader(source, split_lines(text)).read(source.parse(GRAMMAR, budget), budget)


@dataclass(slots=True)
class _Scope:
    """A definition that the walk is in. `index` is that of the unit; a nested function has that of the outer one."""

    index: int
    is_function: bool
    end_byte: int
    body_byte: int


class _Reader:
    def __init__(self, source: PythonSource, lines: list[str]) -> None:
        self._source = source
        self._lines = lines
        self._syntax = Syntax()
        self._scopes: list[_Scope] = []
        self._opened: set[int] = set()
        """Ids of the definitions whose decorators came first."""

    def read(self, tree: tree_sitter.Tree, budget: Budget) -> Syntax:
        syntax = self._syntax
        root = tree.root_node
        syntax.error_share = error_share(root)
        syntax.docstring, syntax.docstring_lines = read_docstring(self._source, root)
        for node in walk(tree, budget):
            kind = node.type
            if kind in _DEFINITIONS:
                self._enter(kind, node)
            elif kind in names.COLLECTORS:
                self._collect_names(kind, node)
            elif kind == "comment" and self._source.starts_line(node):
                syntax.comment_lines.add(node.start_point.row + 1)
            if kind in _BRANCHES:
                scope = self._scope_of(node)
                if scope and node.start_byte >= scope.body_byte:
                    syntax.definitions[scope.index].has_branches = True
        self._claim_comments()
        return syntax

    def _enter(self, kind: str, node: tree_sitter.Node) -> None:
        if kind == "decorated_definition":
            definition = node.child_by_field_name("definition")
            if definition is not None:
                self._opened.add(definition.id)
                self._open(node, definition)
        elif node.id not in self._opened:
            self._open(node, node)

    def _scope_of(self, node: tree_sitter.Node) -> _Scope | None:
        while self._scopes and node.start_byte >= self._scopes[-1].end_byte:
            self._scopes.pop()
        return self._scopes[-1] if self._scopes else None

    def _collect_names(self, kind: str, node: tree_sitter.Node) -> None:
        scope = self._scope_of(node)
        index = scope.index if scope else -1
        definition = self._syntax.definitions[index] if scope else None
        place = names.Place(
            source=self._source,
            names=definition.names if definition else self._syntax.names,
            index=index,
            in_header=scope is not None and node.start_byte < scope.body_byte,
            receiver=definition.receiver if definition else "",
            owner_names=self._names_of(definition.owner) if definition and definition.receiver else None,
        )
        names.COLLECTORS[kind](node, place)

    def _names_of(self, index: int) -> Names:
        return self._syntax.definitions[index].names if index >= 0 else self._syntax.names

    def _open(self, outer: tree_sitter.Node, node: tree_sitter.Node) -> None:
        """Enter a definition: `node`, or `outer` where it has decorators."""
        scope = self._scope_of(outer)
        name_node = node.child_by_field_name("name")
        if name_node is None or not self._source.name(name_node):
            return
        body = node.child_by_field_name("body")
        body_byte = body.start_byte if body else node.end_byte
        if scope and scope.is_function:
            # Nested in a function: its name hides that of the module.
            self._syntax.definitions[scope.index].names.bind(self._source.name(name_node))
            self._scopes.append(_Scope(scope.index, True, outer.end_byte, scope.body_byte))
            return
        is_function = node.type == "function_definition"
        index = len(self._syntax.definitions)
        self._syntax.definitions.append(
            self._build(outer, node, self._source.name(name_node), scope.index if scope else -1)
        )
        self._scopes.append(_Scope(index, is_function, outer.end_byte, body_byte))

    def _build(self, outer: tree_sitter.Node, node: tree_sitter.Node, name: str, owner: int) -> Definition:
        is_function = node.type == "function_definition"
        index = len(self._syntax.definitions)
        decorators = [child for child in outer.named_children if child.type == "decorator"] if outer != node else []
        dotted = [_decorator_name(self._source, decorator) for decorator in decorators]
        outer_class = self._syntax.definitions[owner].name if owner >= 0 else ""
        docstring, docstring_lines = read_docstring(self._source, node.child_by_field_name("body"))
        first_row = outer.start_point.row
        header_row = node.start_point.row
        definition = Definition(
            level=Level.FUNCTION if is_function else Level.CLASS,
            name=name,
            owner=owner,
            first_line=first_row + 1,
            start_line=first_row + 1,
            name_line=node.start_point.row + 1,
            header_lines=(header_row + 1, self._row_at(node, header_end(node)) + 1),
            end_line=max(first_row, outer.end_point.row - (outer.end_point.column == 0)) + 1,
            indent=indent_of(self._lines[header_row]),
            signature=build_signature(self._source, node),
            docstring=docstring,
            docstring_lines=docstring_lines,
        )
        for decorator in decorators:
            expression = decorator.named_child(0) if decorator.named_child_count else None
            if expression is not None and expression.type != "call":
                definition.names.calls.append(Call(self._source.chain(expression), in_header=True))
        if is_function:
            definition.gloss = build_gloss(name, outer_class, dotted)
            definition.is_property = owner >= 0 and is_property(dotted)
            is_writer = owner >= 0 and is_write_accessor(dotted)
            definition.is_accessor = definition.is_property or is_writer or is_special(name)
            definition.is_stand_in = is_writer or any(_last(d) == "overload" for d in dotted)
            returned = self._source.annotation(node.child_by_field_name("return_type"))
            definition.returns = Value((*returned, "()"), index) if returned else None
            if owner >= 0 and "staticmethod" not in dotted:
                definition.receiver = _first_parameter(self._source, node)
                definition.receives_class = "classmethod" in dotted or name in _MAKES_CLASS_METHOD
        else:
            definition.bases = names.bases_of(self._source, node)
        return definition

    @staticmethod
    def _row_at(node: tree_sitter.Node, end_byte: int) -> int:
        row = node.start_point.row
        for child in node.children:
            if child.start_byte >= end_byte:
                return max(row, child.start_point.row) if child.type == ":" else row
            row = child.end_point.row
        return row

    def _claim_comments(self) -> None:
        """Give each definition the comments directly above it, at its indentation."""
        for definition in self._syntax.definitions:
            line = definition.start_line - 1
            indent = indent_of(self._lines[line])
            while line in self._syntax.comment_lines and indent_of(self._lines[line - 1]) == indent:
                line -= 1
            definition.first_line = line + 1


def _last(dotted: str) -> str:
    return dotted.rpartition(".")[2]


def _decorator_name(source: PythonSource, decorator: tree_sitter.Node) -> str:
    """Dotted name of a decorator, without its arguments; "" where it is another expression."""
    node = decorator.named_child(0) if decorator.named_child_count else None
    if node is not None and node.type == "call":
        node = node.child_by_field_name("function")
    return ".".join(source.chain(node)) if node is not None and node.type in ("identifier", "attribute") else ""


def _first_parameter(source: PythonSource, function: tree_sitter.Node) -> str:
    parameters = function.child_by_field_name("parameters")
    first = parameters.named_child(0) if parameters is not None and parameters.named_child_count else None
    if first is not None and first.type == "typed_parameter":
        first = first.named_child(0)
    return source.text(first) if first is not None and first.type == "identifier" else ""
