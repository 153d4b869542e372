"""Prose out of code, pure: safe text, first sentences, words of identifiers, comments, messages.

It knows conventions that most languages share (docstring sections, Markdown, `#` and `//` comments), not any one
language: the parser has already told what a docstring is.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator

STOP_WORDS = frozenset(
    """
    a about after all also an and any are as at be because been before being both but by can cannot could default did
    do does doing done each either else etc every false few following for from further given gets had has have having
    here how however if in into is it its itself just may more most must need never new no none nor not note now null
    of off on once one only or other otherwise our out over own per same see set should since so some still such than
    that the their them then there these they this those though thus to todo too true two under until up upon use
    used uses using value values very via was way we were what when where whether which while who whose why will with
    within without would xxx yet you your return returns param params args kwargs raises self cls
    """.split()  # noqa: SIM905 - as a list these are 200 lines
)
"""Words that say nothing of what code is about: English function words and the furniture of docstrings."""

CODE_WORDS = frozenset(
    """
    abstract and as assert async auto await bool boolean break byte case catch char class const continue crate def
    default defer del delete do double dyn elif else end enum except export extends extern false final finally float
    fn for foreach from func function global go goto if impl implements import in include inline int interface is
    lambda let long match mod module mut namespace new nil none nonlocal not null object or package pass private
    protected pub public raise require rescue return self static str string struct super switch template then this
    throw throws trait true try type typedef typename undefined union unless unsafe until use using var virtual void
    when where while with yield cls args kwargs len range print list dict tuple set isinstance any optional dataclass
    dataclasses override overload typing annotations future property staticmethod classmethod abstractmethod
    """.split()  # noqa: SIM905
)
"""Keywords and the most common built-ins of the usual languages: no reader looks for them."""

MAX_QUOTED = 300
"""Characters of what is quoted in a message."""

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_STAR = re.compile(r"^\s*(?:/\*\*?|\*/|\*(?=\s|$))|\*/\s*$")  # the frame of a comment in the C family
_SECTION = re.compile(
    r"^\s*(?:(?:args?|arguments|parameters?|params|returns?|yields?|raises|attributes|examples?|notes?|see also|usage"
    r"|warnings?|references|todo|methods|keyword args|keyword arguments|other parameters|receives|warns)\s*:?\s*$"
    r"|args:|returns:|raises:|yields:|[:@\\](?:params?|args?|returns?|rtypes?|types?|raises?|throws|see|since|author"
    r"|deprecated|example)\b"
    r"|>>>|\.\. \w|```|~~~|-{3,}\s*$|={3,}\s*$)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[A-Z0-9`\"'(\[*])")
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|resp|approx|no|dr|mr|st)|\b[A-Z])\.$", re.IGNORECASE)
_ROLE = re.compile(r":[\w:.+-]{1,40}:`~?([^`<]{1,200}?)(?:\s{0,9}<[^`>]{0,200}>)?`")
_LINK = re.compile(
    r"!?\[([^\]\[]{0,300})\]\([^()\s]{0,500}(?:\([^()\s]{0,200}\))?[^()]{0,200}\)"
    r"|`([^`<]{1,200}?)\s{0,9}<[^`>]{1,500}>`__?|\[([^\]\[]{1,300})\]\[[^\]\[]{0,200}\]"
)
_IMAGE = re.compile(r"\[?!\[[^\]]{0,300}\]\([^)]{0,500}\)(?:\]\([^)]{0,500}\))?|\|[\w -]{1,100}\|(?:_{1,9})?")
_TAG = re.compile(
    r"</?(?:a|b|blockquote|br|center|code|details|div|em|font|h[1-6]|hr|i|img|kbd|li|ol|p|picture|pre|source|span|strong"
    r"|sub|summary|sup|table|tbody|td|th|thead|tr|tt|u|ul)\b[^<>]{0,500}>|<!--.*?(?:-->|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_WORD = re.compile(r"\b[^\W\d_](?:['-]?[^\W\d_])*\b")
_PROSE_WORD = re.compile(r"(?<!\S)[`'(]?[^\W\d_]+(?:['-][^\W\d_]+)?[`')]?[.,:;!?]?(?!\S)")
_IDENTIFIER = re.compile(r"[^\W\d]\w*")
_DIGEST = re.compile(r"(?=(?:[a-f]*\d){3})[0-9a-f]{10,64}")
_CALL = re.compile(r"(?<!\w)([^\W\d]\w*+)\s{0,9}\(")
_PARTS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[^\W\dA-Z_]+\d*|[A-Z]+\d*|\d+")
# A comment or a long string that is not closed runs to the end: then nothing is ever scanned twice.
_STRING_OR_COMMENT = re.compile(
    r"(?:\"{3}.*?(?:\"{3}|\Z)|'{3}.*?(?:'{3}|\Z))"
    r"|\"(?P<double>(?:[^\"\\\n]|\\.){0,400}+)\"|(?<!\w)'(?P<single>(?:[^'\\\n]|\\.){0,400}+)'"
    r"|(?:^|(?<=\s))(?:#(?![!\[])|//)[^\n]*|/\*.*?(?:\*/|\Z)|<!--.*?(?:-->|\Z)",
    re.DOTALL | re.MULTILINE,
)
_LEGAL = re.compile(
    r"copyright|licen[cs]e|warrant(?:y|ies)|spdx|all rights reserved|applicable law|hereby granted|\"as is\"",
    re.IGNORECASE,
)
_PRAGMA = re.compile(
    r"-\*-|go:|\+build|(?:frozen_string_literal|encoding|coding|typed|vim):|(?:type: ?ignore|noqa|pragma|pylint|mypy"
    r"|ruff|fmt|isort|flake8|eslint|nolint|pyright|yapf|rubocop|jshint|tslint|prettier|clang-format|phpcs|istanbul)\b",
    re.IGNORECASE,
)
_COMMENT = re.compile(r"(?:^|(?<=\s))(?:#(?![!\[])|//+!?|--(?=\s)|;;+|%%?(?=\s)|\*(?=\s))[ \t]*+(.*)", re.MULTILINE)
_HASH_LANGUAGES = frozenset({"python", "ruby", "shell", "bash", "yaml", "toml", "perl", "r", "make", "dockerfile"})
_MARKUP = frozenset({"markdown", "restructuredtext", "rst", "text", "asciidoc"})


def is_markup(language: str) -> bool:
    """True for languages whose files are prose themselves."""
    return language in _MARKUP


def clean_text(text: str) -> str:
    """Drop what must not reach a terminal, a database or a page.

    That is ANSI sequences, control, bidi and zero-width characters, lone surrogates. Line ends become a line feed,
    other white space a space.
    """
    text = _ANSI.sub("", text).replace("\r\n", "\n")
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(_clean_characters(text))


def quote(text: str, secret: str = "") -> str:
    """Somebody else's words for a message: on one line, bounded, clean, and without the secret."""
    line = " ".join(clean_text(text[: 20 * MAX_QUOTED]).split())
    if secret:
        line = line.replace(secret, "***")
    return line if len(line) <= MAX_QUOTED else f"{line[:MAX_QUOTED]}..."


