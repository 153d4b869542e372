"""What fits a prompt: a cheap estimate of tokens, and cuts with a visible mark. Pure."""

import re
from collections.abc import Sequence

BYTES_PER_TOKEN = 3.2
"""A cheap estimate, on the low side for code in English and for scripts of three bytes a character."""
MARK_ROOM = 80
"""What a mark that tells of a cut may weigh."""

LONG_STRETCH = 48
"""Characters without white space: of no ordinary code."""
_DENSE = re.compile(rf"[!-~]{{{LONG_STRETCH},}}|[0-9]+")
"""Base64, minified code and digests; numbers."""
_DENSE_BYTES = 1
"""Further bytes for each of a long stretch without white space: 1.6 bytes a token."""
_DIGIT_BYTES = 2
"""Further bytes for each digit: many tokenizers make one token of each. (Whole numbers: so lines add up.)"""


def weigh(text: str) -> int:
    """An estimate of how much of a prompt `text` takes, in bytes of ordinary code; lines add up."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    if max(map(len, text.split()), default=0) < LONG_STRETCH:  # nearly always, and each prompt is weighed several times
        return size + _DIGIT_BYTES * sum(map(text.count, "0123456789"))
    for match in _DENSE.finditer(text):
        length = match.end() - match.start()
        size += length * (_DENSE_BYTES if length >= LONG_STRETCH else _DIGIT_BYTES)
    return size


def cut_middle(text: str, room: int) -> tuple[str, bool]:
    """`text` within `room`: its first lines (two thirds), a mark that says what is missing, its last lines."""
    if weigh(text) <= room:
        return text, False
    room = max(room - MARK_ROOM, 0)
    lines = text.split("\n")
    head = take(lines, room * 2 // 3)
    tail = take(lines[len(head) :][::-1], room - sum(weigh(line) + 1 for line in head))[::-1]
    if not head and not tail:  # one line that is too long by itself
        return f"{cut_line(lines[0], room)} [... the rest of the line is left out ...]", True
    left_out = len(lines) - len(head) - len(tail)
    return "\n".join([*head, f"[... {left_out} lines are left out here ...]", *tail]), True


def cut_end(lines: Sequence[str], room: int) -> tuple[list[str], int]:
    """As many first lines as fit into `room` with a mark that counts the others, and how many these are."""
    if sum(weigh(line) + 1 for line in lines) <= room:
        return list(lines), 0
    kept = take(lines, max(room - MARK_ROOM, 0))
    return kept, len(lines) - len(kept)


def take(lines: Sequence[str], room: int) -> list[str]:
    """As many first lines as fit into `room`."""
    taken: list[str] = []
    for line in lines:
        room -= weigh(line) + 1
        if room < 0:
            break
        taken.append(line)
    return taken


def cut_line(line: str, room: int) -> str:
    """The start of `line` that weighs at most `room`."""
    if weigh(line) <= room:
        return line
    low, high = 0, min(len(line), max(room, 0))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if weigh(line[:middle]) <= room else (low, middle - 1)
    return line[:low]
