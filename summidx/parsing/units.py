"""Units of one file: ids, the lines and the text that each owns, and which of them say nothing that a template cannot.

Pure, and the same for every language. Calls, callers and imports need the whole repository: `calls` adds them.

**Ids.** `path::Outer.name`. Of several definitions of one qualified name (overloads, a property's getter and setter, a
redefinition, the branches of an `if`), the first that is no stand-in (no overload, no setter) keeps the plain id, and
each other one gets `@line`, of its own first line; `parent_id` says which class it stands in.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from summidx.parsing.plain import PlainText
from summidx.parsing.syntax import Definition, LineRange, Syntax
from summidx.parsing.text import join_dedented
from summidx.records import Level, Unit

TRIVIAL_BELOW_LINES = 3
"""Design 3.1: a unit of fewer code lines is trivial."""
TRIVIAL_ACCESSOR_LINES = 5
"""Design 3.1: an accessor or special method of at most so many code lines, without a branch, is trivial."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What is known of a file before it is parsed. `is_code` False: it gets a file unit only, and no call is made."""

    path: str
    language: str
    is_code: bool = True
    is_opaque: bool = False
    """Vendored or generated: a template says all there is."""
    is_test: bool = False
    is_secondary: bool = False


def build_plain_unit(facts: FileFacts, plain: PlainText, n_lines: int) -> Unit:
    """The unit of a file that is not read as code: it owns all lines."""
    return Unit(
        id=facts.path,
        level=Level.FILE,
        path=facts.path,
        name=facts.path.rpartition("/")[2],
        qualified_name=facts.path,
        language=facts.language,
        start_line=1,
        end_line=max(1, n_lines),
        parent_id=None,
        own_spans=((1, n_lines),) if n_lines else (),
        own_source=plain.source,
        docstring=plain.docstring,
        code_lines=plain.code_lines,
        trivial=facts.is_opaque or plain.code_lines < TRIVIAL_BELOW_LINES,
        is_test=facts.is_test,
        is_secondary=facts.is_secondary,
    )


def build_units(facts: FileFacts, lines: Sequence[str], syntax: Syntax) -> list[Unit]:
    """The file's unit, then one for each definition, in the order of `syntax.definitions`."""
    return _Builder(facts, lines, syntax).build()


