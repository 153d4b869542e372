"""A run and a repository that may take only so long."""

import time

from fake_llm import Answer

WAITED_S = 20


def test_after_its_time_a_run_begins_nothing_finishes_what_it_is_at_and_names_the_rest(
    build, api, llm, make_repo, module, tmp_path
):
    build.extra_env["SUMMIDX_CLUSTER__THREADS_PER_WORKER"] = "1"
    make_repo(tmp_path / "large", {"a.py": module("large", 9) + "# HOLDME\n"})
    for name in ("left", "right"):
        make_repo(tmp_path / name, {"a.py": module(name)})
    repos = [arg for name in ("large", "left", "right") for arg in ("--repo", tmp_path / name)]

    with build.start(*repos, *llm.options, "--stop-after", f"{WAITED_S}s", "--json") as process:
        llm.held.get(timeout=120)  # it is at the first, the largest
        time.sleep(WAITED_S)
        llm.release.set()
        _, err = process.communicate(timeout=120)

    assert process.returncode == 1
    why = f"the run's {WAITED_S}s (`--stop-after`) were over"
    assert f"2 not attempted, the next run has them: {why}" in err.splitlines()
    assert build.current("large")["counts"]
    run = api.last_flow_run()
    assert run["state_name"] == "Failed"
    assert run["state"]["message"] == f"2 of 3 repositories not attempted: left, right: {why}"
    assert api.task_states(run["id"]) == {"large": "Completed", "left": "Failed", "right": "Failed"}

    again = build.report(*repos, *llm.options)
    assert (again["built"], again["up_to_date"]) == (2, 1)


def test_a_repository_that_stands_still_fails_with_that_reason_and_the_others_are_built(
    build, api, fake_llm, make_repo, module, tmp_path
):
    make_repo(tmp_path / "still", {"a.py": module("still", 9)})
    for name in ("left", "right"):
        make_repo(tmp_path / name, {"a.py": module(name)})
    repos = [arg for name in ("still", "left", "right") for arg in ("--repo", tmp_path / name)]
    options = ["--llm-provider", "openai", "--llm-model", "fake", "--llm-base-url", fake_llm.base_url]
    fake_llm.script = lambda body, before: Answer(hang=True) if "still_7" in body["messages"][-1]["content"] else None

    report = build.report(*repos, *options, "--repo-timeout", "20s", code=1)

    assert (report["built"], report["failed"], report["not_attempted"]) == (2, 1, 0)
    assert report["by_name"]["still"]["reason"].startswith("it took longer than 20s (`--repo-timeout`)")
    assert api.task_states(report["flow_run_id"]) == {"still": "Failed", "left": "Completed", "right": "Completed"}
    asked = fake_llm.calls

    fake_llm.script = None
    again = build.report(*repos, *options)
    assert (again["built"], again["up_to_date"]) == (1, 2)
    assert fake_llm.calls - asked <= 4, "what was answered is kept: that function, its file, its folder"
