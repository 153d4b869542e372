"""A terminal that a command runs in, with a screen that can be read while it runs."""

import codecs
import fcntl
import os
import pty
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyte

ENDS_WITHIN_S = 240


@dataclass
class Screens:
    """What a command showed: the text of the screen after each piece of output, and all lines at the end."""

    code: int = 0
    frames: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    """Those that have scrolled away, then the screen."""
    raw: str = ""


def run_in_terminal(
    command: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str], columns: int, rows: int
) -> Screens:
    """Run a command in a terminal of this size."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    screen = pyte.HistoryScreen(columns, rows, history=10_000, ratio=0.5)
    stream = pyte.Stream(screen)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a read may end in the middle of a character
    shown = Screens()
    terminal = {"TERM": "xterm-256color", "LANG": "C.UTF-8", "PYTHONIOENCODING": "utf-8"}
    process = subprocess.Popen(
        command, cwd=cwd, env={**env, **terminal}, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    deadline = time.monotonic() + ENDS_WITHIN_S
    try:
        while time.monotonic() < deadline:
            try:
                data = os.read(ours, 65_536)
            except OSError:  # the last who had it open has closed it
                break
            text = decoder.decode(data)
            shown.raw += text
            stream.feed(text)
            shown.frames.append("\n".join(screen.display))
        shown.code = process.wait(30)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    gone = ["".join(line[x].data for x in range(columns)) for line in screen.history.top]
    shown.lines = [line.rstrip() for line in [*gone, *screen.display]]
    return shown
