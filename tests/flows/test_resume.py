"""What a run did not finish is built by the next, and nothing else is: `--resume-failed`, and a retry of the run."""

import os
import signal
import subprocess
import urllib.request

import pygit2
import pytest
from fleet import commit_all


def _tag(repo, name):
    found = pygit2.Repository(repo)
    found.references.create(f"refs/tags/{name}", found.head.target)


@pytest.fixture
def failed(build, make_repo, module, tmp_path):
    """A run of three repositories, of which `late@v1` has no such tag; its report."""
    for name in ("early", "moved", "late"):
        make_repo(tmp_path / name, {"a.py": module(name)})
    return build.report(
        *("--repo", tmp_path / "early", "--repo", tmp_path / "moved", "--repo", f"{tmp_path / 'late'}@v1"),
        *("--levels", "file,repo"),
        code=1,
    )


def test_only_what_failed_is_built_at_the_commit_and_with_the_options_of_the_last_run(build, api, failed, tmp_path):
    _tag(tmp_path / "late", "v1")
    pinned = str(pygit2.Repository(tmp_path / "late").head.target)
    commit_all(tmp_path / "late", {"b.py": "b = 1\n"})
    commit_all(tmp_path / "moved", {"b.py": "b = 1\n"})

    report = build.report("--resume-failed")

    assert {each["name"]: each["ending"] for each in report["repositories"]} == {"late@v1": "built"}
    assert api.task_states(report["flow_run_id"]) == {"late@v1": "Completed"}
    assert set(build.current("late@v1")["counts"]) == {"file", "repo"}, "--levels was not given again"
    assert build.current("late@v1")["commit"] == pinned

    nothing = build.report("--resume-failed")
    assert nothing["repositories"] == []
    assert api.flow_run(nothing["flow_run_id"])["state"]["message"].startswith("nothing to resume: ")


def test_repositories_that_are_named_narrow_it(build, failed, tmp_path):
    report = build.report("--resume-failed", "--repo", tmp_path / "early")
    assert report["repositories"] == []


def test_a_run_that_the_api_does_not_know_is_resumed_by_what_is_published(build, api, failed, tmp_path):
    request = urllib.request.Request(f"{api.url}/flow_runs/{failed['flow_run_id']}", method="DELETE")
    urllib.request.urlopen(request, timeout=60).close()
    _tag(tmp_path / "late", "v1")

    done = build("--resume-failed")

    assert done.returncode == 0, done.stderr
    assert "Prefect's API does not know the last run" in done.stdout
    assert api.task_states(api.last_flow_run()["id"]) == {"late@v1": "Completed"}


def test_after_a_kill_what_was_in_flight_is_built_and_what_was_done_is_not(
    build, api, llm, make_repo, module, tmp_path
):
    make_repo(tmp_path / "held", {"held.py": module("held", 9) + "\n# HOLDME\n"})
    make_repo(tmp_path / "done", {"done.py": module("done")})
    with build.start("--repo", tmp_path / "held", "--repo", tmp_path / "done", *llm.options) as process:
        llm.held.get(timeout=120)
        dead = api.last_flow_run()["id"]
        while api.task_states(dead).get("done") != "Completed":
            assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    llm.release.set()

    report = build.report("--resume-failed", "--llm-base-url", llm.options[-1])

    assert {each["name"]: each["ending"] for each in report["repositories"]} == {"held": "built"}
    assert report["by_name"]["held"]["report"]["usage"]["llm_calls"] > 0, "--llm-provider was not given again"
    assert api.flow_run(dead)["state_name"] == "Crashed"
    assert api.task_states(dead) == {"done": "Completed", "held": "Crashed"}


def test_without_an_earlier_run_it_is_refused_in_one_line(build):
    done = build("--resume-failed")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "there is nothing to resume" in line


@pytest.mark.timeout(600)  # three servers start, one after the other
def test_the_commands_that_a_failed_run_prints_work_elsewhere_and_without_a_server_that_stays(
    build, make_repo, module, tmp_path
):
    del build.env["PREFECT_API_URL"]
    for name in ("one", "two", "three"):
        make_repo(tmp_path / name, {"a.py": module(name)})
    specs = [arg for name in ("one", "two", "three") for arg in ("--repo", f"{tmp_path / name}@v1")]
    _tag(tmp_path / "one", "v1")
    first = build(*specs, "--log-dir", "their logs")
    assert first.returncode == 1, first.stderr
    resume, retry = _commands(first.stderr)

    _tag(tmp_path / "two", "v1")
    again = _shell(build, resume, build.cwd)
    assert again.returncode == 1, again.stderr
    assert "2 to build, 0 up to date" in again.stdout
    assert build.current("two@v1")["counts"]
    assert "--resume-failed" in _commands(again.stderr)[0]

    before = build.current("two@v1"), build.current("one@v1")
    _tag(tmp_path / "three", "v1")
    last = _shell(build, retry, tmp_path)
    assert last.returncode == 0, last.stdout + last.stderr
    assert "completed successfully" in last.stdout
    assert build.current("three@v1")["counts"]
    assert (build.current("two@v1"), build.current("one@v1")) == before
    assert not (tmp_path / "logs").exists(), "the log folder of the run"


def _commands(stderr):
    """The two ways to go on that a run printed."""
    resume, retry = stderr.splitlines()[-2:]
    return resume.removeprefix("Retry: ").strip(), retry.removeprefix("or: ").strip()


def _shell(build, command, cwd):
    return subprocess.run(["bash", "-c", command], cwd=cwd, env=build.env, capture_output=True, text=True, check=False)
