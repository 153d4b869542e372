"""Files that are not read as code: prose, settings, notebooks, and languages that we do not parse."""

import json
import re
from dataclasses import dataclass

from summidx.parsing.text import split_lines

_PROSE = frozenset({"markdown", "restructuredtext", "rst", "asciidoc", "text"})
_COMMENT_START = re.compile(r"\s*(?:#(?=[\s#]|$)|//|--(?=\s|$)|;|%|/\*|<!--|\"\"\"|''')")
"""`#include`, `#id` and the `---` of YAML start no comment."""
_COMMENT_MARK = re.compile(r"^\s*(?:-->|<!--|#+|//+!?|--+|;+|%+|/\*+!?|\*+/?|\"\"\"|''')\s?|\s*(?:\*+/|-->)\s*$")
_UNDERLINE = re.compile(r"^\s*([=\-~^\"'#*+.`])\1{2,}\s*$")
_MARKDOWN_HEADING = re.compile(r"^\s{0,3}#{1,6}\s+(.*?)\s*#*\s*$")
_NOISE = re.compile(r"^\s*(?:\[!\[|!\[|<|\.\. |\|\s|```|---\s*$)")
"""Lines of a README that say nothing: badges, images, HTML, directives, tables, fences."""


@dataclass(frozen=True, slots=True)
class PlainText:
    """What is read of such a file. `problem`: why it could not be read as what it claims to be, else ""."""

    source: str
    docstring: str
    code_lines: int
    problem: str = ""


def read_plain(path: str, language: str, text: str) -> PlainText:
    """Read a file that is not code.

    The docstring of prose is its first heading and first paragraph, of all else the comment that it starts with. A
    notebook is a script, whose docstring and comments are its Markdown cells.
    """
    if path.lower().endswith(".ipynb"):
        return _read_notebook(text)
    lines = split_lines(text)
    filled = sum(1 for line in lines if line.strip())
    source = text.strip("\n")
    if language in _PROSE:
        return PlainText(source, _first_words(lines), filled)
    comment = _leading_comment(lines)
    return PlainText(
        source, "\n".join(filter(None, map(_bare, comment))), filled - sum(1 for line in comment if line.strip())
    )


def _read_notebook(text: str) -> PlainText:
    try:
        notebook = json.loads(text)
        # Format 3 and older hold their cells in worksheets.
        cells = [cell for sheet in notebook.get("worksheets", [notebook]) for cell in sheet["cells"]]
        texts = [(cell["cell_type"], _cell_text(cell)) for cell in cells]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        source = text.strip("\n")
        lines = sum(1 for line in source.split("\n") if line.strip())
        return PlainText(source, "", lines, f"not a notebook: {type(error).__name__}")
    prose = [text for kind, text in texts if kind == "markdown" and text]
    script = [text if kind == "code" else _as_comment(text) for kind, text in texts if kind in ("code", "markdown")]
    source = "\n\n".join(filter(None, script))
    filled = sum(1 for line in source.split("\n") if line.strip() and not line.lstrip().startswith("#"))
    return PlainText(source, "\n\n".join(prose), filled)


def _as_comment(text: str) -> str:
    return "\n".join(f"# {line}".rstrip() for line in text.split("\n")) if text else ""


def _cell_text(cell: dict[str, object]) -> str:
    source = cell.get("source", cell.get("input", ""))
    return ("".join(map(str, source)) if isinstance(source, list) else str(source)).strip("\n")


def _first_words(lines: list[str]) -> str:
    """First heading and first paragraph of Markdown, reStructuredText or plain text."""
    heading = ""
    paragraph: list[str] = []
    for i, line in enumerate(lines):
        following = lines[i + 1] if i + 1 < len(lines) else ""
        marked = _MARKDOWN_HEADING.match(line)
        is_heading = bool(marked) or (bool(line.strip()) and bool(_UNDERLINE.match(following)))
        if is_heading and not _UNDERLINE.match(line):
            if paragraph:
                break
            heading = heading or (marked.group(1) if marked else line.strip())
        elif not line.strip() or _NOISE.match(line) or _UNDERLINE.match(line):
            if paragraph:
                break
        else:
            paragraph.append(line.strip())
    return "\n\n".join(filter(None, (heading, " ".join(paragraph))))


def _leading_comment(lines: list[str]) -> list[str]:
    """The lines of the comment that a file starts with, a shebang included."""
    end = 0
    closer = ""
    for line in lines:
        if closer:
            end += 1
            if closer in line:
                closer = ""
            continue
        is_shebang = line.startswith("#!") and end == 0
        after_shebang = not line.strip() and end == 1 and lines[0].startswith("#!")
        if not is_shebang and not after_shebang and not _COMMENT_START.match(line):
            break
        end += 1
        for opening, closing in (("/*", "*/"), ("<!--", "-->"), ('"""', '"""'), ("'''", "'''")):
            _, found, rest = line.lstrip().partition(opening)
            if found and line.lstrip().startswith(opening) and closing not in rest:
                closer = closing
    return lines[:end]


def _bare(line: str) -> str:
    return "" if line.startswith("#!") else _COMMENT_MARK.sub("", _COMMENT_MARK.sub("", line)).strip()
