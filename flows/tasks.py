"""The task `summarize_and_embed_repo`: one pinned repository from source to published index."""

from typing import Any

from prefect import Task, task
from prefect.cache_policies import INPUTS
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from pydantic import TypeAdapter

from flows.engines import WorkerLeft, run_engine_of
from flows.lost_device import leave_to_nanny
from summidx.errors import CacheError, DeviceLost, NewerIndex, Stopped, StoreError, UnknownIndex
from summidx.records import BuildReport, PinnedRepo

REPORT = TypeAdapter(BuildReport)
"""A report as JSON, and back."""


def is_local_fault(_task: Task[Any, Any], _task_run: TaskRun, state: State[Any]) -> bool:
    """True where trying again may help: a fault of disk or database. An LLM's faults are its client's business."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, OSError | CacheError | StoreError) and not isinstance(error, UnknownIndex | NewerIndex)


@task(
    name="summarize_and_embed_repo",
    task_run_name="{name}",
    # The key is the pin and nothing else. `generation` is that of the published index only where that verifies, so an
    # index that was deleted, failed or changed since is built, whatever Prefect remembers.
    cache_policy=INPUTS,
    persist_result=True,
    result_serializer="json",
    retries=2,
    retry_delay_seconds=[2, 10],
    retry_condition_fn=is_local_fault,
)
def summarize_and_embed_repo(name: str, source: str, commit: str, build_key: str, generation: str) -> Any:  # noqa: ANN401
    """Summarise and embed one repository, and publish its index.

    Args:
        name: Name of the repository, and of its index.
        source: Path of the repository.
        commit: Commit to read, as a full hex id; "" for a plain folder; the revision as given where it was not found.
        build_key: Key of content and settings.
        generation: Id of the generation to write.

    Returns:
        The build report, as JSON.
    """
    from summidx.pipeline import index_repo

    context = TaskRunContext.get()
    run_id = str(context.task_run.flow_run_id) if context else ""
    pinned = PinnedRepo(name=name, source=source, commit=commit, build_key=build_key, generation=generation)
    run_engine = run_engine_of(run_id)
    expected = run_engine.run.expected_publish_ids.get(name)
    try:
        report = index_repo(pinned, run_engine.get(), expected_publish_id=expected)
    except Stopped as error:
        if run_engine.has_left:  # the run may have said by now that this try was lost: no other end may come after that
            raise WorkerLeft(str(error)) from None
        raise
    except DeviceLost as error:
        leave_to_nanny(error)
        raise
    return REPORT.dump_python(report, mode="json")
