"""Runs of the command that end by themselves: what is built, what is up to date, what failed."""

import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path

CLUSTER = "Creating a new Dask cluster"


def test_a_run_says_what_it_does_and_where_the_indexes_lie(first_run, prefect_env):
    build, done = first_run

    assert done.returncode == 0, done.stderr
    assert "3 to build, 0 up to date" in done.stdout
    assert "alpha: built, 6 documents" in done.stdout
    assert 'summidx search "where do we retry" --index-root index' in done.stdout
    assert done.stderr == ""
    assert [log for log in build.logs if CLUSTER in log.read_text()]
    storage = Path(prefect_env["PREFECT_HOME"]) / "storage"
    assert stat.S_IMODE(storage.stat().st_mode) == 0o700
    assert list(storage.iterdir())


def test_what_is_up_to_date_is_cached_and_no_cluster_starts(built, api, repos):
    report = built.report("--repos-root", repos)

    assert (report["built"], report["up_to_date"], report["failed"]) == (0, 3, 0)
    assert api.task_states(report["flow_run_id"]) == {"alpha": "Cached", "beta": "Cached", "notes": "Cached"}
    assert api.flow_run(report["flow_run_id"])["state"]["message"] == "3 repositories: 0 built, 3 up to date"
    assert not [log for log in built.logs if CLUSTER in log.read_text()]
    assert not [log for log in built.logs if "in state Cached" in log.read_text()], "a line for each says nothing"


def test_what_is_up_to_date_is_cached_whatever_prefect_remembers_and_in_whichever_order(built, api, repos, tmp_path):
    built.extra_env["PREFECT_LOCAL_STORAGE_PATH"] = str(tmp_path / "elsewhere")

    report = built.report("--repo", repos / "notes", "--repo", repos / "beta", "--repo", repos / "alpha")

    assert api.task_states(report["flow_run_id"]) == {"alpha": "Cached", "beta": "Cached", "notes": "Cached"}
    messages = {run["state"]["message"] for run in api.task_runs(report["flow_run_id"])}
    assert messages == {"up to date: 6 documents", "up to date: 2 documents"}


def test_an_index_that_was_deleted_is_built_again_and_the_others_are_not(built, api, repos):
    shutil.rmtree(built.cwd / "index" / "alpha")

    report = built.report("--repos-root", repos)

    assert api.task_states(report["flow_run_id"]) == {"alpha": "Completed", "beta": "Cached", "notes": "Cached"}
    assert built.current("alpha")["generation"] == report["by_name"]["alpha"]["report"]["generation"]


def test_a_setting_that_shapes_the_index_builds_again(built, repos):
    report = built.report("--repo", repos / "alpha", "--levels", "file,repo", "--confirm-rebuild")

    assert report["by_name"]["alpha"]["ending"] == "built"
    assert set(built.current("alpha")["counts"]) == {"file", "repo"}


def test_most_indexes_are_not_rebuilt_for_a_forgotten_option(built, api, repos):
    before = built.current("alpha")

    refused = built("--repos-root", repos, "--tests", "full")

    assert refused.returncode == 2
    assert refused.stdout == ""
    assert len(refused.stderr.splitlines()) == 1
    assert "3 of 3 existing indexes would be rebuilt" in refused.stderr
    assert "tests changed: file -> full" in refused.stderr
    assert api.last_flow_run()["state_name"] == "Failed"
    assert built.current("alpha") == before
    assert built.report("--repos-root", repos, "--tests", "full", "--confirm-rebuild")["built"] == 3


def test_no_skip_existing_builds_what_is_up_to_date(built, repos):
    before = built.current("beta")

    assert built.report("--repo", repos / "beta", "--no-skip-existing")["built"] == 1
    assert built.current("beta")["generation"] != before["generation"]


def test_a_repository_that_fails_fails_alone_and_is_named(build, api, repos):
    done = build("--repo", repos / "beta", "--repo", f"bad={repos / 'alpha'}@no-such-revision")

    assert done.returncode == 1
    assert "bad: failed: " in done.stderr
    assert "no-such-revision" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert build.current("beta")["counts"]
    run = api.last_flow_run()
    assert run["state_name"] == "Failed"
    assert run["state"]["message"].startswith("1 of 2 repositories failed: bad (UnknownRevision: ")
    assert "no-such-revision" in run["state"]["message"]
    assert api.task_states(run["id"]) == {"beta": "Completed", "bad": "Failed"}