def _clean_characters(text: str) -> Iterator[str]:
    for character in text:
        if character.isprintable():
            yield character
        elif character in "\n\r\u2028\u2029\x0b\x0c\x85":
            yield "\n"
        elif character == "\t" or unicodedata.category(character) == "Zs":
            yield " "


def clip(text: str, max_words: int) -> str:
    """The first `max_words` words of `text` on one line, with `...` where it was cut."""
    words = text.split()
    return " ".join(words) if len(words) <= max_words else " ".join(words[:max_words]).rstrip(",;:.-") + "..."


def plain(text: str) -> str:
    """Markup taken out of one paragraph: links, roles, tags, emphasis; on one line."""
    text = _TAG.sub(" ", text)
    text = _LINK.sub(lambda m: m[1] or m[2] or m[3] or "", text)
    text = _ROLE.sub(lambda m: f"`{m[1].rsplit('.', 1)[-1] if '~' in m[0] else m[1]}`", text)
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    text = re.sub(r"(?<![\w*])(\*\*|__|\*)(?=\S)([^*\n]{1,300}?)(?<=\S)\1(?![\w*])", r"\2", text)
    return " ".join(text.split())


def description(docstring: str) -> str:
    """What a docstring says before its sections of arguments, results and examples; paragraphs on one line each."""
    paragraphs: list[str] = []
    lines: list[str] = []
    for raw in [*docstring.strip().splitlines(), ""]:
        line = _STAR.sub("", raw).strip()
        if _SECTION.match(line):
            if not lines and not paragraphs and re.fullmatch(r"[-=]{3,}", line):
                continue
            if lines and re.fullmatch(r"[-=]{3,}", line):  # the line above was a heading
                lines.pop()
            if paragraphs or lines:
                break
            continue
        if line:
            lines.append(line)
        elif lines:
            paragraphs.append(plain("\n".join(lines)))
            lines = []
    if lines:
        paragraphs.append(plain("\n".join(lines)))
    return "\n".join(p for p in paragraphs if _WORD.search(p))


