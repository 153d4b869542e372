"""Sees that a run which was told to end does end: once, undisturbed, and in time."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from flows.capture import release

GRACE_S = 13.0
"""A run ends within 15 s of a signal; what has not ended by itself in this time is left behind."""
LAST_WORDS_S = 1.5
ENDING = (signal.SIGINT, signal.SIGTERM)


class SignalWatch:
    """Raises in the main thread for the first signal that asks the process to end, and for none after it.

    Who presses Ctrl-C again would interrupt the end itself: worker processes would be left, and states that say
    Running. The end has its limit in any case: a process that is still there after `GRACE_S` is ended hard. That is
    watched by Python's wake-up descriptor, since a thread of C code may hold up Python's own handlers. Worker processes
    and server end when their parent does.
    """

    def __init__(self) -> None:
        self.signal = 0
        self.last_words: Callable[[], object] | None = None
        """Called before the process is ended hard; it has `LAST_WORDS_S`."""
        self.raised = 0
        """The signal for which it has raised."""
        self._is_absorbed = False
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._caught = [each for each in ENDING if signal.getsignal(each) is not signal.SIG_IGN]
        """A shell that starts a program in the background has it ignore SIGINT."""
        self.take()
        threading.Thread(target=self._watch, name="summidx-signals", daemon=True).start()

    def take(self) -> None:
        """Handle the signals here. Main thread."""
        for number in self._caught:
            signal.signal(number, self._interrupt)

    def absorb(self) -> None:
        """Raise nothing any more: the process is about to end by itself.

        As it does so, Python takes its handlers away: one that a signal ended ignores all others to its last moment.
        """
        if self.raised:
            for number in self._caught:
                signal.signal(number, signal.SIG_IGN)
        self._is_absorbed = True

    def _interrupt(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature is Python's
        if self.raised or self._is_absorbed:
            return
        self.raised = number
        self.raise_again()

    def raise_again(self) -> None:
        """Raise what the first signal has raised, if one came."""
        if self.raised == signal.SIGINT:
            raise KeyboardInterrupt
        if self.raised:
            raise SystemExit(128 + self.raised)

    def say_last_words(self) -> None:
        """Leave word of a run that does not end by itself; in the time that this may take."""
        if self.last_words is not None:
            speaking = threading.Thread(target=_quietly, args=(self.last_words,), daemon=True)
            speaking.start()
            speaking.join(LAST_WORDS_S)

    def _watch(self) -> None:
        while not self.signal:
            received = self._reader.recv(1)[0]
            if received in self._caught:
                self.signal = received
        threading.Event().wait(GRACE_S)  # a process that has ended by then takes this thread along
        self.say_last_words()
        release()  # the terminal, if a display holds it
        sys.stderr.write("error: the run did not end in time and is ended now; what is finished is kept\n")
        sys.stderr.flush()
        os._exit(128 + self.signal)


_watch: SignalWatch | None = None


def watch_signals() -> SignalWatch:
    """Watch the signals of this process, from now on until it ends. Main thread, once."""
    global _watch  # noqa: PLW0603 - signals are the process's
    _watch = SignalWatch()
    return _watch


def take_signals(last_words: Callable[[], object]) -> None:
    """Where signals are watched, handle them so again: Prefect puts a handler of its own before a flow.

    Args:
        last_words: called before the process is ended hard.
    """
    if _watch is not None and threading.current_thread() is threading.main_thread():
        _watch.take()
        _watch.last_words = last_words


@contextmanager
def undisguised() -> Iterator[None]:
    """What a signal has raised in this block leaves it as that, whatever it was made into on its way.

    C code that had called Python as the signal came may say in an error of its own that the call failed: pydantic does.
    """
    try:
        yield
    except Exception:
        if _watch is not None:
            _watch.raise_again()
        raise


def _quietly(what: Callable[[], object]) -> None:
    with suppress(Exception):
        what()
