"""`--resume-failed`: what the last run of an index root planned and did not finish, at the commits that it had pinned.

What it planned is in its plan file. What it finished is what Prefect's API says of its task runs. Where the API does
not know the run (another server, records that were deleted), CURRENT of each repository says it, which is the truth
about what is published: only what a run without publishing (`--stage summaries`) finished is then not known, and done
again.
"""

import os
import shlex
import shutil
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter
from prefect.client.schemas.objects import TERMINAL_STATES, StateType
from prefect.client.schemas.sorting import TaskRunSort
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from flows.ledger import PAGE
from flows.prefect_server import STARTUP_TIMEOUT_S
from flows.progress import tell_warning
from summidx.errors import UsageError
from summidx.plan import Plan, find_last_run, load_plan, make_retry_plan
from summidx.request import PLACES, BuildRequest
from summidx.settings import Settings
from summidx.store.generations import IndexRoot

ENTRYPOINT = "flows.build.summary_index"
STARTUP_VARIABLE = "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"


@dataclass(frozen=True, slots=True)
class LastRun:
    """The run that is resumed."""

    run_id: str
    plan: Plan


def find_resumed(request: BuildRequest) -> LastRun:
    """The last run of the index root that the request names.

    Raises:
        UsageError: there is none.
        StoreError: its plan cannot be read.
    """
    index_root = request.settings().index_root
    run_id = find_last_run(index_root)
    plan = load_plan(index_root, run_id) if run_id else None
    if run_id is None or plan is None:
        raise UsageError(
            f"no run has left a plan under the index root {index_root}, so there is nothing to resume: name another "
            "index root, or leave out --resume-failed"
        )
    return LastRun(run_id, plan)


def plan_resumed(last: LastRun, request: BuildRequest, settings: Settings) -> Plan:
    """Plan what the last run did not finish; no repository where it finished all.

    Raises:
        UsageError: it still runs.
        UsageError, LLMError, EmbeddingError: as `make_plan`.
    """
    with get_client(sync_client=True) as client:
        done = _find_done(client, UUID(last.run_id))
    if done is None:
        tell_warning(
            f"Prefect's API does not know the last run ({last.run_id}): what is published tells what it finished"
        )
        done = _find_published(last.plan, settings)
    named = {ref.name for ref in request.repos(settings)} if request.names_repositories else None
    left = [
        planned
        for planned in last.plan.repos
        if planned.pin.name not in done
        and (named is None or planned.pin.name in named)
        and (planned.known is None or settings.retry_known)
    ]
    return make_retry_plan(replace(last.plan, repos=tuple(left)), settings)


def _find_done(client: SyncPrefectClient, run_id: UUID) -> Collection[str] | None:
    """Names of the repositories that a run finished; None where the API does not know the run.

    Raises:
        UsageError: it still runs.
    """
    try:
        flow_run = client.read_flow_run(run_id)
    except ObjectNotFound:
        return None
    if flow_run.state_type not in TERMINAL_STATES:
        state = flow_run.state_name or "not begun"
        raise UsageError(
            f"the last run ({run_id}) is {state}, so nothing of it can be resumed: wait for its end, or cancel it first"
        )
    completed = TaskRunFilter(state={"type": {"any_": [StateType.COMPLETED]}})
    done: set[str] = set()
    offset = 0
    while runs := client.read_task_runs(
        flow_run_filter=FlowRunFilter(id={"any_": [run_id]}),
        task_run_filter=completed,
        sort=TaskRunSort.ID_DESC,
        limit=PAGE,
        offset=offset,
    ):
        done |= {run.name for run in runs}
        offset += len(runs)
    return done


def _find_published(plan: Plan, settings: Settings) -> Collection[str]:
    """Names of the repositories of which CURRENT is what the plan had meant it to be."""
    root = IndexRoot(settings.index_root)
    found = ((planned, root.find_manifest(planned.pin.name)) for planned in plan.repos)
    return {planned.pin.name for planned, current in found if current and current.generation == planned.pin.generation}


def render_retries(run_id: str, index_root: str, parameters: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """The two commands that run again what failed in a run of the command, in lines.

    Args:
        run_id: of the flow run.
        index_root: absolute.
        parameters: of the run.
        environment: settings of the run that were options and are no parameters, as variables.
    """
    resume = [_command("python", sys.executable), os.path.relpath(sys.argv[0]), "--resume-failed"]
    resume += ["--index-root", index_root]
    for name in PLACES:
        if parameters.get(name):
            resume += [f"--{name.replace('_', '-')}", parameters[name]]
    prefect = [_command("prefect", str(Path(sys.executable).with_name("prefect")))]
    prefect += ["flow-run", "retry", run_id, "--entrypoint", ENTRYPOINT]
    settings = "".join(f"{name}={shlex.quote(value)} " for name, value in environment.items())
    # Where no API stays, Prefect starts one for its command, and gives it up after 20 s unless it is told to wait.
    patience = "" if PREFECT_API_URL.value() else f"{STARTUP_VARIABLE}={STARTUP_TIMEOUT_S:.0f} "
    return f"Retry:   {settings}{shlex.join(resume)}\nor:      {settings}{patience}{shlex.join(prefect)}"


def _command(name: str, path: str) -> str:
    """How this program is started in the shell of whoever reads it."""
    return name if shutil.which(name) == path else path
