"""Files on a disk: written whole or not at all, made durable, measured."""

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """As `write_whole`, as JSON.

    Raises:
        OSError: it cannot be written.
    """
    write_whole(path, json.dumps(value, indent=1).encode())


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file as a whole, and make its folder: who reads it sees the old or the new one, never a part.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable (fsync of the folder)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest_file(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hide_from_git(folder: Path) -> None:
    """Mark a folder as made by a tool, by a `.gitignore` of its own: neither git nor our own builds read it then.

    Raises:
        OSError: it cannot be written.
    """
    marker = folder / ".gitignore"
    if not marker.exists():
        marker.write_text("# Made by summidx.\n*\n", encoding="utf-8")


def iterate_files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """All files under a folder, by name relative to it; what is deleted meanwhile is passed over.

    Raises:
        OSError: the disk refused.
    """
    pending = [(os.fspath(folder), "")]  # text, not Path: a plan lists the files of every index
    while pending:
        path, prefix = pending.pop()
        try:
            with os.scandir(path) as found:
                entries = list(found)
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            if entry.is_dir():
                if not entry.is_symlink():
                    pending.append((entry.path, f"{prefix}{entry.name}/"))
                continue
            try:
                yield prefix + entry.name, entry.stat()
            except FileNotFoundError:
                continue


def allocated_under(folder: Path) -> int:
    """What the files under a folder take on the disk, in bytes."""
    return sum(status.st_blocks * 512 for _, status in iterate_files(folder))


def allocated_bytes(paths: Iterable[Path]) -> int:
    """What files take on the disk, in bytes; what vanishes meanwhile takes nothing."""
    total = 0
    for path in paths:
        try:
            total += path.lstat().st_blocks * 512
        except OSError:
            continue
    return total
