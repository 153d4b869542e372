"""Python."""

from summidx.parsing.languages.python.definitions import analyse

__all__ = ["analyse"]
