"""Our DaskTaskRunner: a cluster that starts when first needed, a lane beside it, true states for what was killed."""

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self
from uuid import UUID

from distributed import as_completed
from distributed.comm.core import CommClosedError
from prefect import Task
from prefect.client.schemas.objects import RunInput, State
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL
from prefect.states import Crashed
from prefect_dask.task_runners import DaskTaskRunner, PrefectDaskFuture

from flows.closing import CLOSE_S, INTERRUPTED_S, close_cluster, kill_workers
from flows.cluster import make_cluster, make_known
from flows.engines import Run, RunPlugin, StopPlugin, stop_run
from flows.lane import Lane
from flows.ledger import record_loss, record_lost_try
from flows.live import live_run
from flows.progress import make_notes, tell_warning
from flows.remote import check_machines, scheduler_wanted
from flows.shares import Shares
from flows.submission import submit_to_cluster
from flows.suspects import CONDEMNED, SUSPECT, Ended, state_of_lost, was_killed
from flows.watch import Watch
from flows.worker_warnings import WarningReceiver, keep_line, topic_of
from summidx.errors import ServiceLost, UsageError

WORKER_TIMEOUT_S = 60.0
STOP_S = 10.0
"""A worker that hangs holds up the others no longer than this."""
COLLECT_EVERY_S = 0.1


