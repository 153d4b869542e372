"""What a user types, and what lies under a root: names and places of repositories. Nothing of them is read here."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from summidx.errors import UsageError
from summidx.escaping import escape_line
from summidx.records import RepoRef
from summidx.sources.gitdir import is_git


def parse_spec(spec: str) -> RepoRef:
    """Read `[NAME=]PATH[@REVISION]`.

    A path that exists as written goes before splitting at `@` or `=`: `user@host/x=y` is a folder if there is one.
    The source becomes an absolute path; whether it can be read is found out by `resolve`, since one missing folder
    must not cost the others their run. The default name is the folder's, plus `@REVISION`.

    Raises:
        UsageError: name, path or revision is empty or unprintable.
    """
    name, path, revision = next(
        (split for split in _splits(spec) if os.path.lexists(_absolute(split[1]))), _default_split(spec)
    )
    for part, value in (("name", name), ("path", path), ("revision", revision)):
        if value is not None and (not value.strip() or not _is_one_line(value)):
            raise UsageError(f"{spec!r} has no usable {part}: write [NAME=]PATH[@REVISION]")
    return make_ref(path, revision, name)


def make_ref(path: str, revision: str | None = None, name: str | None = None) -> RepoRef:
    """A reference to a folder, under its default name if none is given."""
    source = _absolute(path)
    if name is None:
        folder = Path(source)
        base = folder.parent.name if folder.name == ".git" else folder.name.removesuffix(".git")
        name = (base or "root") + (f"@{revision}" if revision else "")
    return RepoRef(name.strip(), source, revision)


def discover(root: str | Path) -> tuple[RepoRef, ...]:
    """Each sub-folder of `root` that is a repository, sorted by name: git, or a plain folder that holds a file.

    Hidden folders are left out, and those that `find_unnamable` finds. A symlink to a folder counts: the root is the
    operator's own.

    Raises:
        UsageError: `root` cannot be read.
    """
    from summidx.sources.folder import holds_a_file

    folders = filter(_is_one_line, _list_folders(root))
    return tuple(make_ref(folder) for folder in folders if is_git(folder) or holds_a_file(folder))


def find_unnamable(root: str | Path) -> tuple[str, ...]:
    """The sub-folders of `root` that `discover` leaves out since no index can be named after them, as they are shown.

    Raises:
        UsageError: as `discover`.
    """
    return tuple(escape_line(folder) for folder in _list_folders(root) if not _is_one_line(folder))


def _list_folders(root: str | Path) -> list[str]:
    top = _absolute(os.fspath(root))
    try:
        with os.scandir(top) as entries:
            return sorted(entry.path for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    except OSError as error:
        raise UsageError(
            f"the repositories' root {top!r} cannot be read ({error.strerror}): name a folder that holds repositories"
        ) from error


def check_names(refs: Iterable[RepoRef]) -> None:
    """Refuse two repositories of one name: their indexes would overwrite each other.

    Raises:
        UsageError: names each collision.
    """
    by_name: dict[str, list[RepoRef]] = defaultdict(list)
    for ref in refs:
        by_name[ref.name].append(ref)
    collisions = [
        f"{name} ({', '.join(ref.source + (f'@{ref.revision}' if ref.revision else '') for ref in same)})"
        for name, same in sorted(by_name.items())
        if len(same) > 1
    ]
    if collisions:
        raise UsageError(
            f"several repositories would share an index: {'; '.join(collisions)}: give each a name of its own with "
            "NAME=PATH, or name it only once"
        )


def _splits(spec: str) -> Iterator[tuple[str | None, str, str | None]]:
    """Every reading of a spec as (name, path, revision), the one with the longest path first."""
    named: list[tuple[str | None, str]] = [(None, spec)]
    if "=" in spec:
        name, path = spec.split("=", 1)
        named.append((name, path))
    for name_, rest in named:
        yield name_, rest, None
        for at in reversed([i for i, c in enumerate(rest) if c == "@"]):
            yield name_, rest[:at], rest[at + 1 :]


def _default_split(spec: str) -> tuple[str | None, str, str | None]:
    """The reading of a spec whose path does not exist: for the message only, but it must name what the user meant."""
    name, equals, path = spec.partition("=")
    named = bool(equals) and not name.startswith(("/", ".", "~"))
    rest = path if named else spec
    place, at, revision = rest.rpartition("@")
    return (name if named else None, place, revision) if at else (name if named else None, rest, None)


def _absolute(path: str) -> str:
    """Absolute, `~` expanded, `..` resolved; symlinks are kept. "" stays, so that it can be refused."""
    return os.path.abspath(Path(path).expanduser()) if path.strip() and "\0" not in path else path  # noqa: PTH100


def _is_one_line(value: str) -> bool:
    """Whether a value can be stored as JSON and printed on one line."""
    return not any(unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} for c in value)
