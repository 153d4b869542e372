"""Pure: the units of a repository's files become one tree, with directories and the repository above them.

The repository is the root (there is no `./` node). A directory whose only child is a directory is joined with it
(`src/click/`). Children are sorted by path, name and id: a parent's request does not depend on the order of reading.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from summidx.records import Level, Unit

REPO_ID = "."
READMES = ("readme.md", "readme.rst", "readme.txt", "readme")
"""What is read as a directory's README, the first found, in any case of letters."""
MANIFESTS = (
    "pyproject.toml",
    "setup.cfg",
    "setup.py",
    "package.json",
    "Cargo.toml",
    "go.mod",
    "pom.xml",
    "build.gradle",
    "Gemfile",
    "composer.json",
    "CMakeLists.txt",
)
"""Files that say what a repository is; the first found is read with the README."""


@dataclass(frozen=True, slots=True)
class Tree:
    """All units of a repository. `units` is in printing order: each parent, then its children, depth first."""

    units: Mapping[str, Unit]
    children: Mapping[str, tuple[str, ...]]
    depths: Mapping[str, int]
    """Number of ancestors."""

    def parent_of(self, unit_id: str) -> str | None:
        """Id of the parent, or None for the repository."""
        return self.units[unit_id].parent_id

    def ancestors_of(self, unit_id: str) -> Iterator[str]:
        """Ids from the parent up to the repository."""
        parent = self.parent_of(unit_id)
        while parent is not None:
            yield parent
            parent = self.parent_of(parent)


@dataclass(slots=True)
class _Folder:
    """A folder while the tree is built; `path` is "" for the root, else ends with `/`."""

    path: str
    folders: dict[str, "_Folder"] = field(default_factory=dict)
    files: list[Unit] = field(default_factory=list)


def build_tree(units: Iterable[Unit], repo_name: str) -> Tree:
    """Join files, classes and functions to a tree under directories and the repository `repo_name`.

    Calls from and to units that are not among `units` (tests that are left out) are dropped.
    `parent_id` of each unit in the result is its parent in the tree, None only for the repository.
    """
    inner: dict[str, list[Unit]] = {}
    root = _Folder("")
    given = {unit.id: unit for unit in units}
    for unit in (_without_lost_links(unit, given) for unit in given.values()):
        if unit.level is Level.FILE:
            _folder_of(root, unit.path).files.append(unit)
        elif unit.parent_id is not None:
            inner.setdefault(unit.parent_id, []).append(unit)

    placed: dict[str, Unit] = {}
    children: dict[str, tuple[str, ...]] = {}
    depths: dict[str, int] = {}
    stack: list[tuple[Unit | _Folder, str | None, int]] = [(root, None, 0)]
    while stack:
        item, parent_id, depth = stack.pop()
        if isinstance(item, _Folder):
            unit = _folder_unit(item, parent_id, repo_name)
            below: list[Unit | _Folder] = [*item.files, *(_joined(folder) for folder in item.folders.values())]
        else:
            unit = item if item.parent_id == parent_id else replace(item, parent_id=parent_id)
            below = [*inner.get(unit.id, ())]
        placed[unit.id] = unit
        depths[unit.id] = depth
        below.sort(key=_order)
        children[unit.id] = tuple(_id_of(each) for each in below)
        stack.extend((each, unit.id, depth + 1) for each in reversed(below))
    return Tree(placed, children, depths)


def _folder_of(root: _Folder, path: str) -> _Folder:
    folder = root
    for part in PurePosixPath(path).parts[:-1]:
        folder = folder.folders.setdefault(part, _Folder(f"{folder.path}{part}/"))
    return folder


def _joined(folder: _Folder) -> _Folder:
    while not folder.files and len(folder.folders) == 1:
        (folder,) = folder.folders.values()
    return folder


def _id_of(item: Unit | _Folder) -> str:
    return item.path if isinstance(item, _Folder) else item.id


def _order(item: Unit | _Folder) -> tuple[str, str, str]:
    name = "" if isinstance(item, _Folder) else item.name
    return item.path, name, _id_of(item)


def _folder_unit(folder: _Folder, parent_id: str | None, repo_name: str) -> Unit:
    is_root = parent_id is None
    own = [unit for unit in (_readme(folder), _manifest(folder) if is_root else None) if unit is not None]
    return Unit(
        id=REPO_ID if is_root else folder.path,
        level=Level.REPO if is_root else Level.DIRECTORY,
        path=REPO_ID if is_root else folder.path,
        name=repo_name if is_root else PurePosixPath(folder.path).name,
        qualified_name=repo_name if is_root else folder.path,
        language="",
        start_line=0,
        end_line=0,
        parent_id=parent_id,
        own_source="\n\n".join(unit.own_source for unit in own),
        docstring=own[0].docstring if own and own[0].name.lower() in READMES else "",
        is_test=not is_root and all(unit.is_test for unit in _files_below(folder)),
        is_secondary=not is_root and all(unit.is_secondary for unit in _files_below(folder)),
    )


def _without_lost_links(unit: Unit, given: Mapping[str, Unit]) -> Unit:
    if all(link in given for link in (*unit.calls, *unit.called_by)):
        return unit
    calls, called_by = (tuple(link for link in links if link in given) for links in (unit.calls, unit.called_by))
    return replace(unit, calls=calls, called_by=called_by)


def _readme(folder: _Folder) -> Unit | None:
    by_name = {unit.name.lower(): unit for unit in sorted(folder.files, key=_order, reverse=True)}
    return next((by_name[name] for name in READMES if name in by_name), None)


def _manifest(folder: _Folder) -> Unit | None:
    by_name = {unit.name: unit for unit in folder.files}
    return next((by_name[name] for name in MANIFESTS if name in by_name), None)


def _files_below(folder: _Folder) -> Iterator[Unit]:
    stack = [folder]
    while stack:
        each = stack.pop()
        yield from each.files
        stack.extend(each.folders.values())
