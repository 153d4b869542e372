"""Pure: the documents of one index as a tree, for reading."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from summidx.errors import UsageError
from summidx.records import Document, Level


@dataclass(frozen=True, slots=True)
class Outline:
    """A document and what is in it, in the order of the index."""

    document: Document
    children: tuple["Outline", ...]
    hidden: int = 0
    """How many documents in it are left out (`cut_outline`)."""


def build_outline(documents: Sequence[Document]) -> tuple[Outline, ...]:
    """Hang each document under the innermost one that holds it; levels that are not in the index are passed over.

    Returns:
        The roots: the repository, or, where that level is not in the index, what has nothing above it.
    """
    by_id = {document.id: document for document in documents}
    types: dict[tuple[str, str], list[Document]] = defaultdict(list)
    for document in documents:
        if document.level is Level.CLASS:
            types[document.path, document.qualified_name].append(document)
    top = next((document.id for document in documents if document.level is Level.REPO), None)
    children: dict[str | None, list[Document]] = defaultdict(list)
    for document in documents:
        children[_find_parent(document, by_id, types, top)].append(document)

    def build(document: Document) -> Outline:
        return Outline(document, tuple(map(build, children[document.id])))

    return tuple(map(build, children[None]))


def find_outline(roots: Sequence[Outline], path: str) -> Outline:
    """The part of a tree at `path`: an id, or the path of a file or directory, with or without `/` at its end.

    Raises:
        UsageError: there is none; the message names what is near.
    """
    wanted = path.removeprefix("./").rstrip("/") or "."
    everything = list(iterate_outline(roots))
    for outline in everything:
        if outline.document.id.rstrip("/") == wanted:
            return outline
    last = wanted.rpartition("::")[2].rpartition("/")[2].lower()
    near = [each.document.id for each in everything if last in each.document.id.lower()][:5]
    raise UsageError(f"there is no {path!r} in this index" + (f"; perhaps {', '.join(near)}" if near else ""))


def cut_outline(outline: Outline, *, depth: int | None = None, levels: Collection[Level] | None = None) -> Outline:
    """A tree without what lies deeper than `depth` below its root, and without levels other than `levels`.

    What is in something that is left out hangs under the nearest that stays; the root always stays.
    """
    if depth == 0:
        return Outline(outline.document, (), count_outline(outline.children, levels))
    below = None if depth is None else depth - 1
    shown = _find_shown(outline.children, levels)
    return Outline(outline.document, tuple(cut_outline(each, depth=below, levels=levels) for each in shown))


def cut_roots(
    roots: Sequence[Outline], *, depth: int | None = None, levels: Collection[Level] | None = None
) -> tuple[Outline, ...]:
    """As `cut_outline`; where there are several roots, since the repository has no summary, each is a step below it."""
    if len(roots) == 1:
        return (cut_outline(roots[0], depth=depth, levels=levels),)
    if depth == 0:
        return ()
    below = None if depth is None else depth - 1
    return tuple(cut_outline(each, depth=below, levels=levels) for each in _find_shown(roots, levels))


def fit_depth(outline: Outline, most: int, levels: Collection[Level] | None = None) -> int | None:
    """The depth to which a tree can be shown with at most so many documents, 1 at least; None: all of it."""
    row: Sequence[Outline] = [outline]
    seen = depth = 0
    while row:
        seen += len(row)
        if seen > most and depth > 1:
            return depth - 1
        row = [each for above in row for each in _find_shown(above.children, levels)]
        depth += 1
    return None


def count_outline(roots: Sequence[Outline], levels: Collection[Level] | None = None) -> int:
    """How many documents there are in a tree, of all levels or of some."""
    return sum(levels is None or each.document.level in levels for each in iterate_outline(roots))


def _find_shown(children: Sequence[Outline], levels: Collection[Level] | None) -> list[Outline]:
    shown = []
    stack = list(reversed(children))
    while stack:
        child = stack.pop()
        if levels is None or child.document.level in levels:
            shown.append(child)
        else:
            stack.extend(reversed(child.children))
    return shown


def iterate_outline(roots: Sequence[Outline]) -> Iterator[Outline]:
    """All outlines of a tree in printing order: each, then what is in it."""
    stack = list(reversed(roots))
    while stack:
        outline = stack.pop()
        yield outline
        stack.extend(reversed(outline.children))


def _find_parent(
    document: Document,
    by_id: Mapping[str, Document],
    types: Mapping[tuple[str, str], Sequence[Document]],
    top: str | None,
) -> str | None:
    if document.level is Level.REPO:
        return None
    if document.level in (Level.FUNCTION, Level.CLASS):
        holder = document.qualified_name.rpartition(".")[0]
        while holder:
            if found := types.get((document.path, holder)):
                return next((each for each in found if _encloses(each, document)), found[0]).id
            holder = holder.rpartition(".")[0]
        if document.path in by_id:
            return document.path
    folder = document.id.rstrip("/") if document.level is Level.DIRECTORY else document.path
    while folder := folder.rpartition("/")[0]:
        if f"{folder}/" in by_id:
            return f"{folder}/"
    return top


def _encloses(outer: Document, inner: Document) -> bool:
    return outer.start_line <= inner.start_line and inner.end_line <= outer.end_line
