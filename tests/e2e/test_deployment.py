"""The deployment `nightly`, as an operator sets it up: server, work pool, worker, deploy, run. Then again."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pygit2
import pytest
import yaml

CHECKOUT = Path(__file__).parents[2]
SOURCE = """\
def {name}(items):
    total = 0
    for item in items:
        total += item
    return total
"""

pytestmark = pytest.mark.e2e


class Site:
    """A machine on which summidx runs every night."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
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
            "SUMMIDX_CONFIG": str(folder / "summidx.toml"),
        }

    def start(self, *args: str) -> None:
        log = (self.folder / f"{args[0]}.log").open("wb")
        with log:
            self.processes.append(
                subprocess.Popen([sys.executable, "-m", "prefect", *args], env=self.env, stdout=log, stderr=log)
            )

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
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

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

    def run_nightly(self, *parameters: str, code: int = 0) -> tuple[dict[str, object], dict[str, str]]:
        """`prefect deployment run`, to its end: the flow run, and the state of each task run."""
        args = [arg for parameter in parameters for arg in ("-p", parameter)]
        self.prefect(
            "deployment", "run", "summary-index/nightly", *args, "--watch", "--watch-timeout", "240", code=code
        )
        run = self.ask("/flow_runs/filter", {"sort": "EXPECTED_START_TIME_DESC", "limit": 10})
        run = next(each for each in run if not each["auto_scheduled"])
        tasks = self.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
        return run, {task["name"]: task["state_name"] for task in tasks}


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    site.start("server", "start", "--host", "127.0.0.1", "--port", str(site.port), "--no-ui")
    try:
        site.wait_until_up()
        yield site
    finally:
        for process in reversed(site.processes):
            process.send_signal(signal.SIGTERM)
        for process in site.processes:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:  # Prefect's own processes, on a busy machine
                process.kill()
                process.wait()


def test_every_template_of_prefect_yaml_is_one_that_a_step_fills():
    """Prefect makes '' of a name that it does not know, without a word."""
    text = (CHECKOUT / "prefect.yaml").read_text()
    steps = yaml.safe_load(text)["build"]
    known = {f"{{{{ {arguments['id']}.stdout }}}}" for step in steps for arguments in step.values()}
    used = {f"{{{{ {part.split('}}')[0].strip()} }}}}" for part in text.split("{{")[1:]}
    assert used == known


def test_nightly_builds_then_finds_it_up_to_date_and_a_retry_builds_what_failed(site, tmp_path):
    repos = tmp_path / "repos"
    author = pygit2.Signature("A. Author", "author@example.org", 1_700_000_000, 0)
    for name in ("alpha", "beta", "gamma"):
        repo = pygit2.init_repository(repos / name, initial_head="main")
        (repos / name / "sums.py").write_text(SOURCE.format(name=name))
        repo.index.add("sums.py")
        repo.create_commit("HEAD", author, author, "first", repo.index.write_tree(), [])
    (tmp_path / "summidx.toml").write_text(
        f"repos_root = '{repos}'\nindex_root = '{tmp_path}/index'\nlog_dir = '{tmp_path}/run-logs'\n"
        "[embedding]\nmodel = 'hashing'\n[cluster]\nnum_processes = 2\n"
    )
    site.prefect("work-pool", "create", "summidx", "--type", "process")
    site.prefect("deploy", "--all", "--no-prompt")
    site.start("worker", "start", "--pool", "summidx")

    (deployment,) = site.ask("/deployments/filter", {})
    assert deployment["name"] == "nightly"
    assert deployment["pull_steps"] == [
        {"prefect.deployments.steps.set_working_directory": {"directory": str(CHECKOUT)}}
    ]
    assert deployment["global_concurrency_limit"]["limit"] == 1
    assert deployment["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    assert [schedule["schedule"]["cron"] for schedule in deployment["schedules"]] == ["0 2 * * *"]
    properties = deployment["parameter_openapi_schema"]["properties"]
    assert properties["repos_root"]["description"].startswith("Folder of which each sub-folder")
    assert {field.get("default") for field in properties.values()} == {None}

    run, tasks = site.run_nightly()
    assert run["state_name"] == "Completed", site.logs()
    assert run["state"]["message"] == "3 repositories: 3 built, 0 up to date"
    assert tasks == {"alpha": "Completed", "beta": "Completed", "gamma": "Completed"}
    assert json.loads((tmp_path / "index" / "alpha" / "CURRENT").read_text())["counts"]

    run, tasks = site.run_nightly()
    assert run["state_name"] == "Completed", site.logs()
    assert tasks == {"alpha": "Cached", "beta": "Cached", "gamma": "Cached"}

    run, tasks = site.run_nightly(f'repos=["{repos / "alpha"}", "bad={repos}/missing"]', "num_processes=1", code=1)
    assert run["state_name"] == "Failed"
    assert run["state"]["message"] == "1/2 repositories failed: bad"
    assert tasks == {"alpha": "Cached", "bad": "Failed"}

    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        url = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/v1"
        stray, _ = site.run_nightly("llm_provider=openai", "llm_model=m", f"llm_base_url={url}", code=1)
        assert stray["state_name"] == "Failed"
        assert "is not among the LLM servers that this worker may talk to" in stray["state"]["message"]
        elsewhere.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody has knocked
            elsewhere.accept()

    shutil.copytree(repos / "beta", repos / "missing")
    site.prefect("flow-run", "retry", str(run["id"]))
    run = site.wait_until_final(run["id"])
    assert run["state_name"] == "Completed", site.logs()
    assert run["state"]["message"] == "2 repositories: 1 built, 1 up to date"
