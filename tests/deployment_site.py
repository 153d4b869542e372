"""A machine on which summidx runs every night: Prefect server, process worker and deployment, in a folder."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect_api import answer_to

CHECKOUT = Path(__file__).parents[1]


class Site:
    """A machine on which summidx runs every night."""

    def __init__(self, folder: Path, *, has_ui: bool = False) -> None:
        self.folder = folder
        self.has_ui = has_ui
        self.processes: list[subprocess.Popen[bytes]] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "SUMMIDX_", "OPENAI_", "DASK_"))}
        self.env = kept | {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_API_URL": self.url,
            # Else a server that is started again has forgotten who holds the deployment's one place.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            # A run that a test starts is not to wait for the worker's next look at its queue, which is every 10 s.
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "SUMMIDX_CONFIG": str(folder / "summidx.toml"),
        }

    def start(self, *args: str) -> None:
        log = (self.folder / f"{args[0]}.log").open("ab")
        with log:
            self.processes.append(
                subprocess.Popen([sys.executable, "-m", "prefect", *args], env=self.env, stdout=log, stderr=log)
            )

    def start_server(self) -> None:
        ui = "--ui" if self.has_ui else "--no-ui"
        self.start("server", "start", "--host", "127.0.0.1", "--port", str(self.port), ui)

    def end(self) -> None:
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:  # Prefect's own processes, on a busy machine
                process.kill()
                process.wait()

    def prefect(self, *args: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *args],
            cwd=CHECKOUT,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr + self.logs()
        return done.stdout

    def ask(self, path: str, body: object = None) -> object:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, {"Content-Type": "application/json"})
        return answer_to(request)

    def wait_until_up(self) -> None:
        deadline = time.monotonic() + 120
        while True:
            try:
                self.ask("/health")
            except OSError:
                assert time.monotonic() < deadline, self.logs()
                time.sleep(0.2)
            else:
                return

    def logs(self) -> str:
        return "".join(path.read_text(errors="replace")[-4000:] for path in self.folder.glob("*.log"))

    def wait_until_final(self, run_id: object) -> dict[str, object]:
        deadline = time.monotonic() + 120
        while True:
            run = self.ask(f"/flow_runs/{run_id}")
            if run["state_type"] in {"COMPLETED", "FAILED", "CRASHED"} and run["run_count"] > 1:
                return run
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.2)

    def wait_until_scheduled(self) -> list[dict[str, object]]:
        """The runs that the server's scheduler, which looks once a minute, has set for the coming nights."""
        deadline = time.monotonic() + 120
        while True:
            runs = self.ask("/flow_runs/filter", {"sort": "EXPECTED_START_TIME_DESC", "limit": 10})
            if scheduled := [each for each in runs if each["auto_scheduled"]]:
                return scheduled
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.5)

    def run_nightly(self, *parameters: str, code: int = 0) -> tuple[dict[str, object], dict[str, str]]:
        """As `run_deployment`, of the nightly."""
        return self.run_deployment("nightly", *parameters, code=code)

    def run_deployment(self, name: str, *parameters: str, code: int = 0) -> tuple[dict[str, object], dict[str, str]]:
        """`prefect deployment run`, to its end: the flow run, and the state of each task run."""
        args = [arg for parameter in parameters for arg in ("-p", parameter)]
        self.prefect(
            "deployment", "run", f"summary-index/{name}", *args, "--watch", "--watch-timeout", "240", code=code
        )
        run = self.ask("/flow_runs/filter", {"sort": "EXPECTED_START_TIME_DESC", "limit": 10})
        run = next(each for each in run if not each["auto_scheduled"])
        tasks = self.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
        return run, {task["name"]: task["state_name"] for task in tasks}


@contextmanager
def running_site(folder: Path, *, has_ui: bool = False) -> Iterator[Site]:
    """A site with its Prefect server, which is ended with all that was started."""
    site = Site(folder, has_ui=has_ui)
    site.start_server()
    try:
        site.wait_until_up()
        yield site
    finally:
        site.end()