class IndexTaskRunner(DaskTaskRunner):
    """Runs what must be built on a Dask cluster, and on a few threads of this process what needs no worker.

    The cluster starts with the first repository that must be built: a run with nothing to do starts none.
    """

    def __init__(self) -> None:
        super().__init__(cluster_class=self._make_cluster)
        self._lane = Lane()
        self._run: Run | None = None
        self._in_lane: frozenset[str] = frozenset()
        self._apart = False
        self._submitted: dict[PrefectDaskFuture[Any], tuple[Task[Any, Any], dict[str, Any]]] = {}
        self._again: dict[PrefectFuture[Any], PrefectDaskFuture[Any]] = {}
        """Of each repository that is run again, the second try."""
        self._gave_up = ""
        self._watch: Watch | None = None
        self._plugin: RunPlugin | None = None
        self._stop_plugin: StopPlugin | None = None
        self._shares: Shares | None = None

    def prepare(self, run: Run, in_lane: Iterable[str], *, apart: bool = False) -> None:
        """Say what is run, the generations for which no worker is needed, and whether all must be built elsewhere."""
        self._run = run
        self._apart = apart
        self._in_lane = frozenset(in_lane)

    def duplicate(self) -> "IndexTaskRunner":
        """A new runner; Prefect runs each flow on one."""
        return type(self)()

    def submit(  # type: ignore[override]  # a future of either kind
        self,
        task: Task[Any, Any],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectFuture[Any]] | None = None,
        dependencies: dict[str, set[RunInput]] | None = None,
    ) -> PrefectFuture[Any]:
        """Submit one repository to the cluster, or to the lane if nothing can or need be built."""
        if parameters.get("generation") in self._in_lane:
            return self._lane.submit(task, parameters, wait_for, dependencies)
        if wait_for:
            raise ValueError("repositories do not wait for each other")
        try:
            self._prepare_workers()
            future = submit_to_cluster(self.client, task, parameters, dependencies)
        except UsageError:
            raise
        except Exception as error:
            if self._is_cut_off or isinstance(error, CommClosedError):
                raise ServiceLost(f"{self._lost} before all repositories were submitted: start it again") from None
            raise
        self._submitted[future] = (task, parameters)
        return future

    def drain(self, futures: Iterable[PrefectFuture[Any]]) -> Iterator[Ended]:
        """Yield how each repository ended, as they end; last those that have to be run again (flows/suspects.py)."""
        on_cluster: dict[object, PrefectDaskFuture[Any]] = {}
        for future in futures:
            if isinstance(future, PrefectDaskFuture):
                on_cluster[future.wrapped_future.key] = future
            else:
                future.wait()
                yield Ended(future, future.state, {future.task_run_id: future.state})
        suspects: list[PrefectDaskFuture[Any]] = []
        for future in self._iterate_ended(on_cluster):
            state = self._state_of(future)
            if state is None:
                with suppress(Exception):  # the API is away; it is recorded again before the next try
                    record_loss(future.task_run_id, SUSPECT)
                tell_warning(f"{self._submitted[future][1]['name']}: {SUSPECT}")
                suspects.append(future)
            else:
                yield Ended(future, state, {future.task_run_id: state})
        for future in suspects:
            yield self._run_again(future)

    def collect(
        self, futures: Sequence[PrefectFuture[Any]], within_s: float
    ) -> Iterator[tuple[PrefectFuture[Any], State[Any]]]:
        """Yield those futures that come to a final state within so long, with that state."""
        deadline = time.monotonic() + within_s
        left: dict[PrefectFuture[Any], Any] = {future: self._again.get(future, future) for future in futures}
        while left:
            for future, last in [each for each in left.items() if each[1].wrapped_future.done()]:
                del left[future]
                if getattr(last.wrapped_future, "status", "finished") == "finished":  # else it was lost
                    last.wait(max(0.1, deadline - time.monotonic()))
                    if (state := last.state).is_final():
                        yield future, state
            if time.monotonic() > deadline:
                return
            time.sleep(COLLECT_EVERY_S)

    def wait_for_api(self) -> bool:
        """Wait until the Prefect API is there; False once that has taken too long."""
        return self._watch is None or self._watch.wait_for_api()

    def stop_all(self, reason: str, within_s: float = 2 * STOP_S) -> None:
        """Tell every step of the run, in all processes, to end: what is under way and what has not begun.

        A worker that is started again after it hears of it as it hears of the run.
        """
        stop_run(self._prepared.run_id, reason)
        if self._plugin is not None:
            loop: Any = self.client.loop
            told = asyncio.run_coroutine_threadsafe(self._tell_stop(reason), loop.asyncio_loop)
            with suppress(Exception):  # a worker that does not hear it, or not in time, fails by itself
                told.result(within_s)

    def __enter__(self) -> Self:
        """Start; neither cluster nor thread is made yet."""
        super().__enter__()  # type: ignore[no-untyped-call]
        self._lane.__enter__()
        return self

    def __exit__(self, *args: object) -> None:
        """Close the lane, then the cluster; what still runs there is told to stop."""
        self._lane.__exit__(*args)
        if self._watch is not None:
            self._watch.close()
        if self._shares is not None:
            self._shares.close()
        self._exit_stack.callback(self._unregister_all)  # first, and within the time that the close has
        is_interrupted = isinstance(args[1], BaseException) and not isinstance(args[1], Exception)
        close_cluster(self._exit_stack, INTERRUPTED_S if is_interrupted else CLOSE_S)
        if is_interrupted:  # perhaps as the cluster was being made: then nobody else knows of its processes
            kill_workers()
        super().__exit__(*args)

    def _unregister_all(self) -> None:
        for plugin in (self._plugin, self._stop_plugin):
            if plugin is not None and not self._is_cut_off:
                self._unregister(plugin.name)

    def _unregister(self, name: str) -> None:
        with suppress(Exception):  # it is not there, or the scheduler is gone and has no plugin left to remove
            self.client.unregister_worker_plugin(name)  # type: ignore[no-untyped-call]

    async def _tell_stop(self, reason: str) -> None:
        if self._stop_plugin is not None:
            return
        plugin = self._stop_plugin = StopPlugin(self._prepared.run_id, reason)
        registered: Any = self.client.register_plugin(plugin)  # in the client's own loop: to be awaited
        await asyncio.wait_for(registered, STOP_S)

    def _make_cluster(self) -> Any:  # noqa: ANN401 - a cluster, or the address of one
        return make_cluster(self._prepared.settings(), apart=self._apart)

    def _prepare_workers(self) -> None:
        if self._plugin is not None:
            return
        address = self._prepared.settings().cluster.scheduler_address
        if address:
            with scheduler_wanted(address, WORKER_TIMEOUT_S):
                self.client.wait_for_workers(1, timeout=WORKER_TIMEOUT_S)
            index_root = self._prepared.settings().index_root
            for warning in check_machines(self.client, address, self._prepared.run_id, index_root):
                tell_warning(warning)
        workers = len(self.client.scheduler_info(n_workers=-1)["workers"])
        run = self._prepared
        alone = workers == 1 and not address  # elsewhere, others may join
        if not alone:
            run = run.shared_by(workers)
        if address:  # a run that is tried again has the same id, and its scheduler may be the same one
            self._unregister(StopPlugin.name_for(run.run_id))
        plugin = RunPlugin(run)
        self.client.subscribe_topic(topic_of(run.run_id), WarningReceiver(*make_notes(), keep=keep_line).take)  # type: ignore[no-untyped-call]
        make_known(self.client, plugin)
        self._plugin = plugin
        _, tell = make_notes()
        self._watch = Watch(str(PREFECT_API_URL.value()), self.client, self._scheduler, tell, self._give_up)
        self._shares = Shares(self.client, run.run_id, run.settings().llm, run.max_calls, live_run().looked)

    @property
    def _prepared(self) -> Run:
        if self._run is None:
            raise RuntimeError("prepare() comes before the first submit()")
        return self._run

    def _iterate_ended(self, futures: Mapping[object, PrefectDaskFuture[Any]]) -> Iterator[PrefectDaskFuture[Any]]:
        """The futures, by key, as they end on the cluster, in whatever way."""
        if not futures:
            return
        wrapped = [future.wrapped_future for future in futures.values()]
        ended = as_completed(wrapped, loop=self.client.loop)  # type: ignore[no-untyped-call]
        for dask_future in ended:
            yield futures[dask_future.key]

    def _state_of(self, future: PrefectDaskFuture[Any]) -> State[Any] | None:
        """The final state of one that has ended; None where its worker was killed. Dask may forget it from here on."""
        future.wait()  # swallows what Dask raises, a killed worker included
        dask_future: Any = future.wrapped_future
        try:
            if dask_future.status == "finished" and future.state.is_final():
                return future.state
            if was_killed(dask_future):
                return None
            if self._is_cut_off:
                logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # we say it ourselves
            return state_of_lost(future, dask_future, self._lost)
        finally:
            dask_future.release()  # else what this worker finished runs again when the worker dies

    def _run_again(self, suspect: PrefectDaskFuture[Any]) -> Ended:
        """Run what a killed worker had in flight, with nothing beside it, to its end."""
        lost: dict[UUID, State[Any]] = {suspect.task_run_id: Crashed(message=SUSPECT)}
        if self._is_cut_off:
            reason = f"the worker process that had it was killed, and {self._lost} before it ran again"
            return Ended(suspect, Crashed(message=reason), lost, lost_tries=1)
        task, parameters = self._submitted[suspect]
        with suppress(Exception):  # the API is away: what it has missed is made up for at the end of the run
            run_id = UUID(self._prepared.run_id)
            record_lost_try(run_id, task, suspect.task_run_id, parameters["name"], SUSPECT)
        again = submit_to_cluster(self.client, task, parameters)
        self._again[suspect] = again
        for _ in self._iterate_ended({again.wrapped_future.key: again}):
            pass
        state, lost_tries = self._state_of(again), 1
        if state is None:
            state, lost_tries = Crashed(message=CONDEMNED), 2
            with suppress(Exception):  # as above
                record_loss(again.task_run_id, CONDEMNED)
        return Ended(suspect, state, {**lost, again.task_run_id: state}, lost_tries)

    def _give_up(self, reason: str) -> None:
        """Called by the watch, in its thread: end what runs, and let go of what does not end."""
        self._gave_up = reason
        self.stop_all(reason)
        deadline = time.monotonic() + STOP_S
        futures: list[Any] = [each.wrapped_future for each in (*self._submitted, *self._again.values())]
        while (left := [each for each in futures if not each.done()]) and time.monotonic() < deadline:
            time.sleep(COLLECT_EVERY_S)
        with suppress(Exception):  # the scheduler is gone as well, and with it what was submitted
            self.client.cancel(left, force=True)  # type: ignore[no-untyped-call]

    @property
    def _is_cut_off(self) -> bool:
        """True once the connection to the scheduler was lost; what had been submitted is lost with it."""
        return self._client is not None and self._client.status != "running"

    @property
    def _lost(self) -> str:
        """What the run has lost, as the beginning of a sentence."""
        return self._gave_up or f"{self._scheduler} was lost"

    @property
    def _scheduler(self) -> str:
        """What the scheduler is called in a message."""
        address = self._prepared.settings().cluster.scheduler_address
        return f"the Dask scheduler {address}" if address else "the run's own Dask scheduler"
