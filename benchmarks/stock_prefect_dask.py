"""The peer of `orchestration`: the same task runs on prefect-dask as it comes, over pins that were found out before.

    python -m benchmarks.stock_prefect_dask PLAN.json

A task of the same inputs and the same cache policy, mapped over the repositories of a plan by a flow on a
DaskTaskRunner of two worker processes. Prefect's cache holds every result, so that no task runs its body.
"""

import json
import sys
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import INPUTS
from prefect_dask.task_runners import DaskTaskRunner

WORKERS = 2


@task(task_run_name="{name}", cache_policy=INPUTS, persist_result=True, result_serializer="json")
def summarize_and_embed_repo(name: str, source: str, commit: str, build_key: str, generation: str) -> Any:  # noqa: ANN401, ARG001
    """Nothing to do: the result is there."""
    raise RuntimeError(f"{name} is not cached")


runner: Any = DaskTaskRunner(cluster_kwargs={"n_workers": WORKERS, "threads_per_worker": 1})


@flow(name="stock", task_runner=runner)
def stock(plan: str) -> str:
    """One task run for each repository of a plan."""
    pins = [each["pin"] for each in json.loads(Path(plan).read_text(encoding="utf-8"))["repos"]]
    columns: dict[str, Any] = {name: [pin[name] for pin in pins] for name in pins[0]}
    futures = summarize_and_embed_repo.map(**columns)
    return f"{len(futures.result())} repositories"


if __name__ == "__main__":
    print(json.dumps({"repositories": [], "message": stock(sys.argv[1])}))
