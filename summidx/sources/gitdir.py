"""Where a git repository keeps its objects and refs, found without trusting it. Standard library only.

Nothing of the repository's config is read, neither by us nor by libgit2 (git.py opens the object store alone): what a
config can name (hooks, filters, text conversion, fsmonitor, includes, other folders) does not exist for us. Two ways
out of the repository remain in its files, a `.git` that points elsewhere and alternates: someone who writes a
repository could use them to have another one of this machine read under its name. So both must stay inside, with one
exception, which only the owner of the other repository can make: a `git worktree` checkout that it points back to.
"""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from summidx.errors import SourceError, UnknownRevision, UnsupportedSource
from summidx.escaping import escape_line
from summidx.sources.regular import read_regular

_SMALL_BYTES = 64 * 1024
"""More than any HEAD, ref, `.git` or alternates file holds."""
_PACKED_REFS_BYTES = 512 * 1024 * 1024
_MAX_SYMREFS = 5
"""As git (SYMREF_MAXDEPTH): HEAD -> refs/heads/main is 1."""
_MAX_ALTERNATES_DEPTH = 5
"""As git: alternates of alternates beyond it are ignored."""

_OID = re.compile(rb"[0-9a-f]{40}")
_SHA256_OID = re.compile(rb"[0-9a-f]{64}")
_FORBIDDEN_IN_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|(?:^|/)\.|\.lock(?:/|$)|^/|/$|\.$")
"""git-check-ref-format."""
_DWIM_RULES = ("refs/{}", "refs/tags/{}", "refs/heads/{}", "refs/remotes/{}", "refs/remotes/{}/HEAD")
"""gitrevisions(7): where a short name is looked for, in this order."""


@dataclass(frozen=True, slots=True)
class GitDir:
    """A git directory that was checked. `own` has HEAD; `common` has refs and objects (they differ in a worktree)."""

    source: str
    own: Path
    common: Path
    stores: tuple[Path, ...]
    """Folders of objects: the repository's own first, then alternates that lie inside it."""


def is_git(path: str | Path) -> bool:
    """Whether a folder is a git repository: it has a `.git` (sound or not), or is a git directory itself."""
    return os.path.lexists(Path(path) / ".git") or _is_git_directory(Path(path))


def find_git_dir(source: str) -> GitDir:
    """Find and check the git directory of `source`: never above it, and nowhere outside but for a true worktree.

    Raises:
        SourceError: it is no sound repository.
        UnsupportedSource: it leads out of itself.
    """
    folder = Path(source)
    home = _real(folder)
    dot_git = folder / ".git"
    try:
        if not os.path.lexists(dot_git):
            own = common = home
        elif dot_git.is_file() and not dot_git.is_symlink():
            own = common = _follow_dot_git_file(source, dot_git)
            if not own.is_relative_to(home):
                common = _check_worktree(source, own, home)
        else:
            own = common = _real(dot_git)
            if not own.is_relative_to(home):
                raise _leads_out(source, ".git", own)
        if not _is_git_directory(common) or (own == common and os.path.lexists(own / "commondir")):
            raise SourceError(
                f"{source} has a .git that is no sound git directory, so nothing of it can be read: "
                "repair the repository, or remove .git to read it as a plain folder"
            )
        stores = _find_stores(source, common / "objects", (home, common), 0)
    except (OSError, ValueError) as error:  # ValueError: a NUL in a path
        raise SourceError(f"the git directory of {source} cannot be read ({error}): check its permissions") from error
    return GitDir(source, own, common, tuple(stores))


def resolve_name(git_dir: GitDir, name: str) -> str | None:
    """The object id, hex, that a branch, tag, remote branch, full ref name or HEAD stands for; None if there is none.

    Raises:
        SourceError: the refs are damaged.
        UnsupportedSource: they are of a kind that cannot be read.
        UnknownRevision: HEAD is unborn.
    """
    if name in {"HEAD", "@"}:
        oid = _read_ref(git_dir, "HEAD")
        if oid is None:
            raise UnknownRevision(
                f"{git_dir.source} has no commit at HEAD, so there is nothing to read: commit something, or name a "
                f"branch or commit ({git_dir.source}@REVISION)"
            )
        return oid
    if _FORBIDDEN_IN_REF.search(name):
        return None
    candidates = [rule.format(name) for rule in _DWIM_RULES]
    if name.startswith("refs/") or re.fullmatch(r"[A-Z_]+", name):
        candidates.insert(0, name)
    return next((oid for candidate in candidates if (oid := _read_ref(git_dir, candidate))), None)


def _is_git_directory(folder: Path) -> bool:
    """Git's own test (is_git_directory), but for `refs`, which may be packed in a file."""
    return (
        os.path.lexists(folder / "HEAD")
        and os.path.isdir(folder / "objects")  # noqa: PTH112 - unlike Path.is_dir, never raises
        and (os.path.isdir(folder / "refs") or os.path.isfile(folder / "packed-refs"))  # noqa: PTH112, PTH113
    )


def _real(path: Path) -> Path:
    """Without symlinks. Unlike Path.resolve, a loop of them does not raise."""
    return Path(os.path.realpath(path))


def _follow_dot_git_file(source: str, dot_git: Path) -> Path:
    """The git directory that a `.git` file names (gitfile, as `git worktree` and submodules make it)."""
    text = (read_regular(str(dot_git), _SMALL_BYTES) or b"").decode("utf-8", "surrogateescape")
    if not text.startswith("gitdir: "):
        raise SourceError(f"{source} has a .git file that names no git directory: repair it, or remove it")
    target = dot_git.parent / text.removeprefix("gitdir: ").rstrip("\r\n")
    if not target.is_dir():
        raise SourceError(
            f"{source} is a checkout whose git directory {str(target)!r} does not exist (was it moved or copied?): "
            "run `git worktree repair`, or remove .git to read it as a plain folder"
        )
    return _real(target)