def sentences(text: str) -> list[str]:
    """Split prose into sentences; a line is never joined with the next."""
    found: list[str] = []
    for line in text.splitlines():
        start = 0
        for end in _SENTENCE_END.finditer(line):
            if not _ABBREVIATION.search(line[max(start, end.start() - 12) : end.start()].rstrip("\"')]")):
                found.append(line[start : end.start()].strip())
                start = end.end()
        if line[start:].strip():
            found.append(line[start:].strip())
    return found


def first_sentences(text: str, max_words: int) -> str:
    """As many whole first sentences of `text` as `max_words` allow; at least one, clipped, where there is any."""
    taken: list[str] = []
    room = max_words
    for sentence in sentences(text):
        room -= len(sentence.split())
        if room < 0 and taken:
            break
        taken.append(clip(sentence, max_words))
    return " ".join(s if s[-1] in ".!?:;" else s + "." for s in taken)


def first_sentence(text: str, max_words: int = 30) -> str:
    """The first sentence of a docstring or summary, without its full stop; "" where there is none."""
    found = sentences(description(text))
    return clip(found[0].rstrip(".:;"), max_words) if found else ""


def readme_lead(text: str, max_words: int) -> str:
    """A README's title and its first paragraph of prose; badges, HTML, code, tables and quotes are passed over."""
    title = ""
    for block in _prose_blocks(text):
        if block.startswith(">"):
            continue
        heading = re.fullmatch(r"#{1,6}[ \t]+(.*)", block) or re.fullmatch(r"(.+)\n[=\-~^*#]{3,}", block)
        prose = plain(heading[1].rstrip("# ") if heading else block)
        if not _WORD.search(prose):
            continue
        if heading:
            title = title or prose.rstrip(".:")
        elif is_prose(prose):
            lead = first_sentences(prose, max_words)
            return lead if not title or title.lower() in lead.lower() else f"{title}: {lead}"
    return f"{title}." if title else ""


def is_prose(text: str) -> bool:
    """True for a piece of running text: four words at least, and most of what stands there is words."""
    words = text.split()
    if sum(character.isalpha() and not character.isascii() for character in text) >= 12:  # scripts without spaces
        return True
    return len(words) >= 4 and 2 * len(_PROSE_WORD.findall(text)) >= len(words)


def headings(text: str) -> list[str]:
    """The headings of a Markdown or reStructuredText document, in their order."""
    found: list[str] = []
    for block in _prose_blocks(text):
        for match in re.finditer(r"^#{1,6}[ \t]+(.*)$|^(\S.*)\n([=\-~^*#])\3{2,}$", block, re.MULTILINE):
            heading = plain((match[1] or match[2] or "").rstrip("# ")).rstrip(".:")
            if _WORD.search(heading):
                found.append(heading)
    return found


