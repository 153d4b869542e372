"""Sees that a run which was told to end does end."""

import os
import signal
import socket
import sys
import threading

GRACE_S = 13.0
"""A run ends within 15 s of a signal; what has not ended by itself in this time is left behind."""
ENDING = (signal.SIGINT, signal.SIGTERM)


class SignalWatch:
    """Notes the first signal that asks the process to end, and ends it hard if it is still there after `GRACE_S`.

    It reads Python's wake-up descriptor: Prefect and Typer replace the handlers while they run, and a thread of C code
    may hold up Python's own. Worker processes and server end when their parent does.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name="summidx-signals", daemon=True).start()

    def disarm(self) -> None:
        """Stop watching: the process is about to end by itself."""
        self._ended.set()

    def _watch(self) -> None:
        while not self.signal:
            received = self._reader.recv(1)[0]
            if received in ENDING:
                self.signal = received
        if not self._ended.wait(GRACE_S):
            sys.stderr.write("error: the run did not end in time and is ended now; what is finished is kept\n")
            sys.stderr.flush()
            os._exit(128 + self.signal)
