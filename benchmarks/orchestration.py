"""What orchestration costs: a nightly over 2,000 unchanged repositories, ours and stock prefect-dask, in one run.

    python -m benchmarks.orchestration                                # all of it: some 10 minutes on a quiet machine
    python -m benchmarks.orchestration --fleet DIR                    # keep the repositories and their indexes in DIR
    python -m benchmarks.orchestration --repositories 200 --no-write  # a look

Real git repositories with published indexes. Timed is the whole command: its start, the plan
(each revision resolved, each index verified), a task run for each repository, the report. Stock prefect-dask maps a
task over the pins of that plan: it is handed what ours has to find out. README.md says what is measured against what.
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pygit2

from benchmarks import harness
from benchmarks.scaling import list_sizes, render_files
from flows.prefect_server import SERVER_SETTINGS
from summidx.engine import Engine
from summidx.pipeline import index_repo
from summidx.plan import PLANS, make_plan
from summidx.records import RepoRef
from summidx.settings import load_settings
from summidx.sources.specs import make_ref
from summidx.store.current import render_manifest, write_current
from summidx.store.generations import IndexRoot

REPOSITORIES = 2000
NAMES = 20
"""So many repositories have one content."""
FUNCTIONS = 12.0
"""Mean of a repository; log-normal, as in `scaling`."""
RUNS = 3
TARGET_S = 40.0
TARGET_OF_STOCK = 1 / 6
STOCK = ("-m", "benchmarks.stock_prefect_dask")
EXTRACTIVE = {"llm": {"provider": "extractive"}, "embedding": {"model": "hashing"}}
UP_WITHIN_S, SHOWN_WITHIN_S = 120.0, 600.0
PAGE = 200


@dataclass(frozen=True, slots=True)
class Fleet:
    """Repositories, and the published index of each."""

    folder: Path
    repositories: int

    @property
    def index_root(self) -> Path:
        """Where the indexes lie."""
        return self.folder / "index"

    @property
    def cache_url(self) -> str:
        """Of the cache that was filled when they were built."""
        return f"sqlite:///{self.folder}/cache.sqlite"


def make_fleet(folder: Path, repositories: int) -> Fleet:
    """Make repositories with published indexes, unless an earlier run left them in `folder`.

    One in `NAMES` is built by the product. The others are copies of it under names of their own: each has its own git
    directory, its own generation and its own CURRENT, and nothing of them is shared on the disk.
    """
    fleet = Fleet(folder.absolute(), repositories)
    complete = folder / f"complete-{repositories}"
    if complete.exists():
        return fleet
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "repos").mkdir(parents=True)
    refs = make_repositories(fleet.folder / "repos", list_sizes(-(-repositories // NAMES), FUNCTIONS))
    overrides = {**EXTRACTIVE, "index_root": str(fleet.index_root), "cache": {"url": fleet.cache_url}}
    settings = load_settings(overrides)
    with contextlib.closing(Engine(settings)) as engine:
        for planned in make_plan(refs, settings).to_build:
            index_repo(planned.pin, engine)
    root = IndexRoot(fleet.index_root)
    for number in range(len(refs), repositories):
        _copy(refs[number % len(refs)], number, root)
    complete.touch()
    return fleet


def _copy(ref: RepoRef, number: int, root: IndexRoot) -> None:
    """Another repository of the same content, and an index of it that is published under its name."""
    source = Path(ref.source)
    copied = make_ref(str(source.with_name(_name(number))))
    shutil.copytree(source, copied.source)
    manifest = replace(root.require_manifest(ref.name), name=copied.name)
    target = root.generation_folder(copied.name, manifest)
    shutil.copytree(root.generation_folder(ref.name, manifest), target)
    write_current(root.index_folder(copied.name), render_manifest(manifest), manifest.publish_id)


def _name(number: int) -> str:
    return f"service-{number:04d}"


def make_repositories(root: Path, sizes: Sequence[int]) -> list[RepoRef]:
    """A git repository for each size: a package of so many functions, with a README, a manifest and a test."""
    author = pygit2.Signature("A. Author", "author@example.org", 1_700_000_000, 0)
    refs = []
    for number, functions in enumerate(sizes):
        name = _name(number)
        repo = pygit2.init_repository(root / name, initial_head="main")
        files = {f"src/{path}": text for path, text in render_files(f"s{number}", functions).items()}
        files |= {
            "README.md": f"# {name}\n\nKeeps the books of department {number}.\n",
            "pyproject.toml": f'[project]\nname = "{name}"\nversion = "1.{number}"\n',
            "tests/test_module0.py": f"def test_{number}():\n    assert {number} + 1 == {number + 1}\n",
        }
        index = pygit2.Index()
        for path, text in files.items():
            index.add(pygit2.IndexEntry(path, repo.create_blob(text.encode()), pygit2.enums.FileMode.BLOB))
        repo.create_commit("HEAD", author, author, "all", index.write_tree(repo), [])
        refs.append(make_ref(str(root / name)))
    return refs


@dataclass(frozen=True, slots=True)
class PrefectServer:
    """A Prefect server with a database of its own, as one stands beside a nightly."""

    url: str
    """Of its API."""
    home: Path
    process: psutil.Process

    def cpu_s(self) -> float:
        """CPU time that it has used."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def post(self, path: str, body: object) -> Any:  # noqa: ANN401 - JSON
        """Ask the API."""
        data = json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def wait_until_shown(self, repositories: int) -> tuple[str, float]:
        """Wait until the last flow run has so many task runs in a final state; its id, and when that was."""
        flow_run = self.post("/flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})[0]["id"]
        final = {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}}}
        deadline = time.monotonic() + SHOWN_WITHIN_S
        while True:
            shown = self.post("/task_runs/count", {"flow_runs": {"id": {"any_": [flow_run]}}, "task_runs": final})
            if shown >= repositories:
                return flow_run, time.monotonic()
            if time.monotonic() > deadline:
                raise RuntimeError(f"the API shows {shown} of {repositories} task runs")
            time.sleep(0.2)

    def count_states(self, flow_run: str) -> dict[str, int]:
        """The task runs of a flow run, by the name of their state; `names`: how many different ones they have."""
        states: Counter[str] = Counter()
        names: set[str] = set()
        body = {"flow_runs": {"id": {"any_": [flow_run]}}, "sort": "ID_DESC", "limit": PAGE}
        while page := self.post("/task_runs/filter", {**body, "offset": states.total()}):
            states.update(each["state_name"] for each in page)
            names |= {each["name"] for each in page}
        return {**states, "names": len(names)}