def _check_worktree(source: str, own: Path, home: Path) -> Path:
    """The common git directory of a worktree, if that repository agrees: `worktrees/ID/gitdir` names this checkout."""
    back = read_regular(str(own / "gitdir"), _SMALL_BYTES) if os.path.lexists(own / "gitdir") else None
    common = own.parent.parent
    stated = read_regular(str(own / "commondir"), _SMALL_BYTES) if os.path.lexists(own / "commondir") else None
    if (
        own.parent.name != "worktrees"
        or back is None
        or _real(own / os.fsdecode(back.rstrip(b"\r\n"))) != home / ".git"
        or stated is None
        or _real(own / os.fsdecode(stated.rstrip(b"\r\n"))) != common
    ):
        raise _leads_out(source, ".git", own)
    return common


def _find_stores(source: str, objects: Path, inside: tuple[Path, Path], depth: int) -> list[Path]:
    """`objects` and its alternates, every one of them plain folders of plain files, inside one of `inside`."""
    resolved = _real(objects)
    if not any(resolved.is_relative_to(folder) for folder in inside):
        raise _leads_out(source, str(objects), resolved)
    _check_plain(source, resolved)
    stores = [resolved]
    for name in ("alternates", "http-alternates"):
        path = resolved / "info" / name
        lines = (read_regular(str(path), _SMALL_BYTES) or b"").splitlines() if os.path.lexists(path) else []
        targets = [os.fsdecode(line) for line in lines if line.strip() and not line.startswith(b"#")]
        for target in targets:
            if name == "http-alternates" or target.startswith('"'):
                raise _leads_out(source, f"objects/info/{name}", target)
            if depth < _MAX_ALTERNATES_DEPTH and (resolved / target).is_dir():
                stores += _find_stores(source, resolved / target, inside, depth + 1)
            elif not any(_real(resolved / target).is_relative_to(folder) for folder in inside):
                raise _leads_out(source, f"objects/info/{name}", target)
    return stores


def _check_plain(source: str, folder: Path) -> None:
    """Refuse a store that holds anything but folders and files: libgit2 would follow a symlink, and wait for a FIFO."""
    pending = [folder]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(Path(entry.path))
                elif entry.is_symlink() or not stat.S_ISREG(_mode(entry)):
                    raise UnsupportedSource(
                        f"{source} has {os.path.relpath(entry.path, folder)!r} among its objects, which is no plain "
                        "file and may lead out of the repository: clone it, and name the clone"
                    )


def _mode(entry: os.DirEntry[str]) -> int:
    """Type of an entry, from the folder itself where it says so: a stat for every loose object is dear."""
    return stat.S_IFREG if entry.is_file(follow_symlinks=False) else entry.stat(follow_symlinks=False).st_mode


def _leads_out(source: str, what: str, target: Path | str) -> UnsupportedSource:
    return UnsupportedSource(
        f"{source} leads out of itself ({what} points to {str(target)!r}), so another repository could be read under "
        "its name: name that git directory itself, or a full clone (`git clone --no-local`)"
    )


def _read_ref(git_dir: GitDir, name: str) -> str | None:
    """The object id of a ref by its full name, symbolic refs followed; None if there is none."""
    if (git_dir.common / "reftable").is_dir():
        raise UnsupportedSource(
            f"{git_dir.source} keeps its refs in the reftable format, which cannot be read: name a full commit id, or "
            "run `git refs migrate --ref-format=files`"
        )
    for _ in range(_MAX_SYMREFS + 1):
        value = _read_loose(git_dir, name) or _read_packed(git_dir, name)
        if value is None:
            return None
        if value.startswith(b"ref:"):
            name = value.removeprefix(b"ref:").strip().decode("utf-8", "surrogateescape")
            if not name.startswith("refs/") or _FORBIDDEN_IN_REF.search(name):
                break
        elif _OID.fullmatch(value):
            return value.decode()
        elif _SHA256_OID.fullmatch(value):
            raise UnsupportedSource(
                f"{git_dir.source} has SHA-256 object ids, which libgit2 does not read: name a SHA-1 repository "
                "(or a plain export of it: `git archive`)"
            )
        else:
            break
    raise SourceError(f"{git_dir.source} has a damaged ref {name!r}: repair it (`git fsck`), or name a full commit id")


def _read_loose(git_dir: GitDir, name: str) -> bytes | None:
    """First line of a ref's own file. HEAD and what belongs to one worktree lie in the worktree's git directory."""
    own = "/" not in name or name.startswith(("refs/bisect/", "refs/worktree/", "refs/rewritten/"))
    path = (git_dir.own if own else git_dir.common) / name
    try:
        data = read_regular(str(path), _SMALL_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SourceError(
            f"the ref {escape_line(name)} of {git_dir.source} cannot be read ({error}): check its permissions"
        ) from error
    return data.split(b"\n", 1)[0].strip() if data else None


def _read_packed(git_dir: GitDir, name: str) -> bytes | None:
    """A ref's object id from `packed-refs`."""
    try:
        data = read_regular(str(git_dir.common / "packed-refs"), _PACKED_REFS_BYTES) or b""
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SourceError(f"packed-refs of {git_dir.source} cannot be read ({error}): check its permissions") from error
    match = re.search(rb"^([0-9a-f]{40,64}) " + re.escape(os.fsencode(name)) + rb"\r?$", data, re.MULTILINE)
    return match[1] if match else None
