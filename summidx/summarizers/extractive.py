"""Summaries without an LLM: the docstring's first sentences, the signature, and what it calls and holds, in words.

Deterministic. It is the default of the quick start, the baseline that an LLM has to beat, and the text of a document
whose model answered unusably.
"""

import re
from collections.abc import Iterator

from summidx.accounting import CallRecord
from summidx.keys import summary_key
from summidx.records import ChildSummary, Level, Origin, Summary, SummaryRequest
from summidx.reduction import Reduction
from summidx.summarizers import PreparedRequest
from summidx.summarizers.prose import (
    called_names,
    clean_text,
    clip,
    code_only,
    comments,
    first_sentence,
    first_sentences,
    frequent_words,
    headings,
    identifier_words,
    identifiers,
    is_markup,
    messages,
    without_docstring,
)
from summidx.summarizers.template import described, lead, placement, sentence

EXTRACTIVE_VERSION = 2
"""Moves when the same request would give another text; a golden test forces it to."""

IDENTITY = f"extractive/{EXTRACTIVE_VERSION}"
MAX_SOURCE = 50_000
"""Characters of a unit's own source that are read: enough for any unit worth a summary, and it bounds the time."""
LEAD_WORDS = 60
CHILD_WORDS = 150
"""Bound on the list of children; with the lead it fills MiniLM's 256 tokens."""
MAX_KEYWORDS = 6
FRONT_FILES = ("__init__.py", "index.js", "index.ts", "mod.rs", "lib.rs", "doc.go", "package-info.java")


class ExtractiveSummarizer:
    """The summariser that makes no call."""

    identity = IDENTITY
    makes_calls = False

    def split(self, request: SummaryRequest) -> Reduction | None:  # noqa: ARG002 - the signature is the protocol's
        """Nothing is too long for it."""
        return None

    def prepare(self, request: SummaryRequest) -> PreparedRequest:
        """Write the summary: here the answer is the request."""
        summary = extract_summary(request)
        payload = {"model": IDENTITY, "text": summary.text, "keywords": list(summary.keywords)}
        return PreparedRequest(key=summary_key(payload), request=request, payload=payload)

    async def answer(self, prepared: PreparedRequest, record: CallRecord) -> Summary:  # noqa: ARG002 - no call is made
        """Hand out what `prepare` wrote."""
        return _summary(prepared.payload["text"], tuple(prepared.payload["keywords"]), prepared.key)

    async def aclose(self) -> None:
        """Nothing is open."""


def extract_summary(request: SummaryRequest) -> Summary:
    """Summarise a unit of any level from its text and its children's summaries. Pure; never empty."""
    unit = request.unit
    source = unit.own_source[:MAX_SOURCE]
    build = _code_parts if unit.level in (Level.FUNCTION, Level.CLASS) else _container_parts
    parts = [sentence(part) for part in build(request, source) if part]
    text = clean_text(" ".join(parts)).strip()
    return _summary(text, _keywords(request, source), "")


def _summary(text: str, keywords: tuple[str, ...], key: str) -> Summary:
    return Summary(text=text, keywords=keywords, origin=Origin.EXTRACTIVE, key=key, model=IDENTITY)


def _code_parts(request: SummaryRequest, source: str) -> Iterator[str]:
    """Sentences about a function or class, the most telling first."""
    unit = request.unit
    body = without_docstring(source, unit.docstring)
    notes = comments(body, unit.language)
    yield described(unit, LEAD_WORDS) or sentence(lead(unit))
    yield placement(unit)
    if notes and not unit.docstring:
        yield first_sentences("\n".join(note[:1].upper() + note[1:] for note in notes), 30)
    of_level = _by_level(request)
    yield _children(of_level[Level.CLASS], "Classes")
    yield _children(of_level[Level.FUNCTION], "Methods")
    told = set(re.findall(r"\w+", f"{identifier_words(unit.qualified_name)} {identifier_words(unit.signature)}"))
    code = code_only(body)
    if unit.level is Level.FUNCTION:
        called = [w for w in map(identifier_words, called_names(code)) if w and w != identifier_words(unit.name)]
        called = list(dict.fromkeys(called))[:12]
        if called:
            yield f"Calls {', '.join(called)}"
        told.update(*map(str.split, called))
    else:
        told.update(*(identifier_words(child.name).split() for child in request.children))
    uses = list(_new_names(code, told, 8))
    if uses:
        yield f"Uses {', '.join(uses)}"
    said = [f'"{clip(m, 16)}"' for m in messages(body)][:3]
    if said:
        yield f"Messages: {', '.join(said)}"
    if request.callers:
        yield f"Called by {', '.join(f'`{name}`' for name in request.callers[:3])}"


