"""Real processes: one that is tied to another ends with it, however that ends."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from summidx.summarizers.vllm_local.leash import Leash

SLEEP = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(300)"]
HOLDER = f"""
import subprocess, time
from summidx.summarizers.vllm_local.leash import Leash
leash = Leash()
child = subprocess.Popen({SLEEP!r}, start_new_session=True)
leash.tie(child.pid)
print(child.pid, flush=True)
time.sleep(300)
"""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_running(pid)


def test_what_is_tied_to_a_process_that_is_killed_is_killed_too():
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True) as holder:
        child = int(holder.stdout.readline())
        assert is_running(child)
        holder.send_signal(signal.SIGKILL)
        assert wait_until_gone(child)


def test_what_is_let_go_of_lives_on():
    with subprocess.Popen(SLEEP) as child:
        leash = Leash()
        leash.tie(child.pid)
        leash.release()
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.5)
        child.kill()


def test_a_process_that_has_ended_can_be_tied_and_let_go_of():
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", ""]) as ended:
        ended.wait()
    leash = Leash()
    leash.tie(ended.pid)
    leash.release()
