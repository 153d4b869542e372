"""What a run will do: each repository pinned to commit, build key and generation, and why it is rebuilt.

A plan is made before anything is submitted, and written as one JSON file per flow run under the index root: a Retry of
the run reuses it, since HEAD may have moved.
"""

import json
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from summidx import sources
from summidx.changes import BuildInputs, find_changes
from summidx.embedding.models import resolve_model
from summidx.errors import NewerIndex, SourceError, StoreError, UsageError
from summidx.known_failures import KnownFailure, find_known, load_known_failures
from summidx.records import PinnedRepo, RepoRef, Status, count_where
from summidx.settings import Settings, Stage
from summidx.store.generations import IndexRoot
from summidx.summarizers import ServedModel
from summidx.summarizers.select import make_summarizer, probe_model

PLANS = ".summidx/plans"
"""Where plans lie under the index root; no repository's folder starts with a dot."""
REASONS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class PlannedRepo:
    """One repository of a plan.

    A repository that cannot be resolved has a pin without build key: its task fails with the reason.
    """

    pin: PinnedRepo
    up_to_date: bool
    why: str
    """Why it is built (`new`, `content changed`, `llm.max_tokens changed: 350 -> 400`, ...), or `up to date`."""
    size_bytes: int
    """What reading it will read, at most; 0 of a git repository that is up to date."""
    expected_publish_id: str | None
    """What CURRENT held when the run was first planned: a build that finds another commit's there is discarded."""
    has_index: bool = False
    """There is a published index of it, whatever its state."""
    only_changed: tuple[str, ...] = ()
    """The settings, model or versions that changed, where nothing else has it rebuilt; () otherwise."""
    known: KnownFailure | None = None
    """The failure for which it is not tried now; None where it is."""

    @property
    def needs_worker(self) -> bool:
        """Whether there is something to build: not where it is up to date, nor where it could not be read."""
        return not self.up_to_date and self.known is None and self.pin.build_key != ""


@dataclass(frozen=True, slots=True)
class Plan:
    """All repositories of a run, the largest first, and the model that the LLM server said it serves."""

    repos: tuple[PlannedRepo, ...]
    served_model: ServedModel | None
    summarizer: str = ""
    """Identity of who writes the summaries."""
    embedding_model: str = ""
    """Identity of who embeds them."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Those of the run, for one that resumes it. Nothing in them is secret."""

    @property
    def to_build(self) -> tuple[PlannedRepo, ...]:
        """Those that are tried: neither up to date, nor known to fail."""
        return tuple(repo for repo in self.repos if not repo.up_to_date and repo.known is None)

    @property
    def known_failures(self) -> tuple[PlannedRepo, ...]:
        """Those that are not tried, since they would fail as they did before."""
        return tuple(repo for repo in self.repos if repo.known is not None)


@dataclass(frozen=True, slots=True)
class PublishedState:
    """What was found of a published index: its generation if it is up to date, else None; and why."""

    generation: str | None
    why: str
    only_changed: tuple[str, ...] = ()
    """As `PlannedRepo.only_changed`."""


def make_plan(refs: Sequence[RepoRef], settings: Settings, *, limit: int | None = None) -> Plan:
    """Pin every repository and find out which are up to date.

    Args:
        refs: the repositories.
        settings: of the run.
        limit: keep the first so many of the plan only: the largest. None: all.

    Raises:
        UsageError: two repositories have one name, or settings do not fit together.
        LLMError: the LLM server does not answer, refuses the key or does not serve the model.
        EmbeddingError: the embedding model cannot be found.
    """
    plan = _plan(dict.fromkeys(refs), settings)
    return replace(plan, repos=plan.repos[:limit])


def make_retry_plan(earlier: Plan, settings: Settings) -> Plan:
    """Plan a run again: at the commits of its first try, everything else as it is now.

    What its first try published and what still verifies is up to date; all that is trusted of the earlier plan is what
    was pinned, and what CURRENT held then. What the run tried is tried again, also where its failure is known by now;
    what it did not try, since that was known before, is left alone.

    Raises:
        UsageError, LLMError, EmbeddingError: as `make_plan`.
    """
    pins = {RepoRef(repo.pin.name, repo.pin.source, repo.pin.commit or None): repo for repo in earlier.repos}
    return _plan(pins, settings)


def _plan(refs: Mapping[RepoRef, PlannedRepo | None], settings: Settings) -> Plan:
    sources.check_names(refs)
    served_model = probe_model(settings.llm)
    summarizer = make_summarizer(settings.llm, served_model).identity
    embedding_model = resolve_model(settings.embedding).identity
    root = IndexRoot(settings.index_root)
    known = load_known_failures(settings.index_root)

    def is_known(pin: PinnedRepo, earlier: PlannedRepo | None, error: SourceError | None = None) -> KnownFailure | None:
        was_tried = earlier is not None and earlier.known is None
        return None if was_tried else find_known(known, pin, error, settings)

    def plan_one(ref: RepoRef, earlier: PlannedRepo | None) -> PlannedRepo:
        new_generation = uuid.uuid4().hex
        try:
            current = root.find_manifest(ref.name)
        except NewerIndex as error:  # its task fails with that
            pin = PinnedRepo(ref.name, ref.source, ref.revision or "", "", new_generation)
            return PlannedRepo(pin, False, f"cannot be replaced: {error}", 0, None, has_index=True)
        expected = current.publish_id if current else None
        if earlier is not None and (current is None or current.generation != earlier.pin.generation):
            expected = earlier.expected_publish_id  # CURRENT is not the first try's own
        try:
            resolved = sources.resolve(ref, settings.sources, measured=False)
            inputs = BuildInputs(
                tree=resolved.tree, settings=settings, summarizer=summarizer, embedding_model=embedding_model
            )
            found = find_generation(root, ref.name, inputs)
            if found.generation is None and resolved.size_bytes is None:
                resolved = sources.resolve(RepoRef(ref.name, ref.source, resolved.commit), settings.sources)
        except SourceError as error:
            pin = PinnedRepo(ref.name, ref.source, ref.revision or "", "", new_generation)
            failure = is_known(pin, earlier, error)
            why = failure.describe(settings) if failure else f"cannot be read: {error}"
            return PlannedRepo(pin, False, why, 0, expected, current is not None, known=failure)
        pin = PinnedRepo(ref.name, ref.source, resolved.commit, inputs.build_key, found.generation or new_generation)
        failure = is_known(pin, earlier) if found.generation is None else None
        return PlannedRepo(
            pin,
            found.generation is not None,
            failure.describe(settings) if failure else found.why,
            resolved.size_bytes or 0,
            expected,
            current is not None,
            () if failure else found.only_changed,
            failure,
        )

    # what is far away is asked about several at once; git and folders are not (`each`)
    planned = sorted(
        root.each(lambda ref: plan_one(ref, refs[ref]), refs), key=lambda repo: (-repo.size_bytes, repo.pin.name)
    )
    return Plan(tuple(planned), served_model, summarizer, embedding_model)


