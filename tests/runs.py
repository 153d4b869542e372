"""The command `python flows/build.py` on a fleet: started, watched, hurt, and asked what it says of itself."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
from prefect_api import Api

ROOT = Path(__file__).parents[1]
HANGS_AFTER_S = 1800
RECORDED_WITHIN_S = 60
"""States travel as events; a busy server writes them late."""
TERMINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
STATES = {"built": "Completed", "up_to_date": "Cached", "superseded": "Completed", "crashed": "Crashed"}
"""State of the task run by a repository's ending in the report; all others: Failed."""


@dataclass
class Run:
    """One run of the command."""

    process: subprocess.Popen[bytes]
    folder: Path
    began_at: float
    marker: str

    def workers(self) -> list[psutil.Process]:
        """Its worker processes that are alive."""
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [child for child in children if _is_worker(child)]

    def is_running(self) -> bool:
        return self.process.poll() is None

    def wait(self, timeout_s: float = HANGS_AFTER_S) -> "Run":
        """Wait for its end."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the run did not end within {timeout_s:.0f} s:\n{self.stderr[-3000:]}") from None
        return self

    def wait_until(self, happened: Callable[[], bool]) -> bool:
        """Wait for something; False if the run ended before."""
        while not happened():
            if not self.is_running():
                return False
            time.sleep(0.02)
        return True

    def kill(self) -> None:
        """End all its processes at once."""
        for process in self.left_processes():
            with_no_fuss(process.kill)
        self.process.wait()

    def left_processes(self) -> list[psutil.Process]:
        """Those that live and were started by it, found by what is in their environment."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("CHAOS_RUN") == self.marker and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    @property
    def code(self) -> int | None:
        return self.process.returncode

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text(errors="replace")

    @property
    def report(self) -> dict[str, Any] | None:
        """What it printed; None where it was ended before."""
        text = (self.folder / "stdout").read_text()
        return json.loads(text) if text.strip() else None

    def endings(self) -> dict[str, str]:
        """How each repository ended, by name."""
        assert self.report is not None, self.stderr[-3000:]
        return {each["name"]: each["ending"] for each in self.report["repositories"]}


@dataclass
class Site:
    """A place of its own for indexes and runs, at a Prefect API and an LLM server."""

    folder: Path
    environment: dict[str, str]
    api: Api
    options: tuple[str, ...]
    extra_environment: dict[str, str] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)

    @property
    def index_root(self) -> Path:
        return self.folder / "index"

    def start(self, repos_file: Path, *options: str | Path) -> Run:
        """Start the command on a list of repositories."""
        marker = f"{self.folder.name}-{len(self.runs)}-{os.getpid()}"
        folder = self.folder / f"run{len(self.runs)}"
        folder.mkdir(parents=True)
        command = [sys.executable, ROOT / "flows" / "build.py", "--repos-file", repos_file, "--json"]
        command += ["--index-root", self.index_root, *self.options, *options]
        environment = self.environment | self.extra_environment
        with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
            process = subprocess.Popen(
                [str(each) for each in command],
                cwd=self.folder,
                env=environment | {"PREFECT_API_URL": self.api.url, "PYTHONPATH": str(ROOT), "CHAOS_RUN": marker},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        run = Run(process, folder, time.time(), marker)
        self.runs.append(run)
        return run

    def run(self, repos_file: Path, *options: str | Path, code: int = 0) -> Run:
        """Run it to its end."""
        run = self.start(repos_file, *options).wait()
        assert run.code == code, run.stderr[-3000:]
        return run

    def close(self) -> None:
        """End what still runs."""
        for run in self.runs:
            run.kill()


def check_report(api: Api, run: Run, names: Iterable[str]) -> None:
    """Each repository's last task run has a final state, which is what the report and the exit code say.

    Of one that ran again after its worker was killed, the earlier task run is Crashed. One whose worker died before its
    task began has no task run, and must then have ended badly.
    """
    report = run.report
    assert report is not None, run.stderr[-3000:]
    endings = run.endings()
    assert endings.keys() == set(names)
    bad = {name for name, ending in endings.items() if STATES.get(ending) not in ("Completed", "Cached")}
    assert run.code == (1 if bad else 0)
    flow_run = api.flow_run(report["flow_run_id"])
    assert flow_run["state_name"] == ("Failed" if bad else "Completed"), flow_run["state"]
    states = api.tries(report["flow_run_id"])
    earlier = {name: told[:-1] for name, told in states.items() if set(told[:-1]) - {"Crashed"}}
    assert not earlier, f"task runs before the last one: {earlier}"
    expected = {name: STATES.get(ending, "Failed") for name, ending in endings.items()}
    wrong = {
        name: (states.get(name), expected[name]) for name in endings if states.get(name, [""])[-1] != expected[name]
    }
    assert not {name for name, (told, _) in wrong.items() if told or name not in bad}, wrong


def check_all_final(api: Api, since: float) -> int:
    """Nothing that was started since then is said to run; how many task runs there were."""
    deadline = time.monotonic() + RECORDED_WITHIN_S
    while True:
        runs = [each for each in api.flow_runs() if _timestamp(each["created"]) >= since]
        task_runs = [each for run in runs for each in api.task_runs(run["id"])]
        unfinished = [each["name"] for each in runs + task_runs if each["state_type"] not in TERMINAL]
        if not unfinished:
            return len(task_runs)
        assert time.monotonic() < deadline, f"not in a final state: {unfinished}"
        time.sleep(0.5)


def wait_until_gone(run: Run, within_s: float) -> list[psutil.Process]:
    """The processes of a run that are still there after so long."""
    deadline = time.monotonic() + within_s
    while (left := run.left_processes()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def calls_of(process: psutil.Process, ports: set[int]) -> int:
    """How many of these local ports a process has: those of calls that a server is at, say."""
    return len(ports & ports_of(process))


def ports_of(process: psutil.Process) -> set[int]:
    """The local ports of its connections, on whatever host it is: psutil looks at the network of this process only."""
    folder = Path(f"/proc/{process.pid}")
    sockets: set[str] = set()
    try:
        rows = [line.split() for line in (folder / "net" / "tcp").read_text().splitlines()[1:]]
        for each in (folder / "fd").iterdir():
            with suppress(FileNotFoundError):  # just closed
                sockets.add(str(each.readlink()))
    except OSError:  # it has ended
        return set()
    return {int(row[1].partition(":")[2], 16) for row in rows if f"socket:[{row[9]}]" in sockets}


def process_at_port(port: int) -> psutil.Process | None:
    """Whose connection has this local port."""
    for connection in psutil.net_connections("tcp"):
        if connection.laddr and connection.laddr.port == port and connection.pid:
            return psutil.Process(connection.pid)
    return None


def with_no_fuss(what: Callable[[], object]) -> None:
    """Do something to a process that may be gone."""
    with suppress(psutil.NoSuchProcess):
        what()


def terminate(run: Run, number: int = signal.SIGTERM) -> None:
    """Send the command a signal."""
    with_no_fuss(lambda: psutil.Process(run.process.pid).send_signal(number))


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _timestamp(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
