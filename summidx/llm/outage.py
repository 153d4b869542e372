"""Tells a server that is away from a call that fails: calls wait while it is away, and lose no try by that.

Failures in a row with no answer between them make the server suspect: no call is let through then, and one real
completion of a single token asks whether it answers. Where that fails, the server is down: what failed since is not
held against any call, and the same question is asked again until it is answered, or was asked in vain for `outage_s`.
A run never ends by this without that question: calls that take long may fail in a row with a server that is well.
"""

import asyncio
import copy
import logging
import random
import time
from collections.abc import Awaitable, Callable

from summidx.errors import LLMError, Outage, Overloaded, ServerFault, Unauthorised, UnknownModel
from summidx.llm.gate import CallGate

SUSPECT_AFTER = 3
"""Failures in a row."""
LONGEST_PROBE_S = 30.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 15.0
"""Between two questions whether the server is back."""

logger = logging.getLogger(__name__)


class OutageWatch:
    """Watches what becomes of the calls of one process. Lives on the engine's event loop."""

    def __init__(
        self,
        ping: Callable[[float], Awaitable[None]],
        gate: CallGate,
        *,
        timeout_s: float,
        outage_s: float,
        forgive: Callable[[float], None],
        end: Callable[[LLMError], None],
    ) -> None:
        """Watch; nothing is asked yet.

        Args:
            ping: asks for one real completion, within so many seconds.
            gate: where calls wait.
            timeout_s: how long a call may take.
            outage_s: how long the server may answer nothing while it is asked.
            forgive: called when the server turns out to be down, with the time (`time.monotonic`) since when.
            end: called with what ends the run.
        """
        self._ping = ping
        self._gate = gate
        self._probe_s = min(timeout_s, LONGEST_PROBE_S)
        self._outage_s = outage_s
        self._forgive = forgive
        self._end = end
        self._in_row = 0
        self._since: float | None = None
        """When the first failure was seen after which no call was sent that was answered."""
        self._failed_at = 0.0
        self._answered_at = 0.0
        self._last_error: LLMError = ServerFault("nothing was answered")
        self._probing: asyncio.Task[None] | None = None
        self.is_down = False
        self._down_since = 0.0

    def answered(self, sent_at: float) -> None:
        """A call that was sent at `sent_at` was answered, well or not.

        Only one that was sent after the failures shows that the server is there: answers that were under way still
        come when it goes.
        """
        self._in_row = 0
        self._answered_at = time.monotonic()
        if self._since is not None and sent_at > self._since:
            self._since = None
            if self._probing is not None:
                self._probing.cancel()
                self._resume()

    def failed(self, error: LLMError, at: float, *, killer: bool = False) -> None:
        """A call was not answered, as was seen at `at`. After a likely `killer` nobody goes before one was answered."""
        self._last_error = without_traceback(error)
        if self._since is None or at - self._failed_at > self._outage_s:
            self._since = at  # one of long ago says nothing of now
        self._failed_at = at
        self._in_row += 1
        if killer or self._in_row >= SUSPECT_AFTER:
            self._gate.shut()
            if self._probing is None:
                self._start()

    async def settle(self) -> None:
        """Return when it is clear whether a call failed because the server is away; if so, when it is back."""
        await asyncio.wait([self._probing or self._start()])

    def close(self) -> None:
        """Ask no more."""
        if self._probing is not None:
            self._probing.cancel()

    def _start(self) -> asyncio.Task[None]:
        if self._since is None:
            self._since = time.monotonic()
        self._probing = asyncio.create_task(self._probe_until_answered())
        return self._probing

    async def _probe_until_answered(self) -> None:
        pause, asked_at = FIRST_PAUSE_S, time.monotonic()
        since, left = self._since or asked_at, self._outage_s
        while True:
            try:
                await self._ping(min(self._probe_s, max(left, 1.0)))
            except (Unauthorised, UnknownModel) as error:
                self._end(error)
                return
            except (Overloaded, ServerFault) as error:
                if isinstance(error, Overloaded) and error.is_limited:
                    break
                self._last_error = without_traceback(error)
                self._set_down(since)
            except LLMError:  # it answers, if not as it should
                break
            except Exception:
                logger.exception("whether the LLM server answers could not be asked; calls go on")
                break
            else:
                break
            left = max(asked_at, self._answered_at) + self._outage_s - time.monotonic()
            if left <= 0:
                self._end(
                    Outage(
                        f"nothing was answered for {self._outage_s:g} s (`llm.outage_s`), so the run stops; start the "
                        f"server and run again, what is finished is kept; last: {self._last_error}"
                    )
                )
                return
            await asyncio.sleep(min(pause * random.uniform(0.8, 1.2), max(left, 0.05)))  # noqa: S311 - no secret
            pause = min(2 * pause, LONGEST_PAUSE_S)
        self._resume()

    def _set_down(self, since: float) -> None:
        if not self.is_down:
            self.is_down = True
            self._gate.shut()
            self._down_since = since
            self._forgive(since)
            logger.warning(
                "the LLM server answers nothing; calls wait until it does, and the run stops after %g s of that: %s",
                self._outage_s,
                self._last_error,
                extra={"server": "away"},  # for whoever tells a person of it
            )

    def _resume(self) -> None:
        if self.is_down:
            away_s = time.monotonic() - self._down_since
            logger.warning("the LLM server answers again after %.0f s; calls go on", away_s, extra={"server": "back"})
        self.is_down = False
        self._in_row = 0
        self._since = None
        self._probing = None
        self._gate.open()


def without_traceback(error: LLMError) -> LLMError:
    """The error to keep for long: the frames of its traceback hold what was asked.

    A copy alone is not enough: where Dask is loaded (tblib), exceptions are copied with their tracebacks.
    """
    kept = copy.copy(error).with_traceback(None)
    kept.__cause__ = kept.__context__ = None
    return kept
