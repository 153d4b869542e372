"""Stop: how a run tells every step of every worker to end."""

import threading

from summidx.errors import Stopped


class Stop:
    """A flag with a reason, set once, from any thread; every step polls it before each call, batch and publish."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._reason = ""

    def request(self, reason: str) -> None:
        """Ask all steps to end. The first reason stays."""
        if not self._event.is_set():
            self._reason = reason
            self._event.set()

    @property
    def is_requested(self) -> bool:
        """True once a stop was requested."""
        return self._event.is_set()

    @property
    def reason(self) -> str:
        """Why the run was told to stop, or ""."""
        return self._reason

    def check(self) -> None:
        """Raise `Stopped` with the reason if a stop was requested."""
        if self._event.is_set():
            raise Stopped(f"stopped: {self._reason}")

    def wait(self, timeout_s: float) -> bool:
        """Sleep up to `timeout_s`; True as soon as a stop is requested."""
        return self._event.wait(timeout_s)
