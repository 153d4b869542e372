"""Pure: the tree of summaries for people, in a terminal or a pipe. What an index holds is not trusted (`terminal`).

A terminal gets a line for each document, cut where it ends, or with `full` all of its summary, wrapped. In a pipe each
document is on one line, whole: `grep` finds it with its path.
"""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from summidx.escaping import escape_text
from summidx.keys import shorten_hashes
from summidx.records import Document, Level, Manifest
from summidx.search.outline import Outline, iterate_outline
from summidx.terminal import MARKS, STYLES, describe_counts, describe_faults

_LEVEL_STYLES = {
    Level.REPO: "bold",
    Level.DIRECTORY: "bold blue",
    Level.FILE: "cyan",
    Level.CLASS: "magenta",
    Level.FUNCTION: "green",
}
_FUNCTION_OR_CLASS = (Level.FUNCTION, Level.CLASS)
_NAMES_SHOWN = 12


def print_ledger(console: Console, name: str, manifest: Manifest, documents: Iterable[Document]) -> None:
    """What an index is of, how many documents it holds, what is wrong with them, and what made it."""
    console.print(
        Text.assemble((escape_text(name), "bold"), (f"  {escape_text(manifest.commit) or '(folder)'}", "dim")),
        soft_wrap=True,
    )
    console.print(Text(describe_counts(manifest.counts)))
    for line in describe_faults(documents):
        console.print(Text(line), soft_wrap=True)
    skips = ", ".join(f"{n} {reason}" for reason, n in sorted(manifest.skips.items()))
    about = f"summaries {manifest.summarizer}, embedding {manifest.embedding_model}, built {manifest.built_at}"
    about = shorten_hashes(f"{about}{f'; skipped {skips}' if skips else ''}")
    console.print(Text(escape_text(about), style="dim"))


def print_part(console: Console, name: str, document: Document) -> None:
    """All that the index `name` says of one document: where it is, its summary, and what it has to do with."""
    head = Text.assemble((f"{escape_text(name)}  ", "dim"), (escape_text(document.id), "bold"))
    console.print(head, soft_wrap=True)
    place = escape_text(document.path if document.level is not Level.REPO else "")
    if document.start_line:
        place = f"{place}:{document.start_line}-{document.end_line}"
    told = (place, document.language, *_describe_end(document), "test code" if document.is_test else "")
    console.print(Text("  ".join(each for each in told if each), style="dim"), soft_wrap=True)
    if document.signature:
        console.print(Text(escape_text(document.signature), style="italic"), soft_wrap=True)
    summary = escape_text(document.summary) or "no summary"
    console.print(Text(f"{MARKS[document.status]}{summary}", style=STYLES[document.status]))
    for label, values in (
        ("Keywords", document.keywords),
        ("Imports", document.imports),
        ("Calls", document.calls),
        ("Called by", document.called_by),
    ):
        if values:
            shown = values if not console.is_terminal else values[:_NAMES_SHOWN]
            more = f", and {len(values) - len(shown)} more" if len(values) > len(shown) else ""
            line = Text.assemble((f"{label}: ", "dim"), ", ".join(map(escape_text, shown)) + more)
            console.print(line, soft_wrap=not console.is_terminal)


def print_tree(console: Console, roots: Sequence[Outline], *, full: bool) -> None:
    """Trees of summaries.

    Args:
        console: where to.
        roots: each is printed as a tree of its own.
        full: in a terminal, all of each summary.
    """
    if console.is_terminal and any(each.hidden for each in iterate_outline(roots)):
        console.print(Text("+N: so many more are in it; name it, or go deeper with --depth", style="dim"))
    for root in roots:
        console.print(_build_tree(root, None, "", compact=console.is_terminal and not full, wrap=console.is_terminal))


def _build_tree(outline: Outline, tree: Tree | None, folder: str, *, compact: bool, wrap: bool) -> Tree:
    text = _build_line(outline, folder) if compact else _build_whole(outline, wrap=wrap)
    branch = Tree(text, guide_style="dim") if tree is None else tree.add(text)
    inner = outline.document.path if outline.document.level is Level.DIRECTORY else folder
    for child in outline.children:
        _build_tree(child, branch, inner, compact=compact, wrap=wrap)
    return branch


def _build_line(outline: Outline, folder: str) -> Text:
    """One line of a terminal; names of files as they are in `folder`."""
    document = outline.document
    label = document.name if document.level in (*_FUNCTION_OR_CLASS, Level.REPO) else document.path
    label = label.removeprefix(folder) or label
    shown = {Level.FUNCTION: f"{label}()", Level.CLASS: f"class {label}"}.get(document.level, label)
    style = STYLES[document.status] or _LEVEL_STYLES[document.level]
    reason = f"  {document.status.value}: {escape_text(document.reason)}" if document.reason else ""
    return Text.assemble(
        (f"{MARKS[document.status]}{escape_text(shown)}", style),
        (f"  +{outline.hidden}" if outline.hidden else "", "dim"),
        (reason, STYLES[document.status]),
        f"  {escape_text(document.summary)}" if document.summary else "",
        no_wrap=True,
        overflow="ellipsis",
    )


def _build_whole(outline: Outline, *, wrap: bool) -> Text:
    document = outline.document
    label = document.name if document.level in (*_FUNCTION_OR_CLASS, Level.REPO) else document.path
    about = ", ".join((document.level.value, *_describe_end(document)))
    hidden = f"  +{outline.hidden}" if outline.hidden else ""
    text = Text.assemble(
        (f"{MARKS[document.status]}{escape_text(label)}", f"bold {STYLES[document.status]}".strip()),
        (f"  {about}{hidden}", "dim"),
        "\n" if wrap else "  ",
        escape_text(document.summary),
    )
    text.rstrip()
    return text


def _describe_end(document: Document) -> tuple[str, ...]:
    """Who wrote the summary, and how it ended where it is not ok."""
    reason = f"{document.status.value}: {escape_text(document.reason)}" if document.reason else ""
    return tuple(each for each in (document.origin.value if document.origin else "", reason) if each)
