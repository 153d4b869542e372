"""Plain folders: a walk by file descriptors that cannot leave the folder, block, or run away.

Folders are entered by name from their parent's descriptor without following symlinks (a check of a whole path would
guard its last component only), only regular files are opened, sizes are looked at before reading, and the depth is
counted by us (`os.walk` stops without a word where paths grow too long).
"""

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from summidx.errors import SourceError, SourceTooLarge
from summidx.records import Skip, SkipReason, SourceFile
from summidx.settings import SourceSettings
from summidx.sources.classify import too_large
from summidx.sources.content import (
    Fingerprint,
    ResolvedSource,
    SourceContent,
    bad_name,
    build_content,
    is_safe_path,
    printable,
    sort_out,
)
from summidx.sources.ignore import MAX_BYTES, IgnoreFile, parse_ignore_file
from summidx.sources.regular import open_folder, read_regular
from summidx.stop import Stop

LEFT_OUT = frozenset(
    {
        ".git", ".hg", ".svn", ".bzr", ".jj",
        ".venv", "venv", "node_modules", "__pycache__", "__pypackages__",
        ".tox", ".nox", ".eggs", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".ipynb_checkpoints",
    }
)  # fmt: skip
"""Never part of a project's own source, and ignored without a word, as what a `.gitignore` names."""

_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""The machine's fault, not the file's: skipping would make another index of the same folder."""


@dataclass(slots=True)
class _OpenFolder:
    """One step of the way down: `path` is "" or ends in `/`; `ignores` hold the length of their folder's path."""

    fd: int
    path: str
    names: Iterator[str]
    ignores: tuple[tuple[int, IgnoreFile], ...]


def resolve_folder(source: str, settings: SourceSettings, stop: Stop) -> ResolvedSource:
    """Fingerprint a plain folder: of exactly what reading it would give. Reads every file, holds one at a time.

    Raises:
        SourceError: it cannot be read, or holds more than the settings allow.
        Stopped: the run was told to stop.
    """
    fingerprint = Fingerprint()
    size_bytes = 0
    for item in sort_out(walk(source, settings, stop), source, settings, stop):
        fingerprint.add(item)
        size_bytes += len(item.data) if isinstance(item, SourceFile) else 0
    return ResolvedSource("folder", "", fingerprint.hexdigest(), size_bytes)


def read_folder(source: str, settings: SourceSettings, stop: Stop) -> SourceContent:
    """Read every file of a plain folder; the fingerprint is that of what was read.

    Raises:
        SourceError: it cannot be read, or holds more than the settings allow.
        Stopped: the run was told to stop.
    """
    return build_content(sort_out(walk(source, settings, stop), source, settings, stop))


def holds_a_file(source: str) -> bool:
    """Whether a folder holds anything to read; True where it cannot be looked into, so that reading it says why."""
    try:
        return any(isinstance(entry, SourceFile) for entry in walk(source, SourceSettings(), Stop()))
    except SourceError:
        return True


def walk(source: str, settings: SourceSettings, stop: Stop) -> Iterator[SourceFile | Skip]:
    """Yield every file that is not ignored, as stored, or why it is not read.

    Raises:
        SourceError: the folder itself cannot be read; more folders than `max_files`; no descriptors or memory left.
        Stopped: the run was told to stop.
    """
    way: list[_OpenFolder] = []
    folders = 0
    try:
        root, skips = _open(source, "", None, ())
        if root is None:
            raise SourceError(
                f"{source} cannot be read ({skips[0].detail}): check that it is a folder, and its permissions"
            )
        way.append(root)
        yield from skips
        while way:
            stop.check()
            here = way[-1]
            name = next(here.names, None)
            if name is None:
                os.close(way.pop().fd)
                continue
            entry = _look_at(here, name, settings)
            if not isinstance(entry, _Descend):
                yield from entry
                continue
            folders += 1
            if folders > settings.max_files:
                raise SourceTooLarge(
                    f"{source} holds more than {settings.max_files} folders, which is too many for one index: "
                    "name a smaller folder, or raise sources.max_files"
                )
            if len(way) > settings.max_depth:
                detail = f"more than {settings.max_depth} folders deep"
                yield Skip(printable(entry.path), SkipReason.TOO_DEEP, detail)
                continue
            below, skips = _open(name, entry.path, here.fd, here.ignores)
            if below is not None:
                way.append(below)
            yield from skips
    except OSError as error:
        raise SourceError(
            f"{source} cannot be read on this machine now ({error.strerror}): raise its limits (ulimit -n), or lower "
            "sources.max_depth"
        ) from error
    finally:
        for folder in way:
            os.close(folder.fd)


