"""What every scenario of `make chaos` starts from: a fleet, an oracle, a Prefect API, an LLM with latency.

The short form is for CI. The long one (`make chaos CHAOS=long`) writes its figures to benchmarks/results/.
"""

import os
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fake_llm import FakeLLM
from fleet import Fleet, find_differences, make_fleet
from prefect_api import Api, clean_environment, running_api
from runs import ROOT, Site, check_report

from benchmarks import harness

HERE = Path(__file__).parent
SEED = 20261128
FIGURES = "figures"
LATENCY_S = 0.1
WORKERS, IN_FLIGHT, CALLS = 2, 4, 24
"""Worker processes, repositories that each has at a time, calls in flight of both."""


@dataclass(frozen=True)
class Form:
    """How much of it."""

    name: str
    generated: int
    functions: float
    """Mean of a generated repository."""
    real: int
    kills: int
    pauses: int
    cuts: int
    """Workers on a host that is cut off."""
    lost_at: tuple[float, ...]
    """Shares of all calls after which the scheduler is killed, each in a run of its own."""
    deployed: int
    """Repositories of the deployment."""
    api_away_s: float
    signals: int
    llm_repositories: int
    """That are built while the LLM server misbehaves: after each refusal all calls wait a while."""
    outage_s: float
    slack_s: float
    """Beyond a limit in time: a machine that does other things, too, is late."""
    timeout_s: float
    """Of one test."""


SHORT = Form(
    "short",
    generated=20,
    functions=5,
    real=1,
    kills=4,
    pauses=2,
    cuts=1,
    lost_at=(0.8,),
    deployed=6,
    api_away_s=10,
    signals=2,
    llm_repositories=18,
    outage_s=8,
    slack_s=30,
    timeout_s=600,
)
LONG = Form(
    "long",
    generated=200,
    functions=20,
    real=2,
    kills=20,
    pauses=10,
    cuts=5,
    lost_at=(0.25, 0.5, 0.75),
    deployed=200,
    api_away_s=30,
    signals=10,
    llm_repositories=120,
    outage_s=60,
    slack_s=1,
    timeout_s=3600,
)


def chosen_form() -> Form:
    return {form.name: form for form in (SHORT, LONG)}[os.environ.get("CHAOS", "short")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.chaos)
            item.add_marker(pytest.mark.timeout(chosen_form().timeout_s))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [report for of_outcome in terminalreporter.stats.values() for report in of_outcome]
    for report in reports:
        for name, value in getattr(report, "user_properties", []):
            if name == FIGURES and report.when == "call":
                terminalreporter.write_line(value)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "lost_at" in metafunc.fixturenames:
        metafunc.parametrize("lost_at", chosen_form().lost_at)


@pytest.fixture(scope="session")
def form() -> Form:
    return chosen_form()


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """The same moments and victims each time."""
    return random.Random(f"{SEED} {request.node.name}")


@pytest.fixture(scope="session")
def fleet(form: Form, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """Do not change it."""
    root = tmp_path_factory.mktemp("fleet")
    return make_fleet(root, generated=form.generated, functions=form.functions, real=form.real)


@pytest.fixture(scope="session")
def fleet_list(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For `--repos-file`."""
    return fleet.write_list(tmp_path_factory.mktemp("list") / "repos.txt")


@pytest.fixture(scope="session")
def chaos_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return clean_environment(tmp_path_factory.mktemp("prefect-home"))


@pytest.fixture(scope="session")
def api(chaos_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running_api(chaos_env, tmp_path_factory.mktemp("prefect-server") / "log") as api:
        yield api


@pytest.fixture(scope="session")
def options(_fake_llm_server: FakeLLM) -> tuple[str, ...]:
    """Of every run."""
    llm = ("--llm-provider", "openai", "--llm-model", "fake", "--llm-base-url", _fake_llm_server.base_url)
    return (*llm, "--llm-concurrency", str(CALLS), "--embedding-model", "hashing", "--num-processes", str(WORKERS))


def _make_site(folder: Path, api: Api, environment: Mapping[str, str], options: tuple[str, ...]) -> Site:
    threads = {"SUMMIDX_CLUSTER__THREADS_PER_WORKER": str(IN_FLIGHT)}
    folder.mkdir(parents=True, exist_ok=True)
    return Site(folder, {**environment, **threads}, api, options)


@dataclass(frozen=True)
class Oracle:
    """A build of the fleet without a fault."""

    index_root: Path
    calls: int
    """It made: one for each distinct question."""


@pytest.fixture(scope="session")
def oracle(
    fleet: Fleet,
    fleet_list: Path,
    api: Api,
    chaos_env: dict[str, str],
    options: tuple[str, ...],
    _fake_llm_server: FakeLLM,
    tmp_path_factory: pytest.TempPathFactory,
) -> Oracle:
    _fake_llm_server.reset()
    site = _make_site(tmp_path_factory.mktemp("oracle"), api, chaos_env, options)
    try:
        run = site.run(fleet_list)
        check_report(api, run, fleet.names)
    finally:
        site.close()
    assert set(run.endings().values()) == {"built"}
    assert set(_fake_llm_server.prompts.values()) == {1}, "a question was asked twice without a fault"
    return Oracle(site.index_root, _fake_llm_server.calls)


@pytest.fixture
def llm(oracle: Oracle, fake_llm: FakeLLM) -> FakeLLM:
    """The LLM server, with latency; nothing is counted yet."""
    fake_llm.delay_s = LATENCY_S
    return fake_llm


@pytest.fixture
def site(api: Api, chaos_env: dict[str, str], options: tuple[str, ...], llm: FakeLLM, tmp_path: Path) -> Iterator[Site]:
    """Nothing is built there yet."""
    site = _make_site(tmp_path / "site", api, chaos_env, options)
    yield site
    site.close()


@pytest.fixture
def small_site(
    api: Api, chaos_env: dict[str, str], options: tuple[str, ...], fake_llm: FakeLLM, tmp_path: Path
) -> Iterator[Site]:
    """A site without an oracle, for what ends before anything is built."""
    site = _make_site(tmp_path / "site", api, chaos_env, options)
    yield site
    site.close()


@pytest.fixture
def small_list(tmp_path: Path) -> Path:
    """Six repositories, for `--repos-file`."""
    return make_fleet(tmp_path / "fleet", generated=6, functions=5, real=0).write_list(tmp_path / "repos.txt")


@pytest.fixture
def check_rows(oracle: Oracle, fleet: Fleet) -> Callable[..., None]:
    """Nothing lost, nothing twice there, all rows as in the oracle."""

    def check(site: Site, part: Fleet = fleet) -> None:
        assert not find_differences(site.index_root, oracle.index_root, part.names)

    return check


@pytest.fixture
def note_figures(form: Form, request: pytest.FixtureRequest) -> Callable[[str, Mapping[str, Any]], None]:
    """Show the figures of a scenario at the end; the long form keeps them."""

    def note(scenario: str, figures: Mapping[str, Any]) -> None:
        request.node.user_properties.append((FIGURES, f"{scenario}: {dict(figures)}"))
        result = {**harness.start_result(f"chaos-{scenario}"), "form": form.name, "seed": SEED, **figures}
        if form.name == "long":
            harness.write_result(result, folder=ROOT / "benchmarks" / "results")

    return note
