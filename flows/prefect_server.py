"""Makes sure that ONE Prefect API serves a flow and all of its workers.

Without an API every Dask worker process would start a private server of its own. So: the API that Prefect is configured
for (PREFECT_API_URL, a profile), else one local server for the run, in a process of its own.

The local server keeps its database where Prefect always does (PREFECT_HOME), listens on the loopback interface only,
and ends with the run. It also ends when the run is killed: it watches a pipe that the run holds open.
"""

import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

from filelock import FileLock, Timeout
from prefect import Flow
from prefect.context import FlowRunContext
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, PREFECT_HOME, temporary_settings

from summidx.errors import UsageError

STARTUP_TIMEOUT_S = 120.0
"""The first start on a machine migrates the database; on a busy one that alone took 45 s."""
REACHED_WITHIN_S = 15.0
SHUTDOWN_TIMEOUT_S = 5.0
DRAIN_TIMEOUT_S = 3.0
HOST = "127.0.0.1"

SERVER_SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    # It lives for one run: starting scheduled runs, and calling them late, is for a server that stays.
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    # Task runs are recorded in batches: 7 ms of the server's CPU for each instead of 22. Never below one second: the
    # interval is cut to whole seconds, and at 0 the service spins.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
}

SERVER_DEFAULTS = {
    # Its database stays bounded: flow runs go after 90 days (PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD), as
    # events do after 7. Prefect removes only events unless it is told to.
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
}
"""Where the environment does not say otherwise."""

P = ParamSpec("P")
R = TypeVar("R")


def served_flow(**options: Any) -> Callable[[Callable[P, R]], Flow[P, R]]:  # noqa: ANN401 - those of `Flow`
    """Decorator like `prefect.flow`, for a flow that finds or starts its API by itself."""

    def decorate(function: Callable[P, R]) -> Flow[P, R]:
        return ServedFlow(function, **options)

    return decorate


class ServedFlow(Flow[P, R]):
    """A flow that, when it is called, finds or starts the one API that it and its workers use."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as Flow's
        """Run the flow, as `Flow` does."""
        with prefect_api():
            return super().__call__(*args, **kwargs)


@contextmanager
def prefect_api() -> Iterator[str]:
    """The URL of the one API, in the settings and in the environment, from which worker processes take it.

    Inside a flow run for which Prefect itself started a server, that one is it.

    Raises:
        UsageError: the API that is configured cannot be reached, or none is and the local server does not start.
    """
    context = FlowRunContext.get()
    url = PREFECT_API_URL.value() or (str(context.client.api_url) if context else None)
    if url is not None:
        if context is None:
            _check_reachable(url)
        with _exported(url):
            yield url
    else:
        with local_server() as url, _exported(url):
            try:
                yield url
            finally:
                _send_what_waits()


def is_reachable(url: str, within_s: float = REACHED_WITHIN_S) -> bool:
    """True where the API answers, whatever it says: whether it is the right one, Prefect finds out."""
    return not why_unreachable(url, within_s)


def why_unreachable(url: str, within_s: float = REACHED_WITHIN_S) -> str:
    """Why no API answers at `url`, in words; "" where one does, whatever it says."""
    # This machine is not reached through a proxy that the environment names for the world outside.
    proxies: dict[str, str] | None = {} if urlsplit(url).hostname in (HOST, "localhost", "::1") else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    try:
        with opener.open(f"{url}/health", timeout=within_s):
            return ""
    except urllib.error.HTTPError:
        return ""
    except (OSError, ValueError, HTTPException) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__


def _check_reachable(url: str) -> None:
    if reason := why_unreachable(url, REACHED_WITHIN_S):
        raise UsageError(
            f"the Prefect API {url} cannot be reached ({reason}), so the run would have no record: start it, or unset "
            "PREFECT_API_URL to have one started for the run"
        )


def expect_no_api() -> None:
    """Let what Prefect still sends in this process fail at once: the API is gone, and the run is about to end."""
    last = temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0})
    last.__enter__()
    _entered.append(last)


_entered: list[object] = []
"""What is collected is left."""


def ui_page(api_url: str, flow_run_id: str) -> str:
    """Where a flow run is shown; "" for an API that is not served with its UI (Prefect Cloud)."""
    root = api_url.removesuffix("/api")
    return "" if root == api_url else f"{root}/v2/runs/flow-run/{flow_run_id}"


@contextmanager
def local_server() -> Iterator[str]:
    """Run a Prefect server for the duration of the block; yields the URL of its API.

    Raises:
        UsageError: it does not start.
    """
    home = Path(PREFECT_HOME.value())
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile() as output:
        try:
            # Two servers that migrate one new database at once both fail.
            with FileLock(home / "summidx-server.lock", timeout=STARTUP_TIMEOUT_S):
                process, url = _start(output)
        except Timeout:
            raise UsageError(
                f"another run has been starting a Prefect server on {home} for {STARTUP_TIMEOUT_S:.0f} s; "
                "end it, or set PREFECT_API_URL to a server that runs"
            ) from None
        try:
            yield url
        finally:
            _stop(process)


def _start(output: IO[bytes]) -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    environment = SERVER_DEFAULTS | {key: value for key, value in os.environ.items() if key != "PREFECT_API_URL"}
    environment |= SERVER_SETTINGS | {"PREFECT_SERVER_API_HOST": HOST, "PREFECT_SERVER_API_PORT": str(port)}
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.prefect_server"],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,  # Ctrl-C goes to the run, which still has to tell the server how it ended
    )
    try:
        _wait_until_healthy(process, f"http://{HOST}:{port}/api", output)
    except BaseException:
        _stop(process)
        raise
    return process, f"http://{HOST}:{port}/api"


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, output: IO[bytes]) -> None:
    # Not through a proxy that the environment names for the world outside.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + STARTUP_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with opener.open(f"{url}/health", timeout=5):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
    output.seek(0)
    lines = output.read().decode(errors="replace").strip().splitlines()
    said = lines[-1].strip() if lines else "it said nothing"
    raise UsageError(
        f"the local Prefect server did not start ({said}), so the run would have no record: mend it, or set "
        "PREFECT_API_URL to a server that runs"
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(SHUTDOWN_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        if process.stdin is not None:
            process.stdin.close()


def _send_what_waits() -> None:
    """Send this process's logs and events while there is a server: at exit they would wait 90 s for it."""
    APILogWorker.drain_all(timeout=DRAIN_TIMEOUT_S, at_exit=False)
    EventsWorker.drain_all(timeout=DRAIN_TIMEOUT_S, at_exit=False)


@contextmanager
def _exported(url: str) -> Iterator[None]:
    before = os.environ.get("PREFECT_API_URL")
    os.environ["PREFECT_API_URL"] = url
    updates: Mapping[Any, Any] = {PREFECT_API_URL: url}
    try:
        with temporary_settings(updates):
            yield
    finally:
        if before is None:
            del os.environ["PREFECT_API_URL"]
        else:
            os.environ["PREFECT_API_URL"] = before


def _serve() -> None:
    """Run `prefect server start` in this process, until standard input ends."""

    def end_with_the_run() -> None:
        sys.stdin.buffer.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_with_the_run, daemon=True).start()
    sys.argv = ["prefect", "server", "start"]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _serve()
