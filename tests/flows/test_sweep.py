"""What a run that was killed left behind, put right by the next one."""

import json
import subprocess
import sys

import pytest

from flows.sweep import DIED


@pytest.fixture
def start_held(build, llm, api, make_repo, module, tmp_path):
    """Start a build of a repository that does not end, and wait until it is under way: its process and flow run."""
    started = []

    def start(name):
        make_repo(tmp_path / name, {"a.py": module(name) + "# HOLDME\n"})
        process = build.start("--repo", tmp_path / name, *llm.options)
        started.append(process)
        llm.held.get(timeout=120)
        return process, api.last_flow_run()["id"]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_what_a_killed_run_left_is_swept_by_the_next_and_a_run_that_lives_is_not(
    build, api, llm, start_held, make_repo, module, tmp_path
):
    killed, killed_id = start_held("killed")
    killed.kill()
    killed.communicate()
    assert api.flow_run(killed_id)["state_name"] == "Running"
    alive, alive_id = start_held("alive")  # it sweeps as any run does, and so does the next
    assert api.flow_run(killed_id)["state_name"] == "Crashed"
    make_repo(tmp_path / "small", {"a.py": module("small")})
    report = build.report("--repo", tmp_path / "small")

    assert report["built"] == 1
    assert api.flow_run(killed_id)["state"]["message"] == DIED
    assert api.tries(killed_id) == {"killed": ["Crashed"]}
    assert api.flow_run(alive_id)["state_name"] == "Running"
    llm.release.set()
    assert alive.communicate(timeout=120)[1] == ""
    assert api.flow_run(alive_id)["state_name"] == "Completed"
    assert api.tries(alive_id) == {"alive": ["Completed"]}
    assert list((build.cwd / "logs" / "summary_index" / "runs").glob("*.json")) == []


def test_a_run_of_another_machine_or_one_that_is_tried_again_is_left_alone(build, api, start_held):
    killed, killed_id = start_held("killed")
    (path,) = (build.cwd / "logs" / "summary_index" / "runs").glob("*.json")
    killed.kill()
    killed.communicate()
    record = json.loads(path.read_text())

    def sweep(**said):
        path.write_text(json.dumps(record | said))
        script = f"from flows.sweep import sweep; print(sweep({str(path.parents[1])!r}))"
        return int(subprocess.check_output([sys.executable, "-c", script], env=build.env, text=True))

    assert sweep(host="elsewhere", boot_id="another") == 0
    assert path.exists()
    assert sweep(run_count=record["run_count"] + 1) == 0
    assert api.flow_run(killed_id)["state_name"] == "Running"
    assert sweep() == 2
    assert api.flow_run(killed_id)["state_name"] == "Crashed"


LOST_TRY = """
import sys
from uuid import UUID, uuid4
from prefect.client.orchestration import get_client
from prefect.states import Completed
from flows.ledger import record_lost_try
from flows.tasks import summarize_and_embed_repo as task

run, lost, again = UUID(sys.argv[1]), uuid4(), uuid4()
for _ in range(2):
    record_lost_try(run, task, lost, "lost", "its worker was killed")
with get_client(sync_client=True) as client:
    client.create_task_run(task, run, str(again), id=again, name="lost")
    client.set_task_run_state(again, Completed(), force=True)
"""


def test_a_try_that_was_lost_before_the_api_heard_of_it_comes_before_the_next_one(first_run, api):
    """How a repository ended is what its last task run says."""
    build, _ = first_run
    run_id = api.last_flow_run()["id"]
    subprocess.run([sys.executable, "-c", LOST_TRY, run_id], env=build.env, check=True)
    assert api.tries(run_id)["lost"] == ["Crashed", "Completed"]
