"""The languages that are read as code. A language is one module (or package) here, named as `classify` names it.

It offers `analyse`, `FAMILY` and `resolve_calls`. All files of other languages get a file unit only.
"""

import functools
import importlib
import importlib.util
from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

from summidx.parsing.budget import Budget
from summidx.parsing.links import Links, ParsedFile, join_links
from summidx.parsing.syntax import Syntax


class Language(Protocol):
    """A module that reads one language."""

    FAMILY: str
    """Languages of one family call each other: C and C++. Its name is one of theirs, whose `resolve_calls` is asked."""

    def analyse(self, text: str, budget: Budget, path: str = "") -> Syntax:
        """Read one file, of which `text` has LF line ends and no byte order mark; `path` tells dialects apart.

        Raises:
            OverBudget: the budget is used up.
        """
        ...

    def resolve_calls(self, files: Sequence[ParsedFile]) -> Links:
        """Who calls whom in the files of the family, which are all of a repository's."""
        ...


@functools.cache
def load_language(name: str) -> Language | None:
    """The language of that name, or None: then its files are not read as code."""
    module = f"{__name__}.{name}"
    if not name.isidentifier() or importlib.util.find_spec(module) is None:
        return None
    language: Language = importlib.import_module(module)
    return language


def resolve_calls(files: Sequence[ParsedFile]) -> Links:
    """Who calls whom in a repository, family by family."""
    families: dict[str, list[ParsedFile]] = defaultdict(list)
    for file in files:
        language = load_language(file.language)
        if language is not None:
            families[language.FAMILY].append(file)
    found = []
    for name, members in sorted(families.items()):
        language = load_language(name)
        if language is not None:
            found.append(language.resolve_calls(members))
    return join_links(found)
