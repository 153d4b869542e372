"""Ties processes to this one, so that they end when it does, however it ends: `kill -9` and out of memory included.

A process on a GPU that outlives the run that started it holds the GPU's memory until somebody finds it. Linux can tie
a child to the thread that made it, but not one that somebody else's library makes, so a small process of ours watches.
"""

import contextlib
import os
import subprocess
import sys

_WATCH = """
import os, signal, sys
tied = []
for line in sys.stdin:
    pid = int(line)
    try:
        tied.append((os.pidfd_open(pid), pid) if hasattr(os, "pidfd_open") else (None, pid))
    except OSError:
        pass
for handle, pid in tied:
    try:
        if handle is None:
            os.kill(pid, signal.SIGKILL)
        else:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:
        pass
"""
"""Reads ids of processes until its standard input ends, which it does with whoever writes to it, then kills them. A
handle still means the same process where its number has been given to another."""


class Leash:
    """A watching process, and what is tied to it."""

    def __init__(self) -> None:
        # -I -S: nothing of the environment or the installed packages, so that it starts at once and stays small.
        self._watcher = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WATCH],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is not for it: it would leave before those that it watches
            cwd=os.sep,
        )

    def tie(self, pid: int) -> None:
        """Have the process `pid` killed when this one ends."""
        if self._watcher.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._watcher.stdin.write(b"%d\n" % pid)
                self._watcher.stdin.flush()

    def release(self) -> None:
        """Let go of what is tied, and end the watching process."""
        self._watcher.kill()
        self._watcher.wait()
        if self._watcher.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._watcher.stdin.close()