def find_generation(root: IndexRoot, name: str, inputs: BuildInputs) -> PublishedState:
    """Find out whether the published index of `name` is up to date, and if not, why not."""
    settings = inputs.settings
    if settings.stage is Stage.SUMMARIES:
        return PublishedState(None, "summaries only")
    if not settings.skip_existing:
        return PublishedState(None, "asked for (--no-skip-existing)")
    verified = root.verify(name, inputs.build_key)
    if verified.current is None:
        return PublishedState(None, verified.why)
    changes = find_changes(verified.current, inputs)
    degraded = count_where(verified.current.counts, status=Status.DEGRADED) if settings.retry_degraded else 0
    asked_for = (f"{degraded} degraded document{'s' if degraded > 1 else ''} (--retry-degraded)",) if degraded else ()
    reasons = (*filter(None, (changes.describe(),)), *verified.faults, *asked_for)
    if not reasons:
        return PublishedState(verified.current.generation, "up to date")
    nothing_else = not changes.content and not verified.faults and not asked_for
    return PublishedState(None, "; ".join(reasons), changes.others if nothing_else else ())


def check_rebuild(plan: Plan, settings: Settings) -> None:
    """Refuse a run that would rebuild most indexes though their content is unchanged, unless that was confirmed.

    A forgotten option must not replace a night's summaries.

    Raises:
        UsageError: more than half of the existing indexes; the message names what changed, and what to do.
    """
    existing = [repo for repo in plan.repos if repo.has_index]
    changed = [repo for repo in existing if repo.only_changed]
    if settings.confirm_rebuild or 2 * len(changed) <= len(existing):
        return
    counted = Counter(reason for repo in changed for reason in repo.only_changed)
    reasons = "; ".join(
        f"{reason}{'' if n == len(changed) else f' ({n})'}" for reason, n in counted.most_common(REASONS_SHOWN)
    )
    more = len(counted) - REASONS_SHOWN
    raise UsageError(
        f"{len(changed)} of {len(existing)} existing indexes would be rebuilt though their content is unchanged: "
        f"{reasons}{f'; and {more} more' if more > 0 else ''}: nothing was built; put it back, or add "
        "--confirm-rebuild (confirm_rebuild) to have them rebuilt"
    )


def write_plan(plan: Plan, index_root: str, run_id: str) -> None:
    """Write the plan of flow run `run_id`; whole or not at all.

    Raises:
        StoreError: it cannot be written.
    """
    place = IndexRoot(index_root).place
    place.create()
    try:
        place.write_file(_plan_name(run_id), json.dumps(asdict(plan), indent=1).encode())
    except OSError as error:
        raise StoreError(f"the plan cannot be written under the index root {index_root}: {error}") from error


def load_plan(index_root: str, run_id: str) -> Plan | None:
    """The plan of an earlier try of flow run `run_id`, as it was written; None if there is none.

    Raises:
        StoreError: it cannot be read.
    """
    place = IndexRoot(index_root).place
    try:
        found = place.read_file(_plan_name(run_id))
        if found is None:
            return None
        data = json.loads(found)
        served = data["served_model"]
        repos = tuple(_read_planned(repo) for repo in data["repos"])
        identities = {name: data.get(name, "") for name in ("summarizer", "embedding_model")}
        parameters = dict(data.get("parameters", {}))
        return Plan(repos, ServedModel(**served) if served else None, **identities, parameters=parameters)
    except (OSError, ValueError, KeyError, TypeError) as error:
        where = f"{place.where}/{_plan_name(run_id)}"
        raise StoreError(f"the plan {where} cannot be read ({error}): start a new run instead of a retry") from error


def find_last_run(index_root: str) -> str | None:
    """The flow run whose plan was the last to be written under the index root; None if there is none."""
    written: list[tuple[float, str]] = []
    for file in IndexRoot(index_root).place.list_files(PLANS):
        with suppress(ValueError):  # it is no plan of ours
            written.append((file.written_at, str(uuid.UUID(PurePosixPath(file.name).stem))))
    return max(written)[1] if written else None


def _read_planned(data: dict[str, Any]) -> PlannedRepo:
    known = data.get("known")
    read = {
        "pin": PinnedRepo(**data["pin"]),
        "only_changed": tuple(data.get("only_changed", ())),
        "known": KnownFailure(**known) if known else None,
    }
    return PlannedRepo(**{**data, **read})


def _plan_name(run_id: str) -> str:
    return f"{PLANS}/{run_id}.json"
