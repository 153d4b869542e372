"""A development set from a repository's own history: commits that mend something, each a query with known answers.

A commit is taken when its message tells of a fix, and it edits one or two files of code that are no tests, and in them
one or two functions or classes that were there before. Its message is the query, its parent the commit to search.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from summidx.evaluation.datasets import Instance
from summidx.evaluation.gold import Gold, Span, find_gold, parse_patch
from summidx.parsing import parse
from summidx.records import Level, SourceFile, Unit
from summidx.settings import ParseSettings
from summidx.sources.classify import is_secondary_path, is_test_path
from summidx.sources.history import Commit, History
from summidx.stop import Stop

MAX_FILES = 2
MAX_ENTITIES = 2
MIN_WORDS = 6
CODE_SUFFIXES = (".py",)
"""Files that are read as code; a fix in any other is not taken."""

_FIX = re.compile(
    r"\b(?:fix(?:es|ed|ing)?|bug(?:fix)?|crash(?:es|ed)?|regression|broken|incorrect(?:ly)?|wrong(?:ly)?)\b"
)
_NO_FIX = re.compile(
    r"^(?:revert|merge|bump|release|prepare|\[?(?:docs?|ci|tests?|chore|style|refactor|build|typing|lint)\b)"
    r"|\b(?:typos?|spelling|grammar|docs?|docstrings?|documentation|changelog|readme|lint(?:er|ing)?|flake8|mypy"
    r"|pylint|ruff|pyright|type hints?|typing|annotations?|pre-commit|tests?|testing|flaky|ci|travis|tox|coverage"
    r"|formatting|imports?|whitespace|pep ?8|warnings?|isort|style|version)\b"
)
"""Fixes of what is no behaviour: said in the subject."""
_TRAILER = re.compile(
    r"^(?:[A-Z][\w-]*-by: .*|\(cherry[- ]picked from .*|(?:conflicts|git-svn-id):.*|<[^>\s]*@[^>]*>|---+)$",
    re.IGNORECASE,
)
_REFERENCE = r"(?:[\w.-]+/[\w.-]+)?(?:#|gh-)\d+|https?://\S+/(?:issues|pull)/\d+\S*"
_NUMBERS = re.compile(
    rf"\b(?:fix(?:es|ed)?|close[sd]?|resolve[sd]?|refs?|see|issues?)[: ]+(?:{_REFERENCE})|\s*\(?(?:{_REFERENCE})\)?",
    re.IGNORECASE,
)
_CLOSES = re.compile(rf"\b(?:fix(?:es|ed)?|close[sd]?|resolve[sd]?)[: ]+(?:{_REFERENCE})", re.IGNORECASE)
_BULLET = re.compile(r"^\s*[*-]\s+(.*)")
_BACKPORT = re.compile(r"^(?:(?:\[PR\s*#[^\]]*\]|\[\d[\d.]*\]|Backport\b[:\s]*)\s*)+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Candidate:
    commit: Commit
    paths: tuple[str, ...]
    text: str


def iterate_fixes(
    repo: str, source: str, revision: str, stop: Stop, *, limit: int, strip_names: bool = False
) -> Iterator[Instance]:
    """Yield up to `limit` instances of a repository, spread evenly over its history, newest first.

    Args:
        repo: `owner/name`.
        source: path of the clone.
        revision: where the history begins.
        stop: polled.
        limit: how many at most.
        strip_names: take the names of the gold items out of the query.

    Raises:
        SourceError: the repository cannot be read.
        ParseError: its files cannot be parsed.
        Stopped: the run was told to stop.
    """
    history = History(source)
    candidates = list(_iterate_candidates(history, revision, stop))
    found = [pair for part in _chunks(candidates, 100) for pair in _find_gold(history, part, stop)]
    for candidate, gold in _spread(found, limit):
        text = strip_gold_names(candidate.text, gold) if strip_names else candidate.text
        yield Instance(
            instance_id=f"{repo.replace('/', '__')}-{candidate.commit.id[:10]}",
            repo=repo,
            base_commit=candidate.commit.parent,
            problem_statement=text,
            files=gold.files,
            entities=gold.entities,
        )


def clean_message(message: str) -> str:
    """A commit's message without trailers, numbers of issues, marks of backports, and what tells of tests and the like.

    The commits of a pull request that were squashed to one stand in its message as bullets: those that say nothing of
    behaviour, or only the subject again, are dropped.
    """
    lines = [line for line in message.replace("\r", "").split("\n") if not _TRAILER.match(line.strip())]
    lines = [_NUMBERS.sub("", _BACKPORT.sub("", line)).rstrip() for line in lines]
    subject = next((line.strip().lower() for line in lines if line.strip()), "")
    told = []
    for line in lines:
        bullet = _BULLET.match(line)
        if bullet and (bullet[1].strip().lower() == subject or _NO_FIX.search(bullet[1].lower())):
            continue
        told.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(told)).strip()


def tells_of_fix(message: str) -> bool:
    """Whether a message tells of a fix of behaviour, in enough words to search by."""
    text = clean_message(message)
    subject = text.partition("\n")[0].lower()
    return (
        (_FIX.search(subject) is not None or _CLOSES.search(message) is not None)
        and _NO_FIX.search(subject) is None
        and len(re.findall(r"[^\W\d_]{2,}", text)) >= MIN_WORDS
    )


def strip_gold_names(text: str, gold: Gold) -> str:
    """The text without the names of the gold: paths, stems of files, functions and classes."""
    names = set(gold.files)
    for path in gold.files:
        name = path.rpartition("/")[2]
        names |= {name, name.rpartition(".")[0], path.rpartition(".")[0].replace("/", ".")}
    for entity in gold.entities:
        qualified = entity.partition(":")[2]
        names |= {qualified, *qualified.split(".")}
    alternatives = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True) if name)
    return re.sub(rf"(?<!\w)(?:{alternatives})(?!\w)", "", text, flags=re.IGNORECASE)


def _iterate_candidates(history: History, revision: str, stop: Stop) -> Iterator[_Candidate]:
    subjects: set[str] = set()
    for commit in history.commits(revision, stop):
        text = clean_message(commit.message)
        subject = text.partition("\n")[0].lower()
        if subject in subjects or not tells_of_fix(commit.message):
            continue
        changes = history.changes(commit)
        code = [path for path in (*changes.edited, *changes.others) if _is_judged(path)]
        if 1 <= len(code) <= MAX_FILES and set(code) <= set(changes.edited):
            subjects.add(subject)
            yield _Candidate(commit, tuple(sorted(code)), text)


def _is_judged(path: str) -> bool:
    return path.endswith(CODE_SUFFIXES) and not is_test_path(path) and not is_secondary_path(path)


def _find_gold(history: History, part: Sequence[_Candidate], stop: Stop) -> Iterator[tuple[_Candidate, Gold]]:
    """Those of some candidates that edit one or two functions or classes. Their files are parsed in one process."""
    files = [
        SourceFile(f"{number}/{path}", history.read(candidate.commit.parent, path).data)
        for number, candidate in enumerate(part)
        for path in candidate.paths
    ]
    units: dict[str, list[Unit]] = {}
    for unit in parse(files, ParseSettings(redact=False), stop).units:
        units.setdefault(unit.path, []).append(unit)
    for number, candidate in enumerate(part):
        changes = parse_patch(history.patch(candidate.commit, frozenset(candidate.paths)))
        gold = find_gold(changes, lambda path, number=number: spans_of_units(units.get(f"{number}/{path}", ())))  # type: ignore[misc]
        if 1 <= len(gold.entities) <= MAX_ENTITIES and len(gold.files) == len(
            {e.partition(":")[0] for e in gold.entities}
        ):
            yield candidate, gold


def spans_of_units(units: Iterable[Unit]) -> list[Span]:
    """Where the functions and classes of a file stand."""
    return [
        Span(unit.qualified_name, unit.start_line, unit.end_line, unit.level is Level.CLASS)
        for unit in units
        if unit.level in (Level.FUNCTION, Level.CLASS)
    ]


def _chunks(items: Sequence[_Candidate], size: int) -> Iterator[Sequence[_Candidate]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _spread(items: Sequence[tuple[_Candidate, Gold]], limit: int) -> Sequence[tuple[_Candidate, Gold]]:
    if len(items) <= limit:
        return items
    return [items[at * len(items) // limit] for at in range(limit)]
