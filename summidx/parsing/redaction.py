"""Secrets taken out of a file's text before anything else sees it: the parser, a prompt, an index.

Kingfisher knows some 490 forms of credentials; it runs in this process, without network, in time linear in the text.
To it come four forms that it leaves out, or tells only together with their other half. None of it goes by entropy
alone, which would take hashes and test data for secrets. Lines stay where they are, and so do quotes and indents: what
is redacted is as much of a program as before.
"""

import math
import re
import threading
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

from summidx.parsing.text import decode
from summidx.records import Skip, SkipReason, SourceFile

if TYPE_CHECKING:
    from kingfisher_sdk import Scanner

SCANNER_VERSION = "1.5.0"
"""The release of kingfisher-secret-scanner; another one finds other things, and moves `keys.INDEX_VERSION`."""
TIMEOUT_S = 20.0
"""For one file. The scanner reads more than 50 MB/s, and a file has 1 MB: what meets this was made for it."""
LEAST_ENTROPY = 3.4
"""Bits a character, of what is assigned to a name such as `api_key`: words and identifiers mostly have less."""
NAMES_TOLD = 5

_PATTERNS = {
    # The id alone is no secret, but it is what people plant, search for and are warned of.
    "aws-access-key": re.compile(rb"(?<![A-Za-z0-9])((?:AKIA|ASIA)[A-Z2-7]{16})(?![A-Za-z0-9])"),
    "password-in-url": re.compile(rb"://[^\s:/@\"'<>]{0,64}:([^\s:/@\"'<>{}$*]{4,128})@(?=[\w.\[-])"),
    # One that is cut short, too, or broken over string literals. A hyphen ends it, so that nothing is read twice.
    "private-key": re.compile(rb"(-----BEGIN[A-Z ]{0,30}PRIVATE KEY-----[A-Za-z0-9+/=\s\\\"',.:]{64,20000})"),
    "assigned-secret": re.compile(
        rb"(?:passw(?:or)?d|secret|token|api_?key|access_?key|private_?key|secret_?key)[\"']?[ \t]{0,3}(?:=>|:=|[:=])"
        rb"[ \t]{0,3}[\"']?([A-Za-z0-9+/=_!@#^&*~-]{16,200})(?![^\s\"',;])",
        re.IGNORECASE,
    ),
}
_SECRET_CHARACTERS = re.compile(rb"[^\s\"'`]+")
_UNSAFE_IN_MARKER = re.compile(r"[^A-Za-z0-9_-]+")

_scanning = threading.Lock()


def redact(file: SourceFile) -> tuple[bytes, Skip | None]:
    """A file's bytes without the secrets in them, and a record of how many there were.

    Where there is none, they are the file's own; else UTF-8. A file that cannot be looked through is emptied.
    """
    text = decode(file.data, declared=file.path.endswith((".py", ".pyi"))).encode("utf-8", "replace")
    try:
        spans = _merge(sorted(_find(text)))
    except (TimeoutError, RuntimeError) as error:
        detail = f"emptied: it could not be searched for secrets ({type(error).__name__})"
        return b"", Skip(file.path, SkipReason.REDACTED, detail)
    if not spans:
        return file.data, None
    pieces, at = [], 0
    for start, end, name in spans:
        pieces += [text[at:start], _replace(text[start:end], name)]
        at = end
    counts = Counter(name for _, _, name in spans)
    named = ", ".join(f"{n} {name}" for name, n in counts.most_common(NAMES_TOLD))
    return b"".join([*pieces, text[at:]]), Skip(file.path, SkipReason.REDACTED, named)


def _find(text: bytes) -> Iterator[tuple[int, int, str]]:
    """Start, end and form of what is secret, in bytes."""
    with _scanning:
        findings = _scanner().scan(text, timeout=TIMEOUT_S)
    for finding in findings:  # those that are not `visible`, too: halves of a credential without the other
        place = finding.location
        name = _UNSAFE_IN_MARKER.sub("-", re.split(r"[./]", finding.rule_id)[-1])
        yield place["start_offset"], place["end_offset"], name
    for name, pattern in _PATTERNS.items():
        for match in pattern.finditer(text):
            if name != "assigned-secret" or _is_random(match[1]):
                yield *match.span(1), name


@cache
def _scanner() -> "Scanner":
    """Some 0.3 s and 60 MB once for each process; 3.5 s where its compiled rules are not in the user's cache folder."""
    from kingfisher_sdk import Rules, Scanner

    return Scanner(Rules(), base64=False)


def _merge(spans: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    merged: list[tuple[int, int, str]] = []
    for start, end, name in spans:
        if merged and start < merged[-1][1]:
            first, last, known = merged[-1]
            merged[-1] = (first, max(last, end), name if known == "assigned-secret" else known)
        elif end > start:
            merged.append((start, end, name))
    return merged


def _replace(secret: bytes, name: str) -> bytes:
    """A marker in the place of the first run of its characters; what holds the lines of a program together stays."""
    marker = iter([f"<redacted: {name}>".encode()])
    return _SECRET_CHARACTERS.sub(lambda _: next(marker, b""), secret)


def _is_random(value: bytes) -> bool:
    if sum(48 <= byte <= 57 for byte in value) < 3 or not re.search(rb"[A-Za-z]", value):
        return False
    shares = [n / len(value) for n in Counter(value).values()]
    return -sum(share * math.log2(share) for share in shares) >= LEAST_ENTROPY
