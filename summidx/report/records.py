"""The lines of runs, read back. Old lines lack fields, the last line of a killed run is torn: neither is an error."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from summidx.accounting import merge_histograms, percentiles_ms
from summidx.errors import UsageError

HISTORY = 60
"""So many earlier runs are in the trends."""
RUN_FILES = "*-run-*.jsonl"
BAD_ENDINGS = frozenset({"failed", "crashed", "stopped"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoLine:
    """One repository of a run."""

    name: str
    ending: str
    at: str = ""
    """When it ended: ISO 8601, UTC."""
    why: str = ""
    reason: str = ""
    commit: str = ""
    documents: int = 0
    llm_calls: int = 0
    requests: int = 0
    cache_hits: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    retries: Mapping[str, int] = field(default_factory=dict)
    latencies: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    seconds_by_step: Mapping[str, float] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """True where there is no index of what was asked for."""
        return self.ending in BAD_ENDINGS


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """What was measured while a run went on: `fields` names the columns of `samples`."""

    fields: tuple[str, ...] = ()
    samples: tuple[tuple[float | None, ...], ...] = ()

    def column(self, name: str) -> list[float | None]:
        """One figure over time; [] where it was not measured."""
        if name not in self.fields:
            return []
        place = self.fields.index(name)
        return [sample[place] if place < len(sample) else None for sample in self.samples]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLine:
    """A run in all."""

    flow_run_id: str = ""
    at: str = ""
    """When it ended: ISO 8601, UTC."""
    seconds: float = 0.0
    repositories: Mapping[str, int] = field(default_factory=dict)
    """By ending."""
    documents: int = 0
    llm_calls: int = 0
    requests: int = 0
    cache_hits: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    retries: Mapping[str, int] = field(default_factory=dict)
    latencies: Mapping[str, int] = field(default_factory=dict)
    """Histogram of answers by time taken, in ms (`accounting`)."""
    vectors_embedded: int = 0
    vectors_reused: int = 0
    lost_tries: int = 0
    seconds_by_step: Mapping[str, float] = field(default_factory=dict)
    summarizer: str = ""
    embedding_model: str = ""
    num_processes: int = 0
    threads_per_worker: int = 0
    llm_concurrency: int = 0
    gpus: int = 0
    timeline: Timeline = field(default_factory=Timeline)

    @property
    def failed(self) -> int:
        """Repositories that failed."""
        return sum(n for ending, n in self.repositories.items() if ending in BAD_ENDINGS)

    @property
    def hit_rate(self) -> float | None:
        """Share of the questions that the cache answered, from 0 to 1; None where nothing was asked."""
        asked = self.cache_hits + self.llm_calls
        return self.cache_hits / asked if asked else None

    @property
    def latency_ms(self) -> Mapping[str, float | None]:
        """`p50`, `p95`, `p99` of all answers."""
        return percentiles_ms(self.latencies)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run, its repositories, and the runs before it."""

    run: RunLine
    repos: tuple[RepoLine, ...]
    is_whole: bool
    """False where the run's own line is missing: it was killed, or goes on."""
    torn_lines: int
    """Lines that could not be read."""
    history: tuple[RunLine, ...] = ()
    """The runs up to this one, the oldest first, this one last."""

    @property
    def failures(self) -> tuple[RepoLine, ...]:
        """The repositories that failed, by name."""
        return tuple(sorted((repo for repo in self.repos if repo.failed), key=lambda repo: repo.name))

    @property
    def known_failures(self) -> tuple[RepoLine, ...]:
        """Those that were not tried since they would have failed as before, by name."""
        return tuple(
            sorted((repo for repo in self.repos if repo.ending == "known_failure"), key=lambda repo: repo.name)
        )

    def slowest(self, n: int) -> tuple[RepoLine, ...]:
        """The repositories that took longest, the slowest first."""
        worked = [repo for repo in self.repos if repo.seconds > 0]
        return tuple(sorted(worked, key=lambda repo: (-repo.seconds, repo.name))[:n])


_REPO = TypeAdapter(RepoLine)
_RUN = TypeAdapter(RunLine)


