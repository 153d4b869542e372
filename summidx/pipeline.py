"""One repository, from source to published index, in readable steps."""

import logging
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import summidx
from summidx import sources
from summidx.accounting import with_cost
from summidx.activity import Figures, RepoLook
from summidx.documents import build_documents, embedding_text, embedding_text_of
from summidx.engine import Engine
from summidx.errors import SourceError, TooManyFailures
from summidx.hierarchy import build_tree
from summidx.keys import INDEX_VERSION, recorded_settings
from summidx.parsing import parse
from summidx.records import (
    BuildCost,
    BuildReport,
    Counts,
    Document,
    Manifest,
    Outcome,
    PinnedRepo,
    RepoRef,
    Status,
    Summary,
    TestsPolicy,
    Unit,
    UnitFailure,
    Usage,
    count_documents,
    count_where,
    list_faults,
)
from summidx.settings import Settings, Stage
from summidx.stop import RepoStop
from summidx.store.generations import IndexRoot
from summidx.summarize import SummaryUsage
from summidx.vectors import VectorUsage

ALWAYS_ALLOWED_FAILURES = 3
"""So many documents may fail in any repository, however small, before it fails as a whole."""
FAULTS_LOGGED = 5

logger = logging.getLogger(__name__)


def index_repo(pinned: PinnedRepo, engine: Engine, *, expected_publish_id: str | None = None) -> BuildReport:
    """Build and publish the index of one repository; nothing is done where it is up to date.

    Args:
        pinned: the repository, as the plan pinned it.
        engine: this process's engine.
        expected_publish_id: what CURRENT held when that was planned, None where there was no index. Where CURRENT is
            now another commit's, what was built is discarded.

    Raises:
        SourceError: the repository cannot be read.
        ParseError: its parsing process failed.
        TooManyFailures: too many of its documents failed; the old index stays published.
        RepoTimeout: it took longer than `repo_timeout`; nothing was published.
        LLMError: no call to the LLM can succeed.
        EmbeddingError: the embedding model failed.
        CacheError: the cache failed.
        StoreError: the index cannot be written.
        Stopped: the run was told to stop; nothing was published.
    """
    current = IndexRoot(engine.settings.index_root).find_manifest(pinned.name)
    if current is not None and current.generation == pinned.generation:
        return report_up_to_date(current)
    tally = Tally(pinned.commit)
    with engine.activity.following(lambda seconds: tally.look(pinned.name, seconds)):
        try:
            return _build(pinned, engine, tally, expected_publish_id)
        except Exception as error:
            raise with_cost(error, tally.cost()) from error.__cause__


def _build(pinned: PinnedRepo, engine: Engine, tally: "Tally", expected_publish_id: str | None) -> BuildReport:
    settings = engine.settings
    stop = RepoStop(engine.stop, settings.repo_timeout.total_seconds() if settings.repo_timeout else None)
    with tally.step("read"):
        if not pinned.build_key:
            _refuse_unplanned(pinned, settings)
        content = sources.read_source(pinned.source, pinned.commit, settings.sources, stop)
    with tally.step("parse"):
        parsed = parse(content.files, settings.parsing, stop)
        tree = build_tree(wanted_units(parsed.units, settings), pinned.name)
        tally.units = len(tree.units)
    skips = (*content.skips, *parsed.skips)
    skipped = dict(sorted(Counter(skip.reason.value for skip in skips).items()))
    logger.info(
        "read %d files of %s: %d units; skipped: %s",
        len(content.files),
        pinned.commit[:12] or "the folder",
        tally.units,
        ", ".join(f"{n} {reason}" for reason, n in skipped.items()) or "nothing",
    )
    publishes = settings.stage is Stage.BOTH
    levels = frozenset(settings.levels)
    with engine.vectors(tally.vectors, stop) as repo_vectors:

        def settled(unit: Unit, outcome: Summary | UnitFailure) -> None:
            tally.settled.add(unit.id)
            if publishes and unit.level in levels and isinstance(outcome, Summary):
                repo_vectors.add(embedding_text_of(unit, outcome))

        with tally.step("summarise"):
            outcomes = engine.summarize(tree, tally.summaries, stop, settled).outcomes
        documents = build_documents(tree, outcomes, levels, searchable=publishes)
        tally.counts = count_documents(documents)
        _refuse_too_many_failures(documents, settings)
        report = BuildReport(
            name=pinned.name,
            outcome=Outcome.SUMMARIZED,
            commit=pinned.commit,
            generation="",
            counts=tally.counts,
            skips=skipped,
            usage=tally.usage(),
            faults=list_faults(documents),
        )
        _log_summaries(report)
        if not publishes:
            return report
        with tally.step("embed"):  # what is left of it: the last ones, and those of a small repository
            texts = [embedding_text(document) for document in documents]
            vectors = repo_vectors.get(texts) if texts else engine.no_vectors(stop)
    root = IndexRoot(settings.index_root)
    with root.stage(pinned.name, pinned.generation) as staging:
        with tally.step("write"):
            staging.write(documents, vectors, skips)
        manifest = Manifest(
            name=pinned.name,
            publish_id=uuid.uuid4().hex,
            generation=pinned.generation,
            build_key=engine.build_key(content.tree),
            source=pinned.source,
            commit=pinned.commit,
            tree=content.tree,
            counts=report.counts,
            skips=report.skips,
            usage=tally.usage(),
            summarizer=engine.summarizer.identity,
            embedding_model=engine.embedding_model.identity,
            dim=vectors.dim,
            prompt_version=next((each.prompt_version for each in documents if each.prompt_version), ""),
            tool_version=summidx.__version__,
            built_at=datetime.now(UTC).isoformat(timespec="seconds"),
            index_version=INDEX_VERSION,
            settings=recorded_settings(settings),
            faults=report.faults,
        )
        published = root.publish(staging, manifest, expected_publish_id=expected_publish_id, check=stop.check)
    if not published:  # maybe by another try of this very build, whose worker was taken for lost
        current = root.find_manifest(pinned.name)
        published = current is not None and current.generation == pinned.generation
    usage = tally.usage()
    logger.info(
        "%s: %d texts embedded in %.1f s, %d vectors reused",
        f"published generation {pinned.generation}" if published else "discarded, another run published first",
        usage.vectors_embedded,
        usage.embedding_s,
        usage.vectors_reused,
    )
    return replace(
        report,
        outcome=Outcome.BUILT if published else Outcome.SUPERSEDED,
        generation=pinned.generation if published else "",
        usage=usage,
    )


