"""Runs that lose what they cannot do without: the Dask scheduler, the Prefect API."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ENDS_WITHIN_S, SLACK_S = 60, 60
ENDS_WITHOUT_API_S = 300


@pytest.fixture
def scheduler(build, tmp_path):
    """A Dask scheduler with two workers, as an operator starts them: its process, and its address."""
    file = tmp_path / "scheduler.json"
    env = build.env | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
        "DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION": "1.0",
        "DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING": "False",
    }
    processes = []

    def start(what, *options):
        command = [sys.executable, "-m", "distributed.cli.dask_" + what, "--scheduler-file", file, *options]
        with (tmp_path / f"{what}-{len(processes)}.log").open("w") as log:
            processes.append(subprocess.Popen(command, env=env, cwd=tmp_path, stdout=log, stderr=log))

    start("scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0")
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for _ in range(2):
        start("worker", "--host", "127.0.0.1", "--nthreads", "2", "--no-dashboard")
    yield processes[0], json.loads(file.read_text())["address"]
    for process in reversed(processes):
        process.send_signal(signal.SIGTERM)
    for process in processes:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.mark.chaos
def test_a_lost_scheduler_ends_the_run_with_its_name_and_what_is_finished_stays(
    build, api, llm, scheduler, make_repo, module, tmp_path
):
    process, address = scheduler
    sizes = {"held": 9, "also_held": 8, "slow": 7, "small": 6, "tiny": 5, "late": 4, "last": 3}
    for name, size in sizes.items():
        word = "" if name in ("small", "tiny") else "# HOLDME\n"
        make_repo(tmp_path / name, {"a.py": module(name, size) + word})
    repos = [arg for name in sizes for arg in ("--repo", tmp_path / name)]

    with build.start(*repos, *llm.options, "--scheduler-address", address, "--json") as run:
        for _ in range(4):
            llm.held.get(timeout=120)  # `small` and `tiny` are done by then, and `last` has not begun
        process.kill()
        start = time.monotonic()
        out, err = run.communicate(timeout=ENDS_WITHIN_S + SLACK_S)
        took = time.monotonic() - start

    assert run.returncode == 1
    assert took < ENDS_WITHIN_S + SLACK_S
    report = json.loads(out)
    lost = f"the Dask scheduler {address} was lost"
    assert f"late: crashed: {lost} while it was being built" in err.splitlines()
    assert f"1 not attempted, the next run has them: {lost}" in err.splitlines()
    assert (report["built"], report["failed"], report["not_attempted"]) == (2, 4, 1)
    tries = api.tries(report["flow_run_id"])
    assert {name for name, states in tries.items() if states == ["Completed"]} == {"small", "tiny"}
    assert {state for states in tries.values() for state in states} <= {"Completed", "Failed", "Crashed"}
    assert set(tries) == set(sizes)
    assert api.flow_run(report["flow_run_id"])["state_name"] == "Failed"

    llm.release.set()
    again = build.report(*repos, *llm.options)
    assert (again["built"], again["up_to_date"]) == (5, 2)


@pytest.fixture
def own_server(build, api, tmp_path):
    """A Prefect server of this test's own that it may end and start again: start and stop it, and its API."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Server(port, type(api), build.env | {"PREFECT_HOME": str(tmp_path / "prefect")}, tmp_path / "server.log")
    server.start()
    build.env = build.env | {"PREFECT_API_URL": server.api.url, "PREFECT_HOME": str(tmp_path / "prefect")}
    yield server
    server.stop()


class Server:
    """`prefect server start`, at one port and with one database."""

    def __init__(self, port, make_api, env, log):
        self.api = make_api(f"http://127.0.0.1:{port}/api")
        self._command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--no-ui"]
        self._command += ["--port", str(port)]
        self._env = {name: value for name, value in env.items() if name != "PREFECT_API_URL"}
        self._log = log
        self._process = None

    def start(self):
        with self._log.open("a") as log:
            self._process = subprocess.Popen(self._command, env=self._env, stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{self.api.url}/health", timeout=5).close()
            except OSError:
                assert time.monotonic() < deadline, self._log.read_text()
                time.sleep(0.1)
            else:
                return

    def stop(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()


AWAY_S = 30


@pytest.mark.chaos
def test_an_api_that_is_away_for_a_while_costs_nothing(build, own_server, llm, make_repo, module, tmp_path):
    names = [f"repo{n:02}" for n in range(24)]
    for n, name in enumerate(names):
        make_repo(tmp_path / name, {"a.py": module(name, 5) + ("# HOLDME\n" if n in (1, 9) else "")})
    repos = [arg for name in names for arg in ("--repo", tmp_path / name)]

    with build.start(*repos, *llm.options, "--num-processes", 2, "--json") as run:
        for _ in range(2):
            llm.held.get(timeout=120)
        own_server.stop()
        time.sleep(AWAY_S / 2)
        llm.release.set()
        time.sleep(AWAY_S / 2)
        own_server.start()
        out, err = run.communicate(timeout=240)

    assert run.returncode == 0, err
    report = json.loads(out)
    assert report["built"] == 24
    assert own_server.api.tries(report["flow_run_id"]) == {name: ["Completed"] for name in names}
    assert own_server.api.flow_run(report["flow_run_id"])["state_name"] == "Completed"


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_an_api_that_does_not_come_back_ends_the_run_with_its_name(build, own_server, llm, make_repo, module, tmp_path):
    for name in ("held", "small", "tiny"):
        make_repo(tmp_path / name, {"a.py": module(name, 5) + ("# HOLDME\n" if name == "held" else "")})
    repos = [arg for name in ("held", "small", "tiny") for arg in ("--repo", tmp_path / name)]

    with build.start(*repos, *llm.options, "--num-processes", 2, "--json") as run:
        llm.held.get(timeout=120)
        own_server.stop()
        start = time.monotonic()
        out, err = run.communicate(timeout=500)
        took = time.monotonic() - start

    assert run.returncode == 1
    assert took < ENDS_WITHOUT_API_S
    lost = f"the Prefect API {own_server.api.url} has been away for 120 s"
    assert f"the run is stopped: {lost}" in err
    report = json.loads(out)
    assert (report["built"], report["failed"]) == (2, 1)
    assert next(each["reason"] for each in report["repositories"] if each["name"] == "held") == f"stopped: {lost}"
    llm.release.set()
    own_server.start()
    again = build.report(*repos, *llm.options)
    assert (again["built"], again["up_to_date"]) == (1, 2)
    assert own_server.api.flow_run(report["flow_run_id"])["state_name"] == "Crashed"
