"""The languages that are read as code. A language is one module (or package) here, named as `classify` names it.

It offers `analyse`. All files of other languages get a file unit only.
"""

import functools
import importlib
import importlib.util
from typing import Protocol

from summidx.parsing.budget import Budget
from summidx.parsing.syntax import Syntax


class Language(Protocol):
    """A module that reads one language."""

    def analyse(self, text: str, budget: Budget) -> Syntax:
        """Read one file, of which `text` has LF line ends and no byte order mark.

        Raises:
            OverBudget: the budget is used up.
        """
        ...


@functools.cache
def load_language(name: str) -> Language | None:
    """The language of that name, or None: then its files are not read as code."""
    module = f"{__name__}.{name}"
    if not name.isidentifier() or importlib.util.find_spec(module) is None:
        return None
    language: Language = importlib.import_module(module)
    return language