@contextlib.contextmanager
def running_prefect(home: Path, settings: Mapping[str, str]) -> Iterator[PrefectServer]:
    """Start a Prefect server with these settings, and end it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(harness.FORGOTTEN)}
    home.mkdir(parents=True, exist_ok=True)
    with (home / "server.log").open("w") as log:
        process = psutil.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env={**kept, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", **settings},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    server = PrefectServer(f"http://127.0.0.1:{port}/api", home, process)
    try:
        deadline = time.monotonic() + UP_WITHIN_S
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{server.url}/health", timeout=5).close()
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no Prefect server came up: {(home / 'server.log').read_text()[-2000:]}")
            time.sleep(0.2)
        yield server
    finally:
        process.terminate()
        process.wait(60)


@dataclass(frozen=True, slots=True)
class Side:
    """A command that makes one task run for each repository of the fleet, and the server that it tells."""

    options: tuple[str, ...]
    program: tuple[str, ...]
    server: PrefectServer
    storage: Path
    """Where Prefect keeps results."""
    fleet: Fleet

    def run(self, folder: Path) -> dict[str, Any]:
        """Run it from its start until it has ended, and until the API shows all that it did.

        Raises:
            RuntimeError: it failed, or did not find every repository cached.
        """
        cpu_before_s = self.server.cpu_s()
        environment = {
            "PREFECT_API_URL": self.server.url,
            "PREFECT_HOME": str(self.server.home),
            "PREFECT_LOCAL_STORAGE_PATH": str(self.storage),
        }
        build = harness.run_build(folder, self.options, environment=environment, program=self.program)
        flow_run, shown_s = self.server.wait_until_shown(self.fleet.repositories)
        states = self.server.count_states(flow_run)
        if states != {"Cached": self.fleet.repositories, "names": self.fleet.repositories}:
            raise RuntimeError(f"the task runs of {self.fleet.repositories} unchanged repositories are {states}")
        return {
            "command_s": round(build.seconds, 2),
            "until_shown_s": round(max(build.ended_s, shown_s) - build.started_s, 2),
            "cpu_s": {**build.cpu_s, "server": round(self.server.cpu_s() - cpu_before_s, 2)},
            "peak_rss_mb": build.peak_rss_mb,
            "worker_processes": build.workers,
            "gpu_libraries": sorted(build.gpu_libraries),
        }


def measure(fleet: Fleet, folder: Path, runs: int, *, with_stock: bool) -> dict[str, Any]:
    """Warm Prefect's cache with a first run of ours, then time both sides in turn."""
    options = ["--repos-root", str(fleet.folder / "repos"), "--index-root", str(fleet.index_root)]
    options += ["--cache-url", fleet.cache_url, "--embedding-model", "hashing", "--llm-provider", "extractive"]
    storage = folder / "storage"
    with contextlib.ExitStack() as servers:
        tuned = servers.enter_context(running_prefect(folder / "tuned", SERVER_SETTINGS))
        ours = Side(tuple(options), harness.PROGRAM, tuned, storage, fleet)
        result: dict[str, Any] = {"first_run": ours.run(folder), "ours": [], "stock": []}
        # Ours and stock find the same records: the key of one is made of its inputs alone.
        plan = str(max((fleet.index_root / PLANS).iterdir(), key=lambda path: path.stat().st_mtime))
        stock = None
        if with_stock:
            plain = servers.enter_context(running_prefect(folder / "plain", {}))
            stock = Side((plan,), STOCK, plain, storage, fleet)
        for _ in range(runs):
            result["ours"].append(_check_untouched(ours.run(folder)))
            print(f"ours: {json.dumps(result['ours'][-1])}", file=sys.stderr, flush=True)
        if stock is not None:
            result["stock"].append(stock.run(folder))
            print(f"stock: {json.dumps(result['stock'][-1])}", file=sys.stderr, flush=True)
            tuned_stock = replace(stock, server=tuned).run(folder)
            print(f"stock, our server: {json.dumps(tuned_stock)}", file=sys.stderr, flush=True)
            result["stock_with_our_server_settings"] = tuned_stock
    return result


