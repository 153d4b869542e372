"""vLLM inside the worker: whole builds by the command, in an environment that has both summidx and vLLM."""

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from real_vllm import MODEL, OFFLINE

from summidx.records import count_where

ROOT = Path(__file__).parents[2]
ENGINE_ARGS = {"dtype": "float32", "enforce_eager": True}
LOADED = "vLLM loaded"
"""What the run's log says when the model is there."""

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Build:
    """Runs `python flows/build.py --llm-provider vllm`, where summidx is installed beside vLLM."""

    python: Path
    folder: Path
    environment: dict[str, str]
    repo: Path

    def start(self, *options: str) -> subprocess.Popen[str]:
        command = [
            *(self.python, ROOT / "flows" / "build.py", "--json", "--index-root", self.folder / "index"),
            *("--llm-provider", "vllm", "--llm-model", MODEL, "--log-dir", self.folder / "logs"),
            *("--repo", f"code={self.repo}", *options),
        ]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(self, *options: str) -> tuple[dict[str, Any], str]:
        """The report of `code`, and what was said on standard error; no process is left."""
        with self.start(*options) as process:
            out, err = process.communicate()
        assert process.returncode == 0, err
        assert wait_until(lambda: not find_processes(process.pid), 5), find_processes(process.pid)
        (report,) = [each["report"] | {"ending": each["ending"]} for each in json.loads(out)["repositories"]]
        return report, err

    def read_log(self) -> str:
        return "".join(path.read_text() for path in sorted((self.folder / "logs").glob("*.log")))

    def count_cached(self) -> int:
        """Summaries that the cache holds."""
        try:
            with sqlite3.connect(f"file:{self.folder / 'index' / 'cache.sqlite'}?mode=ro", uri=True) as cache:
                return int(cache.execute("SELECT count(*) FROM summaries").fetchone()[0])
        except sqlite3.Error:  # not there yet
            return 0


def find_processes(session: int) -> list[str]:
    """What still runs of all that a run has started."""
    listed = subprocess.run(["ps", "-eo", "sid=,pid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    lines = (line.split(None, 3) for line in listed.splitlines())
    return [" ".join(line) for line in lines if int(line[0]) == session and not line[2].startswith("Z")]


def wait_until(what: Callable[[], Any], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.1)
    return bool(what())


@pytest.fixture(scope="module")
def make_build(vllm_python, environment, repos, tmp_path_factory) -> Callable[[str], Build]:
    own = {"SUMMIDX_LLM__ENGINE_ARGS": json.dumps(ENGINE_ARGS)}

    def make(package: str) -> Build:
        return Build(vllm_python, tmp_path_factory.mktemp("in-process"), environment | OFFLINE | own, repos[package])

    return make


@pytest.fixture(scope="module")
def build(make_build) -> Build:
    return make_build("pathspec")


@pytest.fixture(scope="module")
def first(build) -> tuple[dict[str, Any], str]:
    return build("--num-processes", "3")


def test_every_document_is_written_by_the_model_in_the_worker(first) -> None:
    report, _ = first
    counts, usage = report["counts"], report["usage"]
    assert report["ending"] == "built"
    assert count_where(counts, status="failed") == 0
    assert count_where(counts, origin="llm", status="ok") > count_where(counts, status="degraded")
    assert usage["requests"] >= usage["llm_calls"] > 50
    assert usage["tokens_in"] > 100 * usage["llm_calls"]
    assert usage["tokens_out"] > 10 * usage["llm_calls"]
    assert sum(usage["latencies"].values()) == usage["requests"]


def test_more_processes_than_one_are_not_started_and_that_is_said(first, build) -> None:
    _, err = first
    (warning,) = [line for line in err.splitlines() if line.startswith("warning:")]
    assert "--num-processes 3" in warning
    assert "tensor_parallel_size" in warning
    log = build.read_log()
    assert "--num-processes 3" in log
    assert log.count(LOADED) == 1
    assert not list((build.folder / "logs").glob("*-worker-*.log"))


def test_the_same_again_asks_and_loads_nothing(first, build) -> None:
    report, _ = build()
    assert report["ending"] == "up_to_date"
    assert report["usage"]["llm_calls"] == report["usage"]["requests"] == 0
    assert build.read_log().count(LOADED) == 1


def test_an_interrupted_run_ends_in_time_and_leaves_no_process(make_build) -> None:
    build = make_build("tenacity")
    with build.start("--llm-concurrency", "4") as process:
        assert wait_until(lambda: build.count_cached() > 4, 300), "no summary was made"
        asked = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
        seconds = time.monotonic() - asked
    assert process.returncode == 130, err
    assert seconds < 15
    assert wait_until(lambda: not find_processes(process.pid), 5), find_processes(process.pid)


def test_an_engine_that_dies_under_a_worker_of_its_own_is_loaded_again(make_build) -> None:
    """As `--gpu-ids` has it: the worker is a nanny's, which would be a daemon. SIGKILL to vLLM's process midway."""
    build = make_build("pathspec")
    build.environment["PYTHONPATH"] = str(Path(__file__).with_name("without_gpus"))
    build.environment["DASK_DISTRIBUTED__DIAGNOSTICS__NVML"] = "False"  # Dask's own monitor would ask more of it
    with build.start("--gpu-ids", "0", "--llm-concurrency", "4") as process:
        assert wait_until(lambda: build.count_cached() > 4, 300), "no summary was made"
        (engine,) = [line.split()[1] for line in find_processes(process.pid) if "VLLM::EngineCore" in line]
        os.kill(int(engine), signal.SIGKILL)
        out, err = process.communicate()
    assert process.returncode == 0, err
    (report,) = [each["report"] for each in json.loads(out)["repositories"]]
    assert count_where(report["counts"], status="failed") == 0
    assert report["usage"]["retries"]["ServerFault"] > 0
    assert list((build.folder / "logs").glob("*-worker-*.log"))
    assert build.read_log().count(LOADED) == 2
    assert wait_until(lambda: not find_processes(process.pid), 5), find_processes(process.pid)


def test_a_model_that_cannot_be_loaded_ends_the_run_with_one_line_that_says_why(make_build) -> None:
    """A context that the model does not have: vLLM itself refuses it, in the worker."""
    build = make_build("pathspec")
    build.environment["SUMMIDX_LLM__ENGINE_ARGS"] = json.dumps(ENGINE_ARGS | {"max_model_len": 100_000})
    with build.start() as process:
        _, err = process.communicate()
    assert process.returncode == 1, err
    (line,) = {line for line in err.splitlines() if line.startswith("code: failed:")}
    assert "cannot load the model" in line
    assert "max_model_len" in line
    assert wait_until(lambda: not find_processes(process.pid), 5), find_processes(process.pid)


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"SUMMIDX_LLM__MODEL": "/nowhere"}, "/nowhere"),
        ({"SUMMIDX_LLM__ENGINE_ARGS": '{"max_modle_len": 1}'}, "max_modle_len"),
    ],
)
def test_what_cannot_be_loaded_is_refused_before_anything_is_built(build, variables, says) -> None:
    options = [] if "SUMMIDX_LLM__MODEL" not in variables else ["--llm-model", variables["SUMMIDX_LLM__MODEL"]]
    done = Build(build.python, build.folder, build.environment | variables, build.repo)
    with done.start(*options) as process:
        out, err = process.communicate()
    assert (process.returncode, out) == (2, "")
    assert says in err.splitlines()[-1]
    assert Counter(err)["\n"] == 1