def test_no_cluster_starts_for_what_cannot_be_read(built, api, repos):
    done = built("--repos-root", repos, "--repo", f"bad={repos / 'alpha'}@no-such-revision", "--repo", "gone=nowhere")

    assert done.returncode == 1
    run = api.last_flow_run()
    states = api.task_states(run["id"])
    assert states == {"alpha": "Cached", "beta": "Cached", "notes": "Cached", "bad": "Failed", "gone": "Failed"}
    assert run["state"]["message"].startswith("2 of 5 repositories failed: bad (UnknownRevision: ")
    assert not [log for log in built.logs if CLUSTER in log.read_text()]


def test_content_that_comes_back_is_built_again(build, api, make_repo, module, tmp_path):
    """What Prefect remembers of the first build must not stand for the third: the index held other content since."""
    first, second = make_repo(tmp_path / "r", {"a.py": module("a")}, {"a.py": module("b")})

    reports = [build.report("--repo", f"r={tmp_path / 'r'}@{commit}") for commit in (first, second, first)]

    assert [report["by_name"]["r"]["ending"] for report in reports] == ["built"] * 3
    assert api.task_states(reports[2]["flow_run_id"]) == {"r": "Completed"}
    assert build.current("r")["commit"] == first


def test_revisions_of_one_repository_are_shared_out_over_two_processes(build, api, make_repo, module, tmp_path):
    commits = make_repo(tmp_path / "r", *({"a.py": module("a"), "b.py": module(f"b{i}")} for i in range(8)))
    (build.cwd / "repos.txt").write_text("# the last eight\n" + "".join(f"{tmp_path / 'r'}@{c}\n" for c in commits))

    report = build.report("--repos_file", "repos.txt", "--num_processes", "2")

    assert report["built"] == 8
    assert {each["report"]["commit"] for each in report["repositories"]} == set(commits)
    assert set(api.task_states(report["flow_run_id"])) == {f"r@{commit}" for commit in commits}
    workers = [log.read_text().count("Finished in state Completed") for log in build.logs if "worker" in log.name]
    assert len(workers) == 2
    assert sum(workers) == 8
    assert min(workers) > 0


def test_summaries_only_publishes_nothing_and_is_never_taken_for_done(build, api, repos):
    runs = [build.report("--repo", repos / "beta", "--stage", "summaries") for _ in range(2)]

    assert [run["by_name"]["beta"]["ending"] for run in runs] == ["summarized"] * 2
    assert [api.task_states(run["flow_run_id"])["beta"] for run in runs] == ["Completed"] * 2
    assert not (build.cwd / "index" / "beta" / "CURRENT").exists()


def test_secrets_reach_the_workers_and_nothing_else(build, api, llm, repos, prefect_env):
    build.extra_env["OPENAI_API_KEY"] = "sk-very-secret"
    cache = build.cwd / "cache-secret.sqlite"

    report = build.report(
        "--repo", repos / "beta", *llm.options, "--num-processes", "2", "--cache-url", f"sqlite:///{cache}"
    )

    assert report["by_name"]["beta"]["report"]["usage"]["llm_calls"] > 0
    assert llm.keys == {"Bearer sk-very-secret"}
    assert cache.exists()
    told = json.dumps([report, api.flow_run(report["flow_run_id"])])
    files = [path for path in (build.cwd / "index").rglob("*") if path.is_file()] + build.logs
    files += list((Path(prefect_env["PREFECT_HOME"]) / "storage").iterdir())
    for secret in ("sk-very-secret", "cache-secret"):
        assert secret not in told
        assert not [path for path in files if secret.encode() in path.read_bytes()]


def test_the_imported_flow_with_a_server_of_its_own(prefect_env, repos, tmp_path):
    """No API is configured: one is started for the run, its records outlive it, and no process is left behind."""
    script = f"""
import os
from flows.build import summary_index
if __name__ == "__main__":
    arguments = dict(repos=[{str(repos / "beta")!r}], embedding_model="hashing", num_processes=2, index_root="index")
    report = summary_index(**arguments)
    assert "PREFECT_API_URL" not in os.environ
    print(report["built"], report["up_to_date"])
"""
    (tmp_path / "script.py").write_text(script)
    outputs = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "script.py"], cwd=tmp_path, env=prefect_env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout.split())
        assert not _processes_with(prefect_env["PREFECT_HOME"], "flows.prefect_server")
    assert outputs == [["1", "0"], ["0", "1"]]


def _processes_with(home: str, word: str) -> list[int]:
    """Ids of processes whose command line has `word` and whose Prefect home is `home`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (entry / "cmdline").read_bytes() and home.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found
