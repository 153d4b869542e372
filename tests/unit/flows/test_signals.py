"""The first signal interrupts, later ones change nothing; what does not end in time is ended, and says so before."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import signal, sys, time
from flows import signals
signals.GRACE_S, signals.LAST_WORDS_S = {grace_s}, 0.5
watch = signals.watch_signals()
signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Prefect does before a flow
signals.take_signals(lambda: print("last words", flush=True))
code = 0
try:
    print("up", flush=True)
    time.sleep(60)
except BaseException as error:
    print(type(error).__name__, flush=True)
    code = getattr(error, "code", 130)
    time.sleep({cleanup_s})
    print("cleaned up", flush=True)
watch.absorb()
sys.exit(code)
"""


def run(*numbers, grace_s=60.0, cleanup_s=0.5, **popen):
    """The program's exit code and what it said, where it was sent these signals."""
    program = PROGRAM.format(grace_s=grace_s, cleanup_s=cleanup_s)
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL, **popen
    ) as process:
        assert process.stdout.readline() == "up\n"
        said = []
        for number in numbers:
            process.send_signal(number)
            if not said:
                said.append(process.stdout.readline().strip())
        said += process.stdout.read().split("\n")[:-1]
    return process.returncode, said


@pytest.mark.parametrize(
    ("numbers", "code", "raised"),
    [
        ([signal.SIGINT], 130, "KeyboardInterrupt"),
        ([signal.SIGTERM], 143, "SystemExit"),
        ([signal.SIGINT, signal.SIGINT, signal.SIGTERM], 130, "KeyboardInterrupt"),
        ([signal.SIGTERM, signal.SIGTERM, signal.SIGINT], 143, "SystemExit"),
    ],
)
def test_the_first_signal_interrupts_and_later_ones_do_not_disturb_the_end(numbers, code, raised):
    assert run(*numbers) == (code, [raised, "cleaned up"])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_does_not_end_in_time_says_its_last_words_and_is_ended(number, code):
    raised = "KeyboardInterrupt" if number == signal.SIGINT else "SystemExit"
    assert run(number, grace_s=0.2, cleanup_s=60) == (code, [raised, "last words"])


def test_a_program_that_a_shell_put_in_the_background_goes_on_ignoring_ctrl_c():
    program = PROGRAM.format(grace_s=60, cleanup_s=0).replace("time.sleep(60)", "time.sleep(1)")
    ignoring = ["sh", "-c", 'trap "" INT; exec "$0" -c "$1"', sys.executable, program]
    with subprocess.Popen(ignoring, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGINT)
    assert process.returncode == 0


def test_a_signal_that_comes_as_the_interpreter_itself_ends_changes_nothing():
    last = """
import gc, os
class Last:
    def __del__(self, write=os.write, sleep=time.sleep):
        write(1, b"last\\n")
        sleep(1)
gc.disable()
last = Last()
last.itself = last
del last
sys.exit(code)
"""
    program = PROGRAM.format(grace_s=60, cleanup_s=0).replace("sys.exit(code)\n", last)
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        said = [process.stdout.readline()]
        process.send_signal(signal.SIGINT)
        while said[-1] not in ("last\n", ""):
            said.append(process.stdout.readline())
        for number in (signal.SIGINT, signal.SIGTERM):
            process.send_signal(number)
    assert said[-1] == "last\n"
    assert process.returncode == 130


WRAPPED = """
import signal, sys, time
from pydantic import BaseModel, model_serializer
from flows import signals

class Slow(BaseModel):
    @model_serializer
    def dump(self):
        print("up", flush=True)
        time.sleep(60)

watch = signals.watch_signals()
try:
    with signals.undisguised():
        Slow().model_dump()
except BaseException as error:
    print(type(error).__name__, flush=True)
"""


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "SystemExit")])
def test_a_signal_that_comes_as_c_code_calls_python_is_not_taken_for_an_error(number, raised):
    with subprocess.Popen([sys.executable, "-c", WRAPPED], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        assert process.stdout.read() == f"{raised}\n"
