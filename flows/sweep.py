"""Puts right what dead runs left behind in Prefect's API, and says to later runs that this one lives.

A run that was killed (SIGKILL, a power cut) could not say how it ended: its flow run and its task runs say Running for
ever. Each run therefore keeps a record of itself in LOG_DIR/runs/, and holds a lock beside it that the kernel releases
when its process ends. The next run sets to Crashed what dead runs left, and never what may live: a run of another
machine is left to that machine.
"""

import json
import logging
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from filelock import FileLock, Timeout
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed

from flows.ledger import crash_orphans
from summidx.store.disk_files import write_json

DEATH = "died-in-process"
"""Beside the records: the flow run that died while it built in its own process, until one has ended well since."""
RUNS = "runs"
"""Where the records lie under the log folder, which is a machine's own."""
KEPT_DAYS = 30
"""So long the record of a dead run is kept that this Prefect API does not know: it may be another API's."""
LOCK_WAIT_S = 10.0
"""A sweep that looks at the record of an earlier try holds its lock for moments."""
DIED = "the run's process ended without a word (killed, or cut off from this API); found by a later run"

logger = logging.getLogger(__name__)

_announced: dict[UUID, tuple[Path, FileLock]] = {}
"""The records of this process, and the locks that it holds."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One try of a flow run, and the machine that it is on."""

    flow_run_id: str
    run_count: int
    """Which try of the flow run: a Retry counts on."""
    host: str
    boot_id: str
    """Changes with each start of the machine, and is the same in all of its containers; "" where that is not known."""
    in_process: bool = False
    """It builds in its own process: what kills that may be one of its repositories."""

    @classmethod
    def of_this_process(cls, flow_run: FlowRun, *, in_process: bool) -> "RunRecord":
        """The record of a flow run of this process."""
        return cls(str(flow_run.id), flow_run.run_count, _host(), _boot_id(), in_process)

    def is_of_this_machine(self) -> bool:
        """True where the lock beside it is one of this machine's, so that a free one means: dead."""
        return self.host == _host() or (self.boot_id != "" and self.boot_id == _boot_id())


def announce(log_dir: str, flow_run: FlowRun, *, in_process: bool) -> None:
    """Keep a record that this flow run lives, until it is withdrawn or its process ends.

    A disk that refuses it costs the record, never the run.

    Args:
        log_dir: where the record goes.
        flow_run: of this process.
        in_process: it builds in this process.
    """
    record = Path(log_dir) / RUNS / f"{flow_run.id}.json"
    lock = _lock_of(record)
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=LOCK_WAIT_S)
        write_json(record, asdict(RunRecord.of_this_process(flow_run, in_process=in_process)))
    except (OSError, Timeout) as error:
        logger.warning("no record of this run could be kept (%s): should it be killed, no later run will notice", error)
    else:
        _announced[flow_run.id] = (record, lock)


def withdraw(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 - Prefect's names
    """Hook for a flow run of which the API knows how it ended: its record is not needed any more."""
    record, lock = _announced.pop(flow_run.id, (None, None))
    if record is None or lock is None:
        return
    with suppress(OSError):
        record.unlink(missing_ok=True)
        Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def sweep(log_dir: str) -> int:
    """Set to Crashed what dead runs left in the API: the flow runs of this machine, and task runs of any ended run.

    Returns:
        How many states were set. A fault of the API costs the sweep, never the run.
    """
    try:
        with get_client(sync_client=True) as client:
            buried = sum(_bury(client, record) for record in sorted((Path(log_dir) / RUNS).glob("*.json")))
            return buried + crash_orphans(client)
    except Exception as error:  # of the API, or its client
        logger.warning("what dead runs left could not be swept (%s: %s)", type(error).__name__, error)
        return 0


def find_death(log_dir: str) -> str:
    """The id of a run that died while it built in its own process, if none has ended well since; else "".

    What it died of may be a repository: each run that builds it in the same way would die as well, and be no wiser.
    """
    with suppress(OSError):
        return (Path(log_dir) / RUNS / DEATH).read_text(encoding="utf-8").strip()
    return ""


def forget_death(log_dir: str) -> None:
    """What a run died of is gone: a run has ended since, and no repository killed its process."""
    with suppress(OSError):
        (Path(log_dir) / RUNS / DEATH).unlink(missing_ok=True)


def _bury(client: SyncPrefectClient, path: Path) -> int:
    """Set the flow run of a record to Crashed where its process is dead; how many states were set."""
    try:
        with _lock_of(path):
            record = RunRecord(**json.loads(path.read_text(encoding="utf-8")))
            if not record.is_of_this_machine():
                return 0
            flow_run = client.read_flow_run(UUID(record.flow_run_id))
            state = _last_state(flow_run) if flow_run.run_count == record.run_count else None
            if state is not None:
                client.set_flow_run_state(flow_run.id, state, force=True)
            if record.in_process and record.boot_id == _boot_id():  # else the machine died, not the process
                path.with_name(DEATH).write_text(record.flow_run_id, encoding="utf-8")
            path.unlink()
            return int(state is not None)
    except Timeout:  # it lives
        return 0
    except ObjectNotFound:
        if path.stat().st_mtime < time.time() - KEPT_DAYS * 86_400:
            path.unlink(missing_ok=True)
    except (OSError, ValueError, TypeError) as error:
        logger.warning("%s cannot be read, and is deleted (%s)", path, error)
        path.unlink(missing_ok=True)
    return 0


def _last_state(flow_run: FlowRun) -> State[Any] | None:
    """What a dead process could not say of its flow run; None where it had, or a new process is about to take over."""
    if flow_run.state_type is StateType.RUNNING:
        return Crashed(message=DIED)
    return Cancelled(message=DIED) if flow_run.state_type is StateType.CANCELLING else None


def _lock_of(record: Path) -> FileLock:
    return FileLock(record.with_suffix(".lock"), blocking=False, thread_local=False, fallback_to_soft=False)


def _host() -> str:
    with suppress(OSError):
        return f"{socket.gethostname()} {Path('/etc/machine-id').read_text(encoding='ascii').strip()}"
    return socket.gethostname()


def _boot_id() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""
