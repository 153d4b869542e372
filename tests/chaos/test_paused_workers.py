"""Workers that stand still for longer than the scheduler waits, and wake up when the world has moved on."""

import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
from fleet import Fleet, commit_all, find_differences
from runs import ROOT, Site, calls_of, check_all_final, check_report, with_no_fuss

from benchmarks.scaling import make_repositories
from summidx.store.generations import IndexRoot

TTL_S = 20
REPOSITORIES = 6
"""For each worker, of so many functions:"""
FUNCTIONS = 12
STARTS_WITHIN_S = 120
AWAKE_S = 60
"""A worker that was taken for dead ends within this time of waking up."""


class Cluster:
    """A Dask scheduler and workers, as an operator starts them."""

    def __init__(self, folder: Path, site: Site, threads: int) -> None:
        self._folder = folder
        self._threads = threads
        self._environment = site.environment | {
            "PREFECT_API_URL": site.api.url,
            "PYTHONPATH": str(ROOT),
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
            "DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION": "1.0",
            "DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING": "False",
            "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{TTL_S}s",
        }
        self.processes: list[psutil.Popen] = []
        folder.mkdir()
        self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0")

    @property
    def address(self) -> str:
        return self._read_file()["address"]

    def start_worker(self) -> psutil.Popen:
        threads = ("--nthreads", str(self._threads))
        return self._start("worker", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1", *threads)

    def close(self) -> None:
        for process in self.processes:
            with_no_fuss(partial(process.send_signal, signal.SIGCONT))
            with_no_fuss(process.kill)
            process.wait()

    def _start(self, what: str, *options: str) -> psutil.Popen:
        command = [sys.executable, "-m", "distributed.cli.dask_" + what, *options]
        command += ["--scheduler-file", str(self._folder / "scheduler.json")]
        with (self._folder / f"{what}{len(self.processes)}.log").open("wb") as log:
            process = psutil.Popen(
                command, cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    def _read_file(self) -> dict[str, str]:
        deadline = time.monotonic() + STARTS_WITHIN_S
        while True:
            try:
                return json.loads((self._folder / "scheduler.json").read_text())
            except (OSError, ValueError):
                assert time.monotonic() < deadline, "the scheduler did not start"
                time.sleep(0.1)


@pytest.fixture
def cluster(site, tmp_path):
    cluster = Cluster(tmp_path / "cluster", site, threads=2)
    yield cluster
    cluster.close()


def test_workers_that_wake_up_too_late_publish_nothing(
    site, cluster, llm, api, form, rng, tmp_path, chaos_env, options, note_figures
):
    refs = make_repositories(tmp_path / "repos", [FUNCTIONS] * REPOSITORIES * (form.pauses + 1))
    fleet = Fleet({ref.name: Path(ref.source) for ref in refs})
    names = fleet.write_list(tmp_path / "repos.txt")
    address = ("--scheduler-address", cluster.address)
    workers = [cluster.start_worker() for _ in range(form.pauses + 1)]

    first = site.start(names, *address)
    assert first.wait_until(lambda: all(calls_of(worker, llm.ports) for worker in workers)), first.stderr
    victims = rng.sample(workers, form.pauses)
    in_flight = 0
    for victim in victims:
        assert first.wait_until(partial(calls_of, victim, llm.ports)), first.stderr
        in_flight += calls_of(victim, llm.ports)
        victim.suspend()
    first.wait()
    check_report(api, first, fleet.names)

    for source in fleet.sources.values():
        commit_all(source, {"news.py": '"""What is new."""\n\nNEWS = ("one", "two")\n'})
    second = site.run(names, *address)
    check_report(api, second, fleet.names)
    assert set(second.endings().values()) == {"built"}
    published = _publish_ids(site, fleet)

    asked = llm.calls
    for victim in victims:
        victim.resume()
    _, awake = psutil.wait_procs(victims, timeout=AWAKE_S)
    asked_awake = llm.calls - asked

    assert _publish_ids(site, fleet) == published
    check_all_final(api, first.began_at)
    expected = Site(tmp_path / "expected", dict(site.environment), api, options)
    expected.folder.mkdir()
    expected.run(names)
    assert not find_differences(site.index_root, expected.index_root, fleet.names)
    note_figures(
        "paused",
        {
            "workers_paused": form.pauses,
            "calls_in_flight_then": in_flight,
            "calls_after_they_woke_up": asked_awake,
            "still_there": len(awake),
            "stale_publishes": 0,
        },
    )


def _publish_ids(site, fleet):
    return {name: IndexRoot(site.index_root).require_manifest(name).publish_id for name in fleet.names}
