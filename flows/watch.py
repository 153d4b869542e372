"""Notices that a run has lost what it cannot do without, and says so once: the Prefect API, its workers, its scheduler.

A connection to the scheduler that breaks is noticed by Dask itself (flows/suspects.py). What is looked for here breaks
nothing: an API that is away, a scheduler that hangs, workers that do not come back.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as OutOfTimeError
from contextlib import suppress
from typing import Any

from flows.prefect_server import is_reachable

PERIOD_S = 2.0
API_AWAY_S = 120.0
"""So long the Prefect API may be away. A run ends within five minutes: what Prefect has to send keeps its process for
two more."""
WORKERS_AWAY_S = 300.0
"""So long there may be no worker: a service that restarts them needs a while, and so does the import of torch."""
SCHEDULER_SILENT_S = 40.0
ANSWER_S = 10.0


class Patience:
    """How long something has been away, and whether that is too long."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._since: float | None = None

    def is_over(self, *, present: bool, now: float) -> bool:
        """Take in whether it is there; True once it has not been for `limit_s`."""
        if present:
            self._since = None
            return False
        if self._since is None:
            self._since = now
        return now - self._since >= self.limit_s


class Watch:
    """A thread that looks every few seconds, until it is closed or has given up."""

    def __init__(
        self,
        api_url: str,
        client: Any,  # noqa: ANN401 - no types
        scheduler: str,
        tell: Callable[[str], None],
        give_up: Callable[[str], None],
    ) -> None:
        """Begin to look.

        Args:
            api_url: the Prefect API.
            client: of the Dask cluster.
            scheduler: what its scheduler is called in a message.
            tell: shows a line to whoever follows the run.
            give_up: told once, in this thread, why the run cannot go on.
        """
        self._api_url = api_url
        self._client = client
        self._scheduler = scheduler
        self._tell = tell
        self._give_up = give_up
        self._is_api_seen = False
        """Until it was reached once from here, its silence proves nothing: it may want a certificate or a proxy."""
        self._is_api_there = True
        self._is_api_lost = False
        self._api = Patience(API_AWAY_S)
        self._workers = Patience(WORKERS_AWAY_S)
        self._answers = Patience(SCHEDULER_SILENT_S)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="summidx-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End; nothing is told any more."""
        self._ended.set()

    def wait_for_api(self) -> bool:
        """Wait until the API is there; False once that has taken too long."""
        if not self._is_api_seen:
            return True
        deadline = time.monotonic() + API_AWAY_S
        while not self._is_api_lost and time.monotonic() < deadline:
            if is_reachable(self._api_url, ANSWER_S):
                return True
            time.sleep(PERIOD_S)
        self._is_api_lost = True
        return False

    def _run(self) -> None:
        while not self._ended.wait(PERIOD_S):
            reason = self._look_at_api() or self._look_at_cluster()
            if reason and not self._ended.is_set():
                self._tell(f"the run is stopped: {reason}")
                self._give_up(reason)
                return

    def _look_at_api(self) -> str:
        """Why the run cannot go on without the API, or ""."""
        is_there = is_reachable(self._api_url, ANSWER_S)
        self._is_api_seen = self._is_api_seen or is_there
        if not self._is_api_seen:
            return ""
        if is_there != self._is_api_there:
            self._tell(f"the Prefect API {self._api_url} is {'back' if is_there else 'away: the run waits for it'}")
        self._is_api_there = is_there
        self._is_api_lost = self._api.is_over(present=is_there, now=time.monotonic())
        return f"the Prefect API {self._api_url} has been away for {API_AWAY_S:.0f} s" if self._is_api_lost else ""

    def _look_at_cluster(self) -> str:
        """Why nothing can be built on the cluster any more, or ""."""
        if self._client.status != "running":  # whoever follows the futures knows it already
            return ""
        asked = asyncio.run_coroutine_threadsafe(self._count_workers(), self._client.loop.asyncio_loop)
        try:
            workers = asked.result(ANSWER_S)
        except OutOfTimeError:
            asked.cancel()
            if self._answers.is_over(present=False, now=time.monotonic()):
                with suppress(Exception):  # as if the connection had broken: all that was submitted is lost then
                    self._client.loop.add_callback(self._client.scheduler_comm.comm.abort)
            return ""
        except Exception:  # the connection broke in this moment
            return ""
        self._answers.is_over(present=True, now=time.monotonic())
        if self._workers.is_over(present=workers > 0, now=time.monotonic()):
            return f"{self._scheduler} has had no worker for {WORKERS_AWAY_S:.0f} s"
        return ""

    async def _count_workers(self) -> int:
        return len(await self._client.nthreads())  # in the client's own loop: to be awaited
