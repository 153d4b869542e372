"""One site for all tests of this folder: Prefect server with its UI, work pool, deployment and process worker."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pygit2
import pytest
from deployment_site import Site, running_site
from fake_llm import Answer, FakeLLM
from prefect_ui import PrefectUI, open_ui

SOURCE = """\
def {name}(items):
    total = 0
    for item in items:
        total += item
    return total
"""
AUTHOR = pygit2.Signature("A. Author", "author@example.org", 1_700_000_000, 0)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site as an operator sets it up."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "summidx.toml").write_text("")
    with running_site(folder, has_ui=True) as site:
        site.prefect("work-pool", "create", "summidx", "--type", "process")
        site.prefect("deploy", "--all", "--no-prompt")
        site.start("worker", "start", "--pool", "summidx")
        yield site


@dataclass
class Nightly:
    """The deployment of a site, with repositories and settings of one test."""

    site: Site
    folder: Path
    repos: Mapping[str, Path] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Of the deployment."""
        return next(each["id"] for each in self.site.ask("/deployments/filter", {}) if each["name"] == "nightly")

    def set_up(self, more: str = "", cluster: str = "num_processes = 1") -> None:
        """Give the worker settings: an index root of this test's own, and more."""
        (self.site.folder / "summidx.toml").write_text(
            f"index_root = '{self.folder}/index'\nlog_dir = '{self.folder}/run-logs'\n"
            f"[embedding]\nmodel = 'hashing'\n[cluster]\n{cluster}\n{more}\n"
        )

    def start(self, **parameters: object) -> str:
        """Start a run; its id."""
        run = self.site.ask(f"/deployments/{self.id}/create_flow_run", {"parameters": parameters})
        return str(run["id"])

    def state(self, run_id: str) -> str:
        """Name of the state of a flow run."""
        return str(self.site.ask(f"/flow_runs/{run_id}")["state_name"])

    def tries(self, run_id: str) -> dict[str, list[str]]:
        """Names of the states of each repository's task runs, in the order in which they were made."""
        runs = self.site.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
        states: dict[str, list[str]] = {}
        for run in sorted(runs, key=lambda each: each["expected_start_time"]):
            states.setdefault(run["name"], []).append(run["state_name"])
        return states

    def task_run(self, run_id: str, name: str) -> str:
        """Id of the task run of a repository that was tried once."""
        named = {"flow_runs": {"id": {"any_": [run_id]}}, "task_runs": {"name": {"any_": [name]}}}
        (run,) = self.site.ask("/task_runs/filter", named)
        return str(run["id"])

    def wait_until(self, happened: Callable[[], Any], within_s: float) -> Any:
        """Wait for something; what it was."""
        deadline = time.monotonic() + within_s
        while not (found := happened()):
            assert time.monotonic() < deadline, self.site.logs()
            time.sleep(0.2)
        return found

    def built_generations(self) -> dict[str, str]:
        """Of each published index."""
        return {
            path.parent.name: json.loads(path.read_text())["generation"]
            for path in (self.folder / "index").glob("*/CURRENT")
        }


def make_repo(path: Path) -> None:
    """A git repository with one file and one commit."""
    repo = pygit2.init_repository(path, initial_head="main")
    (path / "sums.py").write_text(SOURCE.format(name=path.name))
    repo.index.add("sums.py")
    repo.create_commit("HEAD", AUTHOR, AUTHOR, "first", repo.index.write_tree(), [])


@pytest.fixture
def nightly(site: Site, tmp_path: Path) -> Nightly:
    """Three repositories, and settings that need no LLM."""
    repos = {name: tmp_path / "repos" / name for name in ("alpha", "beta", "gamma")}
    for path in repos.values():
        make_repo(path)
    nightly = Nightly(site, tmp_path, repos)
    nightly.set_up()
    return nightly


@pytest.fixture
def ui(site: Site, tmp_path: Path) -> Iterator[PrefectUI]:
    """A browser at the site's Prefect UI. SCREENSHOTS names a folder for what it sees."""
    kept = os.environ.get("SCREENSHOTS")
    with open_ui(site.url.removesuffix("/api"), Path(kept) if kept else tmp_path) as ui:
        yield ui


@pytest.fixture
def hanging_llm(fake_llm: FakeLLM) -> FakeLLM:
    """An LLM server that never answers what it is asked of the repository `gamma`."""
    fake_llm.script = lambda body, before: Answer(hang=True) if "def gamma" in str(body["messages"]) else None
    return fake_llm
