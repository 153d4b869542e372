"""What becomes of a repository that Dask lost.

A worker that is killed takes all repositories with it that it had in flight, and one of them may be what killed it.
They are suspects: when the rest is done they run again, one at a time with nothing else in flight. One that kills again
is condemned, and costs two workers in all. What was lost in another way (the scheduler is gone) is not tried again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from distributed import KilledWorker
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Crashed, Failed

from flows.ledger import record_loss
from summidx.errors import NotAttempted

SUSPECT = "the worker process that had it was killed; it is run again, alone, when the rest is done"
CONDEMNED = (
    "the worker process that had it was killed, and again when it ran alone (a fault in native code, or out of memory)"
)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a repository ended in this run."""

    future: PrefectFuture[Any]
    """As it was submitted, whichever try it was that ended."""
    state: State[Any]
    task_runs: Mapping[UUID, State[Any]] = field(default_factory=dict)
    """The task run of each try, and its final state."""
    lost_tries: int = 0
    """Tries whose worker was killed: what they cost is not known."""


def was_killed(dask_future: Any) -> bool:  # noqa: ANN401 - no types
    """True where the worker was killed while it had the repository in flight."""
    return dask_future.status == "error" and isinstance(dask_future.exception(), KilledWorker)


def is_cut_off(dask_future: Any) -> bool:  # noqa: ANN401
    """True where the scheduler or the run gave it up: the connection was lost, and with it all that was submitted."""
    return bool(dask_future.status == "cancelled")


def state_of_lost(future: PrefectFuture[Any], dask_future: Any, lost: str) -> State[Any]:  # noqa: ANN401
    """The state of a repository that was lost, and not with a killed worker; its task run is in it now, too.

    Args:
        future: of the task run.
        dask_future: which it wraps.
        lost: what the run has lost, as the beginning of a sentence.
    """
    cut_off = is_cut_off(dask_future)
    if cut_off:
        reason = f"{lost} while it was being built"
    else:
        reason = f"it was lost by Dask ({dask_future.status}: {dask_future.exception()})"
    if record_loss(future.task_run_id, reason) is None and cut_off:
        return Failed(message=f"not attempted: {lost}", data=NotAttempted(f"not attempted: {lost}"))
    return Crashed(message=reason)
