"""Pure: documents as Markdown. Every text is escaped: no HTML, no link, no line and no markup that is not ours.

Only what a summary has in single backticks is code here, too: nothing in a span of code is read as anything else.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from summidx.escaping import escape_line, escape_markdown, escape_markup, escape_text
from summidx.records import Document, Level, Status

FIRST_SENTENCE_CHARS = 200
_SENTENCE = re.compile(r".+?[.!?](?=\s|$)")
_BLOCK = re.compile(r"([-+=]|\d{1,9}[.)])")
"""What begins a list or underlines a heading, at the start of a line."""
_CODE_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_FENCE_LANGUAGE = re.compile(r"[a-z][a-z0-9+-]{0,20}")


@dataclass(frozen=True, slots=True)
class Link:
    """A name, and where it leads; "": nowhere."""

    label: str
    target: str


def render_heading(level: int, text: str) -> str:
    """A heading."""
    return f"{'#' * level} {escape_markdown(text) or '(no name)'}"


def render_path(label: str, target: str) -> str:
    """A name, as a link where it leads somewhere."""
    text = escape_markdown(label) or "(no name)"
    return f"[{text}]({target})" if target else text


def render_text(document: Document) -> str:
    """A document's summary and keywords, with what is wrong with it."""
    return "\n\n".join(
        part
        for part in (
            _render_status(document),
            _paragraph(document.summary),
            f"**Keywords:** {', '.join(map(escape_markdown, document.keywords))}" if document.keywords else "",
        )
        if part
    )


def render_document(document: Document) -> str:
    """A document's place, signature, summary, keywords and imports."""
    facts = [document.language or "", f"lines {document.start_line}-{document.end_line}" if document.start_line else ""]
    facts += [document.origin.value if document.origin else "", "test code" if document.is_test else ""]
    imports = ", ".join(map(escape_markdown, document.imports))
    return "\n\n".join(
        part
        for part in (
            " · ".join(escape_markdown(fact) for fact in facts if fact),
            _render_code(document.signature, document.language) if document.signature else "",
            render_text(document),
            f"**Imports:** {imports}" if imports else "",
        )
        if part
    )


def render_table(heading: str, rows: Sequence[tuple[str, str, Document | None]]) -> str:
    """A table of links with the first sentences of their summaries; "" where it has no rows."""
    if not rows:
        return ""
    lines = [f"| {heading} | |", "| --- | --- |"]
    for label, target, document in rows:
        level = f"*{document.level.value}* " if document and document.level in (Level.FUNCTION, Level.CLASS) else ""
        summary = _escape_prose(_first_sentence(document.summary)) if document else ""
        mark = f"**{document.status.value}** " if document and document.status is not Status.OK else ""
        lines.append(f"| {render_path(label, target)} | {level}{mark}{summary} |")
    return "\n".join(lines)


def render_links(heading: str, links: Sequence[Link]) -> str:
    """A line of links; "" where there are none."""
    if not links:
        return ""
    return f"**{heading}:** {', '.join(render_path(each.label, each.target) for each in links)}"


def render_facts(facts: Mapping[str, str]) -> str:
    """A table of names and values."""
    rows = [f"| {name} | {escape_markdown(value)} |" for name, value in facts.items()]
    return "\n".join(["| About | |", "| --- | --- |", *rows])


def _render_status(document: Document) -> str:
    if document.status is Status.OK:
        return ""
    return f"> **{document.status.value}:** {escape_markdown(document.reason) or 'no reason'}"


def _escape_prose(text: str) -> str:
    """A text on one line, with what it has in single backticks as code: but for signs that a table acts on there."""
    parts = _CODE_SPAN.split(escape_text(text))
    return "".join(
        escape_markup(part) if at % 2 == 0 else escape_markup(f"`{part}`") if set(part) & set("|\\") else f"`{part}`"
        for at, part in enumerate(parts)
    )


def _paragraph(text: str) -> str:
    escaped = _escape_prose(text)
    if _BLOCK.match(escaped):  # a backslash before the sign that would begin a list
        return re.sub(r"^(\d*)", r"\1\\", escaped, count=1)
    return escaped


def _render_code(code: str, language: str) -> str:
    line = escape_line(code)
    longest = max((len(run) for run in re.findall(r"`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language if _FENCE_LANGUAGE.fullmatch(language) else ''}\n{line}\n{fence}"


def _first_sentence(text: str) -> str:
    line = " ".join(text.split())
    sentence = found[0] if (found := _SENTENCE.match(line)) else line
    return sentence if len(sentence) <= FIRST_SENTENCE_CHARS else f"{sentence[: FIRST_SENTENCE_CHARS - 1].rstrip()}…"
