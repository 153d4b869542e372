"""The flow `summary-index`, and the command `python flows/build.py` (its options: flows/command.py).

    plan (pin every repository) -> summarize_and_embed_repo for each -> Completed, or Failed with the names that failed

Three ways to start it: the command, a deployment (prefect.yaml), and `from flows.build import summary_index`.
"""

if __name__ == "__main__":  # before all else: what Prefect and Dask pickle must not be defined in `__main__`
    from flows.command import main

    main()

import logging
import time
from collections.abc import Sequence
from contextvars import copy_context
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.runtime import flow_run as this_flow_run
from prefect.states import Completed, Failed
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, TypeAdapter

from flows.artifacts import live_artifacts, publish_report
from flows.cluster import is_in_process
from flows.fleet import refresh_after
from flows.ledger import FLOW, crash_run, crash_unfinished
from flows.logs import log_file
from flows.prefect_server import expect_no_api, prefect_api, served_flow, ui_page
from flows.preflight import check_cluster
from flows.progress import (
    RepoResult,
    RunReport,
    build_report,
    following,
    journal_context,
    tell_plan,
    tell_report,
    tell_warning,
)
from flows.report import write_run_report
from flows.repositories import INTERRUPTED, build_repositories
from flows.results import results_folder
from flows.resume import LastRun, find_resumed, plan_resumed
from flows.runner import IndexTaskRunner
from flows.signals import take_signals, undisguised
from flows.sweep import announce, find_death, forget_death, sweep, withdraw
from summidx.errors import StoreError
from summidx.escaping import escape_line
from summidx.journal import Journal
from summidx.plan import Plan, check_rebuild, load_plan, make_plan, make_retry_plan, write_plan
from summidx.prediction import PredictionCheck, check_prediction, load_prediction, write_check
from summidx.records import Level, TestsPolicy
from summidx.request import BuildRequest
from summidx.retention import sweep_runs
from summidx.settings import CachePolicy, Provider, Settings, Stage
from summidx.space import check_space

DIED_IN_PROCESS = (
    "run {} died while it built in its own process, perhaps of a repository (a fault in native code, or out of "
    "memory): this run builds in a worker process, so that such a repository costs itself and not the run"
)

logger = logging.getLogger(__name__)

RUN_REPORT = TypeAdapter(RunReport)
"""The report of a run as JSON, and back."""


def run_name() -> str:
    """Name of a flow run: what is built, and when."""
    parameters = this_flow_run.parameters
    if parameters.get("resume_failed"):
        return f"resume {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    repos = parameters.get("repos") or []
    source = parameters.get("repos_root") or parameters.get("repos_file")
    what = Path(str(source or (repos[0] if repos else "all"))).name
    more = f" and {len(repos) - 1} more" if not source and len(repos) > 1 else ""
    return f"{escape_line(what)}{more} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"