def _container_parts(request: SummaryRequest, source: str) -> Iterator[str]:
    """Sentences about a file, a directory or the repository."""
    unit = request.unit
    notes = comments(source, unit.language) if not unit.docstring and not is_markup(unit.language) else []
    told = described(unit, LEAD_WORDS) or _front_file(request)
    yield told or first_sentences("\n".join(notes[:10]), 40) or sentence(lead(unit))
    yield placement(unit)
    if is_markup(unit.language):
        found = [h for h in headings(source) if h.lower() not in told.lower()]
        if found:
            yield f"Sections: {clip('; '.join(found), 60)}"
        return
    of_level = _by_level(request)
    yield _children(of_level[Level.DIRECTORY], "Directories")
    yield _children(of_level[Level.FILE], "Files")
    yield _children(of_level[Level.CLASS], "Classes")
    yield _children(of_level[Level.FUNCTION], "Functions")
    if not request.children and unit.level is Level.FILE:
        names = list(_new_names(code_only(source) or source, set(re.findall(r"\w+", told.lower())), 30))
        if names:
            yield f"Mentions {', '.join(names)}"


def _front_file(request: SummaryRequest) -> str:
    """What the file that stands for its directory says of it (`__init__.py`, `index.js`, `mod.rs`), or ""."""
    if request.unit.level is not Level.DIRECTORY:
        return ""
    files = {child.name: child.text for child in request.children if child.level is Level.FILE}
    found = next((files[name] for name in FRONT_FILES if files.get(name)), "") or ""
    return sentence(first_sentence(found))


def _by_level(request: SummaryRequest) -> dict[Level, tuple[ChildSummary, ...]]:
    return {level: tuple(c for c in request.children if c.level is level) for level in Level}


def _children(children: tuple[ChildSummary, ...], label: str) -> str:
    """`Label: name - first sentence; ...`, then bare names, within `CHILD_WORDS`; "" for no children."""
    room = CHILD_WORDS
    sentence_words = 16 if len(children) <= 12 else 10
    entries: list[str] = []
    for child in children:
        name = f"`{child.name}` to `{child.last}`" if child.last else f"`{child.name}`"
        said = first_sentence(child.text or "", sentence_words) if room > CHILD_WORDS // 4 else ""
        if identifier_words(child.name).startswith(said.lower().rstrip(".")):  # it only repeats the name
            said = ""
        entry = f"{name} - {said}" if said else name
        room -= len(entry.split())
        if room < 0:
            break
        entries.append(entry)
    if not entries:
        return ""
    left = len(children) - len(entries)
    return f"{label}: {'; '.join(entries)}" + (f"; and {left} more" if left else "")


def _new_names(source: str, told: set[str], limit: int) -> Iterator[str]:
    """The most frequent identifiers of `source`, in words, that say something not yet told."""
    found = 0
    for name, _ in identifiers(source).most_common():
        words = identifier_words(name)
        parts = set(words.split())
        if len(words) > 2 and not parts <= told:
            told |= parts
            yield words
            found += 1
            if found == limit:
                return


def _keywords(request: SummaryRequest, source: str) -> tuple[str, ...]:
    """At most 6 frequent words of comments and descriptions that are no identifiers of the code."""
    unit = request.unit
    body = without_docstring(source, unit.docstring)
    told = [
        described(unit, 400),
        *comments(body, unit.language),
        *(first_sentence(c.text or "") for c in request.children),
    ]
    names = {"class", "method", "function", *unit.qualified_name.split("."), *(c.name for c in request.children)}
    if not is_markup(unit.language) and unit.level in (Level.FUNCTION, Level.CLASS, Level.FILE):
        names.update(identifiers(code_only(body)))
    texts = [clean_text(re.sub(r"`[^`]*`", " ", text)) for text in told]
    return frequent_words(texts, but=names, limit=MAX_KEYWORDS)
