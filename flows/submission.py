"""Sends the task of one repository to the Dask cluster, so that it waits with the scheduler and not with a worker."""

from typing import Any
from uuid import uuid4

from prefect import Task
from prefect.client.schemas.objects import RunInput
from prefect.context import serialize_context
from prefect.task_engine import run_task_sync
from prefect_dask.client import PrefectDaskClient
from prefect_dask.task_runners import PrefectDaskFuture


def submit_to_cluster(
    client: PrefectDaskClient,
    task: Task[Any, Any],
    parameters: dict[str, Any],
    dependencies: dict[str, set[RunInput]] | None = None,
) -> PrefectDaskFuture[Any]:
    """Submit a task as prefect-dask does, but for where it waits until a thread is free.

    Dask keeps with the scheduler only what it takes for the roots of a large graph; of what comes first it gives each
    worker twice as many tasks as it has threads. There the largest repositories would wait for each other while other
    workers idle, and a worker that is killed would take those along that it had not even begun.

    Args:
        client: of the cluster.
        task: a synchronous task.
        parameters: its arguments; none of them is a future.
        dependencies: task runs that they come from.
    """
    task_run_id = uuid4()
    inputs = dependencies or {}
    asset = {"task": task, "task_run_id": task_run_id, "task_inputs": inputs, "copy_to_child_ctx": True}
    future: Any = client.submit(  # type: ignore[no-untyped-call]
        run_task_sync,
        key=f"{task.name}-{task_run_id}",
        task=task,
        task_run_id=task_run_id,
        parameters=parameters,
        dependencies=inputs,
        context=serialize_context(asset_ctx_kwargs=asset),
        return_type="state",
        _data_producer=True,  # Dask's own mark of a root
    )
    return PrefectDaskFuture(wrapped_future=future, task_run_id=task_run_id)