@served_flow(
    name=FLOW,
    flow_run_name=run_name,
    task_runner=IndexTaskRunner(),
    on_completion=[withdraw],
    on_failure=[crash_unfinished, withdraw],
    on_crashed=[crash_unfinished, withdraw],
    on_cancellation=[crash_unfinished, withdraw],
)
def summary_index(  # noqa: PLR0913 - the fields of the form
    *,
    repos: Annotated[tuple[str, ...], Field(max_length=1000)] = (),
    repos_root: str = "",
    repos_file: str = "",
    index_root: str = "",
    resume_failed: bool = False,
    limit: PositiveInt | None = None,
    skip_existing: bool | None = None,
    retry_degraded: bool | None = None,
    retry_known: bool | None = None,
    confirm_rebuild: bool | None = None,
    levels: list[Level] | None = None,
    tests: TestsPolicy | None = None,
    stage: Stage | None = None,
    summary_language: Annotated[str, Field(max_length=40)] = "",
    prompt_file: str = "",
    llm_provider: Provider | None = None,
    llm_base_url: Annotated[str, Field(pattern="^(https?://.+)?$")] = "",
    llm_model: str = "",
    llm_concurrency: PositiveInt | None = None,
    llm_timeout: PositiveFloat | None = None,
    max_retries: Annotated[int, Field(ge=0, le=100)] | None = None,
    cache_policy: CachePolicy | None = None,
    embedding_model: str = "",
    gpu_ids: list[NonNegativeInt] | None = None,
    force_cpu: bool | None = None,
    num_processes: Annotated[int, Field(ge=1, le=1024)] | None = None,
    threads_per_worker: Annotated[int, Field(ge=1, le=256)] | None = None,
    scheduler_address: str = "",
    stop_after: str = "",
    repo_timeout: str = "",
) -> State[Any]:
    """Build a summary index of each repository: name repositories, and leave all else empty.

    An empty field is the worker's own setting.

    Args:
        repos: WHAT is built: repositories, each as PATH, PATH@REVISION or NAME=PATH@REVISION, on the worker's machine.
            All empty: the worker's `repos_root`.
        repos_root: A folder instead: each of its sub-folders that is a repository.
        repos_file: Or a file of repositories, one a line.
        index_root: Where the indexes lie: a folder, or s3://BUCKET/PREFIX that the worker allows. Empty: the worker's.
        resume_failed: Only what the last run under the index root did not finish, at its commits, with its parameters.
        limit: Only the first so many of the plan, the largest repositories: a canary before all are built.
        skip_existing: Leave alone what is verified to be up to date (usual: true).
        retry_degraded: Ask again for documents that the model had answered unusably.
        retry_known: Try at once what is known to fail; else it is tried again after 7 days.
        confirm_rebuild: Go on where most indexes are rebuilt only because a setting or a version changed.
        levels: HOW it is summarised: levels that are summarised and published (usual: all).
        tests: Test code: one summary per file (usual), as any other code (full), or left out (skip).
        stage: How far to go: publish (both, usual), or only fill the cache (summaries).
        summary_language: Language of the summaries, such as English or German.
        prompt_file: TOML file of your own instructions for each level.
        llm_provider: LLM that writes the summaries: an OpenAI-compatible server (openai), vLLM in the worker (vllm), or
            none (extractive).
        llm_base_url: Its URL, http://HOST:PORT/v1; one that the worker's own settings allow.
        llm_model: Name under which it serves the model.
        llm_concurrency: Calls in flight, all workers together (usual: 256).
        llm_timeout: Total time for one call, in seconds (usual: 300).
        max_retries: How often a call is tried again after a fault of transport (usual: 3).
        cache_policy: Whether summaries and vectors that are known are used, and new ones kept (usual: read-write).
        embedding_model: EMBEDDING: a sentence-transformers model, id or folder.
        gpu_ids: GPUs that embed, one worker process each, as nvidia-smi numbers them.
        force_cpu: Embed on the CPU even where there is a GPU.
        num_processes: WORKERS: processes; 1 runs in the flow's own. With GPUs: one for each, unless fewer.
        threads_per_worker: Repositories in flight per process, and so per GPU (usual: 2).
        scheduler_address: Address of a Dask scheduler that runs already; one that the worker's own settings allow.
        stop_after: TIME: begin no repository after so long, such as 6h or 30m; what is in flight is finished.
        repo_timeout: Give a repository up that takes longer than this, such as 2h or 30m.
    """
    asked_for = BuildRequest.from_parameters(locals())
    started = time.monotonic()
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or not isinstance(context.task_runner, IndexTaskRunner):
        raise RuntimeError("summary_index runs as a flow on its own task runner: call it, do not call its function")
    run_id = str(context.flow_run.id)
    request, last = _resolve(asked_for, run_id)
    settings = request.settings(from_api=context.flow_run.deployment_id is not None)
    with (
        undisguised(),
        following() as live,
        prefect_api() as api_url,
        log_file(settings.log_dir, f"run-{run_id[:8]}") as log,
    ):
        in_process = is_in_process(settings.cluster)
        announce(settings.log_dir, context.flow_run, in_process=in_process)
        take_signals(partial(copy_context().run, crash_run, context.flow_run.id, INTERRUPTED))
        if swept := sweep(settings.log_dir):
            tell_warning(f"earlier runs had died without a word: {swept} of their states were set to Crashed")
        death = find_death(settings.log_dir) if in_process else ""
        if death:
            tell_warning(DIED_IN_PROCESS.format(death[:8]))
        for warning in [*request.warnings(), *check_cluster(settings)]:
            tell_warning(warning)
        live.phase("planning")
        plan = _plan_run(request, last, settings, run_id)
        live.planned(plan, settings, title=context.flow_run.name)
        tell_plan(plan, settings.index_root, page=ui_page(api_url, run_id))
        journal = Journal(log.with_suffix(".jsonl"), journal_context(run_id, settings, plan))
        try:
            with live_artifacts(live, wanted=bool(plan.to_build)):
                results = build_repositories(plan, settings, run_id, context.task_runner, journal, apart=bool(death))
        finally:
            journal.end(time.monotonic() - started, live.timeline())
        refresh_after(results, settings, begins=partial(live.phase, "bringing the fleet table up to date"))
        if death and not any(result.ending == "crashed" for result in results):
            forget_death(settings.log_dir)
    seconds = time.monotonic() - started
    report = build_report(
        flow_run_id=run_id,
        settings=settings,
        seconds=seconds,
        results=results,
        prediction=_check_prediction(plan, settings, results, seconds),
    )
    written = write_run_report(journal.path)
    tell_report(report, page=written.page if written else None)
    if not context.task_runner.wait_for_api():
        expect_no_api()
    elif written:
        publish_report(written.markdown)
    if report.failed or report.not_attempted:
        return Failed(message=report.message())
    return Completed(message=report.message(), data=RUN_REPORT.dump_python(report, mode="json"))


