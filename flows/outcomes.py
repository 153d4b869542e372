"""Pure but for CURRENT: how a repository ended, read from the final state of its task run."""

import logging
from dataclasses import replace
from typing import Any

from prefect.client.schemas.objects import State

from flows.progress import Ending, RepoResult, ending_of
from flows.tasks import REPORT
from summidx.accounting import find_cost
from summidx.errors import NotAttempted, Outage, Stopped, StorageUnavailable, SummidxError, Unauthorised, UnknownModel
from summidx.escaping import escape_text
from summidx.plan import PlannedRepo
from summidx.records import BuildReport, Outcome, Usage
from summidx.settings import Settings
from summidx.store.generations import IndexRoot

CRASHED_ADVICE = "give its worker more memory, or take the repository out; then retry the run"

logger = logging.getLogger(__name__)


def reason_to_stop(state: State[Any]) -> str:
    """Why no repository can be built any more, where one ended so; else ""."""
    if state.is_completed():
        return ""
    error = state.result(raise_on_failure=False)
    if isinstance(error, Unauthorised | UnknownModel | Outage):
        return error.reason
    if isinstance(error, Stopped) and not isinstance(error, NotAttempted):
        return error.reason.removeprefix("stopped: ")
    return ""


def result_of(planned: PlannedRepo, state: State[Any], settings: Settings, lost_tries: int = 0) -> RepoResult:
    """How a repository ended.

    Args:
        planned: what was to be done.
        state: the final state of its last task run.
        settings: of the run.
        lost_tries: tries whose worker was killed.
    """
    name, why = planned.pin.name, planned.why
    report = REPORT.validate_python(state.result()) if state.is_completed() else None
    if planned.up_to_date and report is not None:  # a cached report is of the run that built it: this one cost nothing
        report = replace(report, outcome=Outcome.UP_TO_DATE, usage=Usage(durations_s={}))
    elif state.is_crashed() or (report is not None and report.outcome is Outcome.UP_TO_DATE):
        published = _find_published(planned, settings)
        report, lost_tries = (published, 0) if published else (report, lost_tries)
    if report is not None:
        return RepoResult(name, ending_of(report.outcome), why, report, lost_tries=lost_tries)
    error = state.result(raise_on_failure=False)
    ending: Ending = "crashed" if state.is_crashed() else "failed"
    if isinstance(error, NotAttempted):
        ending = "not_attempted"
    kind, advice = type(error).__name__, ""
    if isinstance(error, SummidxError):
        reason, advice = error.reason, error.advice
    elif state.is_crashed():  # then the error only wraps its message
        reason, kind, advice = str(error), "", CRASHED_ADVICE
    else:
        reason = str(error)
    return RepoResult(
        name,
        ending,
        why,
        reason=escape_text(reason),
        error=kind,
        advice=advice,
        cost=find_cost(error),
        lost_tries=lost_tries,
    )


def _find_published(planned: PlannedRepo, settings: Settings) -> BuildReport | None:
    """What this run published of a repository before the try that did so was lost: CURRENT is the only truth."""
    from summidx.pipeline import report_up_to_date

    try:
        manifest = IndexRoot(settings.index_root).find_manifest(planned.pin.name)
    except StorageUnavailable as error:
        logger.warning("%s", error)
        return None
    if manifest is None or manifest.generation != planned.pin.generation:
        return None
    return replace(report_up_to_date(manifest), outcome=Outcome.BUILT, usage=manifest.usage)
