"""The deployment `nightly`, as an operator sets it up (conftest.py) and whoever runs it uses it: in the Prefect UI."""

import socket
import time

import psutil
import pygit2
import pytest
import yaml
from deployment_site import CHECKOUT
from fleet import commit_all

pytestmark = pytest.mark.e2e

FIELDS_WITHOUT_TABS = {"repos", "repos_root", "repos_file", "index_root", "resume_failed"}
"""What a person needs who starts a build: each a plain field."""
RUN_S = 240
"""A run takes seconds; this is for one that hangs."""
CANCELLED_WITHIN_S = 30


def test_every_template_of_prefect_yaml_is_one_that_a_step_fills():
    """Prefect makes '' of a name that it does not know, without a word."""
    text = (CHECKOUT / "prefect.yaml").read_text()
    steps = yaml.safe_load(text)["build"]
    known = {f"{{{{ {arguments['id']}.stdout }}}}" for step in steps for arguments in step.values()}
    used = {f"{{{{ {part.split('}}')[0].strip()} }}}}" for part in text.split("{{")[1:]}
    assert used == known


def test_the_deployments_are_what_prefect_yaml_says_and_the_form_explains_itself(nightly):
    one, deployment = sorted(nightly.site.ask("/deployments/filter", {}), key=lambda each: each["name"] == "nightly")
    assert (one["name"], deployment["name"]) == ("one", "nightly")
    assert one["parameters"] == {"repos": [""], "num_processes": 1, "force_cpu": True, "llm_concurrency": 32}
    assert one["global_concurrency_limit"]["limit"] == 1, "a place of its own"
    assert not one["schedules"]
    assert deployment["pull_steps"] == [
        {"prefect.deployments.steps.set_working_directory": {"directory": str(CHECKOUT)}}
    ]
    assert deployment["global_concurrency_limit"]["limit"] == 1
    assert deployment["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    assert [schedule["schedule"]["cron"] for schedule in deployment["schedules"]] == ["0 2 * * *"]
    fields = deployment["parameter_openapi_schema"]["properties"]
    in_order = sorted(fields, key=lambda name: fields[name]["position"])
    assert set(in_order[:5]) == FIELDS_WITHOUT_TABS
    assert not [name for name in FIELDS_WITHOUT_TABS if "anyOf" in fields[name]]
    assert not [name for name, field in fields.items() if len(field["description"]) < 20], "each has its help"
    empty = [field.get("default") for field in fields.values()]
    assert all(value in (None, "", [], False) for value in empty), "a form writes its defaults into the run"
    assert not [name for name in fields if any(word in name for word in ("key", "token", "password", "cache_url"))]


def test_a_parameter_out_of_bounds_is_refused_when_the_run_is_made(nightly):
    for wrong in ({"num_processes": 0}, {"tests": "some"}, {"llm_base_url": "ftp://x"}, {"repos": "one"}):
        with pytest.raises(OSError, match=r"409|422"):
            nightly.start(**wrong)


def test_a_run_that_names_a_server_of_its_own_is_refused_before_it_knocks(nightly):
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        url = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/v1"
        run = nightly.start(repos=[str(nightly.repos["alpha"])], llm_provider="openai", llm_model="m", llm_base_url=url)
        nightly.wait_until(lambda: nightly.state(run) == "Failed", RUN_S)
        message = nightly.site.ask(f"/flow_runs/{run}")["state"]["message"]
        assert "is not among the LLM servers that this worker may talk to" in message
        elsewhere.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody has knocked
            elsewhere.accept()


def test_the_scheduler_has_the_coming_nights(site):
    nights = site.wait_until_scheduled()
    assert {night["expected_start_time"][10:19] for night in nights} == {"T02:00:00"}


@pytest.mark.timeout(600)
def test_a_failure_is_read_in_the_ui_mended_and_retried_and_only_that_repository_is_built_again(nightly, ui):
    ui.open_form(nightly.id)
    ui.add_items([*(str(nightly.repos[name]) for name in ("alpha", "beta")), f"{nightly.repos['gamma']}@v1.0"])
    ui.shoot("1-form")
    run = ui.submit()

    nightly.wait_until(lambda: nightly.state(run) == "Failed", RUN_S)
    ui.open_run(run, "Details")
    ui.wait_for_text("1 of 3 repositories failed: gamma@v1.0 (UnknownRevision: ")
    ui.wait_for_text("has no revision 'v1.0': run `git fetch --all --tags` there")
    ui.shoot("2-failed")
    ui.open_run(run, "TaskRuns")
    ui.wait_for_text("3 Task runs")
    ui.wait_for_text("2 Completed")
    ui.shoot("3-task-runs")
    ui.open_task(nightly.task_run(run, "gamma@v1.0"))
    ui.wait_for_text("UnknownRevision: ")
    ui.wait_for_text("has no revision 'v1.0': run `git fetch --all --tags` there")
    ui.shoot("4-failed-task")
    ui.open_task(nightly.task_run(run, "alpha"))
    ui.wait_for_text("documents; 0 LLM calls, 0 cache hits, 0 tokens in, 0 out;")
    ui.shoot("5-built-task")
    first = nightly.built_generations()
    assert set(first) == {"alpha", "beta"}

    repo = pygit2.Repository(nightly.repos["gamma"])
    repo.references.create("refs/tags/v1.0", repo.head.target)
    commit_all(nightly.repos["alpha"], {"beside.py": "a = 1\n"})  # a Retry stays with what the run had pinned
    ui.open_run(run, "Details")
    dialog = ui.menu("Retry")
    ui.shoot("6-retry")
    dialog.get_by_role("button", name="Retry", exact=True).click()
    nightly.wait_until(lambda: nightly.state(run) == "Completed", RUN_S)

    ui.open_run(run, "Details")
    ui.wait_for_text("3 repositories: 1 built, 2 up to date")
    ui.shoot("7-completed")
    ui.open_run(run, "TaskRuns")
    ui.wait_for_text("6 Task runs")
    ui.shoot("8-after-retry")
    assert nightly.tries(run) == {
        "alpha": ["Completed", "Cached"],
        "beta": ["Completed", "Cached"],
        "gamma@v1.0": ["Failed", "Completed"],
    }
    last = nightly.built_generations()
    assert {name: last[name] for name in first} == first
    assert set(last) == {"alpha", "beta", "gamma@v1.0"}


@pytest.mark.timeout(600)
def test_a_click_on_cancel_ends_the_run_and_all_of_its_processes(nightly, ui, hanging_llm):
    nightly.set_up(
        f"[llm]\nprovider = 'openai'\nmodel = 'fake'\nbase_url = '{hanging_llm.base_url}'", "num_processes = 2"
    )
    run = nightly.start(repos=[str(path) for path in nightly.repos.values()])
    in_flight = {"alpha": ["Completed"], "beta": ["Completed"], "gamma": ["Running"]}
    nightly.wait_until(lambda: nightly.tries(run) == in_flight, RUN_S)
    children = psutil.Process(nightly.site.processes[-1].pid).children(recursive=True)
    assert len(children) >= 3, "the flow and two workers"

    ui.open_run(run, "TaskRuns")
    ui.wait_for_text("Running")
    dialog = ui.menu("Cancel")
    ui.shoot("9-cancel")
    clicked = time.monotonic()
    dialog.get_by_role("button", name="Cancel Flow Run").click()
    nightly.wait_until(lambda: nightly.state(run) == "Cancelled", RUN_S)
    took = time.monotonic() - clicked
    nightly.wait_until(lambda: not [each for each in children if each.is_running()], RUN_S)
    nightly.wait_until(lambda: nightly.tries(run)["gamma"] == ["Cancelled"], RUN_S)

    ui.open_run(run, "TaskRuns")
    ui.wait_for_text("Cancelled")
    ui.wait_for_text("2 Completed")
    ui.shoot("10-cancelled")
    assert took < CANCELLED_WITHIN_S
    assert set(nightly.built_generations()) == {"alpha", "beta"}
