"""Runs of the deployment that somebody cancels, that lose their API for a while, or that die with the machine."""

import threading
import time
from functools import partial

import psutil
import pygit2
import pytest
from deployment_site import running_site
from fake_llm import Answer
from prefect_api import Api

from flows.sweep import DIED
from flows.watch import API_AWAY_S as GIVEN_UP_AFTER_S

pytestmark = pytest.mark.chaos

CANCELLED_WITHIN_S, SLACK_S = 30, 30
ENDS_WITHOUT_API_S = 300
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
def release():
    """Set it, and the LLM answers."""
    release = threading.Event()
    yield release
    release.set()


@pytest.fixture
def site(tmp_path, fake_llm, release, form):
    """A site with a deployment of some repositories, two of them such that the LLM does not answer."""
    author = pygit2.Signature("A. Author", "author@example.org", 1_700_000_000, 0)
    for name in (*(f"alpha{n}" for n in range(form.deployed - 2)), "held", "stuck"):
        repo = pygit2.init_repository(tmp_path / "repos" / name, initial_head="main")
        (tmp_path / "repos" / name / "sums.py").write_text(SOURCE.format(name=name))
        repo.index.add("sums.py")
        repo.create_commit("HEAD", author, author, "first", repo.index.write_tree(), [])
    (tmp_path / "summidx.toml").write_text(
        f"repos_root = '{tmp_path}/repos'\nindex_root = '{tmp_path}/index'\nlog_dir = '{tmp_path}/run-logs'\n"
        f"[llm]\nprovider = 'openai'\nmodel = 'fake'\nbase_url = '{fake_llm.base_url}'\n"
        "[embedding]\nmodel = 'hashing'\n[cluster]\nnum_processes = 2\n"
    )
    fake_llm.script = partial(_hold, release)
    with running_site(tmp_path) as site:
        site.prefect("work-pool", "create", "summidx", "--type", "process")
        site.prefect("deploy", "--all", "--no-prompt")
        site.start("worker", "start", "--pool", "summidx")
        site.repositories = form.deployed
        yield site


def _hold(release, body, before):
    text = str(body["messages"])
    return Answer(until=release) if "def held" in text or "def stuck" in text else None


def _start_run(site):
    (deployment,) = site.ask("/deployments/filter", {"deployments": {"name": {"any_": ["nightly"]}}})
    return site.ask(f"/deployments/{deployment['id']}/create_flow_run", {})["id"]


def _tries(site, run_id):
    """The states of each repository's task runs."""
    return Api(site.url).tries(run_id)


def _states(site, run_id):
    return sorted(state for states in _tries(site, run_id).values() for state in states)


def _wait_until(true, limit_s, site):
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline, site.logs()
        time.sleep(0.2)


def _wait_until_half_done(site, run_id):
    """All repositories are done but for two, which are in flight."""

    def is_half_done():
        return _states(site, run_id) == ["Completed"] * (site.repositories - 2) + ["Running"] * 2

    _wait_until(is_half_done, 180 + site.repositories, site)


def _state(site, run_id):
    return site.ask(f"/flow_runs/{run_id}")["state_name"]


@pytest.mark.long_form
def test_a_run_that_is_cancelled_ends_in_time_and_leaves_nothing(site, note_figures):
    run_id = _start_run(site)
    _wait_until_half_done(site, run_id)
    worker = psutil.Process(site.processes[-1].pid)
    children = worker.children(recursive=True)
    assert len(children) >= 3

    start = time.monotonic()
    site.ask(f"/flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLING"}})
    _wait_until(lambda: _state(site, run_id) == "Cancelled", CANCELLED_WITHIN_S + SLACK_S, site)
    _wait_until(lambda: not [each for each in children if each.is_running()], SLACK_S, site)
    seconds = time.monotonic() - start
    _wait_until(lambda: "Running" not in _states(site, run_id), SLACK_S, site)
    states = _states(site, run_id)
    assert states == ["Cancelled"] * 2 + ["Completed"] * (site.repositories - 2)
    note_figures("cancel", {"repositories": site.repositories, "seconds": round(seconds, 1)})


@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", [pytest.param("away", marks=pytest.mark.long_form), "restarted"])
def test_an_api_that_is_gone_for_a_while_costs_nothing(how, site, release, form, note_figures):
    """Away: it answers nothing, and then goes on as if nothing had been."""
    run_id = _start_run(site)
    _wait_until_half_done(site, run_id)
    server = psutil.Process(site.processes[0].pid)
    if how == "away":
        stopped = [server, *server.children(recursive=True)]
        for process in stopped:
            process.suspend()
    else:
        server.kill()
        site.processes.pop(0).wait()
    time.sleep(form.api_away_s / 2)
    release.set()  # the last repositories end while it is away
    time.sleep(form.api_away_s / 2)
    if how == "away":
        for process in stopped:
            process.resume()
    else:
        site.start_server()
        site.processes.insert(0, site.processes.pop())
    site.wait_until_up()

    _wait_until(lambda: _state(site, run_id) not in ("Running", "Pending"), 300, site)
    assert _state(site, run_id) == "Completed", site.logs()
    tries = _tries(site, run_id)
    assert set(map(tuple, tries.values())) == {("Completed",)}
    assert len(tries) == site.repositories
    figures = {"repositories": site.repositories, "away_s": form.api_away_s, "completed": len(tries)}
    note_figures(f"api-{how}", figures)


@pytest.mark.long_form
@pytest.mark.timeout(900)
def test_an_api_that_is_gone_for_ever_ends_a_run_in_five_minutes(site, note_figures):
    run_id = _start_run(site)
    _wait_until_half_done(site, run_id)
    run = _process_of(site, run_id)
    everything = [run, *run.children(recursive=True)]
    server = site.processes.pop(0)
    server.kill()
    server.wait()
    start = time.monotonic()

    _, left = psutil.wait_procs(everything, timeout=ENDS_WITHOUT_API_S)

    seconds = time.monotonic() - start
    assert not left
    said = f"the Prefect API {site.url} has been away for {GIVEN_UP_AFTER_S:.0f} s"
    assert said in "".join(path.read_text() for path in (site.folder / "run-logs").glob("*-run-*.log"))
    note_figures("api-for-ever", {"repositories": site.repositories, "seconds_until_exit": round(seconds, 1)})


def _process_of(site, run_id):
    """The process of a flow run, which the Prefect worker started."""
    children = psutil.Process(site.processes[-1].pid).children(recursive=True)
    return next(each for each in children if each.environ().get("PREFECT__FLOW_RUN_ID") == run_id)


@pytest.mark.long_form
@pytest.mark.timeout(1500)
def test_after_a_power_cut_the_next_run_starts_sweeps_and_completes(site, release, note_figures):
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

    release.set()
    site.start_server()
    site.wait_until_up()
    site.start("worker", "start", "--pool", "summidx")
    assert _state(site, dead) == "Running"
    run_id = _start_run(site)
    start = time.monotonic()
    _wait_until(lambda: _state(site, run_id) == "Completed", LEASE_S + 300, site)
    seconds = time.monotonic() - start
    done = site.repositories - 2

    assert site.ask(f"/flow_runs/{dead}")["state"]["message"] == DIED
    assert _state(site, dead) == "Crashed"
    assert sorted(map(tuple, _tries(site, dead).values())) == [("Completed",)] * done + [("Crashed",)] * 2
    assert sorted(map(tuple, _tries(site, run_id).values())) == [("Cached",)] * done + [("Completed",)] * 2
    note_figures("machine-died", {"repositories": site.repositories, "seconds_until_completed": round(seconds, 1)})
