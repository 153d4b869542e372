"""Runs the task of each repository of a plan, and follows it to its end."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture

from flows.engines import Run, close_run, open_run, stop_run
from flows.events import IndexEvents
from flows.known import KnownFailures, known_result
from flows.ledger import settle
from flows.outcomes import reason_to_stop, result_of
from flows.progress import RepoResult, journal_entry, tell_result
from flows.results import keep_results_private
from flows.runner import IndexTaskRunner
from flows.tasks import summarize_and_embed_repo
from summidx.errors import Stopped
from summidx.journal import Journal
from summidx.plan import Plan, PlannedRepo
from summidx.settings import Settings

INTERRUPTED = "the run was interrupted"
TELL_STOP_S, COLLECT_S = 1.0, 2.0
"""So long at most an interrupted run tells its workers to stop, and waits for what they had cost."""


def build_repositories(
    plan: Plan, settings: Settings, run_id: str, runner: IndexTaskRunner, journal: Journal, *, apart: bool = False
) -> list[RepoResult]:
    """Build what is not up to date, all of the plan as tasks but what is known to fail; how each repository ended.

    Args:
        plan: of the run.
        settings: of the run.
        run_id: of the flow run.
        runner: of the flow run.
        journal: gets a line of accounting for each, those included that an interrupted run leaves.
        apart: build nothing in this process.
    """
    keep_results_private()
    run = Run.of(run_id, settings, plan)
    open_run(run)
    in_lane = [planned.pin.generation for planned in plan.repos if not planned.needs_worker]
    runner.prepare(run, in_lane, apart=apart)
    results: list[RepoResult] = []
    failures, events = KnownFailures(settings), IndexEvents(settings)
    ended = 0
    futures: dict[PrefectFuture[Any], PlannedRepo] = {}
    left: dict[PrefectFuture[Any], PlannedRepo] = {}
    try:
        for planned in plan.repos:
            if planned.known is not None:  # no task run: nothing is tried
                results.append(known_result(planned))
                journal.add(journal_entry(planned, results[-1]))
                continue
            pin = planned.pin
            future = summarize_and_embed_repo.submit(
                name=pin.name,
                source=pin.source,
                commit=pin.commit,
                build_key=pin.build_key,
                generation=pin.generation,
            )
            futures[future] = left[future] = planned
        ended_runs: dict[UUID, tuple[str, State[Any]]] = {}
        for each in runner.drain(futures):
            planned = left.pop(each.future)
            result = failures.note(planned, result_of(planned, each.state, settings, each.lost_tries), each.state)
            results.append(result)
            events.ended(planned, result)
            journal.add(journal_entry(planned, result))
            ended_runs |= {run: (planned.pin.name, state) for run, state in each.task_runs.items()}
            if reason := reason_to_stop(each.state):
                runner.stop_all(reason)
            if not planned.up_to_date:
                ended += 1
                tell_result(result, ended, len(plan.to_build))
        if runner.wait_for_api():
            settle(UUID(run_id), summarize_and_embed_repo, ended_runs)
    except BaseException:
        stop_run(run_id, INTERRUPTED)
        with suppress(Exception):  # it is told what ended the run, not what was lost of its accounting
            _account_for_stopped(left, runner, journal, settings)
        raise
    finally:
        close_run(run_id)
    return results


def _account_for_stopped(
    left: Mapping[PrefectFuture[Any], PlannedRepo], runner: IndexTaskRunner, journal: Journal, settings: Settings
) -> None:
    """Write the lines of the repositories that had not ended when the run was interrupted, with what they cost."""
    to_build = {future: planned for future, planned in left.items() if not planned.up_to_date}
    if not to_build:
        return
    runner.stop_all(INTERRUPTED, within_s=TELL_STOP_S)
    for future, state in runner.collect(list(to_build), COLLECT_S):
        planned = to_build.pop(future)
        result = result_of(planned, state, settings)
        if result.ending == "failed" and isinstance(state.result(raise_on_failure=False), Stopped):
            result = replace(result, ending="stopped")
        journal.add(journal_entry(planned, result))
    for planned in to_build.values():
        reason = f"{INTERRUPTED} before this had ended; what it cost is not known"
        journal.add(journal_entry(planned, RepoResult(planned.pin.name, "stopped", planned.why, reason=reason)))
