"""What others write while a display is drawn: shown above it, in whole lines, from whatever process."""

import os
import re
import sys
from pathlib import Path

import pytest
from terminals import run_in_terminal

from flows.capture import caught_lines

ROOT = Path(__file__).parents[3]
SCRIPT = """\
import logging, os, subprocess, sys, threading, time
from flows.live import EndedRow, LiveRun
from flows.terminal import Terminal
terminal = Terminal(sys.stdout)
terminal.follow(live := LiveRun())
logging.basicConfig(stream=sys.stderr, format="\\x1b[33m%(message)s\\x1b[0m", force=True)
with terminal.showing():
    def warn(name):
        for n in range(25):
            logging.warning(f"{name} warns {n}")
            live.phase(f"phase of {name}" * (n % 3))
            time.sleep(0.01)
    threads = [threading.Thread(target=warn, args=(name,)) for name in ("one", "two")]
    for thread in threads: thread.start()
    subprocess.run([sys.executable, "-c", "import os; os.write(2, b'a worker dies\\\\x1b[2J\\\\n')"])
    for n in range(25):
        terminal.tell(f"line {n}")
        time.sleep(0.01)
    for thread in threads: thread.join()
    live.phase("phase of the end")
    time.sleep(1.2)
print("the end", file=sys.stderr)
"""


def run(script, tmp_path, **env):
    path = tmp_path / "script.py"
    path.write_text(script)
    known = os.environ | {"PYTHONPATH": str(ROOT)} | env
    return run_in_terminal([sys.executable, path], cwd=tmp_path, env=known, columns=100, rows=12)


def test_lines_of_threads_and_processes_are_above_the_display_and_leave_nothing_of_it(tmp_path):
    shown = run(SCRIPT, tmp_path)
    lines = [line for line in shown.lines if line]
    assert shown.code == 0, lines
    assert any("phase of" in frame for frame in shown.frames), "the display was drawn"
    expected = [f"{name} warns {n}" for name in ("one", "two") for n in range(25)]
    expected += [f"line {n}" for n in range(25)] + [r"a worker dies\x1b[2J", "the end"]
    assert sorted(lines) == sorted(expected), "each line once, whole, and no piece of a frame"
    assert lines[-1] == "the end"


def test_a_terminal_that_cannot_be_drawn_on_gets_lines_alone(tmp_path):
    script = SCRIPT.replace("import logging", "import os; os.environ['TERM'] = 'dumb'\nimport logging")
    shown = run(script, tmp_path)
    assert shown.code == 0
    assert not re.search(r"\x1b\[(\?|\d*[A-HKs])", shown.raw), "no cursor is moved or hidden"
    assert not any("phase of" in frame for frame in shown.frames)


def test_the_terminal_is_given_back_whatever_happens(tmp_path):
    script = SCRIPT.replace("    time.sleep(1.2)\n", "    raise SystemExit(3)\n")
    shown = run(script, tmp_path)
    assert shown.code == 3
    assert shown.raw.rindex("\x1b[?25h") > shown.raw.rindex("\x1b[?25l"), "the cursor is there again"


def test_where_there_is_no_terminal_nothing_is_caught(capfd):
    if os.isatty(1) or os.isatty(2):
        pytest.fail("pytest gives files to what it runs")
    with caught_lines(pytest.fail) as screen:
        assert screen is None
        os.write(2, b"to the file\n")
    assert capfd.readouterr().err == "to the file\n"
