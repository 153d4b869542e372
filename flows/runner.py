"""Our DaskTaskRunner: a cluster that starts when first needed, a lane beside it, true states for what was killed."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Self

from distributed import KilledWorker, as_completed
from prefect import Task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import RunInput, State
from prefect.futures import PrefectFuture
from prefect.states import Crashed
from prefect.task_runners import ThreadPoolTaskRunner
from prefect_dask.task_runners import DaskTaskRunner, PrefectDaskFuture

from flows.cluster import make_cluster
from flows.engines import Run, RunPlugin, StopPlugin, stop_run
from flows.ledger import force_state
from flows.progress import make_notes
from flows.shares import Shares
from flows.worker_warnings import WarningReceiver, topic_of
from summidx.errors import UsageError

LANE_THREADS = 4
WORKER_TIMEOUT_S = 60.0
STOP_S = 10.0
"""A worker that hangs holds up the others no longer than this."""
COLLECT_EVERY_S = 0.1


class IndexTaskRunner(DaskTaskRunner):
    """Runs what must be built on a Dask cluster, and what is up to date on a few threads of this process.

    The cluster starts with the first repository that must be built: a run with nothing to do starts none.
    """

    def __init__(self) -> None:
        super().__init__(cluster_class=self._make_cluster)
        self._lane: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=LANE_THREADS)
        self._run: Run | None = None
        self._up_to_date: frozenset[str] = frozenset()
        self._plugin: RunPlugin | None = None
        self._stop_plugin: StopPlugin | None = None
        self._shares: Shares | None = None

    def prepare(self, run: Run, up_to_date: Iterable[str]) -> None:
        """Say what is run, and the generations of the repositories for which nothing is to be done."""
        self._run = run
        self._up_to_date = frozenset(up_to_date)

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
        """Submit one repository to the cluster, or to the lane if it is up to date."""
        if parameters.get("generation") in self._up_to_date:
            return self._lane.submit(task, parameters, wait_for, dependencies)
        if wait_for:
            raise ValueError("repositories do not wait for each other")
        self._prepare_workers()
        future: PrefectFuture[Any] = super().submit(task, parameters, None, dependencies)
        return future

    def drain(self, futures: Iterable[PrefectFuture[Any]]) -> Iterator[tuple[PrefectFuture[Any], State[Any]]]:
        """Yield each future with its final state, as they end.

        A future whose worker died never reaches a final state by itself: its task run is set to Crashed here.
        """
        on_cluster = {future.wrapped_future.key: future for future in futures if isinstance(future, PrefectDaskFuture)}
        for future in futures:
            if not isinstance(future, PrefectDaskFuture):
                future.wait()
                yield future, future.state
        if not on_cluster:
            return
        wrapped = [future.wrapped_future for future in on_cluster.values()]
        ended = as_completed(wrapped, loop=self.client.loop)  # type: ignore[no-untyped-call]
        for dask_future in ended:
            future = on_cluster.pop(dask_future.key)
            future.wait()  # swallows what Dask raises, a killed worker included
            state = future.state
            if not state.is_final():
                state = self._set_crashed(future, dask_future)
            dask_future.release()  # else what this worker finished runs again when the worker dies
            yield future, state

    def collect(
        self, futures: Sequence[PrefectFuture[Any]], within_s: float
    ) -> Iterator[tuple[PrefectFuture[Any], State[Any]]]:
        """Yield those futures that come to a final state within so long, with that state."""
        deadline = time.monotonic() + within_s
        left: list[Any] = list(futures)
        while left:
            for future in [each for each in left if each.wrapped_future.done()]:
                left.remove(future)
                if getattr(future.wrapped_future, "status", "finished") == "finished":  # else it was lost
                    future.wait(max(0.1, deadline - time.monotonic()))
                    if (state := future.state).is_final():
                        yield future, state
            if time.monotonic() > deadline:
                return
            time.sleep(COLLECT_EVERY_S)

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
        if self._shares is not None:
            self._shares.close()
        if self._plugin is not None:
            self._unregister(self._plugin.name)
            if self._stop_plugin is not None:
                self._unregister(self._stop_plugin.name)
        super().__exit__(*args)

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
        return make_cluster(self._prepared.settings())

    def _prepare_workers(self) -> None:
        if self._plugin is not None:
            return
        address = self._prepared.settings().cluster.scheduler_address
        if address:
            try:
                self.client.wait_for_workers(1, timeout=WORKER_TIMEOUT_S)
            except TimeoutError:
                raise UsageError(
                    f"no worker at the Dask scheduler {address} within {WORKER_TIMEOUT_S:.0f} s, so nothing can be "
                    "built: start workers, or leave --scheduler-address out"
                ) from None
            except OSError as error:
                raise UsageError(
                    f"the Dask scheduler {address} cannot be reached ({type(error).__name__}), so nothing can be "
                    "built: start it, or leave --scheduler-address out"
                ) from None
        workers = len(self.client.scheduler_info(n_workers=-1)["workers"])
        run = self._prepared
        alone = workers == 1 and not address  # elsewhere, others may join
        if not alone:
            run = run.shared_by(workers)
        if address:  # a run that is tried again has the same id, and its scheduler may be the same one
            self._unregister(StopPlugin.name_for(run.run_id))
        plugin = RunPlugin(run)
        self.client.subscribe_topic(topic_of(run.run_id), WarningReceiver(*make_notes()).take)  # type: ignore[no-untyped-call]
        self.client.register_plugin(plugin)
        self._plugin = plugin
        if run.max_calls is not None:
            self._shares = Shares(self.client, run.run_id, run.settings().llm, run.max_calls)

    @property
    def _prepared(self) -> Run:
        if self._run is None:
            raise RuntimeError("prepare() comes before the first submit()")
        return self._run

    def _set_crashed(self, future: PrefectFuture[Any], dask_future: Any) -> State[Any]:  # noqa: ANN401 - no types
        error = dask_future.exception() if dask_future.status == "error" else None
        if isinstance(error, KilledWorker):  # its own text is for developers of Dask
            reason = "the worker process that had it was killed (a fault in native code, or out of memory)"
        else:
            reason = f"it was lost by Dask ({dask_future.status}{f': {error}' if error else ''})"
        crashed: State[Any] = Crashed(message=reason)
        with get_client(sync_client=True) as client:
            force_state(client, future.task_run_id, crashed)
        return crashed
