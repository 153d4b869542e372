"""An index root that is a folder.

    INDEX_ROOT/NAME/staging/ID/  and  staging/ID.lock   being written; the lock is held while its writer lives
                   /publish.lock                        held for the moment of a publish or a sweep

The locks are `flock`: all who write must share a file system that has it (local disks; NFS 4). CURRENT is written
beside, synced, renamed over the old one, and the folder synced, so that after a power cut there is the old or the new.
"""

import os
import shutil
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from summidx.errors import StoreError
from summidx.store.current import CURRENT, write_current
from summidx.store.disk_files import (
    allocated_under,
    digest_file,
    hide_from_git,
    iterate_files,
    sync_folder,
    write_whole,
)
from summidx.store.names import escape_name, unescape_name
from summidx.store.place import FLEET, Stored, StoredFile, StoredGeneration, TableAddress
from summidx.store.staging import Staging, begin_staging, list_staging, lock_index, sweep_staging, sync_filesystem

GENERATIONS = "generations"


class FolderFiles:
    """The files in the folder of one generation."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = str(path)
        self.table = TableAddress(path)

    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {name: status.st_size for name, status in iterate_files(self.path)}

    def read(self, name: str) -> bytes:
        """The content of a file."""
        return (self.path / name).read_bytes()

    def digest(self, name: str) -> str:
        """SHA-256 of the content of a file, in hex."""
        return digest_file(self.path / name)

    def write(self, name: str, data: bytes) -> None:
        """Put a file there, durably and as a whole."""
        partial = self.path / f".{name}"
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path / name)
        sync_folder(self.path)


class FolderIndex:
    """The folder of one index."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = str(path)

    def read_current(self) -> Stored:
        """CURRENT, as it is now."""
        path = self.path / CURRENT
        try:
            return Stored(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return Stored()
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}") from error

    def is_published(self) -> bool:
        """There is a CURRENT."""
        return (self.path / CURRENT).is_file()

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the lock of the index."""
        return lock_index(self.path)

    def swap_current(self, data: bytes, publish_id: str, expected: Stored) -> bool:  # noqa: ARG002 - the lock is held
        """Replace CURRENT, durably: under the lock it is as it was read."""
        write_current(self.path, data, publish_id)
        return True

    def remove_current(self, expected: Stored) -> bool:  # noqa: ARG002 - the lock is held
        """Delete CURRENT."""
        (self.path / CURRENT).unlink()
        sync_folder(self.path)
        return True

    def begin(self, name: str, generation: str) -> Staging:
        """A new staging folder; what dead writers left is swept."""
        (self.path / GENERATIONS).mkdir(parents=True, exist_ok=True)
        return begin_staging(self.path, name, generation)

    def deliver(self, staging: Staging, generation: str) -> None:  # noqa: ARG002 - it lies here already
        """Sync what was staged to the disk."""
        sync_filesystem(staging.folder)

    def settle(self, staging: Staging, generation: str) -> None:
        """Rename the staging folder to that of the generation."""
        target = self.path / GENERATIONS / generation
        staging.move_to(target)
        sync_folder(target.parent)

    def withdraw(self, generation: str) -> None:
        """Nothing: what was staged is discarded."""

    def files(self, generation: str) -> FolderFiles:
        """The files of a generation."""
        return FolderFiles(self.path / GENERATIONS / generation)

    def generations(self) -> list[StoredGeneration]:
        """All that lie there."""
        return [
            StoredGeneration(entry.name, allocated_under(entry), _written_at(entry))
            for entry in (self.path / GENERATIONS).iterdir()
        ]

    def retire(self, generation: str) -> None:
        """Nothing: what lies there was published, or its writer is dead."""

    def delete_generations(self, generations: Iterable[str]) -> None:
        """Delete generations, as far as it can be."""
        for name in generations:
            shutil.rmtree(self.path / GENERATIONS / name, ignore_errors=True)

    def sweep_staging(self) -> None:
        """Delete what dead writers left."""
        sweep_staging(self.path)

    def staging(self) -> list[tuple[int, bool]]:
        """What is being written: bytes on the disk, and whether its writer lives."""
        return [(allocated_under(each.path), each.lives) for each in list_staging(self.path)]


class FolderPlace:
    """A folder in which indexes lie. Nothing is created before something is written."""

    at_once = 1

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = str(path)

    def create(self) -> None:
        """Make the folder, if it is missing."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            hide_from_git(self.path)
        except OSError as error:
            raise StoreError(f"the index root {self.path} cannot be made: {error.strerror}") from error

    def examine(self) -> str:
        """Find out whether this user can write to it."""
        if not self.path.exists():
            return "is not there yet; the first build makes it"
        if not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
            raise StoreError(
                f"{self.path} cannot be written by this user, so nothing can be published: give it to the user who "
                "builds, or name another with --index-root"
            )
        return ""

    def folders(self) -> list[str]:
        """Names of the folders there."""
        try:
            with os.scandir(self.path) as entries:
                return [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"the index root {self.path} cannot be read: {error.strerror}") from error

    def versions(self) -> dict[str, str]:
        """Each CURRENT as the file system sees it: it is never written to, but replaced by a new file."""
        found = {}
        for folder in self.folders():
            try:
                status = os.stat(f"{self.path}/{folder}/{CURRENT}")  # noqa: PTH116 - asked thousands of times
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                found[folder] = ""  # it is there, and who reads it is told why it cannot be
            else:
                found[folder] = f"{status.st_ino}.{status.st_mtime_ns}.{status.st_size}"
        return found

    def fleet(self) -> FolderIndex:
        """INDEX_ROOT/.summidx/fleet."""
        return FolderIndex(self.path / FLEET)

    def index(self, name: str) -> FolderIndex:
        """INDEX_ROOT/NAME, the name escaped."""
        return FolderIndex(self.path / escape_name(name))

    def unescape(self, folder: str) -> str:
        """The repository's name for a folder."""
        return unescape_name(folder)

    def read_file(self, name: str) -> bytes | None:
        """A file of runs; None where there is none."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def write_file(self, name: str, data: bytes) -> None:
        """Replace a file of runs as a whole."""
        write_whole(self.path / name, data)

    def list_files(self, folder: str) -> list[StoredFile]:
        """The files of runs in a folder, by name; none where it cannot be read."""
        found = []
        try:
            entries = sorted((self.path / folder).iterdir())
        except OSError:  # none is there, or it is not ours to read
            return []
        for entry in entries:
            try:
                status = entry.lstat()
            except OSError:
                continue
            if entry.is_file():
                found.append(StoredFile(f"{folder}/{entry.name}", status.st_blocks * 512, status.st_mtime))
        return found

    def delete_file(self, name: str) -> None:
        """Delete a file of runs."""
        (self.path / name).unlink(missing_ok=True)


def _written_at(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:  # deleted in this moment
        return 0.0
