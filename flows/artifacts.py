"""What the Prefect UI shows of a run beside its states: how far it is, its repositories, and at the end the report.

    summary-index-progress        a progress artifact, and in its description what the terminal's display shows
    summary-index-repositories    a table: what failed, what is under way, what ended last
    summary-index-report          Markdown, with charts; the earlier runs' are its earlier versions

The first two are changed in place, at most every few seconds, and only where something changed. An API that is away or
slow costs artifacts, never the run.
"""

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import Any
from uuid import UUID

from prefect.artifacts import create_markdown_artifact, create_progress_artifact, create_table_artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactUpdate

from flows.live import LiveRun, Snapshot
from summidx.escaping import escape_text
from summidx.report.words import describe_count, describe_duration

PERIOD_S = 5.0
"""An artifact is changed no more often than this; a change costs the API some 20 ms."""
LONGEST_PERIOD_S = 60.0
"""While the API does not answer."""
CLOSE_S = 5.0
"""The end of a run waits so long at most for each of its artifacts."""
ROWS = 50
"""Of the table: it is sent whole each time."""
REASON_CHARS = 160
LINE_CHARS = 120

PROGRESS_KEY, TABLE_KEY, REPORT_KEY = (
    "summary-index-progress",
    "summary-index-repositories",
    "summary-index-report",
)

logger = logging.getLogger(__name__)


@contextmanager
def live_artifacts(live: LiveRun, *, wanted: bool) -> Iterator[None]:
    """Keep the artifacts of this flow run true for the duration of the block; nothing where none is `wanted`."""
    if not wanted:
        yield
        return
    ended = threading.Event()
    # Prefect finds the run, and its API, in the context.
    thread = threading.Thread(
        target=copy_context().run, args=(_keep, live, ended), name="summidx-artifacts", daemon=True
    )
    thread.start()
    try:
        yield
    except BaseException:
        ended.set()  # a run that is interrupted has no time to wait for them
        raise
    ended.set()
    thread.join(CLOSE_S)


def publish_report(markdown: str) -> None:
    """Make the report an artifact of this flow run. Waits no longer than `CLOSE_S`."""

    def create() -> None:
        with suppress(Exception):
            create_markdown_artifact(markdown, key=REPORT_KEY, description="What the run did, and what it cost")

    thread = threading.Thread(target=copy_context().run, args=(create,), name="summidx-report", daemon=True)
    thread.start()
    thread.join(CLOSE_S)


def render_progress(snapshot: Snapshot) -> tuple[float, str]:
    """Percent that is done, and a line of Markdown that says of what."""
    figures, rates = snapshot.figures, snapshot.rates
    done = snapshot.done == snapshot.to_build
    parts = [f"{snapshot.done:,} of {snapshot.to_build:,} repositories"]
    if snapshot.failed:
        parts.append(f"**{snapshot.failed:,} failed**")
    if snapshot.up_to_date:
        parts.append(f"{snapshot.up_to_date:,} up to date")
    if snapshot.known_failures:
        parts.append(f"{snapshot.known_failures:,} known failures")
    parts.append(f"{figures.documents:,} documents")
    if snapshot.asks_llm:
        parts.append(f"{figures.calls:,} LLM calls, {figures.cache_hits:,} cache hits")
        if not done:
            parts.append(f"{snapshot.in_flight:,} of {snapshot.limit:,} calls in flight")
            parts.append(f"{describe_count(rates.get('tokens_out', 0.0))} tokens/s out")
    if snapshot.eta_s is not None and not done:
        parts.append(f"about {describe_duration(snapshot.eta_s)} left")
    # No round 100 before the last one has ended.
    percent = 100.0 if done else min(99.0, round(100 * snapshot.share, 1))
    return percent, "; ".join(parts)


def render_rows(snapshot: Snapshot) -> list[dict[str, str]]:
    """The table's rows: what failed first, then what is under way, then what ended last; at most `ROWS`."""
    failed = [row for row in snapshot.ended if row.reason]
    others = [row for row in snapshot.ended if not row.reason]
    rows = [_row(each.name, each.ending, each.documents, each.seconds, each.reason) for each in failed]
    rows += [
        _row(each.name, each.step or "under way", each.settled, each.seconds, f"worker {worker.name}")
        for worker in snapshot.workers
        for each in worker.repos
    ]
    rows += [_row(each.name, each.ending, each.documents, each.seconds, "") for each in reversed(others)]
    if len(rows) > ROWS:
        left = len(rows) - ROWS + 1
        rows = [*rows[: ROWS - 1], _row(f"and {left:,} more", "", 0, 0.0, "their task runs have all")]
    return rows


def _row(name: str, state: str, documents: int, seconds: float, note: str) -> dict[str, str]:
    return {
        "repository": _cell(name, LINE_CHARS),
        "state": state.replace("_", " "),
        "documents": f"{documents:,}" if documents else "",
        "time": describe_duration(seconds) if seconds else "",
        "note": _cell(note, REASON_CHARS),
    }


def _cell(text: str, chars: int) -> str:
    safe = escape_text(text)
    return safe if len(safe) <= chars else f"{safe[: chars - 1]}…"


def _keep(live: LiveRun, ended: threading.Event) -> None:
    """Change the artifacts until `ended`, and once after it."""
    kept = _Kept()
    period = PERIOD_S
    try:
        while True:
            is_last = ended.wait(period)
            try:
                kept.change(live.snapshot())
                period = PERIOD_S
            except Exception as error:  # whatever it is: the run is what matters
                if period == PERIOD_S:
                    logger.warning("artifacts in the Prefect UI are late (%s: %s)", type(error).__name__, error)
                period = min(LONGEST_PERIOD_S, 2 * period)
            if is_last:
                return
    finally:
        kept.close()


class _Kept:
    """The two artifacts that change in place."""

    def __init__(self) -> None:
        self._client: SyncPrefectClient | None = None
        self._progress: UUID | None = None
        self._table: UUID | None = None
        self._last: tuple[Any, Any] = (None, None)

    def change(self, snapshot: Snapshot) -> None:
        """Bring both up to date; what has not changed is not sent."""
        progress, rows = render_progress(snapshot), render_rows(snapshot)
        if self._client is None:
            # One for all changes: each of Prefect's own functions makes a new one.
            self._client = get_client(sync_client=True).__enter__()
        if self._progress is None:
            percent, told = progress
            self._progress = _uuid(create_progress_artifact(percent, key=PROGRESS_KEY, description=told))
        elif progress != self._last[0]:
            percent, told = progress
            self._client.update_artifact(self._progress, ArtifactUpdate(data=percent, description=told))
        if self._table is None:
            if rows:
                self._table = _uuid(create_table_artifact(rows, key=TABLE_KEY, description="Repositories"))
        elif rows != self._last[1]:
            self._client.update_artifact(self._table, ArtifactUpdate(data=json.dumps(rows)))
        self._last = (progress, rows)

    def close(self) -> None:
        """Close the client."""
        if self._client is not None:
            with suppress(Exception):
                self._client.__exit__(None, None, None)


def _uuid(made: Any) -> UUID:  # noqa: ANN401 - Prefect's functions are typed for both their worlds
    return made if isinstance(made, UUID) else UUID(str(made))
