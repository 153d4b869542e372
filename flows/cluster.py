"""The cluster to run on: this process, worker processes, one process per GPU, or a cluster that runs already."""

import logging
import os
import signal
from contextlib import AbstractContextManager, nullcontext
from typing import Any

# Read as distributed is imported; at its default level a run has some 70 lines of it.
os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "warning")

import dask.config
from distributed import Client, LocalCluster
from distributed.diagnostics.plugin import WorkerPlugin

from summidx.errors import UsageError
from summidx.settings import ClusterSettings, Provider, Settings

DASK_SETTINGS = {
    # A task whose worker died is not run again beside others: it is known to be lost, and reported.
    "distributed.scheduler.allowed-failures": 0,
    # A worker gets a repository when a thread is free, not in advance: the queue stays with the scheduler.
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.work-stealing": False,
    # torch and its threads do not survive a fork.
    "distributed.worker.multiprocessing-method": "spawn",
    # Dask samples the stacks of all threads a hundred times a second: that is work in the process of the LLM's client.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.gil.enabled": False,
    # A GPU's number is then the one that nvidia-smi shows; else CUDA puts the fastest first.
    "distributed.nanny.pre-spawn-environ.CUDA_DEVICE_ORDER": "PCI_BUS_ID",
}
"""A remote scheduler needs the first three in its own environment."""

LOST_AFTER = "168h"

TOLD_TIMES = 3

HOST = "127.0.0.1"
DASHBOARD = "127.0.0.1:0"
"""Not None: then port 8787 is tried, on all interfaces."""


def is_in_process(settings: ClusterSettings) -> bool:
    """True where repositories are built in the run's own process."""
    has_gpus = bool(settings.gpu_ids) and not settings.force_cpu
    return settings.num_processes == 1 and not settings.scheduler_address and not has_gpus


def make_cluster(run_settings: Settings, *, apart: bool = False) -> AbstractContextManager[Any]:
    """Start the cluster that the settings of a run ask for, or name the one that runs at `scheduler_address`.

    Args:
        run_settings: of the run.
        apart: build nothing in this process, one worker or not.

    Raises:
        UsageError: GPUs are asked for and cannot be used.
    """
    settings = run_settings.cluster  # made possible by `summidx.workers.fit_workers`
    runs_vllm = run_settings.llm.provider is Provider.VLLM
    if runs_vllm:
        # vLLM has child processes, which Python refuses to a daemon. Not for a block: a worker that is started again
        # reads it as well.
        dask.config.set({"distributed.worker.daemon": False})
    if settings.scheduler_address:
        return nullcontext(settings.scheduler_address)
    # Read when a worker dies, so not for a block either. Dask gives up a worker that is not back in 15 s, closes its
    # nanny and starts no other; on a busy machine the imports alone take longer. None for too long: flows/watch.py.
    dask.config.set({"distributed.deploy.lost-worker-timeout": LOST_AFTER})
    with dask.config.set(DASK_SETTINGS):
        if settings.local_gpus:
            return _cuda_cluster(settings)
        in_process = is_in_process(settings) and not apart
        cluster: AbstractContextManager[Any] = LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=settings.num_processes,
            threads_per_worker=settings.threads_per_worker,
            processes=not in_process,
            # The nanny's own limit kills a worker as a poisonous repository would; the kernel decides instead.
            memory_limit=None,
            silence_logs=logging.ERROR,
            dashboard_address=DASHBOARD,
            # In-process workers talk without sockets, but each serves HTTP, on all interfaces unless it is told not to.
            **({"worker_dashboard_address": DASHBOARD} if in_process else {"host": HOST, "preload": [__name__]}),
        )
        return cluster


def dask_setup(worker: object) -> None:  # noqa: ARG001 - the name and signature are Dask's
    """Called in each local worker process as it starts: Ctrl-C is for the run, which ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _cuda_cluster(settings: ClusterSettings) -> AbstractContextManager[Any]:
    """A worker process for each GPU; each sees all of them, another one first, and uses the first (`cuda:0`)."""
    ids = list(settings.gpu_ids)
    try:
        cluster: AbstractContextManager[Any] = cuda_cluster_class()(
            CUDA_VISIBLE_DEVICES=ids,
            n_workers=settings.num_processes,
            threads_per_worker=settings.threads_per_worker,
            memory_limit=None,
            device_memory_limit=None,
            silence_logs=logging.ERROR,
            dashboard_address=DASHBOARD,
            host=HOST,
            preload=[__name__],
        )
    except Exception as error:  # NVML, CUDA and Dask each have their own
        raise UsageError(
            f"the GPUs {ids} cannot be used ({type(error).__name__}: {error}): check --gpu-ids against nvidia-smi, or "
            "embed on the CPU with --force-cpu"
        ) from error
    return cluster


def cuda_cluster_class() -> Any:  # noqa: ANN401 - a class of a package without types, that may be missing
    """LocalCUDACluster.

    Raises:
        UsageError: dask-cuda is not installed, or cannot be imported.
    """
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as error:
        raise UsageError(
            f"GPUs are asked for, but dask-cuda cannot be imported ({error}): install summidx[gpu], or embed on the "
            "CPU with --force-cpu"
        ) from None
    return LocalCUDACluster


def make_known(client: Client, plugin: WorkerPlugin) -> None:
    """Set up a plugin on every worker, though some are lost in the meantime.

    Dask tells all workers at once and raises where one of them does not answer, without waiting for the others. Those
    that have set it up by then do so again.

    Raises:
        OSError: the scheduler is lost, or with each try another worker was.
    """
    for tries_left in reversed(range(TOLD_TIMES)):
        try:
            client.register_plugin(plugin)
        except OSError:
            if not tries_left or client.status != "running":
                raise
        else:
            return
