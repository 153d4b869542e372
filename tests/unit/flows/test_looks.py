"""What the workers of a real Dask cluster tell of what they do, with their demand and without."""

import itertools
import threading

import pytest
from distributed import Client, LocalCluster

from flows import engines
from flows.engines import Run, open_run, run_engine_of
from flows.live import LiveRun
from flows.shares import Shares
from summidx.activity import Figures, RepoLook
from summidx.settings import load_settings

NUMBERS = itertools.count()


@pytest.mark.parametrize("initial", [None, 8], ids=["one that has the endpoint to itself", "one that shares it"])
def test_a_worker_tells_what_it_does_whether_or_not_it_shares_its_calls(tmp_path, initial):
    settings = load_settings({"log_dir": str(tmp_path / "logs")})
    run = Run(f"looks-{next(NUMBERS)}", settings.model_dump_json(exclude={"cache": {"url"}}), None, {}, initial)
    open_run(run)
    live, heard = LiveRun(), threading.Event()

    def look(looks, limit):
        live.looked(looks, limit)
        if any(worker.repos for worker in live.snapshot().workers):
            heard.set()

    engine = run_engine_of(run.run_id).get()
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
        engine.activity.following(lambda seconds: RepoLook("alpha", "parse", 3, 9, seconds, Figures(3, 1, 2, 40, 5))),
    ):
        shares = Shares(client, run.run_id, settings.llm, initial, look)
        try:
            assert heard.wait(30)
        finally:
            shares.close()
            engines.close_run(run.run_id)
    (worker,) = live.snapshot().workers
    assert [(repo.name, repo.step, repo.settled, repo.units) for repo in worker.repos] == [("alpha", "parse", 3, 9)]
    assert worker.name == "0", "as Dask calls it"
    assert live.snapshot().figures == Figures(3, 1, 2, 40, 5)
    assert len(live.timeline()["samples"]) >= 1
