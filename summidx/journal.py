"""What runs cost, as JSON lines beside their logs: a line for each repository as it ends, and one for the run.

    LOG_DIR/<timestamp>-run-<id>.jsonl      {"kind": "repository", ...} ..., {"kind": "run", ...}

No source, no prompt and no secret is in them: names, counts, times, and the reasons of failures. They are for people
and their tools, and for `summidx plan`, which tells from them how long things take.

Counted are the requests made for a repository. Not counted are those that ask whether the server is back while it
answers nothing: completions of one token each, which no repository asked for. A try that was under way in a worker
that was killed (`lost_tries`) has no figures, nor has a repository that did not end in time after an interruption.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from summidx.accounting import build_totals, merge_histograms, percentiles_ms
from summidx.records import Counts, Usage, count_where

RUNS_READ = 20
"""So many of the last runs are looked at."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoEntry:
    """How one repository ended in a run, and what that cost. `usage` is None where it is not known, or nothing."""

    name: str
    ending: str
    why: str
    """Why it was built."""
    reason: str
    """Why it failed, else ""."""
    commit: str
    build_key: str
    counts: Counts
    usage: Usage | None
    lost_tries: int = 0
    """Tries whose worker was killed; what they cost is in no figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What a run worked with. Nothing in it is secret."""

    flow_run_id: str
    summarizer: str
    embedding_model: str
    num_processes: int
    threads_per_worker: int
    llm_concurrency: int
    gpus: int
    """GPUs that embed; 0: on the CPU."""


class Journal:
    """The lines of one run, appended as they come. A disk that refuses them costs the lines, never the run."""

    def __init__(self, path: Path, context: RunContext) -> None:
        self.path = path
        self._context = context
        self._entries: list[RepoEntry] = []

    def add(self, entry: RepoEntry) -> None:
        """Write the line of a repository."""
        self._entries.append(entry)
        self._write(render_repository(entry, self._context))

    def end(self, seconds: float, timeline: Mapping[str, Any] | None = None) -> None:
        """Write the line of the run, which took so many seconds, also where it was interrupted.

        Args:
            seconds: wall time.
            timeline: what was measured while it went on: `fields`, and `samples` of them.
        """
        line = render_run(self._entries, self._context, seconds)
        self._write(line | {"timeline": timeline} if timeline else line)

    def _write(self, line: Mapping[str, Any]) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"kind": line["kind"], "at": at, **line}) + "\n")
        except OSError as error:
            logger.warning("a line of accounting is lost, %s cannot be written: %s", self.path, error.strerror)


def render_repository(entry: RepoEntry, context: RunContext) -> dict[str, Any]:
    """The line of a repository. Latencies are in ms, with the histogram that they are from."""
    usage = entry.usage or Usage(durations_s={})
    return {
        "kind": "repository",
        "flow_run_id": context.flow_run_id,
        "name": entry.name,
        "ending": entry.ending,
        "why": entry.why,
        "reason": entry.reason,
        "commit": entry.commit,
        "build_key": entry.build_key,
        "summarizer": context.summarizer,
        "embedding_model": context.embedding_model,
        "documents": count_where(entry.counts),
        "counts": entry.counts,
        "lost_tries": entry.lost_tries,
        **_render_usages([usage]),
        "seconds": round(sum(usage.durations_s.values()), 3),
        "seconds_by_step": usage.durations_s,
    }


def render_run(entries: Iterable[RepoEntry], context: RunContext, seconds: float) -> dict[str, Any]:
    """The line of a run: sums, and percentiles over all calls."""
    all_entries = list(entries)
    usages = [entry.usage for entry in all_entries if entry.usage is not None]
    steps: Counter[str] = Counter()
    for usage in usages:
        steps.update(usage.durations_s)
    return {
        "kind": "run",
        **asdict(context),
        "repositories": dict(sorted(Counter(entry.ending for entry in all_entries).items())),
        "documents": sum(count_where(entry.counts) for entry in all_entries if entry.usage is not None),
        "lost_tries": sum(entry.lost_tries for entry in all_entries),
        **_render_usages(usages),
        "seconds": round(seconds, 3),
        "seconds_by_step": {step: round(total, 3) for step, total in sorted(steps.items())},
    }


def load_runs(log_dir: str | Path) -> Iterator[dict[str, Any]]:
    """The lines of the last runs, the latest first; what cannot be read is passed over."""
    for path in sorted(Path(log_dir).glob("*-run-*.jsonl"), reverse=True)[:RUNS_READ]:
        try:
            last = path.read_text(encoding="utf-8").splitlines()[-1]
            line = json.loads(last)
        except (OSError, ValueError, IndexError):
            continue
        if isinstance(line, dict) and line.get("kind") == "run":
            yield line


def _render_usages(usages: list[Usage]) -> dict[str, Any]:
    histogram = merge_histograms(usage.latencies for usage in usages)
    totals = asdict(build_totals(usages))
    return totals | {
        "prompt_bytes": sum(usage.prompt_bytes for usage in usages),
        "latency_ms": percentiles_ms(histogram),
        "latencies": histogram,
    }
