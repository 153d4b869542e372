"""The task `summarize_and_embed_repo`: one pinned repository from source to published index.

Its state says what came of it: Completed with what was built and what it cost, Cached where it was up to date, Failed
with the type of the error, the reason and what to do.
"""

from typing import Any

from prefect import Task, task
from prefect.cache_policies import INPUTS
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.states import Completed
from prefect.tasks import exponential_backoff
from pydantic import TypeAdapter

from flows.engines import WorkerLeft, run_engine_of
from flows.lost_device import leave_to_nanny
from flows.messages import describe_build
from summidx.errors import (
    CacheError,
    DeviceLost,
    MachineFault,
    NewerIndex,
    Stopped,
    StorageUnavailable,
    StoreError,
    UnknownIndex,
    explain,
)
from summidx.records import BuildReport, PinnedRepo

REPORT = TypeAdapter(BuildReport)
"""A report as JSON, and back."""


def is_local_fault(_task: Task[Any, Any], _task_run: TaskRun, state: State[Any]) -> bool:
    """True where trying again may help: a fault of disk or database.

    Faults of an LLM and of object storage are the business of their clients, which have tried again.
    """
    error = state.result(raise_on_failure=False)
    return isinstance(error, MachineFault | CacheError | StoreError) and not isinstance(
        error, UnknownIndex | NewerIndex | StorageUnavailable
    )


@task(
    name="summarize_and_embed_repo",
    description="One repository: read, parsed, summarised, embedded, and published as one index.",
    task_run_name="{name}",
    # The key is the pin and nothing else. `generation` is that of the published index only where that verifies, so an
    # index that was deleted, failed or changed since is built, whatever Prefect remembers.
    cache_policy=INPUTS,
    persist_result=True,
    result_serializer="json",
    retries=3,
    retry_delay_seconds=exponential_backoff(backoff_factor=2),
    retry_jitter_factor=0.5,  # what one disk or database refused to many does not come back in one moment
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
        The build report, as JSON, in a state whose message sums it up.

    Raises:
        SummidxError: it failed; the text ends with what to do.
    """
    from summidx.pipeline import index_repo

    context = TaskRunContext.get()
    run_id = str(context.task_run.flow_run_id) if context else ""
    pinned = PinnedRepo(name=name, source=source, commit=commit, build_key=build_key, generation=generation)
    run_engine = run_engine_of(run_id)
    expected = run_engine.run.expected_publish_ids.get(name)
    try:
        report = index_repo(pinned, run_engine.get(), expected_publish_id=expected)
    except Exception as error:
        if isinstance(error, Stopped) and run_engine.has_left:
            # The run may have said by now that this try was lost: no other end may come after that.
            raise WorkerLeft(str(error)) from None
        if isinstance(error, DeviceLost):
            leave_to_nanny(error)
        if (told := explain(error)) is error:
            raise
        raise told from error
    # Prefect itself says Cached only as long as it remembers the build; what is up to date is that without it, too.
    name_of_state = "Cached" if generation in run_engine.run.up_to_date else "Completed"
    return Completed(name=name_of_state, message=describe_build(report), data=REPORT.dump_python(report, mode="json"))
