"""What a run tells while it goes, and its report at the end.

Every line goes to the flow run's log, and so to the Prefect UI; where a person started the run in a terminal
(`listening`), the same lines appear there.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from prefect import get_run_logger

from flows.live import EndedRow, LiveRun, going_on, live_run
from flows.messages import describe_failures
from summidx.accounting import Totals, build_totals
from summidx.escaping import escape_line
from summidx.journal import RepoEntry, RunContext
from summidx.plan import Plan, PlannedRepo
from summidx.prediction import PredictionCheck
from summidx.records import BuildCost, BuildReport, Outcome, Status, Usage, count_where
from summidx.settings import Settings

NAMES_SHOWN = 8

Ending = Literal[
    "built", "up_to_date", "superseded", "summarized", "failed", "crashed", "stopped", "not_attempted", "known_failure"
]
"""`stopped`: under way when the run was interrupted, which has lines of accounting, but no report. `known_failure`: not
tried, since it would fail as it did before."""


@dataclass(frozen=True, slots=True)
class RepoResult:
    """How one repository ended in this run. `report` is None where it failed; `reason` then says why."""

    name: str
    ending: Ending
    why: str
    """Why the plan had it built, or `up to date`."""
    report: BuildReport | None = None
    reason: str = ""
    error: str = ""
    """Type of the error that it failed by; "" where it did not, or its worker was killed."""
    advice: str = ""
    """What to do about that, in one line."""
    cost: BuildCost | None = None
    """What it had cost where it failed; None where that is not known: its worker was killed."""
    lost_tries: int = 0
    """Tries whose worker was killed; what they cost is in no figure."""
    known_since: str = ""
    """Of a failure for a permanent reason that was known before: since when (ISO 8601, UTC)."""

    @property
    def usage(self) -> Usage | None:
        """What it cost in this run; None where that is nothing, or not known."""
        if self.report is not None:
            return None if self.ending == "up_to_date" else self.report.usage
        return self.cost.usage if self.cost else None

    @property
    def failed(self) -> bool:
        """True where it was tried, and there is no index of what was asked for."""
        return self.report is None and self.ending not in ("not_attempted", "known_failure")

    @property
    def documents(self) -> int:
        """Documents of its index, those that failed included."""
        return count_where(self.report.counts) if self.report else 0

    @property
    def seconds(self) -> float:
        """Wall time of its build, all steps."""
        return sum(self.report.usage.durations_s.values()) if self.report and self.ending != "up_to_date" else 0.0

    def line(self) -> str:
        """One line for a person."""
        if self.report is None:
            return f"{self.name}: {self.ending.replace('_', ' ')}: {self.reason.removeprefix('not attempted: ')}"
        parts = [f"{self.documents} document{'s' if self.documents != 1 else ''}", f"{self.seconds:.1f} s"]
        unusual = {
            status: count_where(self.report.counts, status=status) for status in (Status.DEGRADED, Status.FAILED)
        }
        parts.extend(f"{n} {status}" for status, n in unusual.items() if n)
        if self.lost_tries:
            parts.append("in its second try")
        return f"{self.name}: {self.ending.replace('_', ' ')}, {', '.join(parts)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """The result of a run: what the flow returns, and what `--json` prints."""

    flow_run_id: str
    index_root: str
    embedding_model: str
    """As it was named in the settings: a search must name the same."""
    seconds: float
    built: int
    up_to_date: int
    summarized: int
    """Their summaries are in the cache, and nothing was published (`--stage summaries`)."""
    superseded: int
    """Another run published first; what was built here was discarded."""
    failed: int
    known_failures: int = 0
    """Not tried, since they would fail as they did before; they do not fail the run."""
    not_attempted: int
    """The run was told to stop before they were begun (no call to the LLM could succeed), or its time was over."""
    totals: Totals
    """What the run cost, repositories that failed included."""
    lost_tries: int = 0
    """Tries whose worker was killed: what they cost is not known, and not in the totals."""
    prediction: PredictionCheck | None = None
    """How far off the last `summidx plan` was; None where it was not of this run's repositories."""
    repositories: tuple[RepoResult, ...] = field(default=())

    def failures(self) -> tuple[RepoResult, ...]:
        """The repositories that failed; those that were not attempted are not among them."""
        return tuple(each for each in self.repositories if each.failed)

    @property
    def why_not_attempted(self) -> str:
        """Why repositories were not begun, where some were not."""
        reasons = [each.reason for each in self.repositories if each.ending == "not_attempted"]
        return reasons[0].removeprefix("not attempted: ") if reasons else ""

    def warnings(self) -> list[str]:
        """A line for each repository that was built without documents that failed."""
        told = []
        for each in self.repositories:
            failed = count_where(each.report.counts, status=Status.FAILED) if each.report else 0
            if not failed or each.report is None or each.ending not in ("built", "summarized"):
                continue
            first = next((fault for fault in each.report.faults if fault.status is Status.FAILED), None)
            told.append(
                f"{failed} document{'s' if failed != 1 else ''} failed in {each.name}"
                + (f" (first: {first.id}: {first.reason})" if first else "")
                + "; the next run tries them again"
            )
        return told

    def message(self) -> str:
        """One line: the message of the flow run's final state."""
        total = len(self.repositories)
        if not total:  # else a run without repositories is refused
            return "nothing to resume: the last run finished all repositories that are asked for"
        failed = [
            (each.name, each.error, f"known since {each.known_since[:10]}: {each.reason}")
            if each.known_since
            else (each.name, each.error, each.reason)
            for each in self.failures()
        ]
        known = [each.name for each in self.repositories if each.ending == "known_failure"]
        also = f"; {_count_known(len(known))}: {_names(known)}" if known else ""
        not_attempted = [each.name for each in self.repositories if each.ending == "not_attempted"]
        if not_attempted and not failed:
            return (
                f"{len(not_attempted)} of {_repositories(total)} not attempted: {_names(not_attempted)}: "
                f"{self.why_not_attempted}{also}"
            )
        if failed:
            told = describe_failures(failed, total)
            if not_attempted:
                told += f"; {len(not_attempted)} not attempted: {_names(not_attempted)}"
            return told + also
        counts = {
            "built": self.built,
            "up to date": self.up_to_date,
            "summarized": self.summarized,
            "superseded by another run": self.superseded,
        }
        always = ("built", "up to date")
        told = ", ".join(f"{n} {what}" for what, n in counts.items() if n or what in always)
        return f"{_repositories(total)}: {told}{also}"


