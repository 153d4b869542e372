"""The one way in which files of a stranger are opened: nothing but regular files, and none of them by surprise.

Opening a FIFO blocks, opening a device may act on it, and a symlink leads out of the repository. So a path is looked at
before it is opened, opened without following its last component and without waiting, and looked at again after.
"""

import os
import stat

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CHUNK_BYTES = 1 << 20


def read_regular(path: str, limit_bytes: int, *, dir_fd: int | None = None) -> bytes | None:
    """Read a regular file, but no more than `limit_bytes` + 1 bytes (so that a longer one shows).

    Returns:
        Its bytes; None where it is no regular file (it was not opened, or nothing was read of it).

    Raises:
        OSError: it is missing, or may not be read.
    """
    if not stat.S_ISREG(os.stat(path, dir_fd=dir_fd, follow_symlinks=False).st_mode):
        return None
    fd = os.open(path, _READ, dir_fd=dir_fd)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        chunks: list[bytes] = []
        left = limit_bytes + 1
        while left > 0 and (chunk := os.read(fd, min(left, _CHUNK_BYTES))):
            chunks.append(chunk)
            left -= len(chunk)
        return b"".join(chunks)
    finally:
        os.close(fd)


def open_folder(path: str, *, dir_fd: int | None = None) -> int:
    """Open a folder and return its file descriptor, which the caller closes.

    With `dir_fd`, `path` is a name in that folder, and no symlink is followed: a walk that goes down by names only
    cannot be led out of its root, whatever is renamed under it meanwhile.

    Raises:
        OSError: it is missing, no folder, a symlink, or may not be read.
    """
    return os.open(path, _FOLDER | (os.O_NOFOLLOW if dir_fd is not None else 0), dir_fd=dir_fd)
