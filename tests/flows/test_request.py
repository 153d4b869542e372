"""What a parameter of the flow, and an option of the command, does to the settings."""

import inspect
import shutil
from pathlib import Path

import pytest

from flows.command import build
from summidx.errors import UsageError
from summidx.request import SETTINGS, BuildRequest
from summidx.settings import load_settings

NO_SETTINGS = {"repos_root", "repos", "repos_file", "limit", "resume_failed"}
VALUES = {
    "index_root": "/somewhere",
    "levels": ["file"],
    "tests": "skip",
    "llm_provider": "openai",
    "llm_timeout": 7.0,
    "force_cpu": True,
    "gpu_ids": [3],
    "skip_existing": False,
    "retry_degraded": True,
    "retry_known": True,
    "confirm_rebuild": True,
    "cache_policy": "read-only",
    "stage": "summaries",
    "max_retries": 9,
    "llm_concurrency": 9,
    "num_processes": 9,
    "threads_per_worker": 9,
    "repo_timeout": "PT2H",
    "stop_after": "PT6H",
    "scheduler_address": "tcp://10.0.0.1:8786",
}

READ_INTO = {"prompt_file": "llm.instructions"}
"""A file of settings is read at once, and its name forgotten."""


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_each_parameter_changes_its_setting_and_no_other(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    default = BuildRequest.from_parameters({}).settings().model_dump(mode="json")
    value = VALUES.get(name, "something")
    Path("something").write_text('function = "Say what it is for."')  # for the parameter that names a file

    changed = BuildRequest.from_parameters({name: value}).settings().model_dump(mode="json")

    differing = {
        f"{key}.{field}" if isinstance(changed[key], dict) else key
        for key in changed
        for field in (changed[key] if isinstance(changed[key], dict) else [""])
        if (changed[key][field] != default[key][field] if field else changed[key] != default[key])
    }
    assert differing == {READ_INTO.get(name, SETTINGS[name])}


def test_each_option_of_the_command_is_a_parameter_of_the_flow():
    options = set(inspect.signature(build).parameters) - {"as_json", "log_dir", "cache_url"}
    assert options - {"repo"} | {"repos"} == set(SETTINGS) | NO_SETTINGS


def test_an_empty_field_of_a_form_is_the_workers_setting(monkeypatch):
    monkeypatch.setenv("SUMMIDX_LLM__MODEL", "from-the-environment")
    assert BuildRequest.from_parameters({"llm_model": "", "repos": None}).settings().llm.model == "from-the-environment"


def test_repositories_are_taken_from_the_setting_only_where_none_is_named(tmp_path, repos, monkeypatch):
    monkeypatch.setenv("SUMMIDX_REPOS_ROOT", str(repos))
    settings = load_settings()

    assert {ref.name for ref in BuildRequest.from_parameters({}).repos(settings)} == {"alpha", "beta", "notes"}
    named = BuildRequest.from_parameters({"repos": [f"one={repos / 'beta'}"]})
    assert [ref.name for ref in named.repos(settings)] == ["one"]


def test_one_name_for_two_repositories_is_refused(repos):
    request = BuildRequest.from_parameters({"repos": [f"same={repos / 'alpha'}", f"same={repos / 'beta'}"]})
    with pytest.raises(UsageError, match="same"):
        request.repos(load_settings())


def test_vllm_in_the_worker_has_one_process_and_says_so_where_more_were_asked_for(monkeypatch):
    request = BuildRequest.from_parameters({"llm_provider": "vllm", "num_processes": 3})
    settings = request.settings()

    assert settings.cluster.num_processes == 1
    (warning,) = request.warnings()
    assert "--num-processes 3" in warning
    assert "\n" not in warning
    monkeypatch.setenv("SUMMIDX_CLUSTER__NUM_PROCESSES", "4")  # as a deployment's worker has it
    other = BuildRequest.from_parameters({"llm_provider": "vllm"})
    assert other.settings().cluster.num_processes == 1
    assert "--num-processes 4" in other.warnings()[0]


@pytest.mark.parametrize("parameters", [{"llm_provider": "vllm"}, {"num_processes": 3}])
def test_what_is_done_as_it_was_asked_for_is_not_warned_of(parameters):
    request = BuildRequest.from_parameters(parameters)
    settings = request.settings()
    assert settings.cluster.num_processes == parameters.get("num_processes", 1)
    assert request.warnings() == []


def test_vllm_in_the_worker_is_refused_on_workers_of_a_scheduler_that_runs_already():
    request = BuildRequest.from_parameters({"llm_provider": "vllm", "scheduler_address": "tcp://10.0.0.1:8786"})
    with pytest.raises(UsageError, match="--scheduler-address"):
        request.settings()


def test_an_empty_field_of_the_list_is_one_to_fill_in_and_not_all_repositories(tmp_path):
    """As the deployment `one` has it, whose form somebody may send as it is."""
    (tmp_path / "repos" / "a").mkdir(parents=True)
    (tmp_path / "repos" / "a" / ".git").mkdir()
    settings = load_settings({"repos_root": str(tmp_path / "repos"), "index_root": str(tmp_path / "index")})
    assert [ref.name for ref in BuildRequest.from_parameters({}).repos(settings)] == ["a"]
    with pytest.raises(UsageError, match="has no usable path: write"):
        BuildRequest.from_parameters({"repos": [""]}).repos(settings)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_leaves_nothing_is_refused(limit):
    with pytest.raises(UsageError, match="leaves nothing to do"):
        BuildRequest.from_parameters({"limit": limit})


def test_a_folder_that_no_index_can_be_named_after_is_warned_of_and_costs_no_other(build, repos, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(repos, root)
    (root / "new\nline").mkdir()
    (root / "new\nline" / "a.md").write_text("# A\n")
    request = BuildRequest.from_parameters({"repos_root": str(root)})

    assert {ref.name for ref in request.repos(load_settings())} == {"alpha", "beta", "notes"}
    (warning,) = request.warnings()
    assert warning.startswith(rf"{root}/new\nline is left out: ")
    planned = build.summidx("plan", "--repos-root", root, "--llm-provider", "extractive", "--json")
    assert planned.returncode == 0, planned.stderr
    assert planned.stderr.splitlines()[0] == f"warning: {warning}"


def test_a_run_that_is_resumed_lends_its_settings_but_not_its_repositories_nor_where_code_goes():
    earlier = {
        "levels": ["file"],
        "llm_model": "theirs",
        "repos_root": "/theirs",
        "skip_existing": False,
        "llm_base_url": "http://elsewhere/v1",
        "scheduler_address": "tcp://elsewhere:1",
        "unknown": 1,
    }
    request = BuildRequest.from_parameters({"resume_failed": True, "llm_model": "ours", "repos": ()})

    resumed = request.resuming(earlier)

    assert resumed.resume_failed
    assert resumed.parameters == {"levels": ["file"], "llm_model": "ours", "skip_existing": False}
    assert resumed.overrides == {"levels": ["file"], "llm": {"model": "ours"}, "skip_existing": False}
    assert not resumed.names_repositories