def _check_untouched(run: dict[str, Any]) -> dict[str, Any]:
    """Refuse a run of ours that started a cluster or loaded what a GPU needs."""
    if run["worker_processes"] or run["gpu_libraries"]:
        raise RuntimeError(f"a run with nothing to do had {run['worker_processes']} workers, {run['gpu_libraries']}")
    return run


def judge(measured: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of the targets: the median of our runs, and what part of stock it is."""
    ours_s = statistics.median(each["until_shown_s"] for each in measured["ours"])
    judged: dict[str, Any] = {"ours_s": ours_s, "target_s": TARGET_S, "target_met": ours_s <= TARGET_S}
    for name in ("stock", "stock_with_our_server_settings"):
        if stock := measured.get(name):
            stock_s = (stock[0] if isinstance(stock, list) else stock)["until_shown_s"]
            judged |= {f"{name}_s": stock_s, f"of_{name}": round(ours_s / stock_s, 4)}
    if "of_stock" in judged:
        judged |= {"target_of_stock": round(TARGET_OF_STOCK, 4), "met_of_stock": judged["of_stock"] <= TARGET_OF_STOCK}
    return judged


def main() -> None:
    """Read the options, run, write the result."""
    parser = argparse.ArgumentParser(description="What orchestration costs.")
    parser.add_argument("--repositories", type=int, default=REPOSITORIES)
    parser.add_argument("--runs", type=int, default=RUNS, help="of ours; stock runs once on each server")
    parser.add_argument("--fleet", type=Path, help="folder of the repositories and indexes, made if it is not there")
    parser.add_argument("--stock", action=argparse.BooleanOptionalAction, default=True, help="run stock prefect-dask")
    parser.add_argument("--write", action=argparse.BooleanOptionalAction, default=True, help="the result's file")
    options = parser.parse_args()

    with harness.workplace() as folder:
        fleet = make_fleet(options.fleet or folder / "fleet", options.repositories)
        result = harness.start_result("orchestration")
        measured = measure(fleet, folder, options.runs, with_stock=options.stock)
        result |= {"repositories": fleet.repositories, **judge(measured), **measured}
    print(harness.write_result(result) if options.write else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