def build_report(
    *,
    flow_run_id: str,
    settings: Settings,
    seconds: float,
    results: Sequence[RepoResult],
    prediction: PredictionCheck | None = None,
) -> RunReport:
    """Count what ended how, and add up what it cost."""
    endings = Counter(each.ending for each in results)
    return RunReport(
        flow_run_id=flow_run_id,
        index_root=settings.index_root,
        embedding_model=settings.embedding.model,
        seconds=round(seconds, 3),
        built=endings["built"],
        up_to_date=endings["up_to_date"],
        summarized=endings["summarized"],
        superseded=endings["superseded"],
        failed=sum(each.failed for each in results),
        known_failures=endings["known_failure"],
        not_attempted=endings["not_attempted"],
        totals=build_totals(each.usage for each in results if each.usage is not None),
        lost_tries=sum(each.lost_tries for each in results),
        prediction=prediction,
        repositories=tuple(sorted(results, key=lambda each: each.name)),
    )


def journal_context(flow_run_id: str, settings: Settings, plan: Plan) -> RunContext:
    """What a run works with, for its lines of accounting."""
    cluster = settings.cluster
    return RunContext(
        flow_run_id=flow_run_id,
        summarizer=plan.summarizer,
        embedding_model=plan.embedding_model,
        num_processes=len(cluster.local_gpus) or cluster.num_processes,
        threads_per_worker=cluster.threads_per_worker,
        llm_concurrency=settings.llm.concurrency,
        gpus=len(cluster.local_gpus),
    )


def journal_entry(planned: PlannedRepo, result: RepoResult) -> RepoEntry:
    """What is told of one repository in the lines of accounting."""
    known = result.report or result.cost
    return RepoEntry(
        name=result.name,
        ending=result.ending,
        why=result.why,
        reason=result.reason,
        commit=known.commit if known else planned.pin.commit,
        build_key=planned.pin.build_key,
        counts=known.counts if known else {},
        usage=result.usage,
        lost_tries=result.lost_tries,
    )


