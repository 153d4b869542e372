"""Python."""

from summidx.parsing.languages.python.calls import resolve_calls
from summidx.parsing.languages.python.definitions import analyse

FAMILY = "python"

__all__ = ["FAMILY", "analyse", "resolve_calls"]
