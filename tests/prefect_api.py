"""A real Prefect server for tests, and its API, asked over HTTP as any client would."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

PAGE = 200
"""The API returns no more at once."""
UP_WITHIN_S = 120


def answer_to(request: urllib.request.Request) -> Any:
    """What the API answers.

    A busy server on SQLite says 503 where its database is locked; it is asked again, as Prefect's own client does.
    """
    deadline = time.monotonic() + UP_WITHIN_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                raise
            time.sleep(0.5)


@dataclass(frozen=True)
class Api:
    """A Prefect API."""

    url: str

    def post(self, path: str, body: object) -> Any:
        request = urllib.request.Request(
            f"{self.url}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        return answer_to(request)

    def delete(self, path: str) -> None:
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}{path}", method="DELETE"), timeout=60):
            pass

    def flow_run(self, run_id: str) -> dict[str, Any]:
        return self.post("/flow_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})[0]

    def last_flow_run(self) -> dict[str, Any]:
        return self.post("/flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})[0]

    def flow_runs(self) -> list[dict[str, Any]]:
        """All flow runs."""
        return self._all("/flow_runs/filter", {})

    def task_runs(self, run_id: str) -> list[dict[str, Any]]:
        """All task runs of a flow run, in the order in which they were submitted."""
        return self._all(
            "/task_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}, "sort": "EXPECTED_START_TIME_ASC"}
        )

    def task_states(self, run_id: str) -> dict[str, str]:
        """Name of each repository of a flow run, and the name of the state of its last task run."""
        return {name: states[-1] for name, states in self.tries(run_id).items()}

    def tries(self, run_id: str) -> dict[str, list[str]]:
        """Name of each repository of a flow run, and the names of the states of its task runs, in order."""
        states: dict[str, list[str]] = {}
        for run in self.task_runs(run_id):
            states.setdefault(run["name"], []).append(run["state_name"])
        return states

    def _all(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while page := self.post(path, {**body, "limit": PAGE, "offset": len(found)}):
            found += page
        return found


def clean_environment(home: Path) -> dict[str, str]:
    """An environment with a Prefect home of its own and no setting of the developer's."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "SUMMIDX_", "OPENAI_", "DASK_"))}
    return kept | {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


@contextmanager
def running_api(environment: Mapping[str, str], log: Path) -> Iterator[Api]:
    """`prefect server start`, as long as the block runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"],
            env=dict(environment),
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + UP_WITHIN_S
        while True:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
        yield Api(url)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:  # Prefect's own process, on a busy machine
            process.kill()
            process.wait()
