"""Runs over two worker processes whose LLM server refuses, goes away, or is used by one of them alone."""

import json
import threading
import time

import pytest
from fake_llm import Answer, unauthorised

NAMES = [f"r{n}" for n in range(8)]


@pytest.fixture
def repos_args(make_repo, module, tmp_path):
    """Eight repositories, one in flight for each of two workers."""
    args = []
    for name in NAMES:
        make_repo(tmp_path / name, {"a.py": module(name, 6)})
        args += ["--repo", tmp_path / name]
    return [*args, "--num-processes", "2"]


@pytest.fixture
def options(fake_llm, build):
    build.extra_env |= {"SUMMIDX_CLUSTER__THREADS_PER_WORKER": "1"}
    return ["--llm-provider", "openai", "--llm-model", "fake", "--llm-base-url", fake_llm.base_url]


def check_stopped(report, api, reason):
    """Some failed for `reason`, the others were not attempted; all are Failed in Prefect, so that a Retry has them."""
    by_ending = {}
    for each in report["repositories"]:
        by_ending.setdefault(each["ending"], []).append(each)
    failed, not_attempted = by_ending["failed"], by_ending["not_attempted"]
    assert set(by_ending) <= {"built", "failed", "not_attempted"}
    assert all(reason in each["reason"] for each in [*failed, *not_attempted])
    assert (report["failed"], report["not_attempted"]) == (len(failed), len(not_attempted))
    assert 1 <= len(failed) <= 2, "what was in flight"
    assert len(not_attempted) >= 3
    names = ", ".join(each["name"] for each in not_attempted)
    run = api.flow_run(report["flow_run_id"])
    message = run["state"]["message"]
    assert run["state_name"] == "Failed"
    assert message.startswith(f"{len(failed)} of 8 repositories failed: ")
    assert all(f"{each['name']} ({each['error']}: {each['reason'][:60]}" in message for each in failed)
    assert message.endswith(f"; {len(not_attempted)} not attempted: {names}")
    states = api.task_states(report["flow_run_id"])
    assert {states[each["name"]] for each in [*failed, *not_attempted]} == {"Failed"}


def test_a_key_that_is_refused_in_the_middle_stops_all_workers(build, api, fake_llm, options, repos_args):
    fake_llm.delay_s = 0.05
    fake_llm.script = lambda body, before: unauthorised() if fake_llm.calls > 12 else None

    report = build.report(*repos_args, *options, "--llm-concurrency", "4", code=1)

    check_stopped(report, api, "refuses the API key")
    assert fake_llm.calls < 30

    fake_llm.script = None
    again = build.report(*repos_args, *options)
    assert (again["failed"], again["not_attempted"]) == (0, 0)


def test_an_outage_ends_the_run_within_its_time_and_says_what_was_not_attempted(
    build, api, fake_llm, options, repos_args
):
    build.extra_env["SUMMIDX_LLM__OUTAGE_S"] = "2"
    fake_llm.script = lambda body, before: Answer(hang=True) if fake_llm.calls > 12 else None

    report = build.report(*repos_args, *options, "--llm-timeout", "1", "--max-retries", "1", code=1)

    check_stopped(report, api, "nothing was answered for 2 s (`llm.outage_s`)")


@pytest.mark.parametrize("processes", [1, 2])
def test_a_server_that_is_away_for_a_while_costs_nothing_but_time_and_is_told(
    processes, build, api, fake_llm, options, repos_args
):
    def away():
        while fake_llm.calls < 12:
            time.sleep(0.02)
        fake_llm.script = lambda body, before: Answer(disconnect=True)
        time.sleep(5)
        fake_llm.script = None

    fake_llm.delay_s = 0.05
    thread = threading.Thread(target=away)
    thread.start()
    done = build(*repos_args, *options, "--max-retries", "1", "--num-processes", processes, "--json")
    thread.join()

    report = json.loads(done.stdout)
    assert report["built"] == 8
    counts = [each["report"]["counts"] for each in report["repositories"]]
    assert "failed" not in str(counts)
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: the LLM server ")]
    assert [line.split(" LLM server ")[1].split()[:2] for line in warnings] == [
        ["answers", "nothing;"],
        ["answers", "again"],
    ]
    logged = api.post("/logs/filter", {"logs": {"flow_run_id": {"any_": [report["flow_run_id"]]}}, "limit": 200})
    assert {line.removeprefix("warning: ") for line in warnings} <= {entry["message"] for entry in logged}
    told = {log.name.split("-")[1] for log in build.logs if "the LLM server answers nothing" in log.read_text()}
    assert told == ({"run"} if processes == 1 else {"run", "worker"})  # not by a worker that asked nothing meanwhile
    if processes > 1:
        assert len(build.logs) == 1 + processes


def test_a_worker_that_has_all_the_work_gets_all_the_calls(build, fake_llm, options, make_repo, module, tmp_path):
    make_repo(tmp_path / "large", {"a.py": module("large", 150)})
    make_repo(tmp_path / "small", {"a.py": module("small", 1)})
    fake_llm.delay_s = 0.4
    report = build.report(
        *("--repo", tmp_path / "large", "--repo", tmp_path / "small", "--num-processes", "2"),
        *(*options, "--llm-concurrency", "16"),
    )
    assert report["built"] == 2
    # An equal share is 8. Who waits has one call at least, be it one too many for the moment (`share_by_demand`).
    assert fake_llm.max_in_flight in (16, 17)
    assert not [log for log in build.logs if "could not be shared out" in log.read_text()]
