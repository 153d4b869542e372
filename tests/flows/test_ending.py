"""Runs that do not end by themselves: signals, killed workers, and arguments that cannot be used."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ENDS_WITHIN_S = 15
HANGS_AFTER_S = 60


@pytest.fixture
def hold(build, llm, make_repo, module, tmp_path):
    """Start a build, and wait until a call for its repository `held` is in flight: the run, and the caller's port."""
    started = []

    def start(*args, **popen):
        make_repo(tmp_path / "held", {"held.py": module("held") + "\n# HOLDME\n"})
        process = build.start("--repo", tmp_path / "held", *llm.options, *args, **popen)
        started.append(process)
        while True:
            assert process.poll() is None, process.communicate()
            if not llm.held.empty():
                return process, llm.held.get()
            time.sleep(0.05)

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _alive(processes):
    """Those that are still there when a run must have ended; one that nobody has reaped yet has ended."""
    deadline = time.monotonic() + ENDS_WITHIN_S
    while (alive := [each for each in processes if _runs(each)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return alive


def _runs(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("number", "processes", "whole_group"),
    [(signal.SIGINT, 1, False), (signal.SIGINT, 2, True), (signal.SIGTERM, 2, False)],
)
def test_a_signal_ends_the_run_and_all_of_its_processes(
    number, processes, whole_group, build, api, llm, hold, tmp_path
):
    process, _ = hold("--num-processes", processes, start_new_session=True)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= (processes if processes > 1 else 0)
    run = api.last_flow_run()

    (os.killpg if whole_group else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=HANGS_AFTER_S)  # past 13 s the run itself says that it had to be ended

    assert process.returncode == 128 + number
    assert err.splitlines() == ["interrupted: what is finished is kept, and the same command goes on from here"]
    assert "Traceback" not in out
    assert not _alive(children)
    assert api.flow_run(run["id"])["state_name"] == "Crashed"
    assert set(api.task_states(run["id"]).values()) <= {"Failed", "Crashed"}
    assert not (build.cwd / "index" / "held" / "CURRENT").exists()
    (path,) = (build.cwd / "logs" / "summary_index").glob("*-run-*.jsonl")
    held, whole = [json.loads(line) for line in path.read_text().splitlines()]
    assert (held["name"], held["ending"], whole["repositories"]) == ("held", "stopped", {"stopped": 1})
    assert held["requests"] == whole["requests"] > 0, "what it had paid for by then"

    if number == signal.SIGTERM:
        llm.release.set()
        assert build.report("--repo", tmp_path / "held", *llm.options)["built"] == 1


def _kill_caller(port, run):
    """End the worker process that made the call from this port, as the kernel does when memory is out."""
    worker = next(c.pid for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == port and c.pid)
    assert worker != run.pid
    os.kill(worker, signal.SIGKILL)


def test_a_repository_that_kills_its_workers_is_condemned_and_all_others_are_built(
    build, api, llm, make_repo, module, tmp_path
):
    build.extra_env["SUMMIDX_CLUSTER__THREADS_PER_WORKER"] = "2"
    make_repo(tmp_path / "poison", {"a.py": module("poison", 9) + "# POISON\n"})
    for name in ("near", "far", "away"):
        make_repo(tmp_path / name, {"a.py": module(name, 5) + "# HOLDME\n"})
    for name in ("late", "last"):
        make_repo(tmp_path / name, {"a.py": module(name)})
    names = ("poison", "near", "far", "away", "late", "last")
    repos = [arg for name in names for arg in ("--repo", tmp_path / name)]

    with build.start(*repos, *llm.options, "--num-processes", 2, "--json") as process:
        port = llm.poisoned.get(timeout=120)
        for _ in range(3):
            llm.held.get(timeout=120)  # all four are in flight, one of them beside it
        run = api.last_flow_run()
        _kill_caller(port, process)
        llm.release.set()
        port = llm.poisoned.get(timeout=120)
        while list(api.task_states(run["id"]).values()).count("Running") > 1:
            time.sleep(0.1)  # states are recorded a moment later; it runs alone
        _kill_caller(port, process)
        out, err = process.communicate(timeout=120)

    assert process.returncode == 1
    assert "poison: crashed: the worker process that had it was killed, and again when it ran alone" in err
    report = json.loads(out)
    assert (report["built"], report["failed"], report["lost_tries"]) == (5, 1, 3)
    assert [each["name"] for each in report["repositories"] if each["ending"] != "built"] == ["poison"]
    tries = api.tries(run["id"])
    assert tries.pop("poison") == ["Crashed", "Crashed"]
    assert sorted(tries.values()) == [["Completed"]] * 4 + [["Crashed", "Completed"]]
    message = api.flow_run(run["id"])["state"]["message"]
    assert message.startswith("1 of 6 repositories failed: poison (the worker process that had it was killed")

    llm.release_poison.set()
    again = build.report(*repos, *llm.options)
    assert (again["built"], again["up_to_date"]) == (1, 5)


def test_a_run_that_is_killed_takes_its_server_and_workers_along(build, hold):
    del build.env["PREFECT_API_URL"]
    process, _ = hold("--num-processes", 2)
    children = psutil.Process(process.pid).children(recursive=True)
    assert [child for child in children if "flows.prefect_server" in child.cmdline()]

    process.kill()
    process.communicate()

    assert not _alive(children)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "no repository is named"),
        (("--repos-root", "/nonexistent"), "/nonexistent"),
        (("--repo", "a=.", "--repo", "a=.."), "a"),
        (("--repos-file", "missing.txt"), "missing.txt"),
        (("--repo", ".", "--num-processes", "0"), "num_processes"),
        (("--repo", ".", "--levels", "paragraph"), "paragraph"),
        (("--repo", ".", "--no-such-option"), "--no-such-option"),
        (("--repo", ".", "--llm-timeout", "soon"), "--llm-timeout"),
        (("--repo", ".", "--gpu-ids", "a"), "'a' is no number of a GPU"),
        (("--repo", ".", "--gpu-ids", "0,-1"), "'-1' is no number of a GPU"),
        (("--repo", ".", "--gpu-ids", "0,1,0"), "GPU 0 is named twice"),
        (("--repo", ".", "--scheduler-address", "tls://127.0.0.1:9"), "DASK_DISTRIBUTED__COMM__TLS__CA_FILE"),
        (("--repo", ".", "--llm-provider", "openai"), "llm"),
        (("--repo", ".", "--scheduler-address", "nonsense"), "scheduler_address"),
        (("--repo", ".", "--log-dir", "/proc/logs"), "--log-dir"),
        (
            ("--repo", ".", "--llm-provider", "openai", "--llm-model", "m", "--llm-base-url", "http://127.0.0.1:9/v1"),
            "http://127.0.0.1:9",
        ),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, tuple) else "",
)
def test_what_cannot_be_used_is_said_in_one_line(args, said, build):
    done = build(*args)

    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert said in done.stderr


