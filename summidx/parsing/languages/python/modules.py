"""Which file of a repository an imported module is: Python's rules, as far as paths tell. Pure.

A module is named by its location: its path without `.py` or `/__init__.py` (`src/click/core`, `src/click`).
"""

import posixpath
from collections import defaultdict
from collections.abc import Iterable

from summidx.parsing.languages.python.library import LIBRARY_MODULES

_SUFFIXES = (".py", ".pyi")


class Modules:
    """The modules of a repository, from the paths of its files."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._files: dict[str, str] = {}
        self._packages: set[str] = set()
        """Folders with an `__init__`."""
        self._folders: set[str] = {""}
        for path in sorted(paths, key=lambda path: (path.endswith(".pyi"), path)):
            stem, suffix = posixpath.splitext(path)
            if suffix not in _SUFFIXES:
                continue
            folder, name = posixpath.split(stem)
            if name == "__init__":
                self._packages.add(folder)
                stem = folder
            self._files.setdefault(stem, path)
            while folder not in self._folders:
                self._folders.add(folder)
                folder = posixpath.dirname(folder)
        self._tops: dict[str, list[str]] = defaultdict(list)
        """By name: modules and folders that can be imported by that name alone, as their folder is no package."""
        for location in sorted(self._files.keys() | self._folders):
            folder, name = posixpath.split(location)
            if name and folder not in self._packages:
                self._tops[name].append(location)

    def file_of(self, location: str) -> str | None:
        """Path of the file that holds a module's code; None for a folder without `__init__`."""
        return self._files.get(location)

    def location_of(self, path: str) -> str:
        """Location of the module that a file is."""
        folder, name = posixpath.split(posixpath.splitext(path)[0])
        return folder if name == "__init__" else posixpath.join(folder, name)

    def child(self, location: str, name: str) -> str | None:
        """Location of a module in a package, or None."""
        inner = posixpath.join(location, name)
        return inner if inner in self._files or inner in self._folders else None

    def find(self, importer: str, module: str, level: int) -> str | None:
        """Location of `module`, with `level` leading dots, as the file at path `importer` imports it; None if not here.

        Where several modules have that name, the one nearest to the importer; None where two are equally near.
        """
        if level:
            package = posixpath.dirname(importer)
            for _ in range(level - 1):
                if not package:
                    return None
                package = posixpath.dirname(package)
            return self._descend(package, module.split(".") if module else [])
        top, *rest = module.split(".")
        found = []
        for candidate in self._tops.get(top, ()):
            root = posixpath.dirname(candidate)
            # A module of the repository hides one of Python's own only for what stands beside or below it.
            if top in LIBRARY_MODULES and not (importer.startswith(f"{root}/") and root):
                continue
            location = self._descend(candidate, rest)
            if location is not None:
                found.append((-_shared_folders(root, importer), location not in self._files, location))
        found.sort()
        if not found or (len(found) > 1 and found[0][:2] == found[1][:2]):
            return None
        return found[0][2]

    def dotted(self, location: str) -> str:
        """Name by which a module is imported: from the topmost folder of the packages that it stands in."""
        parts = [posixpath.basename(location)]
        folder = posixpath.dirname(location)
        while folder in self._packages and folder:
            parts.append(posixpath.basename(folder))
            folder = posixpath.dirname(folder)
        return ".".join(reversed(parts))

    def absolute(self, importer: str, module: str, level: int) -> str:
        """The dotted name of an imported module, relative ones made absolute; "" above the repository's root."""
        location = self.find(importer, module, level)
        if not level:
            return module
        if location is not None:
            return self.dotted(location)
        package = posixpath.dirname(importer)
        for _ in range(level - 1):
            package = posixpath.dirname(package)
        return ".".join(filter(None, (self.dotted(package) if package else "", module)))

    def _descend(self, location: str, names: list[str]) -> str | None:
        for name in names:
            inner = self.child(location, name)
            if inner is None:
                return None
            location = inner
        return location


def _shared_folders(root: str, importer: str) -> int:
    shared = 0
    for one, other in zip(root.split("/"), importer.split("/")[:-1], strict=False):
        if not one or one != other:
            break
        shared += 1
    return shared