@dataclass(frozen=True, slots=True)
class _Descend:
    """A sub-folder to go into; `path` ends in `/`."""

    path: str


def _look_at(here: _OpenFolder, name: str, settings: SourceSettings) -> "_Descend | tuple[SourceFile | Skip, ...]":
    """What to do with one entry of a folder: go into it, read it, skip it, or (empty) ignore it."""
    path = here.path + name
    if name in LEFT_OUT:
        return ()
    try:
        status = os.stat(name, dir_fd=here.fd, follow_symlinks=False)
        is_folder = stat.S_ISDIR(status.st_mode)
        if _is_ignored(path + "/" if is_folder else path, here.ignores):
            return ()
        if is_folder:
            return _Descend(path + "/")
        return (_read_file(here.fd, name, path, status, settings),)
    except OSError as error:
        return (_unreadable(path, error),)


def _read_file(fd: int, name: str, path: str, status: os.stat_result, settings: SourceSettings) -> SourceFile | Skip:
    """Read one file, if it is one that can be read."""
    if stat.S_ISLNK(status.st_mode):
        return Skip(printable(path), SkipReason.SYMLINK)
    if not stat.S_ISREG(status.st_mode):
        return Skip(printable(path), SkipReason.SPECIAL_FILE, _special_kind(status.st_mode))
    if not is_safe_path(path):
        return bad_name(path, "the path is no printable UTF-8")
    if skip := too_large(path, status.st_size, settings):
        return skip
    data = read_regular(name, settings.max_file_bytes, dir_fd=fd)
    if data is None:
        return Skip(path, SkipReason.SPECIAL_FILE, "replaced while it was read")
    return too_large(path, len(data), settings) or SourceFile(path, data)


def _open(
    name: str, path: str, dir_fd: int | None, ignores: tuple[tuple[int, IgnoreFile], ...]
) -> tuple[_OpenFolder | None, tuple[Skip, ...]]:
    """Enter a folder: None where it cannot be (the skip says why), or holds a Python environment (no skip)."""
    try:
        fd = open_folder(name, dir_fd=dir_fd)
    except OSError as error:
        return None, (_unreadable(path, error),)
    try:
        names = sorted(os.listdir(fd))  # noqa: PTH208 - of a descriptor
        if "pyvenv.cfg" in names and dir_fd is not None:  # a virtual environment, whatever its name (PEP 405)
            os.close(fd)
            return None, ()
        skips: tuple[Skip, ...] = ()
        if ".gitignore" in names:
            found, skips = _read_ignore_file(fd, path + ".gitignore")
            ignores = (*ignores, (len(path), found)) if found else ignores
    except OSError as error:
        os.close(fd)
        return None, (_unreadable(path, error),)
    return _OpenFolder(fd, path, iter(names), ignores), skips


def _read_ignore_file(fd: int, path: str) -> tuple[IgnoreFile | None, tuple[Skip, ...]]:
    """The `.gitignore` of a folder, if it is a file (git follows no symlink either); what is not applied is said."""
    try:
        data = read_regular(".gitignore", MAX_BYTES, dir_fd=fd)
    except OSError as error:
        if error.errno in _OUT_OF_RESOURCES:
            raise
        return None, ()  # the walk comes upon it as a file, and says so
    if data is None:
        return None, ()
    if len(data) > MAX_BYTES:
        return None, (Skip(printable(path), SkipReason.UNREADABLE, f"not applied: larger than {MAX_BYTES} bytes"),)
    found = parse_ignore_file(data)
    if found.left_out:
        detail = f"{found.left_out} patterns not applied: too many `**`"
        return found, (Skip(printable(path), SkipReason.UNREADABLE, detail),)
    return found, ()


def _is_ignored(path: str, ignores: tuple[tuple[int, IgnoreFile], ...]) -> bool:
    """Whether `.gitignore` files say so: the deepest one that has a say decides."""
    for start, ignore in reversed(ignores):
        decision = ignore.decide(path[start:])
        if decision is not None:
            return decision
    return False


def _unreadable(path: str, error: OSError) -> Skip:
    if error.errno in _OUT_OF_RESOURCES:
        raise error
    return Skip(printable(path), SkipReason.UNREADABLE, os.strerror(error.errno) if error.errno else str(error))


def _special_kind(mode: int) -> str:
    kinds = {
        stat.S_IFIFO: "FIFO",
        stat.S_IFSOCK: "socket",
        stat.S_IFCHR: "character device",
        stat.S_IFBLK: "block device",
    }
    return kinds.get(stat.S_IFMT(mode), "unknown kind")
