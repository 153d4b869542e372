"""What a source holds, and the one place where its raw entries become that: the same rules for git and for folders."""

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from summidx.errors import SourceTooLarge
from summidx.records import Skip, SkipReason, SourceFile
from summidx.settings import SourceSettings
from summidx.sources.classify import not_read_as_code, not_text
from summidx.stop import Stop

SourceKind = Literal["git", "folder"]

_MAX_PATH_BYTES = 4096
"""PATH_MAX of Linux; git stores longer paths, but no file system takes them."""

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Bidirectional controls (Unicode 15, Bidi_Control): they make one path look like another."""


@dataclass(frozen=True, slots=True)
class ResolvedSource:
    """A source fixed to content.

    `commit` is the full hex id, or "" for a plain folder. `tree` is the fingerprint of the content: the hex tree id, or
    a SHA-256 for a plain folder. `size_bytes` is what reading it will read, at most: it orders repositories by
    work. None where it was not measured.
    """

    kind: SourceKind
    commit: str
    tree: str
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class SourceContent:
    """All that is read of a source, sorted by path (no path comes twice), what was passed over, and its fingerprint.

    A vendored or generated file is in both: it has a document, but is not read as code.
    """

    files: tuple[SourceFile, ...]
    skips: tuple[Skip, ...]
    tree: str


def sort_out(
    entries: Iterable[SourceFile | Skip], source: str, settings: SourceSettings, stop: Stop
) -> Iterator[SourceFile | Skip]:
    """Turn raw entries into what is read: text files, and a Skip for everything that is not.

    Raises:
        SourceTooLarge: more files or bytes than the settings allow.
        Stopped: the run was told to stop.
    """
    count = size_bytes = 0
    for entry in entries:
        stop.check()
        count += 1
        if count > settings.max_files:
            raise SourceTooLarge(
                f"{source} holds more than {settings.max_files} files, which is too many for one index: "
                "name a smaller folder, or raise sources.max_files"
            )
        if isinstance(entry, Skip):
            yield entry
            continue
        if skip := not_text(entry.path, entry.data):
            yield skip
            continue
        size_bytes += len(entry.data)
        if size_bytes > settings.max_total_bytes:
            raise SourceTooLarge(
                f"{source} holds more than {settings.max_total_bytes} bytes of text, which are held in memory: "
                "name a smaller folder, or raise sources.max_total_bytes"
            )
        yield entry
        if skip := not_read_as_code(entry.path, entry.data):
            yield skip


def build_content(items: Iterable[SourceFile | Skip], tree: str | None = None) -> SourceContent:
    """Sort what `sort_out` yields. `tree` None: the fingerprint is made of the items themselves."""
    files: list[SourceFile] = []
    skips: list[Skip] = []
    fingerprint = Fingerprint()
    for item in items:
        if isinstance(item, Skip):
            skips.append(item)
        else:
            files.append(item)
        if tree is None:
            fingerprint.add(item)
    return SourceContent(
        tuple(sorted(files, key=lambda file: file.path)),
        tuple(sorted(skips, key=lambda skip: (skip.path, skip.reason))),
        fingerprint.hexdigest() if tree is None else tree,
    )


class Fingerprint:
    """SHA-256 of a folder's content, whatever the order in which it is walked.

    A file takes part with its path and the hash of what is read of it; what is skipped, with its path and reason: when
    a file that could not be read becomes readable, the source is another.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, item: SourceFile | Skip) -> None:
        """Add one item. Paths hold no line break: those that did are escaped."""
        content = f"skip {item.reason}" if isinstance(item, Skip) else hashlib.sha256(item.data).hexdigest()
        self._lines.append(f"{content} {item.path}\n")

    def hexdigest(self) -> str:
        """The fingerprint, 64 hex digits."""
        return hashlib.sha256("".join(sorted(self._lines)).encode()).hexdigest()


def is_safe_path(path: str) -> bool:
    """Whether `path` can be stored and printed as it is: valid Unicode, no control characters, not overlong.

    Surrogates (names that are not UTF-8) raise in Arrow, SQLite and JSON; line breaks and control characters forge
    lines of logs and terminals.
    """
    if path.isascii() and path.isprintable():
        return len(path) <= _MAX_PATH_BYTES
    if any(c in _BIDI or unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} for c in path):
        return False
    return len(path.encode()) <= _MAX_PATH_BYTES


def bad_name(path: str, detail: str) -> Skip:
    """The skip of a file whose path cannot be used."""
    return Skip(printable(path), SkipReason.BAD_NAME, detail)


def printable(path: str) -> str:
    r"""`path` with what cannot be printed escaped (`\xff`, `\n`, `\u202e`), and cut at 4096 characters."""
    if is_safe_path(path):
        return path
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if is_safe_path(c) else c.encode("unicode_escape").decode() for c in text)[:_MAX_PATH_BYTES]
