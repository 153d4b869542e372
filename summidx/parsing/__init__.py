"""Files to units, in a process of their own per repository: a parser's crash costs that repository, not the worker."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from summidx.records import ParsedRepo, SourceFile
from summidx.stop import Stop

if TYPE_CHECKING:
    from summidx.settings import ParseSettings

__all__ = ["parse"]


def parse(files: Sequence[SourceFile], settings: "ParseSettings", stop: Stop) -> ParsedRepo:
    """Read all files of a repository: its file, class and function units, sorted by path, then in order of the source.

    A file that is past its CPU time, or on which the parser crashed twice, has its file unit only, and a skip that says
    so. Memory is no property of a file: past `settings.memory_mb` the repository fails.

    Raises:
        ParseError: the process ran out of memory, was killed, or crashed on too many files.
        Stopped: the run was told to stop; the process is gone.
    """
    # The parsing process imports this package too, for each repository, and needs neither pydantic nor the sources.
    from summidx.parsing.repository import parse_files

    return parse_files(files, settings, stop)