def _resolve(request: BuildRequest, run_id: str) -> tuple[BuildRequest, LastRun | None]:
    """What is asked for, and the run that it goes on with: the one it resumes, or in a Retry its own first try."""
    if own := load_plan(request.settings().index_root, run_id):
        return request.resuming(own.parameters), LastRun(run_id, own)
    if not request.resume_failed:
        return request, None
    last = find_resumed(request)
    return request.resuming(last.plan.parameters), last


def _plan_run(request: BuildRequest, last: LastRun | None, settings: Settings, run_id: str) -> Plan:
    """The plan of this flow run: a Retry, and a run that resumes another, stay with the commits of the first try."""
    if last is None:
        plan = make_plan(request.repos(settings), settings, limit=request.limit)
    elif last.run_id == run_id:
        plan = make_retry_plan(last.plan, settings)
    else:
        plan = plan_resumed(last, request, settings)
    check_rebuild(plan, settings)
    for warning in check_space(plan, settings):
        tell_warning(warning)
    write_plan(replace(plan, parameters=request.parameters), settings.index_root, run_id)
    sweep_runs(settings, results_folder())
    return plan


def _check_prediction(
    plan: Plan, settings: Settings, results: Sequence[RepoResult], seconds: float
) -> PredictionCheck | None:
    """How far off the last `summidx plan` was, where it was of repositories that this run built."""
    prediction = load_prediction(settings.index_root)
    if prediction is None:
        return None
    keys = {planned.pin.name: planned.pin.build_key for planned in plan.repos}
    built = [(each.name, keys[each.name], each.usage) for each in results if each.report and each.usage]
    check = check_prediction(prediction, built, seconds)
    if check is not None:
        try:
            write_check(check, settings.index_root)
        except StoreError as error:  # nothing but the next plan reads it
            logger.warning("%s", error)
    return check
