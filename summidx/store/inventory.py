"""The files of a generation: an inventory of sizes and digests, written when it is staged, and a mark of damage.

    files.json    sealed; {"files": {NAME: {"bytes": N, "sha256": HEX}}}; older ones: {NAME: N}
    DAMAGED       only where somebody read the generation whole and found it damaged: what was found, in one line

Sizes are compared whenever an index is verified, digests when it is read whole (`verification`). The mark makes such a
finding known to everybody who verifies the index afterwards; it lies in the generation that it is about, and goes with
it when the index is built again.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from summidx.store.current import sync_folder
from summidx.store.sealed import seal, unseal

FILES = "files.json"
MARK = "DAMAGED"
_MARK_BYTES = 2000


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file as it was written."""

    size_bytes: int
    sha256: str = ""
    """Of its content, in hex; "" in a generation that was written before digests were kept."""


def write_inventory(folder: Path) -> None:
    """Write down what lies in the folder of a generation, once all of it has been written.

    Raises:
        OSError: the disk refused.
    """
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": _digest(path)}
        for path in sorted(_iterate_files(folder))
    }
    (folder / FILES).write_bytes(seal({"files": files}))


def read_inventory(folder: Path) -> dict[str, FileRecord]:
    """The files of a generation as they were written, by name relative to its folder.

    Raises:
        OSError: the inventory is missing, or cannot be read.
        ValueError: it is damaged.
    """
    try:
        value = unseal((folder / FILES).read_bytes())
        if value.keys() == {"files"} and isinstance(value["files"], dict):
            return {name: FileRecord(int(each["bytes"]), str(each["sha256"])) for name, each in value["files"].items()}
        return {name: FileRecord(int(size)) for name, size in value.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{FILES} is damaged ({error})") from None


def find_wrong_sizes(folder: Path) -> Iterator[str]:
    """What is wrong with the files of a generation as far as that is seen without reading them: a line each.

    Raises:
        OSError: a file is missing (its name is in the error), or cannot be asked about.
        ValueError: the inventory is damaged.
    """
    for name, record in read_inventory(folder).items():
        actual = (folder / name).stat().st_size
        if actual != record.size_bytes:
            yield f"{name} has {actual} bytes instead of {record.size_bytes}"


def find_changed_files(folder: Path) -> Iterator[str]:
    """What is wrong with the files of a generation, every byte read: a line each, all of them."""
    try:
        records = read_inventory(folder)
    except FileNotFoundError:
        yield f"{FILES} is missing"
        return
    except (OSError, ValueError) as error:
        yield str(error)
        return
    for name, record in records.items():
        path = folder / name
        try:
            if (actual := path.stat().st_size) != record.size_bytes:
                yield f"{name} has {actual} bytes instead of {record.size_bytes}"
            elif record.sha256 and _digest(path) != record.sha256:
                yield f"{name} is not as it was written"
        except FileNotFoundError:
            yield f"{name} is missing"
        except OSError as error:
            yield f"{name} cannot be read: {error.strerror}"
    for path in sorted(_iterate_files(folder)):
        name = str(path.relative_to(folder))
        if name not in records and name not in (FILES, MARK) and not path.name.startswith("."):
            yield f"{name} was not there when it was built"


def mark_damaged(folder: Path, found: str) -> None:
    """Leave word in a generation that it is damaged, for whoever verifies it next.

    Raises:
        OSError: the disk refused.
    """
    partial = folder / f".{MARK}"
    with partial.open("w", encoding="utf-8") as file:
        file.write(f"{' '.join(found.split())[:_MARK_BYTES]}\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / MARK)
    sync_folder(folder)


def read_mark(folder: Path) -> str:
    """What was found wrong with a generation when it was read whole; "" where nobody found anything."""
    try:
        return (folder / MARK).read_text(encoding="utf-8", errors="replace").strip() or "it was found damaged"
    except FileNotFoundError:
        return ""


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _iterate_files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
