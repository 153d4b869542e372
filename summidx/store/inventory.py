"""The files of a generation: an inventory of sizes and digests, written when it is staged, and a mark of damage.

    files.json    sealed; {"files": {NAME: {"bytes": N, "sha256": HEX}}}; older ones: {NAME: N}
    DAMAGED       only where somebody read the generation whole and found it damaged: what was found, in one line

Sizes, and the digests of the few small files that tell what the table is made of, are compared whenever an index is
verified; all digests when it is read whole (`verification`). The mark makes such a finding known to everybody who
verifies the index afterwards; it lies in the generation that it is about, and goes with it when the index is built
again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from summidx.errors import StorageUnavailable, StoreError
from summidx.store.disk_files import digest_file
from summidx.store.place import Files
from summidx.store.sealed import seal, unseal

FILES = "files.json"
MARK = "DAMAGED"
RETIRED = "RETIRED"
"""Only on object storage: the generation was published, and is not any more."""
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
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": digest_file(path)}
        for path in sorted(each for each in folder.rglob("*") if each.is_file())
    }
    (folder / FILES).write_bytes(seal({"files": files}))


def read_inventory(files: Files) -> dict[str, FileRecord]:
    """The files of a generation as they were written, by name.

    Raises:
        OSError: the inventory is missing (FileNotFoundError), or cannot be read.
        StoreError: object storage refused.
        ValueError: it is damaged.
    """
    try:
        value = unseal(files.read(FILES))
        if value.keys() == {"files"} and isinstance(value["files"], dict):
            return {name: FileRecord(int(each["bytes"]), str(each["sha256"])) for name, each in value["files"].items()}
        return {name: FileRecord(int(size)) for name, size in value.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{FILES} is damaged ({error})") from None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is seen of a generation without reading its data."""

    fault: str = ""
    """What is wrong with it; "" where nothing is seen."""
    has_same_table: bool = False
    """What tells what its table is made of is there as it was written, byte for byte, and nothing besides."""


def find_fault(files: Files) -> str:
    """What is wrong with the files of a generation as far as that is seen without reading them, or "".

    Raises:
        OSError, StoreError, ValueError: as `inspect`.
    """
    return inspect(files).fault


def inspect(files: Files, metadata: str = "") -> Inspection:
    """Look at the files of a generation: a mark of who read it whole, the size of each, the digests of a few.

    Args:
        files: of the generation.
        metadata: the folder among them whose files tell what the table is made of; "": none is read.

    Raises:
        OSError: they cannot be asked about.
        StoreError: object storage refused.
        ValueError: the inventory is damaged.
    """
    sizes = files.sizes()
    if MARK in sizes:
        return Inspection(_read_mark(files))
    if FILES not in sizes:
        return Inspection(f"{FILES} is missing")
    records = read_inventory(files)
    if fault := next(_find_wrong_sizes(records, sizes), ""):
        return Inspection(fault)
    looked_at = {name: records.get(name) for name in sizes if name.startswith(f"{metadata}/")}
    for name, record in looked_at.items():
        if record is not None and (fault := _find_change(files, name, record)):
            return Inspection(fault)
    is_known = all(record is not None and record.sha256 for record in looked_at.values())
    return Inspection(has_same_table=bool(looked_at) and is_known)


def find_changed_metadata(files: Files, folders: Sequence[str]) -> str:
    """What has changed of the files that tell what a generation's tables are made of, or "".

    For whoever is about to open them: LanceDB panics on some changes there. Nothing else is looked at.

    Args:
        files: of the generation.
        folders: among them, with such files.
    """
    try:
        records = read_inventory(files)
    except (OSError, ValueError):  # that is for `inspect` to say
        return ""
    wanted = {name: each for name, each in records.items() if name.startswith(tuple(f"{each}/" for each in folders))}
    return next(filter(None, (_find_change(files, name, record) for name, record in wanted.items())), "")


def find_changed_files(files: Files) -> Iterator[str]:
    """What is wrong with the files of a generation, every byte read: a line each, all of them.

    Raises:
        StorageUnavailable: object storage does not answer.
    """
    try:
        records, sizes = read_inventory(files), files.sizes()
    except FileNotFoundError:
        yield f"{FILES} is missing"
        return
    except StorageUnavailable:
        raise
    except (OSError, ValueError, StoreError) as error:
        yield str(error)
        return
    for name, record in records.items():
        if fault := next(_find_wrong_sizes({name: record}, sizes), "") or _find_change(files, name, record):
            yield fault
    for name in sorted(sizes):
        if name not in records and name not in (FILES, MARK, RETIRED) and not Path(name).name.startswith("."):
            yield f"{name} was not there when it was built"


def _find_change(files: Files, name: str, record: FileRecord) -> str:
    try:
        is_other = bool(record.sha256) and files.digest(name) != record.sha256
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"
    return f"{name} is not as it was written" if is_other else ""


def mark_damaged(files: Files, found: str) -> None:
    """Leave word in a generation that it is damaged, for whoever verifies it next.

    Raises:
        OSError: the disk refused.
        StoreError: object storage refused.
    """
    files.write(MARK, f"{' '.join(found.split())[:_MARK_BYTES]}\n".encode())


def _read_mark(files: Files) -> str:
    try:
        return files.read(MARK).decode(errors="replace").strip() or "it was found damaged"
    except FileNotFoundError:
        return ""


def _find_wrong_sizes(records: Mapping[str, FileRecord], sizes: Mapping[str, int]) -> Iterator[str]:
    for name, record in records.items():
        if name not in sizes:
            yield f"{name} is missing"
        elif sizes[name] != record.size_bytes:
            yield f"{name} has {sizes[name]} bytes instead of {record.size_bytes}"