def wanted_units(units: Iterable[Unit], settings: Settings) -> list[Unit]:
    """The units that are indexed: all, or all that are no test code."""
    return [unit for unit in units if settings.tests is not TestsPolicy.SKIP or not unit.is_test]


def report_up_to_date(manifest: Manifest) -> BuildReport:
    """The report of a repository whose published index is already what was asked for."""
    return BuildReport(
        name=manifest.name,
        outcome=Outcome.UP_TO_DATE,
        commit=manifest.commit,
        generation=manifest.generation,
        counts=manifest.counts,
        skips=manifest.skips,
        usage=Usage(durations_s={}),
        faults=manifest.faults,
    )


@dataclass(slots=True)
class Tally:
    """What the build of one repository has come to so far; it is known also where the build fails."""

    commit: str
    counts: Counts = field(default_factory=dict)
    summaries: SummaryUsage = field(default_factory=SummaryUsage)
    vectors: VectorUsage = field(default_factory=VectorUsage)
    durations_s: dict[str, float] = field(default_factory=dict)
    """Wall seconds by step."""
    units: int = 0
    settled: set[str] = field(default_factory=set)
    """The units that have an outcome."""
    current_step: str = ""

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure a block as step `name`."""
        start = time.perf_counter()
        self.current_step = name
        try:
            yield
        finally:
            self.current_step = ""
            self.durations_s[name] = round(time.perf_counter() - start, 3)

    def usage(self) -> Usage:
        """What it cost so far."""
        record = self.summaries.record
        return Usage(
            llm_calls=self.summaries.asked,
            requests=record.requests,
            retries=dict(sorted(dict(record.retries).items())),
            latencies=record.latencies(),
            cache_hits=self.summaries.cache_hits,
            prompt_bytes=record.prompt_bytes,
            tokens_in=record.tokens_in,
            tokens_out=record.tokens_out,
            vectors_embedded=self.vectors.embedded,
            vectors_reused=self.vectors.reused,
            embedding_s=round(self.vectors.seconds, 3),
            durations_s=dict(self.durations_s),
        )

    def look(self, name: str, seconds: float) -> RepoLook:
        """What is to be seen of it from outside, `seconds` after it was begun. Called in any thread."""
        record = self.summaries.record
        settled = len(self.settled)
        figures = Figures(settled, self.summaries.cache_hits, record.answers, record.tokens_in, record.tokens_out)
        return RepoLook(name, self.current_step, settled, self.units, seconds, figures)

    def cost(self) -> BuildCost:
        """What its error carries where it fails."""
        return BuildCost(commit=self.commit, counts=self.counts, usage=self.usage())


def _log_summaries(report: BuildReport) -> None:
    usage = report.usage
    logger.info(
        "%d documents in %.1f s: %d calls to the LLM, %d cache hits, %d tokens in, %d out",
        count_where(report.counts),
        usage.durations_s.get("summarise", 0.0),
        usage.llm_calls,
        usage.cache_hits,
        usage.tokens_in,
        usage.tokens_out,
    )
    for fault in report.faults[:FAULTS_LOGGED]:
        logger.warning("%s %s: %s", fault.id, fault.status.value, fault.reason)
    if len(report.faults) > FAULTS_LOGGED:
        logger.warning("and more: `summidx show %s` has them all", report.name)


def _refuse_unplanned(pinned: PinnedRepo, settings: Settings) -> None:
    """Fail as the plan did, which could not resolve it and has no key for what would be built."""
    sources.resolve(RepoRef(pinned.name, pinned.source, pinned.commit or None), settings.sources)
    raise SourceError(
        f"{pinned.source} could not be read when this run was planned, and can be now: retry the run to have it built"
    )


def _refuse_too_many_failures(documents: Sequence[Document], settings: Settings) -> None:
    failed = [document for document in documents if document.status is Status.FAILED]
    allowed = max(ALWAYS_ALLOWED_FAILURES, settings.max_failed * len(documents))
    if len(failed) > allowed:
        raise TooManyFailures(
            f"{len(failed)} of {len(documents)} documents failed, more than the {int(allowed)} allowed (max_failed): "
            f"nothing was published, finished summaries are kept; first: {failed[0].id}: {failed[0].reason}"
        )
