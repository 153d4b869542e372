"""What a run does with repositories that are known to fail: it lists them, and takes note of new ones and of old."""

from dataclasses import replace
from typing import Any

from prefect.client.schemas.objects import State

from flows.progress import RepoResult
from summidx.known_failures import FailureNotes
from summidx.plan import PlannedRepo
from summidx.settings import Settings


def known_result(planned: PlannedRepo) -> RepoResult:
    """The result of a repository that is not tried.

    It has no task run: one that is Completed or Cached would say that there is an index, one that is Failed that it was
    tried, and both would stand in Prefect's counts. What a person reads are the run's message, its report and its plan.
    """
    since = planned.known.first_failed_at if planned.known else ""
    reason = planned.why.removeprefix("known failure ")
    return RepoResult(planned.pin.name, "known_failure", planned.why, reason=reason, known_since=since)


class KnownFailures:
    """Takes note of how each repository ended."""

    def __init__(self, settings: Settings) -> None:
        self._notes = FailureNotes(settings)

    def note(self, planned: PlannedRepo, result: RepoResult, state: State[Any]) -> RepoResult:
        """The result, with since when its failure is known, where it is."""
        if result.report is not None:
            self._notes.succeeded(planned.pin.name)
            return result
        if result.ending != "failed":
            return result
        before = self._notes.failed(planned.pin, state.result(raise_on_failure=False))
        return replace(result, known_since=before.first_failed_at) if before else result
