""".gitignore files of a plain folder, at every depth, with git's rules: the deepest file that has a say decides.

pathspec translates a pattern; whether it matches is asked of exactly the path in question, as git does: what lies under
an ignored folder is never reached, so it cannot be taken back in. One difference is left: `?` is a character here, and
a byte of UTF-8 to git.
"""

import re
from dataclasses import dataclass

from pathspec.patterns.gitignore import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

MAX_BYTES = 256 * 1024
"""Of one file. The largest of github/gitignore's templates have a few KiB."""

_MAX_DOUBLE_STARS = 4
"""In one pattern: each multiplies the work by the depth of a path."""

_SHORTHANDS = {".": ".+", "(?P<ps_d>/)": ".+/"}
"""pathspec's own for "everything" and "every folder", made for a search; here the whole path must match."""

_STAR = r"\[\^/\]\*"
_TOKEN = r"(?:\\.|\[(?:\\.|[^\]\\])+\]|[^\\\[\]()*+?|/])"  # noqa: S105 - a token of a regex
_BACKTRACKING_STAR = re.compile(rf"{_STAR}((?:(?!{_STAR}){_TOKEN})*)(?={_STAR})")


@dataclass(frozen=True, slots=True)
class IgnoreFile:
    """The patterns of one `.gitignore`: (regex on the path below its folder, True: ignore, False: take back in)."""

    patterns: tuple[tuple[re.Pattern[str], bool], ...]
    left_out: int = 0
    """Patterns that are not applied, since a match could take for ever."""

    def decide(self, path: str) -> bool | None:
        """Whether `path` (relative to this file's folder, a folder ending in `/`) is ignored; None: it has no say."""
        for regex, ignored in reversed(self.patterns):
            if regex.fullmatch(path):
                return ignored
        return None


def parse_ignore_file(data: bytes) -> IgnoreFile:
    """Read a `.gitignore`. Lines that are no patterns are passed over, as git does."""
    patterns: list[tuple[re.Pattern[str], bool]] = []
    left_out = 0
    for line in data.decode("utf-8-sig", "surrogateescape").split("\n"):
        try:
            pattern = GitIgnoreSpecPattern(_spell_out(line.removesuffix("\r")))
        except GitIgnorePatternError:
            continue
        if pattern.regex is None or pattern.include is None:
            continue
        if line.count("**") > _MAX_DOUBLE_STARS:
            left_out += 1
            continue
        patterns.append((_without_backtracking(pattern.regex.pattern), pattern.include))
    return IgnoreFile(tuple(patterns), left_out)


def _spell_out(line: str) -> str:
    """Say what a `**` at the end means, everything below: pathspec takes it for the folder itself as well."""
    if not line.endswith("\\ "):
        line = line.rstrip(" ")
    if line.endswith("/**/"):
        return line + "*/"
    return line + "/*" if line.endswith("/**") else line


def _without_backtracking(regex: str) -> re.Pattern[str]:
    """Compile a pattern's regex so that `a*a*a*...` takes linear time, not exponential: patterns are a stranger's.

    When one `*` is followed by another in the same path segment, the text between them can be taken where it first
    occurs (the later star takes the rest): an atomic group says so. DOTALL, since names may hold line breaks.
    """
    regex = _SHORTHANDS.get(regex, regex)
    return re.compile(_BACKTRACKING_STAR.sub(r"(?>[^/]*?\1)", regex), re.DOTALL)
