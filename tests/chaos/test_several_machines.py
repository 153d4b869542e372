"""Flow, scheduler and workers on hosts of their own, over TLS; one of them is cut off in the middle of a run.

What an operator starts is what runs: the systemd units, the settings of the compose file, its PostgreSQL for Prefect
and for the cache, certificates of `make-certificates`. The index root is a folder that all hosts share.
"""

import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

import lancedb
import pygit2
import pytest
import yaml
from fake_llm import FakeLLM, running
from hosts import network
from postgres_server import DEPLOYMENTS, postgres
from systemd_units import Machine

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

BUILD = Path(__file__).parents[2] / "flows" / "build.py"
SCHEDULER, WORKER, FLOW = (
    "summidx-dask-scheduler.service",
    "summidx-dask-worker@.service",
    "summidx-prefect-worker.service",
)
PASSWORDS = {"PREFECT_DATABASE_PASSWORD": "of-prefect", "SUMMIDX_DATABASE_PASSWORD": "of-the-cache"}
OPERATOR = "operator:of-the-api"
TCP_TIMEOUT_S = 11
"""The shortest that Dask takes; 30 by default."""
WAIT_S = 120
THREADS = 2
SMALL = [f"small{i:02}" for i in range(12)]
BIG = ["far", "late1", "late2", "late3"]
"""Those that are asked for first: the largest."""


class GatedLLM(FakeLLM):
    """Knows who asks; prompts with the words of `gates` wait until they are opened."""

    def __init__(self) -> None:
        super().__init__()
        self.delay_s = 0.02
        self.gates = {"FARAWAY": threading.Event(), "LATECOMER": threading.Event()}
        self.waiting: dict[str, list[str]] = {word: [] for word in self.gates}
        """The addresses that asked, by the word of the gate."""
        self.askers: Counter[str] = Counter()

    async def _completions(self, request):
        text = await request.text()
        self.askers[request.remote] += 1
        for word, gate in self.gates.items():
            if word in text and not gate.is_set():
                self.waiting[word].append(request.remote)
                await asyncio.to_thread(gate.wait, WAIT_S)
        return await super()._completions(request)


