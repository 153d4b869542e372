"""A real vLLM on the CPU: as a server, and where summidx is installed beside it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from real_vllm import MODEL, PACKAGES, PYTHON, VLLMServer, git, serve_vllm

API_KEY = "a-key-that-only-these-tests-know"


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """The interpreter that has vLLM and summidx; the model is made where it is missing."""
    if not PYTHON.exists():
        pytest.fail("there is no vLLM in .venv-vllm: run `make test-vllm`, which installs it")
    if not MODEL.exists():
        subprocess.run([PYTHON, Path(__file__).with_name("tiny_model.py"), MODEL], check=True)
    return PYTHON


@pytest.fixture(scope="session")
def vllm_server(vllm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLLMServer]:
    """The server, up and healthy."""
    with serve_vllm(vllm_python, MODEL, tmp_path_factory.mktemp("vllm") / "server.log", api_key=API_KEY) as server:
        yield server


@pytest.fixture(scope="session")
def repos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sources of PACKAGES, each committed to a git repository."""
    found = {}
    for name in PACKAGES:
        repo = tmp_path_factory.mktemp("repos") / name
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        shutil.copytree(Path(spec.origin).parent, repo / name, ignore=shutil.ignore_patterns("__pycache__"))
        git(repo, "init", "--quiet")
        git(repo, "add", "--all")
        git(repo, "commit", "--quiet", "--message", "As installed")
        found[name] = repo
    return found


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """No settings of the developer's, a Prefect home of its own, and the server's key."""
    others = ("SUMMIDX_", "OPENAI_", "PREFECT_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    return own | {"PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")), "OPENAI_API_KEY": API_KEY}
