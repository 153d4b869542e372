"""The history of a git repository, as its object database tells it: commits, and the files that each changed."""

from collections.abc import Iterator
from dataclasses import dataclass

import pygit2
from pygit2.enums import DeltaStatus, SortMode

from summidx.errors import SourceError
from summidx.records import SourceFile
from summidx.sources.content import is_safe_path
from summidx.sources.git import GitRepository
from summidx.sources.gitdir import find_git_dir
from summidx.stop import Stop


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit with exactly one parent; ids are full and hex."""

    id: str
    parent: str
    message: str


@dataclass(frozen=True, slots=True)
class Changes:
    """What a commit did to its parent. `edited` are paths that are in both, `others` those that came, went or moved."""

    edited: tuple[str, ...]
    others: tuple[str, ...]


class History:
    """Reads commits; for one thread.

    Raises:
        SourceError: at construction and from every method, when the repository cannot be read.
    """

    def __init__(self, source: str) -> None:
        self._git = GitRepository(find_git_dir(source))
        self._objects = self._git.objects

    def commits(self, revision: str, stop: Stop) -> Iterator[Commit]:
        """Yield the commits that `revision` is made of, newest first; merges and the first one are left out.

        A shallow clone's history ends where it was cut.
        """
        tip, _ = self._git.resolve_commit(revision)
        try:
            for commit in self._objects.walk(pygit2.Oid(hex=tip), SortMode.TOPOLOGICAL | SortMode.TIME):
                stop.check()
                if len(commit.parent_ids) == 1 and commit.parent_ids[0] in self._objects:
                    yield Commit(str(commit.id), str(commit.parent_ids[0]), commit.message)
        except (KeyError, pygit2.GitError) as error:
            raise SourceError(f"the history of {self._git.source} cannot be read ({error}): run `git fsck`") from error

    def changes(self, commit: Commit) -> Changes:
        """Paths that a commit changed."""
        edited: list[str] = []
        others: list[str] = []
        for delta in self._diff(commit).deltas:
            target = edited if delta.status is DeltaStatus.MODIFIED else others
            target.append(delta.new_file.path if delta.status is not DeltaStatus.DELETED else delta.old_file.path)
        return Changes(tuple(edited), tuple(others))

    def patch(self, commit: Commit, paths: frozenset[str]) -> str:
        """The unified diff of some of the files that a commit changed."""
        texts = (patch.text for patch in self._diff(commit) if patch and patch.delta.new_file.path in paths)
        return "".join(text for text in texts if text)

    def read(self, commit: str, path: str) -> SourceFile:
        """A file of a commit."""
        entry = self._read_commit(commit).tree[path]
        if not isinstance(entry, pygit2.Blob) or not is_safe_path(path):
            raise SourceError(f"{path} of commit {commit} in {self._git.source} is no file that can be read")
        return SourceFile(path, entry.data)

    def _diff(self, commit: Commit) -> pygit2.Diff:
        try:
            return self._read_commit(commit.parent).tree.diff_to_tree(self._read_commit(commit.id).tree)
        except (KeyError, pygit2.GitError) as error:
            raise SourceError(f"commit {commit.id} of {self._git.source} cannot be read: {error}") from error

    def _read_commit(self, commit: str) -> pygit2.Commit:
        found: pygit2.Commit = self._objects[pygit2.Oid(hex=commit)].peel(pygit2.Commit)
        return found
