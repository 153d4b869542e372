"""Who calls whom within a repository: what every language answers with. Pure.

What a name means is a language's own: Python's rules are in `languages/python/calls.py`, those that most others share
in `scopes.py`.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from summidx.parsing.syntax import Syntax


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """One file as a resolver reads it: its syntax, and the ids of its definitions, in their order."""

    path: str
    language: str
    syntax: Syntax
    ids: Sequence[str]
    is_test: bool = False


@dataclass(frozen=True, slots=True)
class Links:
    """Calls and callers by unit id, imported modules by path; all sorted, nothing where there is none."""

    calls: Mapping[str, tuple[str, ...]]
    called_by: Mapping[str, tuple[str, ...]]
    imports: Mapping[str, tuple[str, ...]]


class Resolver(Protocol):
    """Knows the files of one language."""

    def callees(self, file: ParsedFile, index: int) -> Iterable[str]:
        """Ids of what a definition calls; -1: what the file does outside all definitions."""
        ...

    def imports(self, file: ParsedFile) -> tuple[str, ...]:
        """What a file imports, sorted."""
        ...


def build_links(files: Sequence[ParsedFile], resolver: Resolver) -> Links:
    """Ask a resolver for each unit. What calls itself is left out."""
    calls: dict[str, set[str]] = defaultdict(set)
    called_by: dict[str, set[str]] = defaultdict(set)
    for file in files:
        for index in range(-1, len(file.ids)):
            caller = file.ids[index] if index >= 0 else file.path
            for callee in resolver.callees(file, index):
                if callee != caller:
                    calls[caller].add(callee)
                    called_by[callee].add(caller)
    return Links(
        calls={unit: tuple(sorted(callees)) for unit, callees in calls.items()},
        called_by={unit: tuple(sorted(callers)) for unit, callers in called_by.items()},
        imports={file.path: resolver.imports(file) for file in files},
    )


def join_links(parts: Iterable[Links]) -> Links:
    """Links of all languages. No language calls another one."""
    calls: dict[str, tuple[str, ...]] = {}
    called_by: dict[str, tuple[str, ...]] = {}
    imports: dict[str, tuple[str, ...]] = {}
    for part in parts:
        calls.update(part.calls)
        called_by.update(part.called_by)
        imports.update(part.imports)
    return Links(calls=calls, called_by=called_by, imports=imports)
