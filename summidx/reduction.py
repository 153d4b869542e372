"""Pure: what does not fit a prompt is cut, by its content, into parts that do.

A run of items (children, lines) that does not fit is cut after the item of the smallest priority, and so are both sides
until each fits. With hashes of the content as priorities the cuts are those of a treap (Seidel and Aragon, 1996): they
depend on the items alone, and there is no size to choose. An item that comes, goes or changes moves the cuts of its
own run and rarely of a neighbour, so that only these are asked for again.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Literal

from summidx.records import ChildSummary, SummaryRequest

HASHED_CHARS = 200
"""Of each line so much is hashed: a huge line tells no more by its rest."""
CONTEXT_LINES = 3
"""A cut between lines is known by so many lines before it and the one after it."""
INDENT_STEP = 4
"""Columns. A blank line before a cut is worth as much as being one step further out."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part that is summarised by a request of its own. `name` and, for a group, `last` are what a reader sees."""

    request: SummaryRequest
    name: str
    last: str = ""


@dataclass(frozen=True, slots=True)
class Reduction:
    """One step towards a request that fits: the summaries of its parts take the place of what they tell of."""

    request: SummaryRequest
    place: Literal["children", "parts"]
    entries: tuple[ChildSummary | Part, ...]
    """What will stand in that place, in order; an entry that needs no part stays as it is."""

    @property
    def parts(self) -> tuple[SummaryRequest, ...]:
        """The requests of the parts, in order."""
        return tuple(entry.request for entry in self.entries if isinstance(entry, Part))

    def merge(self, texts: Iterable[str]) -> SummaryRequest:
        """The request with the parts' summaries in their place, in the order of `parts`."""
        given = iter(texts)
        level = self.request.unit.level
        merged = tuple(
            ChildSummary(level, entry.name, "", next(given), entry.last) if isinstance(entry, Part) else entry
            for entry in self.entries
        )
        return (
            replace(self.request, children=merged) if self.place == "children" else replace(self.request, parts=merged)
        )


def cut_children(children: Sequence[ChildSummary], weights: Sequence[int], room: int) -> list[range]:
    """Runs of children, sorted by name, that weigh at most `room` each; a child that weighs more is a run of its own.

    A cut is known by the child before it, so that what comes first or is added after it moves nothing else.
    """
    named = _ordinals((child.level.value, child.last or child.name) for child in children)
    return _cut([_hash(*name) for name in named], weights, room)


def cut_lines(lines: Sequence[str], weights: Sequence[int], room: int) -> list[range]:
    """Runs of lines that weigh at most `room` each; a line that weighs more is a run of its own.

    Cuts are made where the next line stands furthest out, rather after a blank line and not before a closing bracket;
    among equals the hash of the lines around decides.
    """
    around = _ordinals(
        tuple(line[:HASHED_CHARS] for line in lines[max(0, end - CONTEXT_LINES) : end + 1])
        for end in range(1, len(lines))
    )
    costs = (_cost(lines, end) for end in range(1, len(lines)))
    return _cut([(cost, _hash(*seen)) for cost, seen in zip(costs, around, strict=True)], weights, room)


def _cost(lines: Sequence[str], end: int) -> int:
    """How bad a cut before line `end` is: the columns that it is indented, less where a blank line stands before."""
    line = lines[end]
    code = line.lstrip()
    if not code:  # the blank line belongs to what is before it
        return 1_000
    indent = len(line.expandtabs(INDENT_STEP)) - len(code.expandtabs(INDENT_STEP))
    closes = 2 * INDENT_STEP if code[0] in ")]}" else 0
    return min(indent, 400) + closes + (0 if not lines[end - 1].strip() else INDENT_STEP)


def _ordinals(keys: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Each key with its rank among its equals: so no two are equal, and the cuts of a monotonous text are spread."""
    seen: Counter[tuple[str, ...]] = Counter()
    ranked = []
    for key in keys:
        ranked.append((*key, str(seen[key])))
        seen[key] += 1
    return ranked


def _hash(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()


def _cut(priorities: Sequence[Any], weights: Sequence[int], room: int) -> list[range]:
    """Cut items into runs that weigh at most `room`: after the item of the smallest priority, again and again.

    Linear in time, by the Cartesian tree of the priorities; without recursion, since names can be chosen to make it
    deep.

    Args:
        priorities: of the cut after each item; that of the last is not read.
        weights: of the items.
        room: the most that a run of more than one item may weigh.
    """
    n = len(weights)
    if n == 0:
        return []
    before = [0, *accumulate(weights)]
    left, right, root = _cartesian_tree(priorities[: n - 1])
    runs: list[range] = []
    stack = [(0, n, root)]
    while stack:
        start, stop, node = stack.pop()
        if node is None or before[stop] - before[start] <= room:
            runs.append(range(start, stop))
            continue
        stack.append((node + 1, stop, right[node]))
        stack.append((start, node + 1, left[node]))
    return runs


def _cartesian_tree(priorities: Sequence[Any]) -> tuple[list[int | None], list[int | None], int | None]:
    """The smaller and the larger neighbour below each node, and the root: that of the smallest priority."""
    left: list[int | None] = [None] * len(priorities)
    right: list[int | None] = [None] * len(priorities)
    spine: list[int] = []
    for node, priority in enumerate(priorities):
        below = None
        while spine and priorities[spine[-1]] > priority:
            below = spine.pop()
        left[node] = below
        if spine:
            right[spine[-1]] = node
        spine.append(node)
    return left, right, spine[0] if spine else None
