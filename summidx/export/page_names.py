"""Pure: where the page of a path lies in a wiki, and how another page links to it.

A path is a repository's, and so anybody's: `../../x`, `.git/config`, line ends, 4,000 characters. A page's path is made
of names that every file system and git take, and never leaves the wiki:

    src/http/adapters.py    src/http/adapters.py.md        a file
    src/http/               src/http/README.md             a directory, so that GitHub shows it with the folder
    ../x                    %2E./x.md                      what has a meaning of its own is escaped as in URLs
    .github/                %2Egithub/README.md            no hidden folder, none that git or a forge acts on
"""

import hashlib
import posixpath
import re
import unicodedata
from urllib.parse import quote

INDEX = "README.md"
ALL_PAGES = "INDEX.md"
MAX_NAME_BYTES = 120
"""File systems end at 255 bytes a name; a path of many of these is still one that Windows takes."""
MAX_PAGE_BYTES = 1000
"""Systems end at 4,096 bytes a path, of which the output's own folder takes some."""

_KEPT = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-@+")
_TAKEN = frozenset({"readme", "index"})
"""Names of files that, with `.md`, are those of our own pages."""
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_ANCHOR = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")


class PageNames:
    """The pages of one wiki. Every path has one of its own, also where letters have no case."""

    def __init__(self) -> None:
        self._pages: dict[str, str] = {"": INDEX}
        self._taken: dict[str, str] = {}
        """The path that has a name, by that name in lower case."""

    def page_of(self, path: str) -> str:
        """The page of a file (`a/b.py`), a directory (`a/`) or the repository (""), relative to the wiki's root."""
        if (page := self._pages.get(path)) is None:
            page = self._pages[path] = self._make(path)
        return page

    def _make(self, path: str) -> str:
        *folders, last = path.split("/")
        made = ""
        prefix = ""
        for folder in folders:
            prefix += f"{folder}/"
            made = self._claim(f"{made}{_escape(folder)}", prefix) + "/"
        page = self._claim(f"{made}{_escape(last, is_file=True)}.md", path) if last else f"{made}{INDEX}"
        if len(page.encode()) > MAX_PAGE_BYTES:
            return f"%long/{_digest(path)}.md"
        return page

    def _claim(self, name: str, path: str) -> str:
        """The name, or where another path has it (`Makefile` and `makefile`), one that nobody else has."""
        owner = self._taken.setdefault(name.casefold(), path)
        if owner == path:
            return name
        stem, suffix = (name[:-3], ".md") if name.endswith(".md") and not path.endswith("/") else (name, "")
        other = f"{stem}~{_digest(path)}{suffix}"
        self._taken[other.casefold()] = path
        return other


def link_between(page: str, other: str, anchor: str = "") -> str:
    """The target of a link from one page to another, or to an anchor on it: relative, as URLs are written."""
    target = "" if page == other and anchor else posixpath.relpath(other, posixpath.dirname(page) or ".")
    return quote(target, safe="/-._~@+") + (f"#{quote(anchor, safe='-._~')}" if anchor else "")


def anchor_of(path: str, document_id: str) -> str:
    """The anchor of a function or class on the page of its file: its qualified name, where that can be one."""
    name = document_id.removeprefix(f"{path}::")
    if _ANCHOR.fullmatch(name):
        return name
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:60].strip("-.")
    return f"{readable or 'part'}-{_digest(document_id)}"


def _escape(name: str, *, is_file: bool = False) -> str:
    """A name of a path as that of a file or folder; reversible but where it is too long."""
    is_taken = (is_file and name.casefold() in _TAKEN) or _DEVICES.fullmatch(name)
    letters = unicodedata.is_normalized("NFC", name)
    escaped = "".join(
        each if _is_kept(each, letters=letters) and not (at == 0 and (each == "." or is_taken)) else _percent(each)
        for at, each in enumerate(name)
    )
    if escaped.endswith(".") and not is_file:  # Windows drops it
        escaped = f"{escaped[:-1]}%2E"
    if len(escaped.encode()) <= MAX_NAME_BYTES:
        return escaped or "%"
    start = escaped.encode()[: MAX_NAME_BYTES - 20].decode("utf-8", "ignore")
    return f"{start}~{_digest(name)}"


def _is_kept(letter: str, *, letters: bool) -> bool:
    return letter in _KEPT or (letters and not letter.isascii() and letter.isalnum())


def _percent(letter: str) -> str:
    return "".join(f"%{byte:02X}" for byte in letter.encode("utf-8", "surrogatepass"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
