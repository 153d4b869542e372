"""What the benchmarks share: the simulated server as a process, a build as a process that is watched, and results.

Everything that a benchmark writes, Prefect's own files included, lies in a `workplace`, a temporary folder that is
removed at its end; only the result is kept, as JSON under `benchmarks/results/`, with the machine named.
"""

import asyncio
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.server import MODEL

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("summidx", "prefect", "distributed", "openai", "aiohttp", "lancedb", "torch", "sentence-transformers")
SAMPLE_S = 0.1
MAPS_EVERY = 20
"""So many samples lie between two looks at what a process has mapped."""
GPU_LIBRARIES = ("libtorch", "libcuda", "libnvidia-ml")
PROGRAM = ("flows/build.py",)
NICENESS = 5
"""Of a build's processes: the simulated server, which would be another machine, gets a core as soon as it wants one."""
FORGOTTEN = ("SUMMIDX_", "OPENAI_", "PREFECT_")
"""A developer's own settings, servers and keys: no benchmark may depend on them."""


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A temporary folder for all that a benchmark writes; a benchmark that is told to end (SIGTERM) removes it, too."""
    signal.signal(signal.SIGTERM, lambda signum, _: sys.exit(128 + signum))
    with tempfile.TemporaryDirectory(prefix="summidx-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


class Server:
    """The simulated server, in its own process."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._root = base_url.removesuffix("/v1")

    def status(self) -> dict[str, Any]:
        """What is counted, and what is in flight (`server.SimulatedLLM.status`)."""
        return self._read("status")

    def record(self) -> dict[str, Any]:
        """The same, and the times of each request since the last reset (`server.SimulatedLLM.record`)."""
        return self._read("record")

    def reset(self) -> None:
        """Forget what went through."""
        urllib.request.urlopen(urllib.request.Request(f"{self._root}/reset", method="POST"), timeout=60).close()

    def _read(self, what: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self._root}/{what}", timeout=60) as response:
            answer: dict[str, Any] = json.load(response)
        return answer


