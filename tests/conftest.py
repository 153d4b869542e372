"""Fixtures that every folder of tests may use."""

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_llm import FakeLLM, running
from seaweedfs import BUCKET, SeaweedFS, seaweedfs

TESTS = Path(__file__).parent
LONGEST_FIRST = {folder: n for n, folder in enumerate(("e2e", "flows", "deployments", "contract"))}


def pytest_configure() -> None:
    """Forget the developer's own settings, servers and keys: no test may depend on them, and none may reach them."""
    for name in list(os.environ):
        if name.startswith(("SUMMIDX_", "OPENAI_", "PREFECT_", "AWS_")) and name != "SUMMIDX_REQUIRE_SYSTEM_PARTS":
            del os.environ[name]
    # Else each of the hundreds of processes that tests start would compile all of our modules anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # A shell that starts us in the background ignores SIGINT for us, and so for every run that a test interrupts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is for `make chaos CHAOS=long` alone, and begin with the folders whose files take minutes."""
    if os.environ.get("CHAOS") == "long":
        return
    left_out = [item for item in items if item.get_closest_marker("long_form")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
    # Last, a file that takes minutes would keep one process while others idle.
    items.sort(key=lambda item: LONGEST_FIRST.get(item.path.relative_to(TESTS).parts[0], len(LONGEST_FIRST)))


@pytest.fixture(scope="session")
def _fake_llm_server() -> Iterator[FakeLLM]:
    with running(FakeLLM()) as server:
        yield server


@pytest.fixture
def fake_llm(_fake_llm_server: FakeLLM) -> Iterator[FakeLLM]:
    """An LLM server on the loopback address that has not been asked anything yet."""
    server = _fake_llm_server
    server.reset()
    server.script, server.delay_s, server.slots, server.api_key, server.model = None, 0.0, 0, "", "fake"
    server.models_delay_s = 0.0
    server.max_model_len, server.chars_per_token, server.tokenizes = 8192, 4.0, True
    yield server
    server.script = None


@pytest.fixture(scope="session")
def _s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    with seaweedfs(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(_s3_server: SeaweedFS, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An index root of its own on a real S3-compatible server, with its endpoint and credentials in the environment."""
    for name, value in _s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "local"))
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"
