"""A run at the command line that loses the Prefect API (tests/chaos: runs of a deployment)."""

import json
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

ENDS_WITHOUT_API_S = 300


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


@pytest.mark.chaos
@pytest.mark.long_form
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
