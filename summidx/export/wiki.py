"""An index as a wiki: a page for each directory and file, in the folders of the repository, with links between them.

`README.md` is the repository's page, and in each folder that folder's; `INDEX.md` lists all pages. Links are relative:
they work on GitHub, in an editor, and wherever the folder is put. What an index holds is anybody's, so it is escaped
(`markdown`), and a page's path cannot leave the wiki (`page_names`).

What is in files is read some files at a time; of a whole index only directories and files are held in memory.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from summidx.export.markdown import (
    Link,
    render_document,
    render_facts,
    render_heading,
    render_links,
    render_path,
    render_table,
    render_text,
)
from summidx.export.page_names import ALL_PAGES, INDEX, PageNames, anchor_of, link_between
from summidx.keys import shorten_hashes
from summidx.records import Document, Level, Manifest
from summidx.search.outline import Outline, build_outline, iterate_outline
from summidx.store.generations import PublishedIndex

FILES_AT_ONCE = 200
_OUTER = (Level.REPO, Level.DIRECTORY, Level.FILE)
_INNER = (Level.CLASS, Level.FUNCTION)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A page: a directory, a file, or the repository (path "")."""

    path: str
    document: Document | None
    """None where its level is not in the index."""

    @property
    def label(self) -> str:
        return self.path or "."


class Wiki:
    """The pages of one index, rendered one after another."""

    def __init__(self, index: PublishedIndex) -> None:
        self._index = index
        self._names = PageNames()
        published = (index.manifest.settings or {}).get("levels", list(Level))
        self._has_anchors = isinstance(published, list) and set(_INNER) <= set(published)
        entries = {"": _Entry("", None)}
        for document in index.table.documents(_OUTER, searchable=False):
            path = "" if document.level is Level.REPO else document.id
            entries[path] = _Entry(path, document)
        for path in index.table.paths(_INNER):
            entries.setdefault(path, _Entry(path, None))
        self._entries = entries
        self._children: Mapping[str, list[_Entry]] = _hang(entries)
        for path in entries:
            self._names.page_of(path)

    def pages(self) -> Iterator[tuple[str, str]]:
        """Paths of pages relative to the wiki's root, and what they say.

        Raises:
            StoreError: the index is damaged.
        """
        yield INDEX, self._render_repository()
        yield ALL_PAGES, self._render_all()
        files = []
        for path, entry in self._entries.items():
            if path.endswith("/"):
                yield self._names.page_of(path), self._render_directory(entry)
            elif path:
                files.append(entry)
        for start in range(0, len(files), FILES_AT_ONCE):
            part = files[start : start + FILES_AT_ONCE]
            inner = self._read_inner([entry.path for entry in part])
            for entry in part:
                yield self._names.page_of(entry.path), self._render_file(entry, inner[entry.path])

    def _read_inner(self, paths: Sequence[str]) -> Mapping[str, list[Document]]:
        table = self._index.table
        found: dict[str, list[Document]] = defaultdict(list)
        for document in table.read(table.find_rows("path", paths, _INNER)):
            found[document.path].append(document)
        return found

    def _render_repository(self) -> str:
        manifest = self._index.manifest
        top = self._entries[""]
        parts = [render_heading(1, manifest.name)]
        if top.document is not None:
            parts.append(render_text(top.document))
        parts.append(self._render_children("", INDEX))
        parts.append(f"[All pages]({ALL_PAGES})")
        parts.append(render_facts(_describe(manifest)))
        return _join(parts)

    def _render_all(self) -> str:
        lines = [
            f"- {render_path(entry.label, link_between(ALL_PAGES, self._names.page_of(path)))}"
            for path, entry in sorted(self._entries.items())
            if path
        ]
        return _join([render_path(self._index.name, INDEX), render_heading(1, "All pages"), "\n".join(lines)])

    def _render_directory(self, entry: _Entry) -> str:
        page = self._names.page_of(entry.path)
        parts = [self._render_trail(entry.path, page), render_heading(1, entry.path)]
        if entry.document is not None:
            parts.append(render_text(entry.document))
        parts.append(self._render_children(entry.path, page))
        return _join(parts)

    def _render_children(self, path: str, page: str) -> str:
        rows = []
        for each in self._children.get(path, ()):
            target = link_between(page, self._names.page_of(each.path))
            rows.append((each.path.removeprefix(path), target, each.document))
        return render_table("In it", rows)

    def _render_file(self, entry: _Entry, inner: Sequence[Document]) -> str:
        page = self._names.page_of(entry.path)
        parts = [self._render_trail(entry.path, page), render_heading(1, entry.path)]
        if entry.document is not None:
            parts.append(render_document(entry.document))
        roots = build_outline(inner)
        if roots:
            inside = [each.document for each in roots]
            anchors = [link_between(page, page, anchor_of(entry.path, each.id)) for each in inside]
            names = [each.qualified_name for each in inside]
            parts.append(render_table("In it", list(zip(names, anchors, inside, strict=True))))
        for outline, depth in _walk(roots):
            document = outline.document
            parts.append(f'<a id="{anchor_of(entry.path, document.id)}"></a>')
            parts.append(render_heading(min(2 + depth, 6), f"{document.level.value} {document.qualified_name}"))
            parts.append(render_document(document))
            parts.append(render_links("Calls", self._link_all(page, document.calls)))
            parts.append(render_links("Called by", self._link_all(page, document.called_by)))
        return _join(parts)

    def _link_all(self, page: str, ids: Sequence[str]) -> list[Link]:
        links = []
        for document_id in ids:
            path = self._find_path(document_id)
            anchor = anchor_of(path, document_id) if path != document_id and self._has_anchors else ""
            target = link_between(page, self._names.page_of(path), anchor) if path else ""
            links.append(Link(document_id, target))
        return links

    def _find_path(self, document_id: str) -> str:
        """The page that an id is on; "" where there is none. A file's name may hold `::`, too."""
        end = len(document_id)
        while end > 0 and document_id[:end] not in self._entries:
            end = document_id.rfind("::", 0, end)
        return document_id[: max(0, end)]

    def _render_trail(self, path: str, page: str) -> str:
        """The way to a page from the wiki's root, as links."""
        steps = [render_path(self._index.name, link_between(page, INDEX))]
        at = 0
        for end in (place for place, letter in enumerate(path[:-1], start=1) if letter == "/"):
            if path[:end] in self._entries:
                steps.append(render_path(path[at:end], link_between(page, self._names.page_of(path[:end]))))
                at = end
        return " / ".join([*steps, render_path(path[at:], "")])