class Site:
    """The servers, on the address that all hosts reach, and three hosts."""

    def __init__(self, folder, net, llm, postgres_port):
        self.folder = folder
        self.llm = llm
        with socket.socket() as probe:
            probe.bind((net.address, 0))
            port = probe.getsockname()[1]
        self.listen = ("--host", net.address, "--port", str(port))
        self.api_url = f"http://{net.address}:{port}/api"
        self.base = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PREFECT_", "SUMMIDX_", "OPENAI_", "DASK_"))
        }
        compose = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())["services"]["prefect"]["environment"]
        self.server_env = {
            **self.base,
            **compose,
            "PREFECT_HOME": str(folder / "server"),
            "PREFECT_SERVER_DATABASE_HOST": net.address,
            "PREFECT_SERVER_DATABASE_PORT": str(postgres_port),
            "PREFECT_SERVER_DATABASE_PASSWORD": PASSWORDS["PREFECT_DATABASE_PASSWORD"],
            "PREFECT_SERVER_API_AUTH_STRING": OPERATOR,
        }
        self.address = f"tls://{net.hosts[0].address}:8786"
        cache = f"summidx:{PASSWORDS['SUMMIDX_DATABASE_PASSWORD']}@{net.address}:{postgres_port}/summidx"
        self.env_file = {
            "PREFECT_API_URL": self.api_url,
            "PREFECT_API_AUTH_STRING": OPERATOR,
            "SUMMIDX_CACHE__URL": f"postgresql+psycopg://{cache}",
            "SUMMIDX_CLUSTER__SCHEDULER_ADDRESS": self.address,
            "SUMMIDX_CLUSTER__THREADS_PER_WORKER": str(THREADS),
            "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": str(TCP_TIMEOUT_S),
        }
        etc = folder / "etc"
        subprocess.run([DEPLOYMENTS / "make-certificates", etc / "tls"], check=True, stdout=subprocess.DEVNULL)
        (etc / "summidx.toml").write_text(
            f"repos_root = '{folder}/repos'\nindex_root = '{folder}/index'\nlog_dir = '{folder}/logs'\n"
            f"[llm]\nprovider = 'openai'\nmodel = 'fake'\nbase_url = '{llm.base_url}'\nconcurrency = 8\n"
            "[embedding]\nmodel = 'hashing'\n"
        )
        self.machines = [
            Machine(folder / f"host{i}", etc, self.env_file, base=self.base, prefix=host.prefix)
            for i, host in enumerate(net.hosts)
        ]
        self.hosts = net.hosts

    def start_server(self):
        with (self.folder / "server.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "prefect", "server", "start", "--no-ui", *self.listen],
                env=self.server_env,
                stdout=log,
                stderr=log,
            )

    def start_flow(self, *more, alone=False):
        """A flow run on the first host, as its Prefect worker starts one; `alone`: without cluster and cache."""
        machine = self.machines[0]
        environment = machine.environment(FLOW)
        if alone:
            del environment["SUMMIDX_CACHE__URL"], environment["SUMMIDX_CLUSTER__SCHEDULER_ADDRESS"]
        return subprocess.Popen(
            [*machine.prefix, sys.executable, BUILD, "--json", *more],
            env=environment,
            cwd=machine.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        login = base64.b64encode(OPERATOR.encode()).decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {login}"}
        request = urllib.request.Request(f"{self.api_url}{path}", data, headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

    def task_states(self, run_id):
        """The repository of each task run of a flow run, and the name of its state."""
        runs = self.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
        return {(run["name"], run["state_name"]) for run in runs}

    def generations(self):
        """Of each index, its generations: one for each time that it was published."""
        return {path.parent.name: sorted(path.iterdir()) for path in (self.folder / "index").glob("*/generations")}


def wait_until(condition, what, logs=()):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "\n".join([what, *(log.read_text()[-3000:] for log in logs)])
        time.sleep(0.1)


def make_repos(root):
    author = pygit2.Signature("A. Author", "author@example.org", 1_700_000_000, 0)
    words = dict.fromkeys(SMALL, "") | {
        "far": "FARAWAY",
        "late1": "LATECOMER",
        "late2": "LATECOMER",
        "late3": "LATECOMER",
    }
    for name, word in words.items():
        repo = pygit2.init_repository(root / name, initial_head="main")
        index = pygit2.Index()
        for i in range(4 if name in BIG else 2):
            text = "\n\n".join(
                f"def {name}_{i}_{j}(items):\n    total = {j}\n    for item in items:\n        total += item\n"
                f"    return total\n"
                for j in range(3)
            )
            if i == 0 and word:
                text += f"\n# {word}\n"
            blob = repo.create_blob(text.encode())
            index.add(pygit2.IndexEntry(f"{name}_{i}.py", blob, pygit2.enums.FileMode.BLOB))
        repo.create_commit("HEAD", author, author, "first", index.write_tree(repo), [])


def read_rows(index):
    """Every row of every index, all columns."""
    rows = {}
    for path in index.glob("*/CURRENT"):
        current = json.loads(path.read_text())
        folder = path.parent / "generations" / f"{current['generation']}.{current['publish_id']}"
        for row in lancedb.connect(folder).open_table("documents").to_arrow().to_pylist():
            assert (path.parent.name, row["id"]) not in rows
            rows[path.parent.name, row["id"]] = row
    return rows


@pytest.fixture
def site(tmp_path):
    with network(3) as net, running(GatedLLM(), host=net.address) as llm:
        with socket.socket() as probe:
            probe.bind((net.address, 0))
            port = probe.getsockname()[1]
        with postgres(net.address, port, PASSWORDS):
            site = Site(tmp_path, net, llm, port)
            make_repos(tmp_path / "repos")
            server = site.start_server()
            try:
                wait_until(lambda: is_up(site, server), "no Prefect server", [tmp_path / "server.log"])
                yield site
            finally:
                server.send_signal(signal.SIGTERM)
                server.wait(60)


def is_up(site, server):
    assert server.poll() is None, (site.folder / "server.log").read_text()
    try:
        return site.ask("/health")
    except OSError:
        return False


@pytest.fixture
def cluster(site):
    """The scheduler on the first host, a worker each on the others; yields the workers by address, and all logs."""
    services = [site.machines[0].start(SCHEDULER), *(machine.start(WORKER, "0") for machine in site.machines[1:])]
    scheduler, *workers = services
    by_address = dict(zip((host.address for host in site.hosts[1:]), workers, strict=True))
    logs = [service.log for service in services]
    try:
        wait_until(
            lambda: all(registrations(scheduler.log, each) for each in by_address), "the workers stay away", logs
        )
        yield by_address, logs
    finally:
        for service in reversed(services):
            service.stop()


def registrations(log, address):
    return log.read_text().count(f"Register worker addr: tls://{address}:")


def test_a_host_that_is_cut_off_and_comes_back_costs_time_only(site, cluster, tmp_path):
    workers, logs = cluster
    process = site.start_flow()

    def wait_for(condition, what):
        wait_until(lambda: condition() or is_over(process), what, logs)

    wait_for(lambda: site.llm.waiting["FARAWAY"] and len(site.llm.waiting["LATECOMER"]) >= 3, "nobody builds")
    host = next(each for each in site.hosts if each.address == site.llm.waiting["FARAWAY"][0])
    host.cut_off()
    wait_for(lambda: f"Remove worker addr: tls://{host.address}:" in logs[0].read_text(), "it is not missed")
    asked_before = site.llm.askers[host.address]
    site.llm.gates["FARAWAY"].set()
    host.bring_back()
    # All threads of the other host wait: what is left is built by the one that came back, or not at all.
    wait_for(lambda: site.llm.askers[host.address] > asked_before, "it does not come back")
    site.llm.gates["LATECOMER"].set()
    report, err = end(process)

    assert process.returncode == 0, err
    assert workers[host.address].starts == 2
    assert registrations(logs[0], host.address) == 2
    endings = {each["name"]: each["ending"] for each in report["repositories"]}
    assert endings == dict.fromkeys([*SMALL, *BIG], "built")
    states = site.task_states(report["flow_run_id"])
    # The host that is back does not say of what it had that it failed: it was lost.
    assert {state for _, state in states} <= {"Completed", "Crashed"}, "none is left Running"
    assert {name for name, state in states if state == "Completed"} == set(endings)
    assert {"far"} <= {name for name, state in states if state != "Completed"}
    assert len({name for name, state in states if state != "Completed"}) <= THREADS, "only what the host had in flight"
    assert {name: len(each) for name, each in site.generations().items()} == dict.fromkeys(endings, 1), (
        "published twice"
    )

    again, err = end(site.start_flow())
    assert {each["ending"] for each in again["repositories"]} == {"up_to_date"}, err
    alone, err = end(site.start_flow("--index-root", str(tmp_path / "oracle"), alone=True))
    assert alone["built"] == len(endings), err
    rows, expected = read_rows(tmp_path / "index"), read_rows(tmp_path / "oracle")
    assert len(expected) > 150
    assert rows == expected


def is_over(process):
    if process.poll() is not None:
        pytest.fail("the run has ended: " + process.communicate()[1])


def end(process):
    out, err = process.communicate(timeout=WAIT_S)
    assert out, err
    return json.loads(out), err
