"""Pure: the symbols and files that a query names as such, not merely in words."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_PATH = re.compile(r"[\w./\\-]*\w\.(?:pyi?|pyx|[cm]?[jt]sx?|java|kt|go|rs|c|h|cc|cpp|hpp|cs|rb|php|scala|swift)\b")
_NAME = re.compile(r"(?<![\w./\\-])[A-Za-z_$][\w$]*(?:\.[A-Za-z_$][\w$]*)*")
_IDENTIFIER = re.compile(r"[a-zA-Z0-9]_[a-zA-Z0-9]|^_|[a-z0-9][A-Z]|[A-Z]{2}[a-z]")
"""What no English word looks like: snake_case, camelCase, HTTPAdapter."""
_QUOTED = re.compile(r"`([^`\n]+)`")
_CALLED = re.compile(r"([\w.$]+)\(")


@dataclass(frozen=True, slots=True)
class Mentions:
    """What a query names. `names` are identifiers, and pairs of them (`Class.method`); `paths` end as a file's path."""

    names: frozenset[str] = frozenset()
    paths: frozenset[str] = frozenset()

    @property
    def file_names(self) -> frozenset[str]:
        """Last parts of the paths."""
        return frozenset(path.rpartition("/")[2] for path in self.paths)

    def has_path(self, path: str) -> bool:
        """Whether a file's path, or its end, is named."""
        return any(path == each or path.endswith(f"/{each}") for each in self.paths)


def find_mentions(lines: Iterable[str]) -> Mentions:
    """The identifiers and paths of some lines.

    A name counts when it looks like code: by its letters, a dot, parentheses behind it, or quotes around it.
    """
    names: set[str] = set()
    paths: set[str] = set()
    for line in lines:
        paths.update(match.group().replace("\\", "/").lstrip("./") for match in _PATH.finditer(line))
        quoted = {word for text in _QUOTED.findall(line) for word in re.findall(r"[\w.$]+", text)}
        called = set(_CALLED.findall(line))
        for name in _NAME.findall(line):
            parts = name.split(".")
            if len(parts) > 1 or _IDENTIFIER.search(name) or name in quoted or name in called:
                names.update(parts)
                names.update(".".join(parts[at : at + 2]) for at in range(len(parts) - 1))
    return Mentions(frozenset(names), frozenset(paths))
