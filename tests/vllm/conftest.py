"""A real vLLM on the CPU (make test-vllm installs it) that serves the model of tiny_model.py."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
MODEL = ROOT / ".venv-vllm" / "tiny-model"

MODEL_NAME = "tiny"
START_S = 300.0
STOP_S = 15.0


@dataclass(frozen=True, slots=True)
class VLLMServer:
    """A running server. `base_url` is that of the OpenAI API, `/v1` included."""

    base_url: str
    model: str

    def read_metric(self, name: str, label: str = "") -> int:
        """The sum of a counter of `/metrics` over all its series that carry `label` (`handler="/v1/models"`)."""
        with urllib.request.urlopen(f"{self.base_url.removesuffix('/v1')}/metrics", timeout=30) as response:
            lines = response.read().decode().splitlines()
        series = (line.rpartition(" ") for line in lines if re.match(rf"{re.escape(name)}[{{ ]", line))
        return int(sum(float(value) for labels, _, value in series if label in labels))


@pytest.fixture(scope="session")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLLMServer]:
    """The server, up and healthy; the model is made where it is missing."""
    if not PYTHON.exists():
        pytest.fail("there is no vLLM in .venv-vllm: run `make test-vllm`, which installs it")
    if not MODEL.exists():
        subprocess.run([PYTHON, Path(__file__).with_name("tiny_model.py"), MODEL], check=True)
    with serve_vllm(PYTHON, MODEL, tmp_path_factory.mktemp("vllm") / "server.log") as server:
        yield server


def find_free_port() -> int:
    """A port of the loopback interface that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def serve_vllm(python: Path, model: Path, log: Path) -> Iterator[VLLMServer]:
    """Start vLLM with the interpreter `python` on the folder `model`, and end it with all its processes.

    Raises:
        RuntimeError: it ended, or was not up within START_S; the message holds the end of its log.
    """
    port = find_free_port()
    command = [
        str(python),
        *("-m", "vllm.entrypoints.openai.api_server"),  # the `vllm` command fails on missing metadata
        *("--model", str(model), "--served-model-name", MODEL_NAME),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", "float32", "--enforce-eager"),  # bfloat16 is emulated on many CPUs
    ]
    offline = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1"} | offline
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    try:
        _wait_until_healthy(process, f"http://127.0.0.1:{port}/health", log)
        yield VLLMServer(base_url=f"http://127.0.0.1:{port}/v1", model=MODEL_NAME)
    finally:
        _end_group(process)


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.5)
    state = "is not up" if process.poll() is None else f"ended with {process.returncode}"
    raise RuntimeError(f"vLLM {state} after {START_S:.0f} s at most:\n" + log.read_text(errors="replace")[-4000:])


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL for what is left of the group: the engine runs in a process of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