class _Builder:
    def __init__(self, facts: FileFacts, lines: Sequence[str], syntax: Syntax) -> None:
        self._facts = facts
        self._lines = lines
        self._syntax = syntax
        self._definitions = syntax.definitions
        self._owners = self._assign_lines()
        self._spans = self._collect_spans()
        self._children: dict[int, list[int]] = defaultdict(list)
        for index, definition in enumerate(self._definitions):
            self._children[definition.owner].append(index)
        self._qualified_names: list[str] = []
        for definition in self._definitions:
            outer = f"{self._qualified_names[definition.owner]}." if definition.owner >= 0 else ""
            self._qualified_names.append(outer + definition.name)
        self._ids = self._build_ids()

    def build(self) -> list[Unit]:
        return [self._build_file(), *(self._build_definition(i) for i in range(len(self._definitions)))]

    def _assign_lines(self) -> list[int]:
        """For each line the innermost definition that owns it; of two on one line, the later."""
        owners = [-1] * len(self._lines)
        for index, definition in enumerate(self._definitions):
            for first_line, end_line in self._ranges(definition):
                first, last = first_line - 1, min(end_line, len(owners))
                owners[first:last] = [index] * (last - first)
        return owners

    @staticmethod
    def _ranges(definition: Definition) -> list[LineRange]:
        """The lines of a definition, its members included."""
        if definition.is_elsewhere:
            return []
        return sorted([(definition.first_line, definition.end_line), *definition.blocks])

    def _collect_spans(self) -> dict[int, list[LineRange]]:
        spans: dict[int, list[LineRange]] = defaultdict(list)
        start = 0
        for i in range(1, len(self._owners) + 1):
            if i == len(self._owners) or self._owners[i] != self._owners[start]:
                spans[self._owners[start]].append((start + 1, i))
                start = i
        return spans

    def _build_ids(self) -> list[str]:
        groups: dict[str, list[int]] = defaultdict(list)
        for index, name in enumerate(self._qualified_names):
            groups[name].append(index)
        ids = [""] * len(self._definitions)
        for name, group in groups.items():
            principal = next((i for i in group if not self._definitions[i].is_stand_in), group[0])
            taken: set[str] = set()
            for i in group:
                plain = f"{self._facts.path}::{name}"
                unit_id = plain if i == principal else f"{plain}@{self._definitions[i].start_line}"
                n = 2
                while unit_id in taken:  # on one line: only where the source is no valid program
                    unit_id, n = f"{plain}@{self._definitions[i].start_line}.{n}", n + 1
                taken.add(unit_id)
                ids[i] = unit_id
        return ids

    def _own_source(self, index: int, ranges: Sequence[LineRange], indent: str) -> str:
        """Own lines, each child's signature in its place; a child that stands elsewhere has none."""
        text: list[str] = []
        line = 0
        children = deque(self._children[index])
        for first_line, end_line in ranges:
            line = max(line, first_line)
            while children and self._definitions[children[0]].first_line <= end_line:
                definition = self._definitions[children.popleft()]
                if definition.is_elsewhere or definition.end_line < line:
                    continue
                text += self._own_lines(index, line, definition.first_line - 1)
                text.append(f"{definition.indent}{definition.signature}{self._syntax.elision}")
                line = max(line, definition.end_line + 1)
            text += self._own_lines(index, line, end_line)
            line = max(line, end_line + 1)
        return join_dedented(text, indent)

    def _own_lines(self, index: int, first: int, last: int) -> list[str]:
        return [
            self._lines[n - 1] for n in range(first, min(last, len(self._lines)) + 1) if self._owners[n - 1] == index
        ]

    def _code_lines(self, index: int, header: LineRange | None, docstring: LineRange | None) -> int:
        passed = self._syntax.comment_lines | self._syntax.closing_lines
        counted = {
            n
            for first, last in self._spans[index]
            for n in range(first, last + 1)
            if n not in passed and self._lines[n - 1].strip()
        }
        if docstring:
            # A docstring on the line of its header leaves that line a line of code.
            counted -= {n for n in range(docstring[0], docstring[1] + 1) if not header or n > header[1]}
        if header:
            counted -= set(range(header[0] + 1, header[1] + 1))
        return len(counted) + len(self._children[index])

    def _build_file(self) -> Unit:
        facts, syntax = self._facts, self._syntax
        n_lines = len(self._lines)
        code_lines = self._code_lines(-1, None, syntax.docstring_lines)
        return Unit(
            id=facts.path,
            level=Level.FILE,
            path=facts.path,
            name=facts.path.rpartition("/")[2],
            qualified_name=facts.path,
            language=facts.language,
            start_line=1,
            end_line=max(1, n_lines),
            parent_id=None,
            own_spans=tuple(self._spans[-1]),
            own_source=self._own_source(-1, [(1, n_lines)], ""),
            docstring=syntax.docstring,
            code_lines=code_lines,
            trivial=not self._children[-1] and code_lines < TRIVIAL_BELOW_LINES,
            is_test=facts.is_test,
            is_secondary=facts.is_secondary,
        )

    def _build_definition(self, index: int) -> Unit:
        facts, definition = self._facts, self._definitions[index]
        code_lines = self._code_lines(index, definition.header_lines, definition.docstring_lines)
        return Unit(
            id=self._ids[index],
            level=definition.level,
            path=facts.path,
            name=definition.name,
            qualified_name=self._qualified_names[index],
            language=facts.language,
            start_line=definition.start_line,
            end_line=definition.end_line,
            parent_id=self._ids[definition.owner] if definition.owner >= 0 else facts.path,
            own_spans=tuple(self._spans[index]),
            own_source=self._own_source(index, self._ranges(definition), definition.indent),
            signature=definition.signature,
            docstring=definition.docstring,
            gloss=definition.gloss,
            code_lines=code_lines,
            trivial=self._is_trivial(index, definition, code_lines),
            is_test=facts.is_test or definition.is_test,
            is_secondary=facts.is_secondary,
        )

    def _is_trivial(self, index: int, definition: Definition, code_lines: int) -> bool:
        if self._children[index]:
            return False
        if code_lines < TRIVIAL_BELOW_LINES:
            return True
        return definition.is_accessor and not definition.has_branches and code_lines <= TRIVIAL_ACCESSOR_LINES
