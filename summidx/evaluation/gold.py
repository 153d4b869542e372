"""Pure: which files, functions and classes of the base commit a patch changes.

Only what is there before the patch can be found in an index, so an added file or an added function is no gold item. An
added line belongs to the innermost definition around it; right behind a definition's last line its indentation decides.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from unidiff.errors import UnidiffParseError
from unidiff.patch import PatchedFile, PatchSet

from summidx.errors import UsageError

_DEFINITION = re.compile(r"\s*(?:@|(?:async\s+)?def\s|class\s)")


@dataclass(frozen=True, slots=True)
class Span:
    """Where a function or class stands in its file: lines 1-based, inclusive."""

    qualified_name: str
    start_line: int
    end_line: int
    is_class: bool


@dataclass(frozen=True, slots=True)
class Gold:
    """What a patch changes. `entities` are `path:Class.method`, `path:function` or `path:Class`, sorted."""

    files: tuple[str, ...]
    entities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Insertion:
    """Lines that a patch puts behind line `after` of the old file (0: before its first)."""

    after: int
    indent: int
    """Columns before the first line that is not blank."""
    is_definition: bool
    """It begins with a definition or its decorator."""


@dataclass(frozen=True, slots=True)
class FileChange:
    """What a patch does to a file that was there before: its removed lines, and what it inserts elsewhere."""

    path: str
    removed: tuple[int, ...]
    insertions: tuple[Insertion, ...]


def parse_patch(patch: str) -> tuple[FileChange, ...]:
    """The changes of a unified diff, by path; added files are left out.

    Raises:
        UsageError: it is no unified diff.
    """
    try:
        # splitlines() of unidiff would cut lines at form feeds and the like, which stand in source files
        files = PatchSet(patch.split("\n"))
    except UnidiffParseError as error:
        raise UsageError(f"the patch is no unified diff ({error}), so nothing can be judged by it") from error
    changes = [_read_file(file) for file in files if not file.is_added_file]
    return tuple(sorted(changes, key=lambda change: change.path))


def find_gold(changes: Iterable[FileChange], spans_of: Callable[[str], Sequence[Span]]) -> Gold:
    """What a patch changes, in terms of the base commit's definitions.

    Args:
        changes: of `parse_patch`.
        spans_of: all functions and classes of a file of the base commit, by its path.
    """
    files, entities = set(), set()
    for change in changes:
        files.add(change.path)
        spans = spans_of(change.path)
        for name in _find_names(change, spans):
            entities.add(f"{change.path}:{name}")
    return Gold(tuple(sorted(files)), tuple(sorted(entities)))


def _find_names(change: FileChange, spans: Sequence[Span]) -> Iterator[str]:
    for line in change.removed:
        if span := _innermost(spans, line, line):
            yield span.qualified_name
    for insertion in change.insertions:
        span = _innermost(spans, insertion.after, insertion.after + 1)
        behind = _innermost(spans, insertion.after, insertion.after)
        while behind and behind.end_line == insertion.after and insertion.indent <= 4 * len(_around(spans, behind)):
            behind = next(iter(_around(spans, behind)), None)
        if behind and behind.end_line == insertion.after:
            span = behind
        if span and not (insertion.is_definition and span.is_class):
            yield span.qualified_name


def _around(spans: Sequence[Span], inner: Span) -> list[Span]:
    """The definitions that hold another one, innermost first."""
    found = [
        each
        for each in spans
        if each != inner and each.start_line <= inner.start_line and inner.end_line <= each.end_line
    ]
    return sorted(found, key=lambda each: each.end_line - each.start_line)


def _innermost(spans: Sequence[Span], first: int, last: int) -> Span | None:
    found = [each for each in spans if each.start_line <= first and last <= each.end_line]
    return min(found, key=lambda each: each.end_line - each.start_line, default=None)


def _read_file(file: PatchedFile) -> FileChange:
    removed: list[int] = []
    insertions: list[Insertion] = []
    for hunk in file:
        after = hunk.source_start - 1 if hunk.source_length else hunk.source_start
        run: list[str] = []
        replaces = False
        for line in hunk:
            if line.is_added:
                run.append(line.value)
                continue
            insertions += _close_run(run, after, replaces)
            run = []
            replaces = line.is_removed
            if line.source_line_no is None:  # "No newline at end of file"
                continue
            after = line.source_line_no
            if line.is_removed:
                removed.append(after)
        insertions += _close_run(run, after, replaces)
    return FileChange(file.path, tuple(removed), tuple(insertions))


def _close_run(run: Sequence[str], after: int, replaces: bool) -> list[Insertion]:  # noqa: FBT001 - private
    """The insertion that a run of added lines is; none where it stands for removed lines, which tell of it already."""
    told = [line for line in run if line.strip()]
    if not told or replaces:
        return []
    first = told[0].expandtabs(4)
    return [Insertion(after, len(first) - len(first.lstrip()), bool(_DEFINITION.match(first)))]
