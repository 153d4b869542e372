"""A repository's name as the name of its folder: reversible, safe on any file system that takes 255-byte names."""

import re
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from summidx.errors import UsageError

MAX_FOLDER_BYTES = 200
"""File systems end at 255 bytes; the rest is room for suffixes."""

_KEPT = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-@+")
_ESCAPED = re.compile(r"(?:[A-Za-z0-9._@+-]|%[0-9A-F]{2})+")


@lru_cache(maxsize=16_384)
def escape_name(name: str) -> str:
    """Turn a repository's name into a folder name.

    Percent-encoding of the name's UTF-8 (surrogates included, so that any string comes back); a leading dot is
    encoded too, so that no name is `.`, `..` or hidden: what starts with a dot under an index root is not an index.

    Raises:
        UsageError: the name is empty, or longer than 200 bytes once escaped.
    """
    if not name:
        raise UsageError("a repository's name is empty: give it one with NAME=PATH")
    folder = "".join(
        chr(byte) if byte in _KEPT and not (at == 0 and byte == ord(".")) else f"%{byte:02X}"
        for at, byte in enumerate(name.encode("utf-8", "surrogatepass"))
    )
    if len(folder) > MAX_FOLDER_BYTES:
        raise UsageError(
            f"the repository name {name[:40]!r}... needs {len(folder)} bytes as a folder name, and {MAX_FOLDER_BYTES} "
            "is the limit: give it a shorter one with NAME=PATH"
        )
    return folder


@lru_cache(maxsize=16_384)
def unescape_name(folder: str) -> str:
    """Turn a folder name back into the repository's name.

    Raises:
        UsageError: no name is escaped to this folder name.
    """
    if _ESCAPED.fullmatch(folder):
        try:
            name = unquote_to_bytes(folder).decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            name = ""
        if name and escape_name(name) == folder:
            return name
    raise UsageError(f"the folder name {folder!r} is not that of an index")


def without_surrogates(text: str) -> str:
    r"""Text that Arrow and JSON take: lone surrogates (of file names that are no UTF-8) become `\udcff`."""
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
