"""Divides the limit on calls in flight over a run's worker processes, by what each has to do, about once a second.

With their demand the workers tell what they are doing, for whoever watches the run. A worker that has the endpoint to
itself finds the limit by itself, and is only watched.

The limit is the endpoint's; each process only holds the cap that it is told. A process that dies, hangs or joins
changes nothing here but the next division.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as OutOfTimeError
from dataclasses import replace
from typing import Any

from flows.engines import look_run, share_run
from flows.looks import WorkerLook
from summidx.llm.limits import AdaptiveLimit, Demand, share_by_demand, sum_demands
from summidx.llm.server_load import LoadReader
from summidx.settings import LLMSettings, Provider

PERIOD_S = 0.7
ANSWER_S = 2.0
"""A worker that has not answered by then keeps its cap, which nobody else gets, until it answers or is gone."""

OnLook = Callable[[Mapping[str, WorkerLook], int], None]
"""Told what each worker is doing, by its address, and how many calls may be in flight, all workers together."""

logger = logging.getLogger(__name__)


class Division:
    """The limit of one endpoint, and who has what of it. `demands` and caps are by worker."""

    def __init__(self, ceiling: int) -> None:
        self._limit = AdaptiveLimit(ceiling)
        self._caps: dict[str, int] = {}
        self._counted: dict[str, int] = {}
        self._completed = 0
        self._lost_sent_at: float | None = None
        self._lost_in_flight: dict[str, int] = {}

    @property
    def limit(self) -> int:
        """Calls that may be in flight, all workers together."""
        return self._limit.limit

    @property
    def caps(self) -> Mapping[str, int]:
        """The caps that were last told."""
        return self._caps

    def observe(self, demands: Mapping[str, Demand], now: float, load: Any = None) -> None:  # noqa: ANN401
        """Take in what all workers do; the limit follows."""
        for worker, demand in demands.items():
            before = self._counted.get(worker, 0)
            # One that was started again counts from 0.
            self._completed += demand.completed - before if demand.completed >= before else demand.completed
            self._counted[worker] = demand.completed
        self.note_losses(demands, now)
        lost_s = None if self._lost_sent_at is None else now - self._lost_sent_at
        self._lost_sent_at = None
        at_loss = sum(max(each.in_flight, self._lost_in_flight.get(name, 0)) for name, each in demands.items())
        self._lost_in_flight.clear()
        together = replace(
            sum_demands(list(demands.values())),
            completed=self._completed,
            lost_call_s=lost_s,
            lost_in_flight=0 if lost_s is None else at_loss,
        )
        self._limit.observe(together, now, load)

    def note_losses(self, demands: Mapping[str, Demand], now: float) -> None:
        """Keep for the next look that calls were lost, and of how many: each is told once."""
        for worker, demand in demands.items():
            if demand.lost_call_s is not None:
                self._lost_in_flight[worker] = max(demand.lost_in_flight, self._lost_in_flight.get(worker, 0))
        sent = [now - demand.lost_call_s for demand in demands.values() if demand.lost_call_s is not None]
        if sent:
            self._lost_sent_at = max(*sent, self._lost_sent_at if self._lost_sent_at is not None else sent[0])

    def divide(self, demands: Mapping[str, Demand], silent: Mapping[str, int]) -> dict[str, int]:
        """The caps of the workers that told their demand; what `silent` ones hold is kept for them.

        Silent ones may hold all, and for long: who waits has one call all the same (`share_by_demand`).
        """
        workers = list(demands)
        shares = share_by_demand(max(0, self.limit - sum(silent.values())), [demands[each] for each in workers])
        return dict(zip(workers, shares, strict=True))

    def told(self, caps: Mapping[str, int], present: Mapping[str, Any]) -> None:
        """Note what workers were told, and forget those that are gone."""
        self._caps = {worker: cap for worker, cap in {**self._caps, **caps}.items() if worker in present}
        self._counted = {worker: n for worker, n in self._counted.items() if worker in present}


class Shares:
    """A thread of the flow's process that asks each worker for its demand and tells it its cap, until it is closed."""

    def __init__(
        self,
        client: Any,  # noqa: ANN401 - no types
        run_id: str,
        settings: LLMSettings,
        initial: int | None,
        on_look: OnLook | None = None,
    ) -> None:
        """Start dividing.

        Args:
            client: of the Dask cluster.
            run_id: the flow run.
            settings: the endpoint and its limit.
            initial: the cap with which each worker starts; None: there is one, and nothing to divide.
            on_look: told in each round what was seen.
        """
        self._client = client
        self._run_id = run_id
        self._initial = initial or 0
        self._divides = initial is not None
        self._on_look = on_look
        self._looks: dict[str, WorkerLook] = {}
        self._division = Division(settings.concurrency)
        shows_load = self._divides and settings.provider is Provider.OPENAI and settings.base_url
        self._reader = LoadReader(settings.base_url, settings.model) if shows_load else None
        self._unanswered: dict[str, asyncio.Task[Demand | None]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="summidx-shares", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End; the workers keep their last caps."""
        self._ended.set()
        self._thread.join(2 * ANSWER_S)

    def _run(self) -> None:
        failed = False
        while not self._ended.wait(PERIOD_S):
            try:
                load = self._reader.read() if self._reader is not None else None
                turn = self._divide(load) if self._divides else self._look()
                round_ = asyncio.run_coroutine_threadsafe(turn, self._client.loop.asyncio_loop)
                try:
                    round_.result(5 * ANSWER_S)
                finally:
                    round_.cancel()  # one that overruns does not meet the next; nothing where it has ended
                failed = False
                self._tell()
            except (Exception, OutOfTimeError) as error:
                if self._divides and not failed and not self._ended.is_set():
                    logger.warning("the calls could not be shared out anew (%s: %s)", type(error).__name__, error)
                failed = True

    def _tell(self) -> None:
        if self._on_look is not None:
            looks = dict(self._looks)
            caps = sum(look.work.cap for look in looks.values())
            self._on_look(looks, self._division.limit if self._divides else caps)

    async def _look(self) -> None:
        """See what the one worker does."""
        present = await self._client.nthreads()
        self._looks = {worker: look for worker, look in self._looks.items() if worker in present}
        await self._ask(dict.fromkeys(present))

    async def _divide(self, load: Any) -> None:  # noqa: ANN401
        division = self._division
        present = await self._client.nthreads()
        self._looks = {worker: look for worker, look in self._looks.items() if worker in present}
        demands = await self._ask({worker: division.caps.get(worker) for worker in present})
        silent = {each: division.caps.get(each, self._initial) for each in present if each not in demands}
        division.observe(demands, time.monotonic(), load)
        wanted = division.divide(demands, silent)
        had = {worker: division.caps.get(worker, self._initial) for worker in wanted}
        # First take, then give: what is taken may be in flight by now.
        lowered = {worker: cap for worker, cap in wanted.items() if cap < had[worker]}
        told = await self._ask(lowered)
        division.told({worker: lowered[worker] for worker in told}, present)
        division.note_losses(told, time.monotonic())
        if lowered:
            demands |= told
            silent |= {worker: had[worker] for worker in lowered if worker not in told}
            demands = {worker: demand for worker, demand in demands.items() if worker not in silent}
            wanted = division.divide(demands, silent)
        raised = {worker: cap for worker, cap in wanted.items() if cap > had[worker] and worker not in lowered}
        given = await self._ask(raised)
        division.told(raised, present)  # those that did not answer may have heard it all the same
        division.note_losses(given, time.monotonic())

    async def _ask(self, caps: Mapping[str, int | None]) -> dict[str, Demand]:
        """Tell each worker its cap (None: as it is), and get its demand; those that do not answer in time are left out.

        A worker that has not answered the last question gets no other one.
        """
        asked = {
            worker: asyncio.create_task(self._ask_one(worker, cap))
            for worker, cap in caps.items()
            if worker not in self._unanswered
        }
        try:
            if asked:
                await asyncio.wait(asked.values(), timeout=ANSWER_S)
        finally:
            both = self._unanswered | asked
            self._unanswered = {worker: task for worker, task in both.items() if not task.done()}
        answers = {worker: task.result() for worker, task in asked.items() if task.done()}
        return {worker: demand for worker, demand in answers.items() if demand is not None}

    async def _ask_one(self, worker: str, cap: int | None) -> Demand | None:
        asked = (share_run, self._run_id, cap) if self._divides else (look_run, self._run_id)
        try:
            answers = await self._client.run(*asked, workers=[worker], on_error="ignore")
        except (OSError, ValueError, KeyError):  # it is gone
            return None
        look: WorkerLook | None = answers.get(worker)
        if look is None:
            return None
        self._looks[worker] = look
        return look.demand
