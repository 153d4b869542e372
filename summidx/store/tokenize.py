"""Code to words: one tokenizer for documents and queries, since LanceDB's own are wrong for code.

`getUserName` must be found by `user`, `HTTPAdapter` by `http`, and neither stemming nor a stop list may touch code.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice

from summidx.records import Unit

MAX_TOKEN_CHARS = 128
"""Longer words (blobs in base64) are cut here, in documents and queries alike."""

MAX_SOURCE_TOKENS = 20_000
"""Words of a unit's own source that are searched: some 3,000 lines; what is longer is data, not code."""

_WORD = re.compile(r"\w+")
_ESCAPED_NEWLINE = re.compile(r"\\n")
_HEX = re.compile(r"0[xX][0-9a-fA-F]+")
_LETTERS_OR_DIGITS = re.compile(r"[^\W\d_]+|\d+")
# the four cases: URLs; HTTP before Adapter; Adapter or adapter; HTTP
_CAMEL = re.compile(r"[A-Z]{2,}s(?![a-z])|[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")


def tokenize_code(text: str) -> list[str]:
    """Split text, code or prose, into lower-case words: each identifier whole, then its parts.

    `HTTPAdapter` gives httpadapter, http, adapter; `get_userName2` gives get_username2, get, username2, username,
    user, name. Within one identifier a word is given once. Parts of one character are dropped; whole words of one
    character are kept. Leading and trailing underscores are dropped: `__init__` is init. Case divides ASCII words only.
    """
    return list(_iterate_tokens(text))


def build_search_text(unit: Unit, summary: str = "", keywords: Sequence[str] = ()) -> str:
    """The words of a document for BM25, separated by single spaces.

    Path and qualified name twice, signature, docstring, own source (identifiers, comments and string literals: issues
    quote error messages), summary and keywords. A docstring that stands in the own source is not counted again.
    Bounded: at most 20,000 words of the own source, and as many of the docstring; the other parts are short.
    """
    names = f"{unit.path} {unit.qualified_name}" if unit.qualified_name != unit.path else unit.path
    docstring = "" if unit.docstring in unit.own_source else unit.docstring
    parts: tuple[Iterable[str], ...] = (
        _iterate_tokens(f"{names} {names} {unit.signature}"),
        islice(_iterate_tokens(docstring), MAX_SOURCE_TOKENS),
        islice(_iterate_tokens(unit.own_source), MAX_SOURCE_TOKENS),
        _iterate_tokens(f"{summary} {' '.join(keywords)}"),
    )
    return " ".join(token for part in parts for token in part)


def _iterate_tokens(text: str) -> Iterator[str]:
    # "\nReason" in a string literal is a line break and Reason, not nReason
    normal = _ESCAPED_NEWLINE.sub(" ", unicodedata.normalize("NFKC", text))
    for match in _WORD.finditer(normal):
        yield from _split_identifier(match.group()[: 2 * MAX_TOKEN_CHARS])


@lru_cache(maxsize=65_536)
def _split_identifier(identifier: str) -> tuple[str, ...]:
    whole = identifier.strip("_")
    if not whole:
        return ()
    tokens = [whole]
    for piece in whole.split("_") if not _HEX.fullmatch(whole) else ():
        runs = _LETTERS_OR_DIGITS.findall(piece)
        words = [word for run in runs for word in (_CAMEL.findall(run) if run.isascii() else [run])]
        tokens += [part for part in (piece, *runs, *words) if len(part) > 1]
    return tuple(dict.fromkeys(token.lower()[:MAX_TOKEN_CHARS] for token in tokens))
