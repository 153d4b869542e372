"""The engine of each run in this process, and how a worker process comes by it.

A worker process learns the settings of a run from a Dask plugin. Secrets do not travel: they are read where they are
used, from the process's own environment.
"""

import asyncio
import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from distributed import Worker, WorkerPlugin
from prefect.logging.configuration import setup_logging

from flows.logs import TaskLog, log_file
from flows.looks import WorkerLook, find_gpu_use
from flows.worker_warnings import WarningSender
from summidx.activity import Look
from summidx.durations import format_duration
from summidx.errors import NotAttempted, UsageError
from summidx.plan import Plan
from summidx.settings import Settings, load_settings
from summidx.summarizers import ServedModel

if TYPE_CHECKING:
    from summidx.engine import Engine
    from summidx.llm.limits import Demand


@dataclass(frozen=True, slots=True)
class Run:
    """What a process must know to build for a flow run. Nothing in it is secret."""

    run_id: str
    settings_json: str
    served_model: ServedModel | None
    expected_publish_ids: Mapping[str, str | None]
    """By name of the repository: what CURRENT held when the run was planned."""
    up_to_date: frozenset[str] = frozenset()
    """Generations of the indexes for which nothing is to be done."""
    max_calls: int | None = None
    """Calls to the LLM that one process may have in flight until it is told another number (flows/shares.py); None: all
    that the endpoint may have, since there is no other process."""
    began_at: float = field(default_factory=time.time)
    """Seconds since the epoch: the one clock that processes on several machines have in common."""

    @classmethod
    def of(cls, run_id: str, settings: Settings, plan: Plan) -> "Run":
        """Describe flow run `run_id`, for a single process."""
        return cls(
            run_id,
            # A database's URL holds its password: each process reads it where it reads the API key. Which LLM servers a
            # process may talk to is its own to say, too.
            settings.model_dump_json(exclude={"cache": {"url"}, "llm": {"allowed_hosts"}}),
            plan.served_model,
            {planned.pin.name: planned.expected_publish_id for planned in plan.repos},
            frozenset(planned.pin.generation for planned in plan.repos if planned.up_to_date),
        )

    def shared_by(self, workers: int) -> "Run":
        """The same, for one of so many worker processes: each gets an equal share of the calls, and at least one."""
        return replace(self, max_calls=max(1, self.settings().llm.concurrency // max(1, workers)))

    def settings(self) -> Settings:
        """The run's settings, its secrets from this process's environment."""
        return load_settings(json.loads(self.settings_json))


LEFT = "its worker process has left the cluster"
"""Why a process stops what it builds when it closes: the run has ended, or the scheduler takes it for lost."""


class WorkerLeft(BaseException):
    """The repository did not fail: its worker process closes. For Prefect, whatever is no `Exception` is a crash."""


class RunEngine:
    """The engine of one run in this process: made when first asked for, shared by all threads."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._engine: Engine | None = None
        self._cap = run.max_calls
        self._stopped = ""
        self._closed = False
        self._lock = threading.Lock()

    def get(self) -> "Engine":
        """The engine.

        Raises:
            NotAttempted: the run was told to stop.
        """
        from summidx.engine import Engine

        with self._lock:
            reason = self._stopped or (self._engine.stop.reason if self._engine is not None else "")
            if self._closed or reason:
                raise NotAttempted(f"not attempted: {reason}")
            limit = self._settings.stop_after
            if limit is not None and time.time() - self.run.began_at >= limit.total_seconds():
                raise NotAttempted(
                    f"not attempted: the run's {format_duration(limit.total_seconds())} (`--stop-after`) were over"
                )
            if self._engine is None:
                self._engine = Engine(self._settings, served_model=self.run.served_model, max_calls=self._cap)
            return self._engine

    @cached_property
    def _settings(self) -> Settings:
        return self.run.settings()

    @property
    def has_left(self) -> bool:
        """True where nothing but the end of this process stopped the run here."""
        return self._stopped == LEFT

    def share(self, cap: int | None) -> "Demand":
        """Let this process have `cap` calls in flight (None: as it is); what its calls do. Never waits long."""
        from summidx.llm.limits import Demand

        if cap is not None:
            self._cap = cap  # told again with each look, so that an engine that is just being made has it in the end
        engine = self._engine
        if engine is None:
            return Demand()
        if cap is not None:
            engine.set_cap(cap)
        return engine.demand()

    def look(self) -> Look:
        """What this process is doing. Never waits long."""
        engine = self._engine
        return engine.look() if engine is not None else Look()

    def stop(self, reason: str) -> None:
        """Tell every step that runs here to end."""
        with self._lock:
            self._stopped = self._stopped or reason
            if self._engine is not None:
                self._engine.stop.request(reason)

    def close(self) -> None:
        """Stop what runs and free what the engine holds; there may be none."""
        self.stop("the run has ended")
        with self._lock:
            engine, self._engine, self._closed = self._engine, None, True
        if engine is not None:
            engine.close()


_runs: dict[str, RunEngine] = {}
_stopped: dict[str, str] = {}
"""Why runs were stopped that may not be known here yet."""
_lock = threading.Lock()


def open_run(run: Run) -> bool:
    """Make the run known in this process; False if it was already."""
    with _lock:
        if run.run_id in _runs:
            return False
        run_engine = _runs[run.run_id] = RunEngine(run)
        reason = _stopped.get(run.run_id)
    if reason:
        run_engine.stop(reason)
    return True


def run_engine_of(run_id: str) -> RunEngine:
    """What this process knows of flow run `run_id`, and its engine for it.

    Raises:
        UsageError: the run is not known here.
    """
    with _lock:
        run_engine = _runs.get(run_id)
    if run_engine is None:
        raise UsageError(f"flow run {run_id} is not known in this process; start repositories through summary-index")
    return run_engine


def stop_run(run_id: str, reason: str) -> None:
    """Tell every step of the run in this process to end."""
    with _lock:
        run_engine = _runs.get(run_id)
    if run_engine is not None:
        run_engine.stop(reason)


def share_run(run_id: str, cap: int | None, dask_worker: Any = None) -> WorkerLook | None:  # noqa: ANN401 - no types
    """Tell the run in this process how many calls it may have in flight (None: as it is); what it is doing.

    Called in the event loop of a worker. None where the run is not known here (yet).
    """
    with _lock:
        run_engine = _runs.get(run_id)
    if run_engine is None:
        return None
    demand = run_engine.share(cap)
    return replace(_look_at(run_engine, dask_worker), demand=demand)


def look_run(run_id: str, dask_worker: Any = None) -> WorkerLook | None:  # noqa: ANN401
    """What the run is doing in this process, which shares its calls with no other; otherwise as `share_run`."""
    with _lock:
        run_engine = _runs.get(run_id)
    return _look_at(run_engine, dask_worker) if run_engine is not None else None


def _look_at(run_engine: RunEngine, worker: Any) -> WorkerLook:  # noqa: ANN401
    return WorkerLook(name=str(getattr(worker, "name", "")), work=run_engine.look(), gpu=find_gpu_use(worker))


def close_run(run_id: str) -> None:
    """Forget the run and free its engine, if it has one."""
    with _lock:
        run_engine = _runs.pop(run_id, None)
    if run_engine is not None:
        run_engine.close()


class RunPlugin(WorkerPlugin):
    """Makes a run known in every worker process, those that are started again included."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.name = f"summidx-{run.run_id}"
        self._resources = ExitStack()

    def __getstate__(self) -> dict[str, object]:
        """Only what may travel."""
        return {"run": self.run, "name": self.name}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state, _resources=ExitStack())

    def setup(self, worker: Worker) -> None:
        """Called in the worker process."""
        sender = WarningSender(worker, self.run.run_id)
        ours = logging.getLogger("summidx")
        ours.addHandler(sender)
        self._resources.callback(ours.removeHandler, sender)
        task_log = TaskLog()
        ours.addHandler(task_log)
        self._resources.callback(ours.removeHandler, task_log)
        ours.setLevel(logging.INFO)
        if open_run(self.run):
            setup_logging()  # Prefect would do it at the first task, and drop the handler below
            self._resources.enter_context(log_file(self.run.settings().log_dir, f"worker-{os.getpid()}"))
            self._resources.callback(close_run, self.run.run_id)

    async def teardown(self, worker: Worker) -> None:  # noqa: ARG002
        """Called in the worker process when it closes, before its threads are waited for."""
        stop_run(self.run.run_id, LEFT)
        await asyncio.to_thread(self._resources.close)


class StopPlugin(WorkerPlugin):
    """Tells the workers that a run was stopped, those that are started again after it included."""

    def __init__(self, run_id: str, reason: str) -> None:
        self.name = self.name_for(run_id)
        self._run_id = run_id
        self._reason = reason

    @staticmethod
    def name_for(run_id: str) -> str:
        """What Dask knows it by."""
        return f"summidx-stop-{run_id}"

    def setup(self, worker: Worker) -> None:  # noqa: ARG002 - the signature is Dask's
        """Called in the worker process, before or after the run is made known there."""
        with _lock:
            _stopped[self._run_id] = self._reason
        stop_run(self._run_id, self._reason)

    def teardown(self, worker: Worker) -> None:  # noqa: ARG002
        """Called in the worker process when it closes, or the run is over."""
        with _lock:
            _stopped.pop(self._run_id, None)