def ending_of(outcome: Outcome) -> Ending:
    """The ending of a repository whose task returned a report."""
    endings: dict[Outcome, Ending] = {
        Outcome.BUILT: "built",
        Outcome.UP_TO_DATE: "up_to_date",
        Outcome.SUPERSEDED: "superseded",
        Outcome.SUMMARIZED: "summarized",
    }
    return endings[outcome]


LineKind = Literal["plain", "ended", "failed", "warning", "other"]
"""What a line is about: a repository that ended well, or not; `other`: what somebody else wrote to the terminal."""


class Listener(Protocol):
    """Somebody in front of a terminal, or a program, that follows a run in this process."""

    def follow(self, run: LiveRun) -> None:
        """Look at this run from now on."""
        ...

    def tell(self, line: str, kind: LineKind = "plain") -> None:
        """Show a line."""
        ...

    def ended(self, report: RunReport, page: Path | None) -> None:
        """Take the report, and where its page lies, if there is one."""
        ...


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let `listener` follow the runs of the block."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def following() -> Iterator[LiveRun]:
    """Follow the run of this block while it goes."""
    with going_on(LiveRun()) as live:
        if listener := _listener.get():
            listener.follow(live)
        yield live


def tell_plan(plan: Plan, index_root: str, *, page: str) -> None:
    """Say what will be done, and on which page of the Prefect UI it can be watched ("": none)."""
    to_build = plan.to_build
    known = plan.known_failures
    told = f"{len(to_build)} to build, {len(plan.repos) - len(to_build) - len(known)} up to date"
    _tell(f"{told}{f', {_count_known(len(known))}' if known else ''}, under {index_root}")
    for planned in to_build[:NAMES_SHOWN]:
        _tell(f"  {planned.pin.name}: {planned.why}")
    if len(to_build) > NAMES_SHOWN:
        _tell(f"  and {len(to_build) - NAMES_SHOWN} more")
    for planned in known[:NAMES_SHOWN]:
        _tell(f"  {planned.pin.name}: {planned.why}")
    if len(known) > NAMES_SHOWN:
        _tell(f"  and {len(known) - NAMES_SHOWN} more known failures")
    if to_build and page:
        _tell(f"Watch it at {page}")


def tell_result(result: RepoResult, ended: int, total: int) -> None:
    """Say how one repository ended: the `ended`th of the `total` that were to build."""
    live_run().ended(ended_row(result))
    _tell(f"[{ended}/{total}] {result.line()}", "failed" if result.failed else "ended")


def ended_row(result: RepoResult) -> EndedRow:
    """How a repository ended, for whoever follows the run."""
    seconds = sum(result.usage.durations_s.values()) if result.usage is not None else 0.0
    return EndedRow(result.name, result.ending, result.documents, seconds, result.reason)


def tell_warning(line: str) -> None:
    """Say what is done otherwise than it was asked for."""
    get_run_logger().warning(escape_line(line))
    if listener := _listener.get():
        listener.tell(f"warning: {line}", "warning")


def make_notes() -> tuple[Callable[[str], None], Callable[[str], None]]:
    """What writes a warning to the log of this flow run, and what shows it as well, from any one other thread."""
    context = copy_context()  # Prefect finds its API and the run there
    log = get_run_logger()

    def note(line: str) -> None:
        context.run(log.warning, escape_line(line))

    def tell(line: str) -> None:
        context.run(tell_warning, line)

    return note, tell


def tell_report(report: RunReport, page: Path | None = None) -> None:
    """Hand over the report, and its page."""
    for warning in report.warnings():
        get_run_logger().warning(escape_line(warning))
    get_run_logger().info(report.message())
    if listener := _listener.get():
        listener.ended(report, page)


def _tell(line: str, kind: LineKind = "plain") -> None:
    get_run_logger().info(escape_line(line))
    if listener := _listener.get():
        listener.tell(line, kind)


def _names(names: Sequence[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(map(escape_line, names[:NAMES_SHOWN])) + (f" and {more} more" if more > 0 else "")


def _count_known(n: int) -> str:
    return "1 known failure" if n == 1 else f"{n} known failures"


def _repositories(n: int) -> str:
    return "1 repository" if n == 1 else f"{n} repositories"
