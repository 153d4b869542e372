"""Where repositories come from: git objects and plain folders.

    parse_spec, discover, check_names   what the user named          (specs; find_unnamable: what discover leaves out)
    resolve                             fixed to content             -> ResolvedSource
    read_source                         all files, and all skips     -> SourceContent

A folder that is a git repository is read as git, never as a folder: what is committed is what is indexed. Nothing of a
repository is ever executed, and its files are text by the same rules (classify) wherever they come from.
"""

import os

from summidx.errors import SourceError, UnknownRevision
from summidx.records import RepoRef
from summidx.settings import SourceSettings
from summidx.sources.content import ResolvedSource, SourceContent
from summidx.sources.gitdir import is_git
from summidx.sources.specs import check_names, discover, find_unnamable, parse_spec
from summidx.stop import Stop

__all__ = [
    "ResolvedSource",
    "SourceContent",
    "check_names",
    "discover",
    "find_unnamable",
    "parse_spec",
    "read_source",
    "resolve",
]


def resolve(
    ref: RepoRef, settings: SourceSettings, stop: Stop | None = None, *, measured: bool = True
) -> ResolvedSource:
    """Fix a repository to content: a git revision to its commit and tree, a plain folder to the hash of its files.

    Without `measured`, the size of a git repository is not looked for: that takes a look at each of its files, where
    its tree tells that nothing of them has changed. Of a plain folder it is always known.

    Raises:
        SourceError: it is missing, cannot be read, or lacks the revision; one line with advice.
        Stopped: the run was told to stop.
    """
    stop = stop or Stop()
    _check_folder(ref.source)
    if is_git(ref.source):
        from summidx.sources.git import resolve_git

        return resolve_git(ref.source, ref.revision, settings, stop, measured=measured)
    if ref.revision is not None:
        raise UnknownRevision(
            f"{ref.source} is a plain folder, which has no revision {ref.revision!r}: leave out @{ref.revision}, or "
            "name a git repository"
        )
    from summidx.sources.folder import resolve_folder

    return resolve_folder(ref.source, settings, stop)


def read_source(source: str, commit: str, settings: SourceSettings, stop: Stop) -> SourceContent:
    """Read all of a repository that was fixed by `resolve`.

    Args:
        source: absolute path.
        commit: full hex id; "" for a plain folder.
        settings: what is read.
        stop: polled between files.

    Returns:
        Files, skips, and the tree of what was read: a plain folder may have changed since it was resolved.

    Raises:
        SourceError: it is missing, cannot be read, or holds more than the settings allow; one line with advice.
        Stopped: the run was told to stop.
    """
    _check_folder(source)
    if commit:
        from summidx.sources.git import read_git

        return read_git(source, commit, settings, stop)
    if is_git(source):
        raise SourceError(f"{source} has become a git repository since it was planned: start the run again")
    from summidx.sources.folder import read_folder

    return read_folder(source, settings, stop)


def _check_folder(source: str) -> None:
    if not os.path.isdir(source):  # noqa: PTH112 - a str, as it is stored
        problem = "is no folder" if os.path.lexists(source) else "does not exist"
        raise SourceError(f"{source} {problem}, so nothing can be read: check the path")