def test_gpus_without_dask_cuda_are_refused_with_advice(build, tmp_path):
    (tmp_path / "dask_cuda.py").write_text("raise ImportError('no cuda bindings')")
    build.extra_env["PYTHONPATH"] = str(tmp_path)

    done = build("--repo", ".", "--gpu-ids", "0,1")

    assert done.returncode == 2
    assert "install summidx[gpu], or embed on the CPU with --force-cpu" in done.stderr


def test_help_needs_nothing_heavy(prefect_env):
    script = (
        "import runpy, sys\n"
        "sys.argv = ['build.py', '--help']\n"
        "try:\n    runpy.run_path(sys.path.pop(), run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "heavy = {'prefect', 'distributed', 'torch', 'lancedb', 'openai', 'tree_sitter', 'sqlalchemy', 'pygit2'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "print(sorted(name for name in vars(sys.modules['__main__']) if name == 'summary_index'))\n"
    )
    build_py = Path(__file__).parents[2] / "flows" / "build.py"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.append({str(build_py)!r})\n{script}"],
        env=prefect_env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-2:] == ["[]", "[]"]
    assert "--repos-root" in done.stdout


def test_a_prefect_api_that_is_not_there_is_said_in_one_line(build):
    build.extra_env["PREFECT_API_URL"] = "http://127.0.0.1:9/api"
    done = build("--repo", ".")
    assert done.returncode == 2
    assert done.stderr.startswith("error: the Prefect API http://127.0.0.1:9/api cannot be reached")
    assert len(done.stderr.splitlines()) == 1
