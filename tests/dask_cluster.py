"""A Dask scheduler and workers, as an operator starts them: each is a process of its own."""

import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
from runs import ROOT, Site, with_no_fuss

STARTS_WITHIN_S = 120


class Cluster:
    """A scheduler, which runs, and the workers that are started."""

    def __init__(self, folder: Path, site: Site, *, threads: int, ttl_s: int = 300, host: str = "127.0.0.1") -> None:
        """Start the scheduler.

        Args:
            folder: a new one, for logs.
            site: whose runs it is for.
            threads: of each worker.
            ttl_s: a worker that says nothing for so long is taken for dead.
            host: address on which the scheduler listens.
        """
        self._folder = folder
        self._threads = threads
        self._environment = site.environment | {
            "PREFECT_API_URL": site.api.url,
            "PYTHONPATH": str(ROOT),
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
            "DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION": "1.0",
            "DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING": "False",
            "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{ttl_s}s",
        }
        self.processes: list[psutil.Popen] = []
        folder.mkdir()
        self.scheduler = self._start("scheduler", "--host", host, "--port", "0", "--dashboard-address", "127.0.0.1:0")

    @property
    def address(self) -> str:
        """Of the scheduler."""
        deadline = time.monotonic() + STARTS_WITHIN_S
        while True:
            try:
                return str(json.loads((self._folder / "scheduler.json").read_text())["address"])
            except (OSError, ValueError):
                assert time.monotonic() < deadline, "the scheduler did not start"
                time.sleep(0.1)

    def start_worker(self, host: str = "127.0.0.1", prefix: tuple[str, ...] = ()) -> psutil.Popen:
        """Start a worker that listens on an address, by a command with such a prefix."""
        self.address  # noqa: B018 - the file is written by then
        options = ("--no-nanny", "--no-dashboard", "--host", host, "--nthreads", str(self._threads))
        return self._start("worker", *options, prefix=prefix)

    def close(self) -> None:
        """Kill what is left."""
        for process in self.processes:
            with_no_fuss(partial(process.send_signal, signal.SIGCONT))
            with_no_fuss(process.kill)
            process.wait()

    def _start(self, what: str, *options: str, prefix: tuple[str, ...] = ()) -> psutil.Popen:
        command = [*prefix, sys.executable, "-m", "distributed.cli.dask_" + what, *options]
        command += ["--scheduler-file", str(self._folder / "scheduler.json")]
        with (self._folder / f"{what}{len(self.processes)}.log").open("wb") as log:
            process = psutil.Popen(
                command, cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process