def iterate_pages(index: PublishedIndex) -> Iterator[tuple[str, str]]:
    """The pages of an index as a wiki: paths, relative and safe, each once; and Markdown.

    Raises:
        StoreError: the index is damaged.
    """
    yield from Wiki(index).pages()


def _hang(entries: Mapping[str, _Entry]) -> dict[str, list[_Entry]]:
    """What stands on the page of each directory, directories first."""
    children: dict[str, list[_Entry]] = defaultdict(list)
    for path, entry in sorted(entries.items(), key=lambda item: (not item[0].endswith("/"), item[0])):
        if not path:
            continue
        folder = path.rstrip("/")
        while (folder := folder.rpartition("/")[0]) and f"{folder}/" not in entries:
            pass
        children[f"{folder}/" if folder else ""].append(entry)
    return children


def _walk(roots: Sequence[Outline], depth: int = 0) -> Iterator[tuple[Outline, int]]:
    depths = {id(root): depth for root in roots}
    for outline in iterate_outline(roots):
        at = depths[id(outline)]
        depths.update((id(child), at + 1) for child in outline.children)
        yield outline, at


def _describe(manifest: Manifest) -> dict[str, str]:
    counts = manifest.counts
    documents = ", ".join(
        f"{sum(sum(origins.values()) for origins in counts[level].values())} {level.value}"
        for level in Level
        if level in counts
    )
    return {
        "Commit": manifest.commit or "(folder)",
        "Documents": documents,
        "Summaries by": shorten_hashes(manifest.summarizer),
        "Made by": f"summidx {manifest.tool_version}",
        "Built": manifest.built_at,
    }


def _join(parts: Sequence[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
