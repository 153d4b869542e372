"""What a worker process knows of a run that was stopped."""

import itertools
import os
from contextlib import suppress
from dataclasses import replace
from unittest.mock import Mock

import pytest
from distributed import Client, LocalCluster
from distributed.diagnostics.plugin import WorkerPlugin

from flows import engines
from flows.cluster import make_known
from flows.engines import Run, StopPlugin, open_run, run_engine_of
from summidx.errors import NotAttempted
from summidx.settings import load_settings

NUMBERS = itertools.count()


@pytest.fixture
def run(tmp_path):
    settings = load_settings({"log_dir": str(tmp_path / "logs")})
    run = Run(f"run-{next(NUMBERS)}", settings.model_dump_json(exclude={"cache": {"url"}}), None, {})
    yield run
    engines.close_run(run.run_id)


@pytest.mark.parametrize("known_first", [True, False])
def test_a_worker_that_is_started_after_the_stop_attempts_nothing(run, known_first):
    stop = StopPlugin(run.run_id, "the key is refused")
    if known_first:
        open_run(run)
        stop.setup(Mock())
    else:  # Dask sets up plugins in no order that it promises
        stop.setup(Mock())
        open_run(run)
    with pytest.raises(NotAttempted, match="the key is refused"):
        run_engine_of(run.run_id).get()


def test_a_run_that_is_tried_again_is_not_stopped_by_its_earlier_stop(run):
    stop = StopPlugin(run.run_id, "the key is refused")
    stop.setup(Mock())
    stop.teardown(Mock())
    open_run(run)
    assert run_engine_of(run.run_id)._stopped == ""


def test_dask_tells_a_worker_that_comes_after_the_stop(run):
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(engines.RunPlugin(run))
        client.register_plugin(StopPlugin(run.run_id, "the key is refused"))
        engines.close_run(run.run_id)  # as in a process that has just begun
        cluster.scale(2)
        client.wait_for_workers(2, timeout=30)
        with pytest.raises(NotAttempted, match="the key is refused"):
            run_engine_of(run.run_id).get()


def test_no_repository_is_begun_after_the_time_for_that(run, tmp_path):
    settings = load_settings({"log_dir": str(tmp_path / "logs"), "stop_after": "6h"})
    run = replace(run, settings_json=settings.model_dump_json(exclude={"cache": {"url"}}))
    late = replace(run, run_id=f"{run.run_id}-late", began_at=run.began_at - 6 * 3600)
    open_run(run)
    open_run(late)
    begun = run_engine_of(run.run_id).get()
    assert not begun.stop.is_requested
    with pytest.raises(NotAttempted, match=r"^not attempted: the run's 6h \(`--stop-after`\) were over$"):
        run_engine_of(late.run_id).get()
    engines.close_run(late.run_id)


class KillsOnce(WorkerPlugin):
    """Its first set-up kills the worker process."""

    name = "kills-once"

    def __init__(self, killed):
        self.killed = killed

    def setup(self, worker):
        with suppress(FileExistsError):
            self.killed.touch(exist_ok=False)
            os._exit(1)


def test_a_worker_that_dies_as_it_hears_of_a_run_takes_none_of_the_others_along(tmp_path):
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        make_known(client, KillsOnce(tmp_path / "killed"))
        client.wait_for_workers(2, timeout=60)

        assert (tmp_path / "killed").exists()
        assert all(client.run(lambda dask_worker: "kills-once" in dask_worker.plugins).values())
