"""Keeps what Prefect's API says of a run's task runs true: their states are the list of what failed."""

import time
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from uuid import UUID

from prefect import Flow, Task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowRunFilter,
    TaskRunFilter,
    TaskRunFilterId,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, State, StateType, TaskRun
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Cancelled, Crashed

FLOW = "summary-index"
"""Name of our flow."""
PAGE = 200
"""The API returns no more at once."""
ASKED_AT_ONCE = 5000
"""Ids in one question: a database has some 32,000 variables in a statement."""
RECORDED_WITHIN_S = 10.0
"""States travel as events, and the server writes them in batches. One that wrote nothing for so long lost the rest."""
FIRST_LOOK_S, LAST_LOOK_S = 0.2, 1.0
"""Between two looks at whether all is written: they are work for the server, too."""
COUNTED_EVERY_S = 5.0
"""How much is written takes a dozen questions."""


def settle(flow_run_id: UUID, task: Task[Any, Any], ended: Mapping[UUID, tuple[str, State[Any]]]) -> None:
    """Wait until the API shows a final state for every task run, and set those that it missed.

    An event can be lost: with a worker that closed right after it, with a server that lives for one run only, or while
    the API was away. A task run that it does not know at all is made. One that was lost with its worker did not fail,
    though that worker may have said so later, when it was back. A server that is behind is waited for as long as it
    goes on writing: 2,000 task runs take it 14 s and more.

    Args:
        flow_run_id: of the run.
        task: of which they are runs.
        ended: name and final state of each task run.
    """
    with get_client(sync_client=True) as client:
        doubtful = {each: end for each, end in ended.items() if end[1].is_crashed()}
        if not _wait_until_recorded(client, list(ended)):
            doubtful = dict(ended)
        runs = {run.id: run for run in _read_runs(client, doubtful)}
        for task_run_id, (name, state) in doubtful.items():
            run = runs.get(task_run_id)
            told = run.state if run is not None else None
            if told is not None and told.is_final() and not (state.is_crashed() and told.is_failed()):
                continue
            if run is None:
                _create(client, flow_run_id, task, task_run_id, name)
            force_state(client, task_run_id, state)


def _wait_until_recorded(client: SyncPrefectClient, ids: Sequence[UUID]) -> bool:
    """False where the API has stopped writing before all of these task runs were in a final state."""
    parts = [ids[start : start + ASKED_AT_ONCE] for start in range(0, len(ids), ASKED_AT_ONCE)]
    before, wait_s = 0, FIRST_LOOK_S
    counted_at = time.monotonic()
    deadline = counted_at + RECORDED_WITHIN_S
    while not all(_has_recorded(client, part, len(part)) for part in parts):
        now = time.monotonic()
        if now - counted_at >= COUNTED_EVERY_S:
            counted_at = now
            recorded = sum(_count_recorded(client, part) for part in parts)
            if recorded > before:
                before, deadline = recorded, now + RECORDED_WITHIN_S
        if now > deadline:
            return False
        time.sleep(wait_s)
        wait_s = min(1.5 * wait_s, LAST_LOOK_S)
    return True


def _has_recorded(client: SyncPrefectClient, ids: Sequence[UUID], n: int) -> bool:
    """Whether at least `n` of these task runs are in a final state: the `n`th is asked for, and no other."""
    final = TaskRunFilter(id=TaskRunFilterId(any_=list(ids)), state={"type": {"any_": sorted(TERMINAL_STATES)}})
    return bool(client.read_task_runs(task_run_filter=final, limit=1, offset=n - 1))


def _count_recorded(client: SyncPrefectClient, ids: Sequence[UUID]) -> int:
    """How many of these task runs are in a final state; Prefect's client has no count, so by halving."""
    if _has_recorded(client, ids, len(ids)):
        return len(ids)
    return bisect_left(range(1, len(ids) + 1), True, key=lambda n: not _has_recorded(client, ids, n))


def force_state(client: SyncPrefectClient, task_run_id: UUID, state: State[Any]) -> None:
    """Set a task run's state, whatever it was. One whose worker died before it began has no record, and gets none."""
    try:
        client.set_task_run_state(task_run_id, state, force=True)
    except PrefectHTTPStatusError as error:
        if error.response.status_code != HTTPStatus.NOT_FOUND:
            raise


