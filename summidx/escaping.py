"""Pure: text that is not ours (names, paths, what a server or a damaged file says) made fit to be shown and logged."""

import re
import unicodedata

_STEERING = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Unicode categories of control, format (bidi, zero width), surrogate, private and line separator characters."""


def escape_line(text: str) -> str:
    r"""One line of text: what would steer a terminal, a page or a log as `\x1b`, `\n`, `\u202e`, ..."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        each.encode("unicode_escape").decode() if unicodedata.category(each) in _STEERING else each for each in text
    )


def escape_text(text: str) -> str:
    """The same, with a single space for each run of white space, line ends included."""
    return escape_line(" ".join(text.split()))


_MARKUP = re.compile(r"[\\`*_\[\]#|<>~&$:@]")


def escape_markdown(text: str) -> str:
    """One line of text as it is, for a line or a cell of a table of Markdown: no markup, no HTML, no link by itself."""
    return escape_markup(escape_text(text))


def escape_markup(line: str) -> str:
    """The same for what is on one line and fit to be shown already: its spaces stay."""
    return _MARKUP.sub(r"\\\g<0>", line).replace("www.", "www\\.")
