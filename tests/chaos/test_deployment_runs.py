"""Runs of the deployment that somebody cancels, that lose their API for a while, or that die with the machine."""

import time

import psutil
import pygit2
import pytest
from deployment_site import running_site
from fake_llm import Answer

from flows.sweep import DIED

pytestmark = pytest.mark.chaos

CANCELLED_WITHIN_S, SLACK_S = 30, 30
API_AWAY_S = 30
CALL_S = 60
"""A call that the LLM holds for ever is made again after it."""
LEASE_S = 600
"""A dead run's slot is free after its lease of five minutes, which the server looks through every so often."""
SOURCE = """\
def {name}(items):
    total = 0
    for item in items:
        total += len("{name}") * item
    return total
"""


@pytest.fixture
def site(tmp_path, fake_llm):
    """A site with a deployment of six repositories, two of them such that the LLM does not answer."""
    author = pygit2.Signature("A. Author", "author@example.org", 1_700_000_000, 0)
    for name in ("alpha", "beta", "gamma", "delta", "held", "stuck"):
        repo = pygit2.init_repository(tmp_path / "repos" / name, initial_head="main")
        (tmp_path / "repos" / name / "sums.py").write_text(SOURCE.format(name=name))
        repo.index.add("sums.py")
        repo.create_commit("HEAD", author, author, "first", repo.index.write_tree(), [])
    (tmp_path / "summidx.toml").write_text(
        f"repos_root = '{tmp_path}/repos'\nindex_root = '{tmp_path}/index'\nlog_dir = '{tmp_path}/run-logs'\n"
        f"[llm]\nprovider = 'openai'\nmodel = 'fake'\nbase_url = '{fake_llm.base_url}'\n"
        f"timeout_s = {CALL_S}\n"
        "[embedding]\nmodel = 'hashing'\n[cluster]\nnum_processes = 2\n"
    )
    fake_llm.script = _hold
    with running_site(tmp_path) as site:
        site.prefect("work-pool", "create", "summidx", "--type", "process")
        site.prefect("deploy", "--all", "--no-prompt")
        site.start("worker", "start", "--pool", "summidx")
        yield site


def _hold(body, before):
    text = str(body["messages"])
    return Answer(hang=True) if "def held" in text or "def stuck" in text else None


def _start_run(site):
    (deployment,) = site.ask("/deployments/filter", {"deployments": {"name": {"any_": ["nightly"]}}})
    return site.ask(f"/deployments/{deployment['id']}/create_flow_run", {})["id"]


def _tries(site, run_id):
    """The states of each repository's task runs."""
    states = {}
    for run in site.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}}):
        states.setdefault(run["name"], []).append(run["state_name"])
    return states


def _wait_until(true, limit_s, site):
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline, site.logs()
        time.sleep(0.2)


def _wait_until_half_done(site, run_id):
    """Four repositories are done, two are in flight."""

    def is_half_done():
        states = sorted(state for states in _tries(site, run_id).values() for state in states)
        return states == ["Completed"] * 4 + ["Running"] * 2

    _wait_until(is_half_done, 180, site)


def _state(site, run_id):
    return site.ask(f"/flow_runs/{run_id}")["state_name"]


def test_a_run_that_is_cancelled_ends_in_time_and_leaves_nothing(site):
    run_id = _start_run(site)
    _wait_until_half_done(site, run_id)
    worker = psutil.Process(site.processes[-1].pid)
    children = worker.children(recursive=True)
    assert len(children) >= 3

    start = time.monotonic()
    site.ask(f"/flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLING"}})
    _wait_until(lambda: _state(site, run_id) == "Cancelled", CANCELLED_WITHIN_S + SLACK_S, site)
    _wait_until(lambda: not [each for each in children if each.is_running()], SLACK_S, site)
    print(f"cancelled after {time.monotonic() - start:.1f} s")
    _wait_until(
        lambda: {s for states in _tries(site, run_id).values() for s in states} <= {"Completed", "Crashed", "Failed"},
        SLACK_S,
        site,
    )


@pytest.mark.timeout(600)
def test_an_api_that_is_restarted_under_a_run_costs_nothing(site, fake_llm):
    run_id = _start_run(site)
    _wait_until_half_done(site, run_id)
    server = site.processes.pop(0)
    server.kill()
    server.wait()
    time.sleep(API_AWAY_S)
    fake_llm.script = None
    site.start_server()
    site.wait_until_up()

    _wait_until(lambda: _state(site, run_id) not in ("Running", "Pending"), 240, site)
    assert _state(site, run_id) == "Completed", site.logs()
    assert set(map(tuple, _tries(site, run_id).values())) == {("Completed",)}


@pytest.mark.timeout(1500)
def test_after_a_power_cut_the_next_run_starts_sweeps_and_completes(site, fake_llm):
    dead = _start_run(site)
    _wait_until_half_done(site, dead)
    processes = [psutil.Process(each.pid) for each in site.processes]
    everything = [*processes, *(child for each in processes for child in each.children(recursive=True))]
    for process in everything:  # none of them can say a word
        process.suspend()
    for process in everything:
        process.kill()
    for process in site.processes:
        process.wait()
    site.processes.clear()

    fake_llm.script = None
    site.start_server()
    site.wait_until_up()
    site.start("worker", "start", "--pool", "summidx")
    assert _state(site, dead) == "Running"
    run_id = _start_run(site)
    start = time.monotonic()
    _wait_until(lambda: _state(site, run_id) == "Completed", LEASE_S + 300, site)
    print(f"completed after {time.monotonic() - start:.1f} s")

    assert site.ask(f"/flow_runs/{dead}")["state"]["message"] == DIED
    assert _state(site, dead) == "Crashed"
    assert sorted(map(tuple, _tries(site, dead).values())) == [("Completed",)] * 4 + [("Crashed",)] * 2
    assert sorted(map(tuple, _tries(site, run_id).values())) == [("Cached",)] * 4 + [("Completed",)] * 2