def load_record(path: Path) -> RunRecord:
    """The run whose lines are in `path`, and the runs before it in the same folder.

    Raises:
        UsageError: there is no such file, or no run in it.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): name a run's .jsonl file in --log-dir") from None
    record = read_record(text.splitlines())
    if not record.repos and not record.is_whole:
        raise UsageError(f"{path} holds no line of a run: name the .jsonl file of a run that has ended")
    return add_history(record, load_history(path.parent, last=path))


def load_history(log_dir: Path, *, last: Path | None = None) -> list[RunLine]:
    """The run lines of the last runs, the oldest first, up to the file `last`; what cannot be read is left out."""
    paths = sorted(log_dir.glob(RUN_FILES))
    if last is not None:
        paths = [path for path in paths if path.name <= last.name]
    runs = []
    for path in paths[-HISTORY:]:
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        runs += [run for run in (_read(_RUN, line, "run") for line in lines[-1:]) if run is not None]
    return runs


def find_last_run(log_dir: Path) -> Path:
    """The file of the last run.

    Raises:
        UsageError: there is none.
    """
    paths = sorted(log_dir.glob(RUN_FILES))
    if not paths:
        raise UsageError(f"no run has left its lines in {log_dir}: build first, or name the folder with --log-dir")
    return paths[-1]


def read_record(lines: Iterable[str]) -> RunRecord:
    """The run of these lines, without the runs before it."""
    repos: list[RepoLine] = []
    run: RunLine | None = None
    torn = 0
    for line in lines:
        if (repo := _read(_REPO, line, "repository")) is not None:
            repos.append(repo)
        elif (whole := _read(_RUN, line, "run")) is not None:
            run = whole
        else:
            torn += 1
    return RunRecord(run=run or _add_up(repos), repos=tuple(repos), is_whole=run is not None, torn_lines=torn)


def add_history(record: RunRecord, history: Sequence[RunLine]) -> RunRecord:
    """The record with the runs before it, of which it is itself the last."""
    before = [run for run in history if run.at < record.run.at]
    return RunRecord(
        run=record.run,
        repos=record.repos,
        is_whole=record.is_whole,
        torn_lines=record.torn_lines,
        history=(*before, record.run)[-HISTORY:],
    )


def render_record(record: RunRecord) -> dict[str, Any]:
    """The report as JSON: what the page shows, in figures."""
    run = record.run
    return {
        "run": _run_json(run)
        | {
            "summarizer": run.summarizer,
            "embedding_model": run.embedding_model,
            "num_processes": run.num_processes,
            "threads_per_worker": run.threads_per_worker,
            "llm_concurrency": run.llm_concurrency,
            "gpus": run.gpus,
            "seconds_by_step": dict(run.seconds_by_step),
            "is_whole": record.is_whole,
            "torn_lines": record.torn_lines,
        },
        "latencies_ms": dict(run.latencies),
        "timeline": {"fields": list(run.timeline.fields), "samples": [list(each) for each in run.timeline.samples]},
        "failed": [{"name": repo.name, "ending": repo.ending, "reason": repo.reason} for repo in record.failures],
        "repositories": [
            {name: getattr(repo, name) for name in _REPO_JSON} | {"seconds_by_step": dict(repo.seconds_by_step)}
            for repo in record.repos
        ],
        "runs": [_run_json(each) for each in record.history],
    }


_REPO_JSON = (
    *("name", "ending", "why", "reason", "commit", "documents", "llm_calls", "requests", "cache_hits"),
    *("tokens_in", "tokens_out", "seconds"),
)


def _run_json(run: RunLine) -> dict[str, Any]:
    return {
        "flow_run_id": run.flow_run_id,
        "at": run.at,
        "seconds": run.seconds,
        "repositories": dict(run.repositories),
        "documents": run.documents,
        "llm_calls": run.llm_calls,
        "requests": run.requests,
        "cache_hits": run.cache_hits,
        "hit_rate": run.hit_rate,
        "tokens_in": run.tokens_in,
        "tokens_out": run.tokens_out,
        "retries": dict(run.retries),
        "latency_ms": dict(run.latency_ms),
    }


def _read(kind: TypeAdapter[Any], line: str, name: str) -> Any:  # noqa: ANN401 - of the adapter's type
    try:
        value = json.loads(line)
        if not isinstance(value, dict) or value.get("kind") != name:
            return None
        return kind.validate_python(value)
    except (ValueError, RecursionError, ValidationError):
        return None


def _add_up(repos: Sequence[RepoLine]) -> RunLine:
    """The line of a run that has left none, as far as its repositories say."""
    steps: Counter[str] = Counter()
    retries: Counter[str] = Counter()
    for repo in repos:
        steps.update(repo.seconds_by_step)
        retries.update(repo.retries)
    return RunLine(
        at=max((repo.at for repo in repos), default=""),
        repositories=dict(Counter(repo.ending for repo in repos)),
        documents=_sum(repo.documents for repo in repos),
        llm_calls=_sum(repo.llm_calls for repo in repos),
        requests=_sum(repo.requests for repo in repos),
        cache_hits=_sum(repo.cache_hits for repo in repos),
        tokens_in=_sum(repo.tokens_in for repo in repos),
        tokens_out=_sum(repo.tokens_out for repo in repos),
        retries=dict(retries),
        latencies=merge_histograms(repo.latencies for repo in repos),
        seconds_by_step=dict(steps),
    )


def _sum(values: Iterator[int]) -> int:
    return sum(values)
