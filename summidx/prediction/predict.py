"""Predicts what a build will cost: reads and parses what would be rebuilt, and walks it without asking anybody."""

import os
import time
from collections.abc import Callable, Sequence

from summidx import sources
from summidx.cache import Cache
from summidx.errors import ParseError, SourceError, UsageError
from summidx.hierarchy import build_tree
from summidx.parsing import parse
from summidx.pipeline import wanted_units
from summidx.plan import Plan, PlannedRepo, check_rebuild, make_plan
from summidx.prediction import NotTried, Prediction, RepoPrediction, now_utc, sum_of
from summidx.prediction.experience import Experience, load_experience
from summidx.prediction.rehearsal import Rehearsal
from summidx.records import RepoRef
from summidx.settings import CachePolicy, Settings
from summidx.stop import Stop
from summidx.store.generations import IndexRoot
from summidx.summarizers.select import make_summarizer

STARTUP_S = 8.0
"""Prefect, and a cluster of workers: until the first repository is read."""

Progress = Callable[[int, int, str], None]
"""Told, before each repository: its number, how many there are, and its name."""


def predict(
    refs: Sequence[RepoRef], settings: Settings, tell: Progress = lambda *_: None, *, limit: int | None = None
) -> Prediction:
    """Predict what a build of `refs` would cost. Nothing is written, and the LLM is asked nothing but its name.

    Raises:
        UsageError, LLMError, EmbeddingError: as `plan.make_plan`.
        CacheError: the cache cannot be read.
    """
    plan = make_plan(refs, settings, limit=limit)
    summarizer = make_summarizer(settings.llm, plan.served_model)
    experience = load_experience(
        IndexRoot(settings.index_root),
        settings,
        summarizer=plan.summarizer,
        embedding_model=plan.embedding_model,
    )
    policy = CachePolicy.OFF if settings.cache.policy is CachePolicy.OFF else CachePolicy.READ_ONLY
    started = time.monotonic()
    repositories: list[RepoPrediction] = []
    chain = 0
    with Cache(settings.cache_url, policy=policy) as cache:
        rehearsal = Rehearsal(settings, summarizer, plan.embedding_model, cache, experience)
        for number, planned in enumerate(plan.to_build, start=1):
            tell(number, len(plan.to_build), planned.pin.name)
            predicted, its_chain = _predict_repo(planned, settings, rehearsal)
            repositories.append(predicted)
            chain = max(chain, its_chain)
    return _sum_up(plan, settings, experience, repositories, chain, time.monotonic() - started)


def _predict_repo(planned: PlannedRepo, settings: Settings, rehearsal: Rehearsal) -> tuple[RepoPrediction, int]:
    """What one repository would cost, and its longest chain of calls."""
    pin, stop = planned.pin, Stop()
    if not pin.build_key:
        return RepoPrediction(name=pin.name, build_key="", why=planned.why, problem=planned.why), 0
    try:
        content = sources.read_source(pin.source, pin.commit, settings.sources, stop)
        parsed = parse(content.files, settings.parsing, stop)
    except (SourceError, ParseError) as error:
        return RepoPrediction(name=pin.name, build_key=pin.build_key, why=planned.why, problem=str(error)), 0
    found = rehearsal.rehearse(build_tree(wanted_units(parsed.units, settings), pin.name))
    predicted = RepoPrediction(
        name=pin.name,
        build_key=pin.build_key,
        why=planned.why,
        units=found.units,
        cache_hits=found.cache_hits,
        calls=found.calls,
        tokens_in=found.tokens_in,
        tokens_out=found.tokens_out,
        vectors=found.vectors,
    )
    return predicted, found.chain


def _sum_up(
    plan: Plan,
    settings: Settings,
    experience: Experience,
    repositories: Sequence[RepoPrediction],
    chain: int,
    read_s: float,
) -> Prediction:
    """The sums, and the time: what takes longest sets it, since reading, calls and embedding overlap."""
    calls, vectors = sum_of(repositories, "calls"), sum_of(repositories, "vectors")
    llm_s, embedding_s = calls / experience.calls_per_s, vectors / experience.vectors_per_s
    cluster = settings.cluster
    at_once = min(cluster.num_processes * cluster.threads_per_worker, len(os.sched_getaffinity(0)))
    seconds = max(llm_s, chain * experience.call_s if calls else 0.0, embedding_s, read_s / max(1, at_once))
    return Prediction(
        made_at=now_utc(),
        repositories=tuple(repositories),
        up_to_date=sum(repo.up_to_date for repo in plan.repos),
        known_failures=tuple(NotTried(name=repo.pin.name, why=repo.why) for repo in plan.known_failures),
        units=sum_of(repositories, "units"),
        cache_hits=sum_of(repositories, "cache_hits"),
        calls=calls,
        tokens_in=sum_of(repositories, "tokens_in"),
        tokens_out=sum_of(repositories, "tokens_out"),
        vectors=vectors,
        seconds=round(seconds + STARTUP_S, 1) if repositories else 0.0,
        llm_s=round(llm_s, 1),
        embedding_s=round(embedding_s, 1),
        basis=experience.basis if calls else experience.basis[-1:],
        confirm=_find_objection(plan, settings),
    )


def _find_objection(plan: Plan, settings: Settings) -> str:
    try:
        check_rebuild(plan, settings)
    except UsageError as error:
        return str(error)
    return ""