def record_loss(task_run_id: UUID, reason: str) -> State[Any] | None:
    """Set a task run that Dask lost to Crashed, unless it had come to its end: the state that it is in by then.

    None where there is no record of it: it was never begun, or that is not written yet (`settle` looks again).
    """
    with get_client(sync_client=True) as client:
        known = next(_read_runs(client, [task_run_id]), None)
        if known is None:
            return None
        if known.state is not None and known.state.is_final():
            return known.state
        crashed: State[Any] = Crashed(message=reason)
        force_state(client, task_run_id, crashed)
        return crashed


def record_lost_try(flow_run_id: UUID, task: Task[Any, Any], task_run_id: UUID, name: str, reason: str) -> None:
    """Set a try to Crashed that is about to be made again, even if the API has never heard of it.

    A worker that is killed takes along what it had not sent yet. A record that is made at the end of the run would be
    later than that of the next try, and how a repository ended is what its last task run says.
    """
    if record_loss(task_run_id, reason) is None:
        with get_client(sync_client=True) as client:
            _create(client, flow_run_id, task, task_run_id, name)
            force_state(client, task_run_id, Crashed(message=reason))


def crash_unfinished(flow: Flow[Any, Any], flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 - Prefect's names
    """Hook for a flow run that crashed, raised or was cancelled: its task runs that still say Running ended with it."""
    ended: State[Any] = Crashed(message="its flow run ended before it did")
    with get_client(sync_client=True) as client:
        now = client.read_flow_run(flow_run.id).state or state
        if now.is_cancelling() or now.is_cancelled():  # of which the run itself says that it crashed
            ended = Cancelled(message="its flow run was cancelled")
        _end(client, ended, flow_run_filter=FlowRunFilter(id={"any_": [flow_run.id]}))


def crash_run(flow_run_id: UUID, reason: str) -> None:
    """Set to Crashed a flow run that cannot end by itself, and its task runs that have not ended."""
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(flow_run_id).state
        if state is None or not state.is_final():
            client.set_flow_run_state(flow_run_id, Crashed(message=reason), force=True)
        _end(client, Crashed(message=reason), flow_run_filter=FlowRunFilter(id={"any_": [flow_run_id]}))


def crash_orphans(client: SyncPrefectClient) -> int:
    """Set to Crashed the task runs of our flow that are unfinished though their flow run has ended; how many."""
    ended = FlowRunFilter(state={"type": {"any_": sorted(TERMINAL_STATES)}})
    return _end(
        client,
        Crashed(message="its flow run had ended, and it had not said how it did; found by a later run"),
        flow_filter=FlowFilter(name={"any_": [FLOW]}),
        flow_run_filter=ended,
    )


def _end(client: SyncPrefectClient, state: State[Any], **filters: Any) -> int:  # noqa: ANN401 - those of `read_task_runs`
    """Set those task runs to a state that have no final one yet; how many."""
    unfinished = TaskRunFilter(state={"type": {"any_": [each for each in StateType if each not in TERMINAL_STATES]}})
    seen: set[UUID] = set()
    while True:
        runs = client.read_task_runs(task_run_filter=unfinished, limit=PAGE, **filters)
        for run in runs:
            force_state(client, run.id, state)
        new = {run.id for run in runs} - seen
        seen |= new
        if len(runs) < PAGE or not new:
            return len(seen)


def _create(client: SyncPrefectClient, flow_run_id: UUID, task: Task[Any, Any], task_run_id: UUID, name: str) -> None:
    try:
        client.create_task_run(task, flow_run_id, str(task_run_id), id=task_run_id, name=name)
    except PrefectHTTPStatusError as error:
        if error.response.status_code != HTTPStatus.CONFLICT:  # the record has been written in this moment
            raise


def _read_runs(client: SyncPrefectClient, ids: Collection[UUID]) -> Iterator[TaskRun]:
    wanted = list(ids)
    for start in range(0, len(wanted), PAGE):
        part = TaskRunFilter(id=TaskRunFilterId(any_=wanted[start : start + PAGE]))
        yield from client.read_task_runs(task_run_filter=part, limit=PAGE)
