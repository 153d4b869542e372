"""Real repositories, two Dask workers, a real vLLM: what was asked, what was counted and what can be found agree.

The server is the only witness: its own counters say how many calls were made and how many tokens they cost.
"""

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from real_vllm import PACKAGES, git

from summidx.hierarchy import build_tree
from summidx.parsing import parse
from summidx.records import count_where
from summidx.settings import load_settings
from summidx.sources import read_source
from summidx.stop import Stop

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]


@dataclass(frozen=True, slots=True)
class Run:
    """What a build reported, by repository, and what the server counted meanwhile."""

    endings: dict[str, str]
    report: dict[str, dict[str, Any]]
    calls: int
    tokens_in: int
    tokens_out: int

    def sum_usage(self, field: str) -> int:
        return sum(each["usage"][field] for each in self.report.values())


@pytest.fixture(scope="module")
def build(vllm_server, environment, tmp_path_factory) -> Callable[..., Run]:
    """Runs `python flows/build.py` with two workers and the served model."""
    folder = tmp_path_factory.mktemp("build")

    def count() -> list[int]:
        return [
            vllm_server.read_metric("vllm:request_success_total"),
            vllm_server.read_metric("vllm:prompt_tokens_total"),
            vllm_server.read_metric("vllm:generation_tokens_total"),
        ]

    def run(index_root: Path, *specs: str) -> Run:
        before = count()
        done = subprocess.run(
            [
                *(sys.executable, ROOT / "flows" / "build.py", "--json", "--num-processes", "2"),
                *("--llm-provider", "openai", "--llm-base-url", vllm_server.base_url, "--llm-model", vllm_server.model),
                *("--llm-concurrency", "64", "--index-root", index_root),
                *(part for spec in specs for part in ("--repo", spec)),
            ],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        repositories = json.loads(done.stdout)["repositories"]
        return Run(
            {each["name"]: each["ending"] for each in repositories},
            {each["name"]: each["report"] for each in repositories},
            *(after - earlier for after, earlier in zip(count(), before, strict=True)),
        )

    return run


@pytest.fixture(scope="module")
def index_root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("index")


@pytest.fixture(scope="module")
def first(build, repos, index_root) -> Run:
    return build(index_root, *map(str, repos.values()))


@pytest.mark.parametrize("name", PACKAGES)
def test_every_unit_that_was_parsed_is_accounted_for(first, repos, name) -> None:
    """Per level: as many documents as units, none failed, and most of them in the model's own words."""
    settings = load_settings()
    source = read_source(str(repos[name]), git(repos[name], "rev-parse", "HEAD"), settings.sources, Stop())
    parsed = parse(source.files, settings.parsing, Stop())
    expected = Counter(unit.level.value for unit in build_tree(parsed.units, name).units.values())
    counts = first.report[name]["counts"]
    assert {level: count_where(counts, level=level) for level in counts} == dict(expected)
    assert count_where(counts, status="failed") == 0
    assert count_where(counts, origin="llm", status="ok") > count_where(counts, status="degraded")


def test_the_server_counts_the_calls_and_tokens_that_the_reports_do(first) -> None:
    assert first.calls == first.sum_usage("llm_calls") > 0
    assert first.tokens_in == first.sum_usage("tokens_in")
    assert first.tokens_out == first.sum_usage("tokens_out")


def test_the_same_again_makes_no_call(first, build, repos, index_root) -> None:
    again = build(index_root, *map(str, repos.values()))
    assert again.endings == dict.fromkeys(PACKAGES, "up_to_date")
    assert again.calls == 0


def test_a_lost_index_is_made_again_from_the_cache_alone(first, build, repos, index_root) -> None:
    shutil.rmtree(index_root / "tenacity")
    again = build(index_root, *map(str, repos.values()))
    assert again.endings == dict.fromkeys(PACKAGES, "up_to_date") | {"tenacity": "built"}
    assert again.report["tenacity"]["counts"] == first.report["tenacity"]["counts"]
    assert again.calls == 0


def test_one_changed_function_costs_itself_and_what_is_above_it(first, build, repos, index_root, tmp_path) -> None:
    """The next commit: function, class, file, directories, repository, and no more; the old one costs nothing."""
    repo = tmp_path / "pathspec"
    git(tmp_path, "clone", "--quiet", str(repos["pathspec"]), str(repo))
    old = git(repo, "rev-parse", "HEAD")
    module = repo / "pathspec" / "pathspec.py"
    text = module.read_text()
    changed = text.replace("def match_file(", "def match_file(  # asked for one file\n", 1)
    assert changed != text
    module.write_text(changed)
    git(repo, "commit", "--quiet", "--all", "--message", "Change one function")
    run = build(index_root, f"old={repo}@{old}", f"new={repo}")
    assert 0 < run.calls <= 10
    assert run.report["old"]["usage"]["llm_calls"] == 0
    assert run.report["old"]["counts"] == first.report["pathspec"]["counts"]


def test_the_indexes_answer(first, index_root, environment) -> None:
    """In nonsense, as the model is; but the right file stands among the first hits, with the model's words."""
    summidx = Path(sys.executable).with_name("summidx")
    command = [summidx, "search", "wait exponentially longer after each attempt", "--index-root", index_root, "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    hits = json.loads(done.stdout)
    assert "tenacity/wait.py" in {hit["path"] for hit in hits[:5]}
    assert all(hit["summary"] for hit in hits)


def test_the_prompts_constant_start_is_not_computed_again(first, vllm_server) -> None:
    """The system message comes first and is the same for all units of a level: vLLM keeps what it computed of it."""
    asked = vllm_server.read_metric("vllm:prefix_cache_queries_total")
    assert vllm_server.read_metric("vllm:prefix_cache_hits_total") > asked / 4
