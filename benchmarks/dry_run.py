"""What a build would ask, found out without a server: the product's own parsing, tree, policy and prompts.

The answers are those of the simulated server (`server.build_answer`), so that a parent's prompt, and its key, is the
one that a real build sends.
"""

import shutil
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.schedule import Job
from benchmarks.server import MAX_MODEL_LEN, MODEL, OUTPUT_TOKENS, build_answer, count_tokens
from summidx import sources
from summidx.accounting import CallRecord
from summidx.engine import Engine
from summidx.hierarchy import Tree, build_tree
from summidx.parsing import parse
from summidx.records import Level, RepoRef, Summary
from summidx.settings import LLMSettings, load_settings
from summidx.stop import Stop
from summidx.summarizers import PreparedRequest, ServedModel
from summidx.summarizers.chat import ChatSummarizer, Completion

SERVED = ServedModel(MODEL, f"/{MODEL}", MAX_MODEL_LEN)


class OfflineChat:
    """Answers as the simulated server would, at once."""

    async def complete(
        self,
        payload: Mapping[str, Any],
        record: CallRecord,
        *,
        timeout_s: float | None = None,  # noqa: ARG002 - the signature is the protocol's
    ) -> Completion:
        """The simulated server's answer."""
        record.sent()
        return Completion(build_answer(payload["messages"]), "stop", 0, OUTPUT_TOKENS)

    async def count_tokens(self, payload: Mapping[str, Any]) -> int | None:
        """As the simulated server counts."""
        return count_tokens(payload)

    async def aclose(self) -> None:
        """Nothing is held."""


class RecordingSummarizer(ChatSummarizer):
    """The product's own summariser, which keeps what it was asked."""

    def __init__(self, settings: LLMSettings) -> None:
        super().__init__(settings, SERVED, OfflineChat(), identity={"provider": "openai"})
        self.asked: list[PreparedRequest] = []

    async def answer(self, prepared: PreparedRequest, record: CallRecord) -> Summary:
        """The answer, as the product reads it."""
        self.asked.append(prepared)
        return await super().answer(prepared, record)


@dataclass(frozen=True, slots=True)
class DryRun:
    """All calls of one repository's cold build."""

    name: str
    tree: Tree
    keys: frozenset[str]
    """One for each distinct question."""
    payloads: Mapping[str, dict[str, Any]]
    """What is sent, by key: for functions only, whose questions need no other's answer."""
    jobs: Mapping[str, Job]
    """The calls as a graph (`schedule`), in units of calls: a call takes 1 second."""


def dry_run(ref: RepoRef, overrides: Mapping[str, Any] | None = None) -> DryRun:
    """Find out what a cold build of `ref` would ask.

    Args:
        ref: the repository.
        overrides: settings, nested as their tree is, as `summidx.settings.load_settings` takes them.
    """
    folder = Path(tempfile.mkdtemp(prefix="summidx-dry-"))
    try:
        llm = {"provider": "openai", "base_url": "http://127.0.0.1:9/v1", **dict((overrides or {}).get("llm", {}))}
        settings = load_settings({**(overrides or {}), "llm": llm, "index_root": str(folder)})
        stop = Stop()
        resolved = sources.resolve(ref, settings.sources, stop)
        content = sources.read_source(ref.source, resolved.commit, settings.sources, stop)
        tree = build_tree(parse(content.files, settings.parsing, stop).units, ref.name)
        summarizer = RecordingSummarizer(settings.llm)
        with closing(Engine(settings, served_model=SERVED)) as engine:
            engine.__dict__["summarizer"] = summarizer  # in the place of what the settings name
            outcomes = engine.summarize(tree).outcomes
        keys = {unit_id: outcome.key for unit_id, outcome in outcomes.items() if isinstance(outcome, Summary)}
        functions = (each for each in summarizer.asked if each.request.unit.level is Level.FUNCTION)
        return DryRun(
            name=ref.name,
            tree=tree,
            keys=frozenset(each.key for each in summarizer.asked),
            payloads={each.key: each.payload for each in functions},
            jobs=_build_jobs(tree, keys, summarizer.asked),
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _build_jobs(tree: Tree, keys: Mapping[str, str], asked: Iterable[PreparedRequest]) -> dict[str, Job]:
    """The calls as jobs of 1 second. A unit itself takes no time; it needs its children, and its call if it has one.

    A question that several units ask is one job. The parts of what is too big for one prompt come after the unit's
    children and before its call.
    """
    parts: dict[str, set[str]] = {}
    for each in asked:
        if each.request.is_part:
            parts.setdefault(each.request.unit.id, set()).add(f"call:{each.key}")
    jobs: dict[str, Job] = {}
    for unit_id in tree.units:
        below = tuple(f"{tree.units['.'].name}:{child}" for child in tree.children[unit_id])
        call = f"call:{keys[unit_id]}" if keys.get(unit_id) else ""
        own_parts = tuple(sorted(parts.get(unit_id, set()) - {call}))
        for part in own_parts:
            jobs.setdefault(part, Job(1.0, below))
        if call:
            jobs.setdefault(call, Job(1.0, (*below, *own_parts)))
        jobs[f"{tree.units['.'].name}:{unit_id}"] = Job(0.0, (*below, *((call,) if call else own_parts)))
    return jobs
