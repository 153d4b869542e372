"""How a model's answer is read: the summary and its keywords, or why it cannot be used. Pure."""

import operator
import re

from summidx.errors import InvalidOutput
from summidx.summarizers.prose import clean_text, sentences

MAX_ANSWER_CHARS = 20_000
"""What is read of an answer, thinking aside: no answer of the usual token limits is longer."""
MAX_SUMMARY_CHARS = 2000
MAX_KEYWORDS = 6
LEAST_REPEATED = 11
"""Words in a row that are those before them again: fewer are no loop."""

_THINKING = re.compile(  # some chat templates open the block themselves: then only its end is in the answer
    r"\A\s*<think(?:ing)?>.*?</think(?:ing)?>|\A.*?</think(?:ing)?>[ \t]*(?:\n|\Z)", re.DOTALL | re.IGNORECASE
)
_OPEN_THINKING = re.compile(r"\A\s*<think(?:ing)?>", re.IGNORECASE)
_KEYWORDS_LINE = re.compile(r"^\W{0,9}(?:key ?words|search terms|terms)\W{0,9}?[:：]\W{0,9}(.*)$", re.IGNORECASE)  # noqa: RUF001
_LABEL = re.compile(r"\A[\s#*_`>-]*(?:summary|description|paragraph|answer)[*_`\s]*[:：][*_`\s]*", re.IGNORECASE)  # noqa: RUF001
_FENCE = re.compile(r"^\s*```\w*\s*$", re.MULTILINE)
_IDENTIFIER_LIKE = re.compile(r"[_(){}<>=/\\]|[a-z][A-Z]|\w\.\w|::")
_LOOP = re.compile(r"(\S{1,20}?)\1{15,}")


def parse_answer(text: str, finish_reason: str | None) -> tuple[str, tuple[str, ...]]:
    """Read a model's answer: the summary, one line of at most 2,000 characters, and at most 6 keywords.

    A leading block of thinking is dropped, and so is what must not reach a terminal or a page (`clean_text`).

    Args:
        text: the answer as it came.
        finish_reason: `stop`, `length`, ... as the server says; None where it does not.

    Raises:
        InvalidOutput: the answer is empty, was cut at its token limit, was withheld, or repeats itself.
    """
    if finish_reason == "length":
        raise InvalidOutput("the answer was cut at its token limit")
    if finish_reason == "content_filter":
        raise InvalidOutput("the answer was withheld by a content filter")
    answer = _THINKING.sub("", text, count=1)
    if _OPEN_THINKING.match(answer):
        raise InvalidOutput("the answer is nothing but thinking")
    answer = _FENCE.sub("", clean_text(answer[:MAX_ANSWER_CHARS]))
    lines = [line.strip() for line in answer.split("\n") if line.strip()]
    keywords: tuple[str, ...] = ()
    for index in range(len(lines) - 1, -1, -1):
        if found := _KEYWORDS_LINE.match(lines[index]):
            keywords = _parse_keywords(found[1] or ",".join(lines[index + 1 :]))
            lines = lines[:index]
            break
    summary = _LABEL.sub("", " ".join(" ".join(lines).split())).strip("*_# ")
    if not any(character.isalnum() for character in summary):
        raise InvalidOutput("the answer is empty")
    if _repeats(summary):
        raise InvalidOutput("the answer repeats itself")
    return _bounded(summary), keywords


def _parse_keywords(line: str) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for part in re.split(r"[,;•|、]", line):
        term = part.strip().strip("*_`'\"-. ").strip()
        if term and len(term) <= 40 and not _IDENTIFIER_LIKE.search(term):
            found.setdefault(term)
    return tuple(found)[:MAX_KEYWORDS]


def _repeats(text: str) -> bool:
    """True for loops: a run of words that repeats at least four times in a row, over a dozen words or more."""
    if _LOOP.search(text):
        return True
    words = text.lower().split()
    if len(words) - len(set(words)) < LEAST_REPEATED:
        return False
    for period in range(1, 21):
        is_repeated = bytes(map(operator.eq, words[period:], words))
        if b"\1" * max(3 * period, LEAST_REPEATED) in is_repeated:
            return True
    return False


def _bounded(summary: str) -> str:
    """At most `MAX_SUMMARY_CHARS`, cut at the end of a sentence where there is one."""
    if len(summary) <= MAX_SUMMARY_CHARS:
        return summary
    kept = ""
    for sentence in sentences(summary):
        if len(kept) + len(sentence) + 1 > MAX_SUMMARY_CHARS:
            break
        kept = f"{kept} {sentence}".strip()
    return kept or summary[: MAX_SUMMARY_CHARS - 3].rstrip() + "..."
