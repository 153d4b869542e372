"""What a run will do: each repository pinned to commit, build key and generation, and why it is rebuilt.

A plan is made before anything is submitted, and written as one JSON file per flow run under the index root: a Retry of
the run reuses it, since HEAD may have moved.
"""

import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from summidx import sources
from summidx.embedding.models import resolve_model
from summidx.errors import SourceError, StoreError
from summidx.keys import build_key
from summidx.records import PinnedRepo, RepoRef, Status, count_where
from summidx.settings import Settings, Stage
from summidx.store.generations import IndexRoot
from summidx.summarizers import ServedModel
from summidx.summarizers.select import make_summarizer, probe_model

PLANS = ".summidx/plans"
"""Where plans lie under the index root; no repository's folder starts with a dot."""


@dataclass(frozen=True, slots=True)
class PlannedRepo:
    """One repository of a plan.

    A repository that cannot be resolved has a pin without build key: its task fails with the reason.
    """

    pin: PinnedRepo
    up_to_date: bool
    why: str
    """Why it is built (`new`, `content or settings changed`, ...), or `up to date`."""
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """All repositories of a run, the largest first, and the model that the LLM server said it serves."""

    repos: tuple[PlannedRepo, ...]
    served_model: ServedModel | None

    @property
    def to_build(self) -> tuple[PlannedRepo, ...]:
        """Those that are not up to date."""
        return tuple(repo for repo in self.repos if not repo.up_to_date)


def make_plan(refs: Sequence[RepoRef], settings: Settings) -> Plan:
    """Pin every repository and find out which are up to date.

    Raises:
        UsageError: two repositories have one name, or settings do not fit together.
        LLMError: the LLM server does not answer, refuses the key or does not serve the model.
        EmbeddingError: the embedding model cannot be found.
    """
    sources.check_names(refs)
    served_model = probe_model(settings.llm)
    summarizer = make_summarizer(settings.llm, served_model).identity
    embedding_model = resolve_model(settings.embedding).identity
    root = IndexRoot(settings.index_root)

    def plan_one(ref: RepoRef) -> PlannedRepo:
        new_generation = uuid.uuid4().hex
        try:
            resolved = sources.resolve(ref, settings.sources)
        except SourceError as error:
            pin = PinnedRepo(ref.name, ref.source, ref.revision or "", "", new_generation)
            return PlannedRepo(pin, up_to_date=False, why=f"cannot be read: {error}", size_bytes=0)
        key = build_key(resolved.tree, settings, summarizer=summarizer, embedding_model=embedding_model)
        generation, why = find_generation(root, ref.name, key, settings)
        pin = PinnedRepo(ref.name, ref.source, resolved.commit, key, generation or new_generation)
        return PlannedRepo(pin, up_to_date=generation is not None, why=why, size_bytes=resolved.size_bytes)

    planned = sorted(map(plan_one, refs), key=lambda repo: (-repo.size_bytes, repo.pin.name))
    return Plan(tuple(planned), served_model)


def find_generation(root: IndexRoot, name: str, key: str, settings: Settings) -> tuple[str | None, str]:
    """The published generation of `name` if it is up to date, else None; and why."""
    if settings.stage is Stage.SUMMARIES:
        return None, "summaries only"
    if not settings.skip_existing:
        return None, "asked for (--no-skip-existing)"
    verified = root.verify(name, key)
    if verified.manifest is None:
        return None, verified.why
    degraded = count_where(verified.manifest.counts, status=Status.DEGRADED)
    if degraded and settings.retry_degraded:
        return None, f"{degraded} degraded documents (--retry-degraded)"
    return verified.manifest.generation, "up to date"


def write_plan(plan: Plan, index_root: str, run_id: str) -> Path:
    """Write the plan of flow run `run_id`; whole or not at all."""
    path = _plan_path(index_root, run_id)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
        partial.write_text(json.dumps(asdict(plan), indent=1), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise StoreError(f"the plan cannot be written under the index root {index_root}: {error}") from error
    return path


def load_plan(index_root: str, run_id: str) -> Plan | None:
    """The plan of an earlier try of flow run `run_id`, with what has become up to date since; None if there is none."""
    path = _plan_path(index_root, run_id)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(f"the plan {path} cannot be read: {error}; start a new run instead of a retry") from error
    root = IndexRoot(index_root)
    served = data["served_model"]
    return Plan(tuple(_load_repo(repo, root) for repo in data["repos"]), ServedModel(**served) if served else None)


def _load_repo(data: dict[str, Any], root: IndexRoot) -> PlannedRepo:
    pin = PinnedRepo(**data["pin"])
    current = root.find_manifest(pin.name)
    published = current is not None and current.generation == pin.generation
    why = "up to date" if published else data["why"]
    return PlannedRepo(pin, up_to_date=published, why=why, size_bytes=data["size_bytes"])


def _plan_path(index_root: str, run_id: str) -> Path:
    return Path(index_root) / PLANS / f"{run_id}.json"
