"""Bytes to text and text to lines, the same for every file and every language."""

import codecs
import re

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CODING = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-_.a-zA-Z0-9]+)")
"""The declaration of PEP 263, on the first line, or on the second after a blank or comment line."""
_BLANK_OR_COMMENT = re.compile(rb"^[ \t\f]*(?:#.*)?$")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def decode(data: bytes, *, declared: bool = False) -> str:
    """Decode `data`: by its byte order mark, as UTF-8, by its declaration (PEP 263, if `declared`), as Windows-1252.

    UTF-8 goes before the declaration: text in another encoding is next to never valid UTF-8, while UTF-8 under an old
    declaration is common.
    Line ends become LF, as Python's own reading of source has it. NUL and lone surrogates, which no database and no
    tokeniser takes, become U+FFFD. Never raises.
    """
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            text = data[len(bom) :].decode(encoding, "replace")
            break
    else:
        text = _decode_unmarked(data, _declared_encoding(data) if declared else "")
    return _UNSTORABLE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def _declared_encoding(data: bytes) -> str:
    first, _, rest = data[:1000].partition(b"\n")
    second = rest.partition(b"\n")[0]
    match = _CODING.match(first) or (_BLANK_OR_COMMENT.match(first.rstrip(b"\r")) and _CODING.match(second))
    return match.group(1).decode("ascii") if match else ""


def _decode_unmarked(data: bytes, declared: str) -> str:
    for encoding in ("utf-8", declared):
        if encoding:
            try:
                return data.decode(encoding)
            except (LookupError, ValueError):  # unknown, no text encoding, or not what is declared
                continue
    return data.decode("cp1252", "replace")


def split_lines(text: str) -> list[str]:
    """Split at LF only, as parsers count lines; a last line end opens no further line."""
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return lines


def indent_of(line: str) -> str:
    """White space that a line starts with; a form feed starts it anew, as in Python."""
    white = line[: len(line) - len(line.lstrip(" \t\f"))]
    return white.rpartition("\f")[2]


def join_dedented(lines: list[str], indent: str) -> str:
    """Join `lines`, taking `indent` from each that starts with it, without blank lines around.

    Lines that start with less (in strings, after a line continuation) stay as they are.
    """
    if indent:
        lines = [line.removeprefix(indent) for line in lines]
    return "\n".join("" if line.isspace() else line for line in lines).strip("\n")


def bound(text: str, limit: int) -> str:
    """`text`, or its start with `...` where it is longer than `limit` characters."""
    return text if len(text) <= limit else text[: limit - 3] + "..."
