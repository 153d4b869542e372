"""The deployment `nightly`, as an operator sets it up: server, work pool, worker, deploy, run. Then again."""

import json
import shutil
import socket

import pygit2
import pytest
import yaml
from deployment_site import CHECKOUT, running_site

SOURCE = """\
def {name}(items):
    total = 0
    for item in items:
        total += item
    return total
"""

pytestmark = pytest.mark.e2e


@pytest.fixture
def site(tmp_path):
    with running_site(tmp_path) as site:
        yield site


def test_every_template_of_prefect_yaml_is_one_that_a_step_fills():
    """Prefect makes '' of a name that it does not know, without a word."""
    text = (CHECKOUT / "prefect.yaml").read_text()
    steps = yaml.safe_load(text)["build"]
    known = {f"{{{{ {arguments['id']}.stdout }}}}" for step in steps for arguments in step.values()}
    used = {f"{{{{ {part.split('}}')[0].strip()} }}}}" for part in text.split("{{")[1:]}
    assert used == known


def test_nightly_builds_then_finds_it_up_to_date_and_a_retry_builds_what_failed(site, tmp_path):
    repos = tmp_path / "repos"
    author = pygit2.Signature("A. Author", "author@example.org", 1_700_000_000, 0)
    for name in ("alpha", "beta", "gamma"):
        repo = pygit2.init_repository(repos / name, initial_head="main")
        (repos / name / "sums.py").write_text(SOURCE.format(name=name))
        repo.index.add("sums.py")
        repo.create_commit("HEAD", author, author, "first", repo.index.write_tree(), [])
    (tmp_path / "summidx.toml").write_text(
        f"repos_root = '{repos}'\nindex_root = '{tmp_path}/index'\nlog_dir = '{tmp_path}/run-logs'\n"
        "[embedding]\nmodel = 'hashing'\n[cluster]\nnum_processes = 2\n"
    )
    site.prefect("work-pool", "create", "summidx", "--type", "process")
    site.prefect("deploy", "--all", "--no-prompt")
    site.start("worker", "start", "--pool", "summidx")

    one, deployment = sorted(site.ask("/deployments/filter", {}), key=lambda each: each["name"] == "nightly")
    assert (one["name"], deployment["name"]) == ("one", "nightly")
    assert one["parameters"] == {"repos": [], "num_processes": 1, "force_cpu": True, "llm_concurrency": 32}
    assert one["global_concurrency_limit"]["limit"] == 1, "a place of its own"
    assert not one["schedules"]
    assert deployment["pull_steps"] == [
        {"prefect.deployments.steps.set_working_directory": {"directory": str(CHECKOUT)}}
    ]
    assert deployment["global_concurrency_limit"]["limit"] == 1
    assert deployment["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    assert [schedule["schedule"]["cron"] for schedule in deployment["schedules"]] == ["0 2 * * *"]
    properties = deployment["parameter_openapi_schema"]["properties"]
    assert properties["repos_root"]["description"].startswith("Folder of which each sub-folder")
    assert {field.get("default") for field in properties.values()} == {None}

    run, tasks = site.run_nightly()
    assert run["state_name"] == "Completed", site.logs()
    assert run["state"]["message"] == "3 repositories: 3 built, 0 up to date"
    assert tasks == {"alpha": "Completed", "beta": "Completed", "gamma": "Completed"}
    assert json.loads((tmp_path / "index" / "alpha" / "CURRENT").read_text())["counts"]

    run, tasks = site.run_nightly()
    assert run["state_name"] == "Completed", site.logs()
    assert tasks == {"alpha": "Cached", "beta": "Cached", "gamma": "Cached"}

    run, tasks = site.run_nightly(f'repos=["{repos / "alpha"}", "bad={repos}/missing"]', "num_processes=1", code=1)
    assert run["state_name"] == "Failed"
    assert run["state"]["message"] == "1/2 repositories failed: bad"
    assert tasks == {"alpha": "Cached", "bad": "Failed"}

    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        url = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/v1"
        stray, _ = site.run_nightly("llm_provider=openai", "llm_model=m", f"llm_base_url={url}", code=1)
        assert stray["state_name"] == "Failed"
        assert "is not among the LLM servers that this worker may talk to" in stray["state"]["message"]
        elsewhere.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody has knocked
            elsewhere.accept()

    shutil.copytree(repos / "beta", repos / "missing")
    site.prefect("flow-run", "retry", str(run["id"]))
    run = site.wait_until_final(run["id"])
    assert run["state_name"] == "Completed", site.logs()
    assert run["state"]["message"] == "2 repositories: 1 built, 1 up to date"

    nights = site.wait_until_scheduled()
    assert {night["expected_start_time"][10:19] for night in nights} == {"T02:00:00"}
