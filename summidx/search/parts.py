"""Pure: the parts of an issue's text, line by line: title, error, prose, code, traceback and noise."""

import re
from collections.abc import Iterator
from enum import StrEnum


class Part(StrEnum):
    """What a line of a query is."""

    TITLE = "title"
    ERROR = "error"
    """What was raised: `ValueError: ...`."""
    PROSE = "prose"
    CODE = "code"
    TRACEBACK = "traceback"
    NOISE = "noise"
    """Versions of what is installed, headings of issue templates, check boxes, rules: dropped."""


_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_FENCE = re.compile(r"\s*(?:```|~~~)")
_TRACEBACK = re.compile(r"\s*(?:\S+ )?(?:Traceback \(most recent call last\)|During handling of the above exception)")
_FRAME = re.compile(r"\s*(?:File \".+\", line \d+|at [\w.$<>]+\(|\S+\.py:\d+: |\S+\.py in \w|-+> ?\d+ |\.{3} ?\d* )")
_ERROR = re.compile(
    r"\s*(?:E\s+)?(?:[A-Za-z_][\w]*\.)*(?:[A-Z]\w*(?:Error|Exception|Warning|Fault|Exit)|[A-Z]\w*Iteration)\b(?::|$)"
)
_PROMPT = re.compile(r"\s*(?:>>>|\.\.\. |\$ |In \[\d*\]:|Out\[\d*\]:)")
_CODE_LINE = re.compile(
    r"\s*(?:(?:from [\w.]+ )?import [\w.*]+|def \w+\(|async def |class \w+[(:]|@\w[\w.]*(?:\(|$)"
    r"|return\b.*[\w)\]]$|if .+:$|for .+:$|with .+:$|try:$|except\b.*:$|[\w.\[\]\"']+ = \S|[\w.]+\(.*\)$)"
)
_INDENTED = re.compile(r"(?: {4}|\t)")
_VERSIONS = re.compile(
    r"\s*(?:[-*|]\s*)?`?[\w.\-/() ]{1,40}`?\s*(?:version\s*)?(?:[:=|]+|\s-\s|\s)"
    r"\s*`?v?\d+(?:\.\w+){1,4}\S*\s*(?:\|.*)?(?:\(.*\))?$",
    re.IGNORECASE,
)
_HEADINGS = (
    r"describe the (?:bug|issue)",
    r"(?:bug )?(?:description|report)",
    r"(?:steps? )?to reproduce",
    r"how to reproduce",
    r"reproduction(?: steps)?",
    r"(?:minimal )?(?:code|example) to reproduce.*",
    r"(?:expected|actual|current) (?:behaviou?r|results?|outcome)",
    r"what (?:happened|happens|is expected|you expected)\b.*",
    r"(?:your )?environment",
    r"(?:system|additional) info(?:rmation)?",
    r"(?:additional )?context",
    r"versions?|screenshots?|checklist|related issues?|possible solution|(?:code )?sample",
)
_TEMPLATE = re.compile(rf"\s*(?:#+\s*|\*\*)?(?:{'|'.join(_HEADINGS)})\s*[:?]?\s*(?:\*\*)?\s*[:?]?$", re.IGNORECASE)
_EMPTY = re.compile(r"\s*(?:[-*] \[[ xX]\].*|[-=*_~#|+ ]*|https?://\S+)$")


def split_parts(text: str) -> Iterator[tuple[Part, str]]:
    """Yield each line of a text that says something, and what it is; the first is the title."""
    state = _State()
    for line in _COMMENT.sub(" ", text.replace("\r", "")).split("\n"):
        if _FENCE.match(line):
            state.in_fence = not state.in_fence
            state.in_traceback = False
        elif line.strip():
            yield state.read(line), line
        else:
            state.after_blank()


class _State:
    def __init__(self) -> None:
        self.in_fence = False
        self.in_traceback = False
        self._titled = False

    def after_blank(self) -> None:
        """A blank line ends a traceback that stands in prose."""
        if not self.in_fence:
            self.in_traceback = False

    def read(self, line: str) -> Part:  # noqa: PLR0911 - a ladder: the first rule that fits
        """What the next line is."""
        if _TRACEBACK.match(line):
            self.in_traceback = True
            return Part.NOISE
        if _ERROR.match(line) and not _PROMPT.match(line):
            was_traceback, self.in_traceback = self.in_traceback, False
            if self._titled or was_traceback:
                return Part.ERROR
        if self.in_traceback or _FRAME.match(line):
            return Part.TRACEBACK
        if _EMPTY.fullmatch(line):
            return Part.NOISE
        if not self._titled and not self.in_fence:
            self._titled = True
            return Part.TITLE
        if self.in_fence:
            return Part.NOISE if _VERSIONS.fullmatch(line) else Part.CODE
        if _TEMPLATE.fullmatch(line) or _VERSIONS.fullmatch(line):
            return Part.NOISE
        if _PROMPT.match(line) or _INDENTED.match(line) or _CODE_LINE.fullmatch(line):
            return Part.CODE
        return Part.PROSE
