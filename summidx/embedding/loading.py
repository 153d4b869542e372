"""What loading a model by transformers has to say: it logs much that is of no use, and weights it made up among it."""

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from safetensors import SafetensorError

LOAD_FAULTS = (OSError, RuntimeError, ValueError, KeyError, TypeError, ImportError, SafetensorError)
"""What the libraries raise where a model cannot be loaded."""
_MISSING = re.compile(r"^(\S.*?) *\| (?:\x1b\[[\d;]*m)?MISSING", re.MULTILINE)


class _LoadReports(logging.Handler):
    """Collects what transformers reports of weights that a model needs and its files do not have."""

    def __init__(self, unused: str | None) -> None:
        super().__init__(logging.WARNING)
        self.missing: list[str] = []
        self._unused = unused

    def emit(self, record: logging.LogRecord) -> None:
        found = _MISSING.findall(record.getMessage())
        self.missing += [name for name in found if self._unused is None or self._unused not in name]


@contextmanager
def loading_quietly(*, unused: str | None = None) -> Iterator[list[str]]:
    """Load a model in this block, with no output of its own.

    Args:
        unused: part of the names of weights that the model does not use.

    Yields:
        Names of weights that were made up since the files have none.
    """
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    source, other = (logging.getLogger(name) for name in ("transformers.modeling_utils", "sentence_transformers"))
    level, propagate, level_of_other = source.level, source.propagate, other.level
    reports = _LoadReports(unused)
    source.addHandler(reports)
    source.setLevel(logging.WARNING)
    source.propagate = False
    other.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations between the libraries, of no use to who runs this
            yield reports.missing
    finally:
        source.removeHandler(reports)
        source.setLevel(level)
        source.propagate = propagate
        other.setLevel(level_of_other)


def describe_missing(names: Sequence[str]) -> str:
    """The first names of weights."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def explain_load(error: Exception, advice: str) -> str:
    """Why a model cannot be loaded, in one line; with `advice` for one that needs code of its makers."""
    if "trust_remote_code" in str(error):
        return f"it needs code of its makers; {advice}"
    return first_line(error)


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
