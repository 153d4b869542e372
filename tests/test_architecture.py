"""What the shape of the house promises: light commands, imports that point down."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "sentence_transformers", "transformers", "lancedb", "pyarrow", "openai", "tree_sitter", "pygit2"}
ORCHESTRATION = {"prefect", "prefect_dask", "dask", "distributed"}
SUMMIDX = str(Path(sys.executable).with_name("summidx"))
BUILD = str(ROOT / "flows" / "build.py")


def run_and_list_imports(*arguments: str) -> tuple[str, set[str]]:
    """Standard output of the command, and the top-level packages that it imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=True, timeout=120
    )
    modules = re.findall(r"^import time:.*\| +([\w.]+)$", done.stderr, flags=re.MULTILINE)
    return done.stdout, {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize(
    ("arguments", "shown", "kept_out"),
    [
        pytest.param(["-c", "import summidx; print(summidx.__version__)"], ".", HEAVY | ORCHESTRATION, id="import"),
        pytest.param([SUMMIDX, "--help"], "search", HEAVY | ORCHESTRATION, id="summidx"),
        pytest.param([SUMMIDX, "search", "--help"], "--index-root", HEAVY | ORCHESTRATION, id="search"),
        pytest.param([BUILD, "--help"], "--repos-root", HEAVY, id="build"),
    ],
)
def test_import_and_help_load_nothing_heavy(arguments: list[str], shown: str, kept_out: set[str]) -> None:
    output, imported = run_and_list_imports(*arguments)
    assert shown in output
    assert "summidx" in imported
    assert not imported & kept_out


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of both packages and their import rules, to break."""
    for package in ("summidx", "flows"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint_imports(house: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"],
        cwd=house,
        env=os.environ | {"PYTHONPATH": str(house)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("module", "line", "says"),
    [
        ("summidx/search/added.py", "import prefect", "summidx.search.added -> prefect"),
        ("summidx/search/added.py", "import flows.build", "summidx.search.added -> flows.build"),
        ("summidx/store/added.py", "def load():\n    import torch", "summidx.store.added -> torch"),
        ("summidx/store/added.py", "import openai", "summidx.store.added -> openai"),
        ("flows/added.py", "import lancedb", "flows.added -> lancedb"),
        ("summidx/embedding/added.py", "import pyarrow.parquet", "summidx.embedding.added -> pyarrow"),
        ("flows/added.py", "from tree_sitter import Parser", "flows.added -> tree_sitter"),
        ("summidx/parsing/added.py", "import pygit2", "summidx.parsing.added -> pygit2"),
        ("summidx/store/added.py", "import sqlalchemy", "summidx.store.added -> sqlalchemy"),
        ("summidx/store/added.py", "import summidx.search", "summidx.store.added -> summidx.search"),
        ("flows/added.py", "import pynvml", "flows.added -> pynvml"),
        ("summidx/added.py", "", "summidx.added"),
    ],
)
def test_check_refuses_an_import_through_the_wrong_door(house: Path, module: str, line: str, says: str) -> None:
    """In a new module too: no rule names the modules that it holds for."""
    (house / module).write_text(f'"""Added."""\n\n{line}\n')
    done = lint_imports(house)
    assert done.returncode == 1, done.stdout + done.stderr
    assert says in " ".join(done.stdout.split())


def test_check_accepts_the_imports_as_they_are(house: Path) -> None:
    done = lint_imports(house)
    assert done.returncode == 0, done.stdout + done.stderr
