"""One repository, from source to published index, in readable steps."""

import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

import summidx
from summidx import sources
from summidx.documents import build_documents, embedding_text
from summidx.engine import Engine
from summidx.errors import TooManyFailures
from summidx.hierarchy import build_tree
from summidx.keys import INDEX_VERSION, recorded_settings
from summidx.parsing import parse
from summidx.records import (
    BuildReport,
    Document,
    Manifest,
    Outcome,
    PinnedRepo,
    RepoRef,
    Status,
    TestsPolicy,
    Usage,
    count_documents,
)
from summidx.settings import Settings, Stage
from summidx.store.generations import IndexRoot

ALWAYS_ALLOWED_FAILURES = 3
"""So many documents may fail in any repository, however small, before it fails as a whole."""


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
        LLMError: no call to the LLM can succeed.
        EmbeddingError: the embedding model failed.
        CacheError: the cache failed.
        StoreError: the index cannot be written.
        Stopped: the run was told to stop; nothing was published.
    """
    settings, stop = engine.settings, engine.stop
    root = IndexRoot(settings.index_root)
    current = root.find_manifest(pinned.name)
    if current is not None and current.generation == pinned.generation:
        return report_up_to_date(current)
    clock = Stopwatch()

    with clock.step("read"):
        commit = pinned.commit if pinned.build_key else _resolve_now(pinned, settings)
        content = sources.read_source(pinned.source, commit, settings.sources, stop)
    with clock.step("parse"):
        parsed = parse(content.files, settings.parsing, stop)
        wanted = [unit for unit in parsed.units if settings.tests is not TestsPolicy.SKIP or not unit.is_test]
        tree = build_tree(wanted, pinned.name)
    with clock.step("summarise"):
        summarized = engine.summarize(tree)
    documents = build_documents(tree, summarized.outcomes, frozenset(settings.levels))
    _refuse_too_many_failures(documents, settings)
    skips = (*content.skips, *parsed.skips)
    report = BuildReport(
        name=pinned.name,
        outcome=Outcome.SUMMARIZED,
        commit=commit,
        generation="",
        counts=count_documents(documents),
        skips=dict(sorted(Counter(skip.reason.value for skip in skips).items())),
        usage=Usage(
            llm_calls=summarized.usage.asked,
            requests=summarized.usage.record.requests,
            retries=dict(sorted(summarized.usage.record.retries.items())),
            latencies=summarized.usage.record.latencies(),
            cache_hits=summarized.usage.cache_hits,
            tokens_in=summarized.usage.tokens_in,
            tokens_out=summarized.usage.tokens_out,
            durations_s=clock.durations_s,
        ),
    )
    if settings.stage is Stage.SUMMARIES:
        return report

    with clock.step("embed"):
        embedded = engine.embed([embedding_text(document) for document in documents])
    usage = replace(report.usage, vectors_embedded=embedded.embedded, vectors_reused=embedded.reused)
    with root.stage(pinned.name, pinned.generation) as staging:
        with clock.step("write"):
            staging.write(documents, embedded.vectors, skips)
        usage = replace(usage, durations_s=clock.durations_s)
        manifest = Manifest(
            name=pinned.name,
            publish_id=uuid.uuid4().hex,
            generation=pinned.generation,
            build_key=engine.build_key(content.tree),
            source=pinned.source,
            commit=commit,
            tree=content.tree,
            counts=report.counts,
            skips=report.skips,
            usage=usage,
            summarizer=engine.summarizer.identity,
            embedding_model=engine.embedding_model.identity,
            dim=embedded.vectors.dim,
            prompt_version=next((each.prompt_version for each in documents if each.prompt_version), ""),
            tool_version=summidx.__version__,
            built_at=datetime.now(UTC).isoformat(timespec="seconds"),
            index_version=INDEX_VERSION,
            settings=recorded_settings(settings),
        )
        published = root.publish(staging, manifest, expected_publish_id=expected_publish_id, check=stop.check)
    return replace(
        report,
        outcome=Outcome.BUILT if published else Outcome.SUPERSEDED,
        generation=pinned.generation if published else "",
        usage=usage,
    )


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
    )


class Stopwatch:
    """Wall seconds by step."""

    def __init__(self) -> None:
        self.durations_s: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure a block as step `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.durations_s[name] = round(time.perf_counter() - start, 3)


def _resolve_now(pinned: PinnedRepo, settings: Settings) -> str:
    """Commit of what the plan could not resolve: the task fails with the reason, or a Retry finds it mended."""
    ref = RepoRef(pinned.name, pinned.source, pinned.commit or None)
    return sources.resolve(ref, settings.sources).commit


def _refuse_too_many_failures(documents: Sequence[Document], settings: Settings) -> None:
    failed = [document for document in documents if document.status is Status.FAILED]
    allowed = max(ALWAYS_ALLOWED_FAILURES, settings.max_failed * len(documents))
    if len(failed) > allowed:
        raise TooManyFailures(
            f"{len(failed)} of {len(documents)} documents failed, more than the {int(allowed)} allowed (max_failed): "
            f"nothing was published, finished summaries are kept; first: {failed[0].id}: {failed[0].reason}"
        )
