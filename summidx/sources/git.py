"""The git door: commits, trees and blobs straight from the object store, through libgit2 (pygit2), in this process.

git itself is never run, nothing is checked out, and no repository is opened in libgit2's sense: it is given the folders
of objects that gitdir.py has checked, one by one, so it reads no config (and checks no owner: there is nothing of the
repository that could act), follows no alternates and looks for no repository further up. Every object's hash is
verified as it is read (libgit2's default): what is hashed is what is parsed.
"""

import re
from collections.abc import Iterator

import pygit2
from pygit2.enums import FileMode, ObjectType

from summidx.errors import SourceError, SourceTooLarge, UnknownRevision, UnsupportedSource
from summidx.records import Skip, SkipReason, SourceFile
from summidx.settings import SourceSettings
from summidx.sources.classify import too_large
from summidx.sources.content import (
    ResolvedSource,
    SourceContent,
    bad_name,
    build_content,
    is_safe_path,
    printable,
    sort_out,
)
from summidx.sources.gitdir import GitDir, find_git_dir, resolve_name
from summidx.stop import Stop

_MAX_META_BYTES = 64 * 1024 * 1024
"""Of a commit, tag or tree. The largest trees of public repositories are a few MiB; more is a bomb."""
_REVISION = re.compile(r"(?P<name>.+?)(?P<steps>(?:[~^]\d{0,6})*)(?:\^\{(?:commit)?\})?")
"""A name, then steps to ancestors. No searches (`^{/text}`, `:/text`): they walk the history."""
_HEX_PREFIX = re.compile(r"[0-9a-fA-F]{4,40}")
"""git takes no abbreviation shorter than 4 (MINIMUM_ABBREV)."""


def resolve_git(
    source: str, revision: str | None, settings: SourceSettings, stop: Stop, *, measured: bool = True
) -> ResolvedSource:
    """Find the commit of a revision, its tree, and the bytes to read, by object headers alone.

    Args:
        source: a work tree, a worktree or a bare repository.
        revision: branch, tag, full or abbreviated id, HEAD, each with steps (`~2`, `^1`); None: HEAD.
        settings: what is read.
        stop: polled.
        measured: find the bytes to read, and with them objects that are missing; else the size is None.

    Raises:
        SourceError: one line: no repository, no such revision, objects that are missing or damaged.
        Stopped: the run was told to stop.
    """
    repository = GitRepository(find_git_dir(source))
    commit, tree = repository.resolve_commit(revision or "HEAD")
    if not measured:
        return ResolvedSource("git", commit, tree, None)
    size_bytes = sum(size for _, _, size in repository.iter_blobs(tree, settings, stop) if isinstance(size, int))
    return ResolvedSource("git", commit, tree, size_bytes)


def read_git(source: str, commit: str, settings: SourceSettings, stop: Stop) -> SourceContent:
    """Read every file of a commit, given by its full id.

    Raises:
        SourceError: as `resolve_git`; or more files or bytes than the settings allow.
        Stopped: the run was told to stop.
    """
    repository = GitRepository(find_git_dir(source))
    _, tree = repository.resolve_commit(commit)
    return build_content(sort_out(repository.iter_entries(tree, settings, stop), source, settings, stop), tree)