def _prose_blocks(text: str) -> Iterator[str]:
    """Paragraphs and headings of a marked-up text, without code, tables, badges, directives and HTML."""
    text = re.sub(r"^(```|~~~).*?(?:^\1[ \t]*$|\Z)", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!--.*?(?:-->|\Z)", "", text, flags=re.DOTALL)
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    text = re.sub(r"^(#{1,6} .*)$", r"\n\1\n", text, flags=re.MULTILINE)
    text = re.sub(r"^(\S.*\n([=\-~^*#])\2{2,})[ \t]*$", r"\n\1\n", text, flags=re.MULTILINE)
    # A reStructuredText directive and its indented body.
    text = re.sub(r"^\.\. .*\n(?:[ \t]+.*\n|[ \t]*\n(?=[ \t]+\S))*", "\n", text, flags=re.MULTILINE)
    for block in re.split(r"\n[ \t]*\n", text):
        if re.match(r"[ \t]{4,}|\t|\s*\||\s*>>>|\s*\$ |\[{1,2}[\w.\"-]+\]{1,2}\s|[\w-]+ *= |[{}]", block):
            continue
        without_images = _IMAGE.sub("", block).strip()
        if _WORD.search(_TAG.sub("", without_images)):
            yield without_images


def comments(source: str, language: str = "") -> list[str]:
    """Texts of the comments of `source`, found by their marks (`#`, `//`, `--`, ` * `).

    Lines that follow each other are one comment; one of a licence is left out.
    """
    found: list[str] = []
    line, last_line, seen = 0, -2, 0
    for match in _COMMENT.finditer(source):
        mark = match[0].lstrip()[0]
        before = source[source.rfind("\n", 0, match.start()) + 1 : match.start()].strip()
        if (language in _HASH_LANGUAGES and mark != "#") or (mark in "*-;%" and before):
            continue  # within a line, `*` and `-` are operators
        text = match[1].strip("#*/ \t")
        if not _WORD.search(text) or _PRAGMA.match(text):
            continue
        line += source.count("\n", seen, match.start())
        seen = match.start()
        if line == last_line + 1 and not before and found:
            found[-1] += f" {text}"
        else:
            found.append(text)
        last_line = line
    return [text for text in found if not _LEGAL.search(text)]


def without_docstring(source: str, docstring: str) -> str:
    """`source` without the lines of its docstring, whatever their indentation."""
    told = {line.strip() for line in docstring.splitlines()} - {""}
    if not told:
        return source
    lines = source.split("\n")
    dropped = {number for number, line in enumerate(lines) if line.strip().strip("\"'` ") in told}
    quotes = {number for number, line in enumerate(lines) if line.strip() in ('"' * 3, "'" * 3)}
    dropped |= {number for number in quotes if number - 1 in dropped or number + 1 in dropped}
    return "\n".join(line for number, line in enumerate(lines) if number not in dropped)


def code_only(source: str) -> str:
    """`source` without strings and comments, roughly, in any language: what is left holds the identifiers."""
    return _STRING_OR_COMMENT.sub(" ", source)


def messages(source: str) -> list[str]:
    """String literals that read as sentences (three words or more): people quote them when they report a fault."""
    found: list[str] = []
    for match in _STRING_OR_COMMENT.finditer(source):
        text = " ".join(re.sub(r"\\[nrt]", " ", match["double"] or match["single"] or "").split())
        words = len(_PROSE_WORD.findall(text))
        if words >= 3 and words * 2 > text.count(" ") and "[" not in text and text not in found:
            found.append(text)
    return found


def identifiers(source: str) -> Counter[str]:
    """How often each identifier stands in `source`; keywords and digests (pinned commits) are left out."""
    return Counter(
        name
        for name in _IDENTIFIER.findall(source)
        if name.strip("_").lower() not in CODE_WORDS and not _DIGEST.fullmatch(name)
    )


def called_names(source: str) -> list[str]:
    """Names that are followed by `(`, each once, in their order, keywords and common built-ins left out."""
    names = (name for name in _CALL.findall(source) if name.strip("_").lower() not in CODE_WORDS)
    return list(dict.fromkeys(names))


def identifier_words(name: str) -> str:
    """An identifier in words, lower case: `getUserName` and `get_user_name` are `get user name`."""
    if len(name) <= 4 and name.isalnum():  # e2e, i18n, k8s
        return name.lower()
    return " ".join(part.lower() for part in _PARTS.findall(name))


def frequent_words(texts: Iterable[str], *, but: Iterable[str], limit: int) -> tuple[str, ...]:
    """The `limit` most frequent words of `texts`, lower case.

    No stop words, none of the identifiers `but` or their parts. Ties go to the word that comes first.
    """
    known: set[str] = set()
    for name in but:
        known.add(name.lower())
        known.update(identifier_words(name).split())
    counter: Counter[str] = Counter()
    for text in texts:
        for word in _WORD.findall(text):
            lower = word.lower().removesuffix("'s")
            if len(lower) > 2 and lower not in STOP_WORDS and "'" not in lower:
                counter[lower] += 1
    kept = (w for w, _ in counter.most_common() if w not in known and w.removesuffix("s") not in known)
    return tuple(word for word, _ in zip(kept, range(limit), strict=False))
