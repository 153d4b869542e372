"""Files and folders that are there as a whole or as they were: written beside the place, then renamed into it.

A folder that was exported carries a list of its files. It is replaced only where it holds nothing else: a folder that
somebody put a file into, or that was never ours, is left alone.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from summidx.errors import MachineFault, UsageError
from summidx.store.disk_files import iterate_files, sync_folder
from summidx.store.staging import sync_filesystem

MARKER = ".summidx-export.json"
"""The list of the files of an exported folder, and of which index they are."""
FORMAT = 1


@contextmanager
def replace_file(output: Path) -> Iterator[Path]:
    """A new file to write to, which becomes `output` at the end; where the block fails, `output` is as it was.

    Raises:
        UsageError: `output` is a folder or a device.
        MachineFault: the disk refused.
    """
    target = _resolve(output)
    if target.exists() and not target.is_file():
        raise UsageError(f"{output} is no regular file: name a file for --output, or `-` for standard output")
    with _explain(output):
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.", suffix=".partial")
        os.close(descriptor)
        partial = Path(name)
        try:
            yield partial
            partial.chmod(0o666 & ~_umask())
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(target)
            sync_folder(target.parent)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def replace_folder(output: Path, files: Iterable[tuple[str, bytes]], about: Mapping[str, object]) -> tuple[int, int]:
    """Write files into a new folder, which then becomes `output`; where that fails, `output` is as it was.

    Args:
        output: the folder.
        files: paths in it, made safe by who made them, each once; and what they hold.
        about: what the marker says beside the list of files.

    Returns:
        How many files, and their bytes.

    Raises:
        UsageError: `output` is no folder, or holds something that is not of an export.
        MachineFault: the disk refused.
    """
    target = _resolve(output)
    _refuse_foreign(target, output)
    size_bytes = 0
    written: list[str] = []
    with _explain(output):
        target.parent.mkdir(parents=True, exist_ok=True)
        room = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name[:100]}.", suffix=".partial"))
        try:
            staged = room / "new"
            staged.mkdir()
            for path, data in files:
                _write_new(staged, path, data)
                written.append(path)
                size_bytes += len(data)
            marker = {"made_by": "summidx export", "format": FORMAT, "index": about, "files": written}
            (staged / MARKER).write_text(json.dumps(marker, indent=1), encoding="ascii")
            sync_filesystem(staged)
            _refuse_foreign(target, output)  # somebody may have put something there meanwhile
            _swap(staged, target, room / "old")
            sync_folder(target.parent)
        finally:
            shutil.rmtree(room, ignore_errors=True)
    return len(written), size_bytes


def _write_new(folder: Path, path: str, data: bytes) -> None:
    file = folder / path
    if not file.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"the page {path!r} would lie outside of the output: this is a bug in summidx")
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("xb") as stream:
        stream.write(data)


def _swap(staged: Path, target: Path, old: Path) -> None:
    is_there = target.exists()
    if is_there:
        target.rename(old)
    try:
        staged.rename(target)
    except BaseException:
        if is_there:
            old.rename(target)
        raise


def _refuse_foreign(target: Path, output: Path) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise UsageError(f"{output} is no folder: name a new one, or that of an earlier export")
    with _explain(output):
        found = {name for name, _ in iterate_files(target)} | {
            str((Path(parent) / name).relative_to(target))
            for parent, folders, _ in os.walk(target)
            for name in folders
            if (Path(parent) / name).is_symlink()
        }
        foreign = sorted(found - _read_marker(target))
    if foreign:
        raise UsageError(
            f"{output} is not replaced, since it holds {foreign[0]!r}"
            f"{f' and {len(foreign) - 1} more' if len(foreign) > 1 else ''}, which no export wrote: name a new folder"
        )


def _read_marker(target: Path) -> set[str]:
    """The files that an export wrote to a folder, the marker itself included; none where it is not ours."""
    try:
        marker = json.loads((target / MARKER).read_bytes())
        if marker["format"] == FORMAT and marker["made_by"] == "summidx export":
            return {MARKER, *map(str, marker["files"])}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return set()


def _resolve(output: Path) -> Path:
    with _explain(output):
        return output.expanduser().resolve()


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


@contextmanager
def _explain(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MachineFault(f"{output} cannot be written: {error.strerror or error}") from error