@contextlib.contextmanager
def running_server(*, slots: int, service_scale: float, refuse: str = "") -> Iterator[Server]:
    """Start the simulated server, and end it."""
    options = ["--slots", str(slots), "--service-scale", str(service_scale), "--refuse", refuse]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.server", *options], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        base_url = process.stdout.readline().strip()
        if not base_url:
            raise RuntimeError(f"the simulated server ended with {process.wait()}")
        yield Server(base_url)
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def measure_ceiling(*, connections: int = 64, requests: int = 6000) -> dict[str, float]:
    """What the simulated server takes when its service costs no time, asked by bare sockets.

    Returns:
        `requests_per_s` (client and server on the same machine), and `server_cpu_ms` per request.
    """
    content = "def f(x):\n    return x\n" * 120
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 200}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    async def ask(host: str, port: int, n: int) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        for _ in range(n):
            writer.write(head + body)
            header = await reader.readuntil(b"\r\n\r\n")
            length = int(header.split(b"Content-Length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
        writer.close()

    async def all_of_them(host: str, port: int) -> None:
        await asyncio.gather(*(ask(host, port, requests // connections) for _ in range(connections)))

    with running_server(slots=connections, service_scale=0.0) as server:
        host, _, port = server.base_url.removeprefix("http://").removesuffix("/v1").partition(":")
        started = time.monotonic()
        asyncio.run(all_of_them(host, int(port)))
        seconds = time.monotonic() - started
        record = server.record()
    done = len(record["requests"])
    return {"requests_per_s": round(done / seconds), "server_cpu_ms": round(1000 * record["cpu_s"] / done, 3)}


@dataclass(slots=True)
class Watched:
    """A build that has ended, and what its processes took while it ran.

    `cpu_s` and `peak_rss_mb` are by kind of process: `worker` (Dask's, with the parsing processes that they start),
    `parser` (those alone; only memory), `prefect` (its API server), `flow` (the command itself: in-process workers too)
    and `other`. Memory is that of the largest process of a kind. Times are of `time.monotonic`.
    """

    exit_code: int
    started_s: float
    ended_s: float
    report: dict[str, Any] | None
    stderr: str
    cpu_s: dict[str, float] = field(default_factory=dict)
    peak_rss_mb: dict[str, float] = field(default_factory=dict)
    workers: int = 0
    cpu_series: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    """CPU time by kind at moments of the run."""
    gpu_libraries: frozenset[str] = frozenset()
    """Files of torch and CUDA that one of its processes had mapped when it was last looked at."""

    def cpu_between(self, kind: str, start_s: float, end_s: float) -> float:
        """CPU seconds of a kind of process between two moments; in-process workers are those of the flow."""
        if not self.workers and kind == "worker":
            kind = "flow"
        times = [time_s for time_s, _ in self.cpu_series]
        values = [cpu_s.get(kind, 0.0) for _, cpu_s in self.cpu_series]
        start, end = np.interp([start_s, end_s], times, values)
        return float(end - start)

    @property
    def seconds(self) -> float:
        """Wall time of the command."""
        return self.ended_s - self.started_s

    def repositories(self) -> list[dict[str, Any]]:
        """The repositories of the report.

        Raises:
            RuntimeError: the command printed none; the message holds the end of what it said.
        """
        if self.report is None:
            raise RuntimeError(f"the build ended with {self.exit_code}:\n{self.stderr[-3000:]}")
        repositories: list[dict[str, Any]] = self.report["repositories"]
        return repositories

    def usage(self, name: str) -> int:
        """Sum of a counter of the repositories' usage."""
        return sum(each["report"]["usage"][name] for each in self.repositories() if each["report"])


class Build:
    """`python flows/build.py` in its own session, with an environment of its own, watched while it runs."""

    def __init__(
        self,
        folder: Path,
        options: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        """Start it.

        Args:
            folder: where Prefect's files and the logs go.
            options: of the command; `--json` and `--log-dir` are added.
            environment: further variables.
            program: Python's arguments that start the command.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FORGOTTEN)}
        folder.mkdir(parents=True, exist_ok=True)
        # Files, not pipes: nobody has to read them while the build runs.
        self._stdout, self._stderr = (folder / f"{uuid.uuid4().hex}.{name}" for name in ("out", "err"))
        command = [sys.executable, *program, *options, "--json", "--log-dir", str(folder / "logs")]
        self.started_s = time.monotonic()
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**kept, "PREFECT_HOME": str(folder / "prefect"), "HF_HUB_OFFLINE": "1", **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        self._root = psutil.Process(self._process.pid)
        self._root.nice(NICENESS)  # and so all that it starts
        self._cpu: dict[tuple[str, int], float] = {}
        self._rss: dict[str, float] = {}
        self._series: list[tuple[float, dict[str, float]]] = []
        self._gpu_libraries: set[str] = set()
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample_until_ended, daemon=True)
        self._sampler.start()

    def workers(self) -> list[psutil.Process]:
        """The worker processes that run now."""
        return [process for process in self._processes() if _kind(process) == "worker"]

    def is_running(self) -> bool:
        """False once it has ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it at once, with all its processes."""
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def wait(self, timeout_s: float = 3600.0) -> Watched:
        """Wait for its end; a build that takes longer than `timeout_s` is killed."""
        try:
            exit_code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            exit_code = self._process.wait()
        except BaseException:  # we are told to end
            self.kill()
            raise
        finally:
            self._ended.set()
        ended_s = time.monotonic()
        self._sampler.join()
        stdout, stderr = (file.read_text(errors="replace") for file in (self._stdout, self._stderr))
        return Watched(
            exit_code=exit_code,
            started_s=self.started_s,
            ended_s=ended_s,
            report=json.loads(stdout) if stdout.strip() else None,
            stderr=stderr,
            cpu_s={kind: round(seconds, 2) for kind, seconds in sorted(self._cpu_by_kind().items())},
            peak_rss_mb={kind: round(mb, 1) for kind, mb in sorted(self._rss.items())},
            workers=sum(kind == "worker" for kind, _ in self._cpu),
            cpu_series=self._series,
            gpu_libraries=frozenset(self._gpu_libraries),
        )

    def _processes(self) -> list[psutil.Process]:
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _sample_until_ended(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            for process in self._processes():
                with contextlib.suppress(psutil.Error):
                    if kind := "flow" if process.pid == self._root.pid else _kind(process):
                        self._sample(process, kind)
            self._series.append((time.monotonic(), self._cpu_by_kind()))

    def _sample(self, process: psutil.Process, kind: str) -> None:
        if len(self._series) % MAPS_EVERY == 0:
            mapped = {Path(each.path).name for each in process.memory_maps()}
            self._gpu_libraries |= {name for name in mapped if name.startswith(GPU_LIBRARIES)}
        rss_mb = process.memory_info().rss / 2**20
        self._rss[kind] = max(self._rss.get(kind, 0.0), rss_mb)
        times = process.cpu_times()
        own_s = times.user + times.system
        if kind == "worker":  # parsing processes that have ended are in their parent's account
            own_s += times.children_user + times.children_system
        if kind != "parser":
            self._cpu[kind, process.pid] = own_s

    def _cpu_by_kind(self) -> dict[str, float]:
        total: dict[str, float] = {}
        for (kind, _), seconds in self._cpu.items():
            total[kind] = total.get(kind, 0.0) + seconds
        return total


def run_build(
    folder: Path,
    options: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    program: Sequence[str] = PROGRAM,
    timeout_s: float = 3600.0,
) -> Watched:
    """Run `python flows/build.py` to its end.

    Raises:
        RuntimeError: it did not end with exit code 0.
    """
    watched = Build(folder, options, environment=environment, program=program).wait(timeout_s)
    if watched.exit_code != 0:
        raise RuntimeError(f"the build ended with {watched.exit_code}:\n{watched.stderr[-3000:]}")
    return watched


def _kind(process: psutil.Process) -> str:
    """What a process is; "" for one that has ended and whose parent has not looked yet."""
    command = process.cmdline()
    if not command:
        return ""
    text = " ".join(command)
    if "spawn_main" in text:
        return "worker"
    if "-I" in command[:3]:
        return "parser"
    return "prefect" if "prefect" in text else "other"


def describe_machine() -> dict[str, Any]:
    """What a figure depends on beside the code."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cpu": model or platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def describe_code() -> dict[str, Any]:
    """The commit that is measured, and whether the package's files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return {
        "commit": git("rev-parse", "HEAD"),
        "changed": bool(git("status", "--porcelain", "--", "summidx", "flows", "benchmarks/*.py")),
    }


def start_result(name: str) -> dict[str, Any]:
    """The head of a result: what was measured, when, of which code, on which machine, under which load at its start."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"benchmark": name, "date": now, "code": describe_code(), "machine": describe_machine()}


def write_result(result: Mapping[str, Any], *, folder: Path = RESULTS) -> Path:
    """Write a result under its benchmark's name, over the last one."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result['benchmark']}.json"
    done = {**result, "load_average_at_end": [round(load, 2) for load in os.getloadavg()]}
    path.write_text(json.dumps(done, indent=2) + "\n", encoding="utf-8")
    return path
