"""Prefect events of indexes, for automations and whoever else follows them: one was published, or could not be built.

    summidx.index.published    resource summidx.index.NAME    payload: commit, generation, documents, cost, ...
    summidx.index.failed       resource summidx.index.NAME    payload: the error and its reason, since when it is known

The flow run, its flow and its deployment are among the related resources (Prefect adds them). What is up to date, not
tried or superseded has no event. Sent in the background, and lost without a word where the API is away: the run's
report says the same.
"""

from contextlib import suppress
from typing import Any

from prefect.events import emit_event

from flows.progress import RepoResult
from summidx.plan import PlannedRepo
from summidx.records import Usage
from summidx.settings import Settings
from summidx.store.names import escape_name

PUBLISHED, FAILED = "summidx.index.published", "summidx.index.failed"
MOST_OF_A_RUN = 1000
"""Events of each kind; beyond, a run is told by its report."""
REASON_CHARS = 1000


def resource_id(name: str) -> str:
    """The stable id of an index in events: its name, escaped as its folder is."""
    return f"summidx.index.{escape_name(name)}"


class IndexEvents:
    """Emits the events of one run."""

    def __init__(self, settings: Settings) -> None:
        self._index_root = settings.index_root
        self._emitted = {PUBLISHED: 0, FAILED: 0}

    def ended(self, planned: PlannedRepo, result: RepoResult) -> None:
        """Emit the event of a repository that ended, where its ending is one to tell of."""
        if result.ending == "built":
            self._emit(PUBLISHED, planned, _describe_published(result))
        elif result.failed:
            told = {
                "commit": planned.pin.commit,
                "ending": result.ending,
                "reason": result.reason[:REASON_CHARS],
                "known_since": result.known_since,
            }
            self._emit(FAILED, planned, told)

    def _emit(self, event: str, planned: PlannedRepo, told: dict[str, Any]) -> None:
        self._emitted[event] += 1
        if self._emitted[event] > MOST_OF_A_RUN:
            return
        pin = planned.pin
        resource = resource_id(pin.name)
        with suppress(Exception):  # nothing of a build may depend on it
            emit_event(
                event,
                resource={
                    "prefect.resource.id": resource,
                    "prefect.resource.name": resource.removeprefix("summidx.index."),
                },
                payload={
                    "index_root": self._index_root,
                    "build_key": pin.build_key,
                    "why": planned.why[:REASON_CHARS],
                    **told,
                },
            )


def _describe_published(result: RepoResult) -> dict[str, Any]:
    report, usage = result.report, result.usage or Usage(durations_s={})
    return {
        "commit": report.commit if report else "",
        "generation": report.generation if report else "",
        "documents": result.documents,
        "seconds": round(result.seconds, 3),
        "llm_calls": usage.llm_calls,
        "cache_hits": usage.cache_hits,
        "tokens_in": usage.tokens_in,
        "tokens_out": usage.tokens_out,
    }
