"""A real vLLM on the CPU (make test-vllm installs it) that serves the model of vllm/tiny_model.py."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
MODEL = ROOT / ".venv-vllm" / "tiny-model"

MODEL_NAME = "tiny"
START_S = 300.0
STOP_S = 15.0

PACKAGES = ("tenacity", "pathspec", "prefect_dask")
"""Code that others wrote and that is installed with summidx: small, and here without a network."""

OFFLINE = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}


class VLLMServer:
    """A server: the interpreter `python` runs vLLM on the folder `model`, always on the same port.

    `base_url` is that of the OpenAI API, `/v1` included.
    """

    def __init__(self, python: Path, model: Path, log: Path, *, api_key: str = "") -> None:
        self.model = MODEL_NAME
        self.api_key = api_key
        self.log = log
        self._port = find_free_port()
        self._command = [
            str(python),
            *("-m", "vllm.entrypoints.openai.api_server"),  # the `vllm` command fails on missing metadata
            *("--model", str(model), "--served-model-name", MODEL_NAME),
            *("--host", "127.0.0.1", "--port", str(self._port)),
            *("--dtype", "float32", "--enforce-eager"),  # bfloat16 is emulated on many CPUs
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def start(self) -> None:
        """Start it, and wait until it is healthy.

        Raises:
            RuntimeError: it ended, or was not up within START_S; the message holds the end of its log.
        """
        environment = os.environ | OFFLINE | ({"VLLM_API_KEY": self.api_key} if self.api_key else {})
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self._root}/health", timeout=5):
                return
            time.sleep(0.5)
        state = "is not up" if self._process.poll() is None else f"ended with {self._process.returncode}"
        said = self.log.read_text(errors="replace")[-4000:]
        raise RuntimeError(f"vLLM {state} after {START_S:.0f} s at most:\n{said}")

    def kill(self) -> None:
        """SIGKILL to all its processes: the engine runs in one of its own."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def stop(self) -> None:
        """SIGTERM, and after STOP_S SIGKILL for what is left."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
        self.kill()

    def read_metric(self, name: str, label: str = "") -> int:
        """The sum of a value of `/metrics` over all its series that carry `label` (`finished_reason="stop"`)."""
        with urllib.request.urlopen(f"{self._root}/metrics", timeout=30) as response:
            lines = response.read().decode().splitlines()
        series = (line.rpartition(" ") for line in lines if re.match(rf"{re.escape(name)}[{{ ]", line))
        return int(sum(float(value) for labels, _, value in series if label in labels))

    @property
    def _root(self) -> str:
        return self.base_url.removesuffix("/v1")


@contextlib.contextmanager
def serve_vllm(python: Path, model: Path, log: Path, *, api_key: str = "") -> Iterator[VLLMServer]:
    """A server for the block, up and healthy."""
    server = VLLMServer(python, model, log, api_key=api_key)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def find_free_port() -> int:
    """A port of the loopback interface that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def git(repo: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=A. Author", "-c", "user.email=author@example.org")
    command = ["git", "-C", str(repo), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