class GitRepository:
    """Objects of one repository. Not shared between threads: open one for each use, it costs a millisecond."""

    def __init__(self, git_dir: GitDir) -> None:
        self._git_dir = git_dir
        self._odb = pygit2.Odb()
        for store in git_dir.stores:
            self._odb.add_backend(pygit2.OdbBackendPack(str(store)), 1)
            self._odb.add_backend(pygit2.OdbBackendLoose(str(store), -1, False, 0, 0), 1)
        self._repository = pygit2.Repository()  # in memory: no folder, no config, no refs
        self._repository.set_odb(self._odb)

    @property
    def source(self) -> str:
        """The repository as the user named it, for messages."""
        return self._git_dir.source

    @property
    def objects(self) -> pygit2.Repository:
        """The object database, for the history (`history`)."""
        return self._repository

    def resolve_commit(self, revision: str) -> tuple[str, str]:
        """The ids, hex, of the commit that a revision stands for, and of its tree.

        Raises:
            UnknownRevision: there is none, or it is no commit.
            SourceError: the repository is damaged.
        """
        if re.fullmatch(r"[0-9a-fA-F]{64}", revision):
            raise UnsupportedSource(
                f"{self.source} is asked for a SHA-256 commit id, which libgit2 does not read: name a SHA-1 id"
            )
        match = _REVISION.fullmatch(revision)
        if match is None:
            raise self._no_revision(revision, "name a branch, a tag or a commit id, if need be with ~N or ^N")
        base = self._find_object(match["name"], revision)
        if not self._odb.exists(base):
            raise self._no_revision(revision, "run `git fetch --all --tags` there, or check its spelling")
        self._check_size(pygit2.Oid(hex=base), revision)
        try:
            found = self._repository.revparse_single(base + match["steps"])
        except (KeyError, ValueError, pygit2.GitError) as error:
            advice = "name another; or, if the clone is shallow, run `git fetch --unshallow` there"
            raise self._no_revision(revision, advice) from error
        target: pygit2.Object | pygit2.Commit | pygit2.Tag = found
        while isinstance(target, pygit2.Tag):
            target = self._read_object(target.target, revision)
        if not isinstance(target, pygit2.Commit):
            raise UnknownRevision(
                f"{self.source} has no commit at {printable(revision)!r} but a {target.type_str}: name a branch, a tag "
                "or a commit id"
            )
        return str(target.id), str(target.tree_id)

    def iter_entries(self, tree: str, settings: SourceSettings, stop: Stop) -> Iterator[SourceFile | Skip]:
        """Yield every file of a tree, as stored, or why it is not read."""
        for path, oid, found in self.iter_blobs(tree, settings, stop):
            yield found if isinstance(found, Skip) else SourceFile(path, self.read_blob(oid, path))

    def iter_blobs(
        self, tree: str, settings: SourceSettings, stop: Stop
    ) -> Iterator[tuple[str, pygit2.Oid, int | Skip]]:
        """Yield (path, blob id, size in bytes or why it is not read) for every entry that is no folder.

        A folder past `max_depth` comes as one skip. Sizes are those of object headers: nothing is unpacked.

        Raises:
            SourceError: objects that are missing or damaged.
            SourceTooLarge: more folders than `max_files`.
        """
        pending = [("", pygit2.Oid(hex=tree), 0)]
        folders = 0
        while pending:
            stop.check()
            prefix, oid, depth = pending.pop()
            folders += 1
            if folders > settings.max_files:
                raise SourceTooLarge(
                    f"{self.source} holds more than {settings.max_files} folders, which is too many for one index: "
                    "raise sources.max_files if that is meant"
                )
            names: set[bytes] = set()
            for entry in self._read_tree(oid, prefix):
                name = entry.raw_name or b""
                path = prefix + name.decode("utf-8", "surrogateescape")
                unsound = name in names or _is_unsound(name)
                names.add(name)
                if unsound:
                    yield path, entry.id, bad_name(path, "no checkout could hold a file of that name")
                elif entry.filemode != FileMode.TREE:
                    yield path, entry.id, self._look_at(entry, path, settings)
                elif depth >= settings.max_depth:
                    detail = f"more than {settings.max_depth} folders deep"
                    yield path, entry.id, Skip(printable(path + "/"), SkipReason.TOO_DEEP, detail)
                else:
                    pending.append((path + "/", entry.id, depth + 1))

    def _look_at(self, entry: pygit2.Object, path: str, settings: SourceSettings) -> int | Skip:
        """The size of a blob that can be read, or why it is not."""
        if entry.filemode == FileMode.LINK:
            return Skip(printable(path), SkipReason.SYMLINK)
        if entry.filemode == FileMode.COMMIT:
            return Skip(printable(path), SkipReason.SUBMODULE, f"commit {entry.id}")
        if not is_safe_path(path):
            return bad_name(path, "the path is no printable UTF-8")
        kind, size_bytes = self._read_header(entry.id, path)
        if kind != ObjectType.BLOB:
            raise self._damaged(path, "it is no blob")
        return too_large(path, size_bytes, settings) or size_bytes

    def _find_object(self, name: str, revision: str) -> str:
        """The hex id that a name stands for; as in git, a full id goes before a ref, a ref before an abbreviation."""
        if len(name) == 40 and _HEX_PREFIX.fullmatch(name):
            return name.lower()
        if oid := resolve_name(self._git_dir, name):
            return oid
        if _HEX_PREFIX.fullmatch(name):
            try:
                return str(self._repository.revparse_single(name.lower()).id)
            except pygit2.AmbiguousError as error:
                raise self._no_revision(revision, "the abbreviation fits several objects: name more digits") from error
            except (KeyError, pygit2.GitError):
                pass
        raise self._no_revision(revision, "run `git fetch --all --tags` there, or check its spelling")

    def _read_tree(self, oid: pygit2.Oid, path: str) -> pygit2.Tree:
        tree = self._read_object(oid, path or "its top folder")
        if not isinstance(tree, pygit2.Tree):
            raise self._damaged(path, "it is no tree")
        return tree

    def _read_object(self, oid: pygit2.Oid, path: str) -> pygit2.Object:
        """A commit, tag or tree, its size looked at first."""
        self._check_size(oid, path)
        try:
            return self._repository[oid]
        except (KeyError, ValueError, pygit2.GitError) as error:
            raise self._damaged(path, error) from error

    def read_blob(self, oid: pygit2.Oid, path: str) -> bytes:
        """The content of a blob, by its id."""
        try:
            return self._odb.read(oid)[1]
        except (KeyError, ValueError, pygit2.GitError) as error:
            raise self._damaged(path, error) from error

    def _read_header(self, oid: pygit2.Oid, path: str) -> tuple[int, int]:
        """Type and size of an object.

        A missing object is an error and no skip: the tree id would stay the same when it arrives, and an index with
        a gap would count as up to date for ever.
        """
        try:
            return self._odb.read_header(oid)
        except KeyError as error:
            raise SourceError(
                f"{self.source} lacks the content of {printable(path)} (object {oid}; a partial clone?), so its index "
                "would have gaps: fetch all objects (`git fetch --refetch --no-filter`), or clone it whole"
            ) from error
        except (ValueError, pygit2.GitError) as error:
            raise self._damaged(path, error) from error

    def _check_size(self, oid: pygit2.Oid, path: str) -> None:
        """Refuse a commit, tag or tree that unpacks to more than any real one."""
        kind, size_bytes = self._read_header(oid, path)
        if kind != ObjectType.BLOB and size_bytes > _MAX_META_BYTES:
            raise self._damaged(path, f"object {oid} of {size_bytes} bytes")

    def _damaged(self, path: str, why: object) -> SourceError:
        return SourceError(
            f"{self.source} is damaged at {printable(path)} ({str(why).splitlines()[0]}), so it cannot be read "
            "truthfully: run `git fsck` there, or clone it again"
        )

    def _no_revision(self, revision: str, advice: str) -> UnknownRevision:
        return UnknownRevision(f"{self.source} has no revision {printable(revision)!r}: {advice}")


def _is_unsound(name: bytes) -> bool:
    """Names that `git fsck` refuses in a tree: no checkout could have made them."""
    return name in {b"", b".", b".."} or b"/" in name or name.lower() == b".git"
