"""How long answers are and how long things take, from what earlier builds have recorded, else from stated assumptions.

Sources: the manifests and documents of the indexes under the index root, and the last runs' lines of accounting. What
was made by the same summariser counts; where there is none, by the same model under other settings.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import mean
from typing import Any

from summidx.accounting import merge_histograms
from summidx.errors import NewerIndex, StoreError
from summidx.journal import load_runs
from summidx.records import Document, Level, Manifest, Origin, count_where
from summidx.settings import Settings
from summidx.store.generations import IndexRoot

MAX_DOCUMENTS = 5000
"""So many documents are read to learn how long answers are."""
ENOUGH_CALLS = 100
ENOUGH_VECTORS = 200
"""With fewer, loading the model is most of the time that they took."""
FULL_LOAD = 4
"""A run that made so many times the calls that may be in flight shows what the server can do."""

ASSUMED_TOKENS = {Level.FUNCTION: 90} | dict.fromkeys((Level.CLASS, Level.FILE, Level.DIRECTORY, Level.REPO), 170)
"""Tokens of an answer: 60 words for a function, 120 else, and a line of keywords."""
ASSUMED_CHARS = {Level.FUNCTION: 330} | dict.fromkeys((Level.CLASS, Level.FILE, Level.DIRECTORY, Level.REPO), 700)
ASSUMED_TOKENS_PER_BYTE = 1 / 3.6
"""Between 3.2 bytes a token (code) and 4 (English)."""
ASSUMED_CALL_S = 4.0
ASSUMED_TOKENS_OUT_PER_S = 4000.0
"""What vLLM gives on one H100 with a model of some 8 billion parameters; measure your own by running it once."""
ASSUMED_VECTORS_PER_S = {"hashing": 5000.0, "gpu": 3000.0, "cpu": 50.0}
"""A device; on a CPU, a core: MiniLM takes 20 to 30 ms for a summary there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experience:
    """What to expect."""

    answer_tokens: Mapping[Level, int]
    answer_chars: Mapping[Level, int]
    """Characters of the text that a parent reads."""
    tokens_per_byte: float
    """Tokens of a prompt for each of its UTF-8 bytes."""
    calls_per_s: float
    """What the LLM server answers when it is kept full."""
    call_s: float
    """How long one answer takes then."""
    vectors_per_s: float
    """All embedding devices together."""
    basis: tuple[str, ...]
    """What each of these is from, in words."""


def _iterate_manifests(root: IndexRoot) -> Iterator[Manifest]:
    """Those that can be read."""
    for name in root.names():
        with suppress(NewerIndex):
            if manifest := root.find_manifest(name):
                yield manifest


def load_experience(root: IndexRoot, settings: Settings, *, summarizer: str, embedding_model: str) -> Experience:
    """Learn from what is under the index root and in the log folder; nothing there is needed."""
    manifests = list(_iterate_manifests(root))
    ours, whose = _select(manifests, summarizer)
    documents = _read_documents(root, ours)
    tokens, chars = dict(ASSUMED_TOKENS), dict(ASSUMED_CHARS)
    for level in Level:
        of_level = [each for each in documents if each.level is level]
        if of_level:
            tokens[level] = round(mean(each.tokens_out for each in of_level))
            chars[level] = round(mean(len(each.summary) for each in of_level))
    prompt_bytes = sum(each.usage.prompt_bytes for each in ours)
    per_byte = ASSUMED_TOKENS_PER_BYTE
    if prompt_bytes:
        per_byte = sum(each.usage.tokens_in for each in ours if each.usage.prompt_bytes) / prompt_bytes
    lengths = (
        f"lengths: from {len(documents):,} answers {whose}"
        if documents
        else (f"lengths: assumed {tokens[Level.FUNCTION]} tokens for a function, {tokens[Level.FILE]} else")
    )
    runs = [run for run in load_runs(settings.log_dir) if _same_model(str(run.get("summarizer", "")), summarizer)]
    calls_per_s, call_s, pace = _learn_pace(ours, runs, settings, mean(tokens.values()))
    vectors_per_s, embedding = _learn_embedding(manifests, settings, embedding_model)
    return Experience(
        answer_tokens=tokens,
        answer_chars=chars,
        tokens_per_byte=per_byte,
        calls_per_s=calls_per_s,
        call_s=call_s,
        vectors_per_s=vectors_per_s,
        basis=(lengths, pace, embedding),
    )


def _select(manifests: Sequence[Manifest], summarizer: str) -> tuple[list[Manifest], str]:
    """The manifests to learn from, and of whom they are, in words."""
    if same := [each for each in manifests if each.summarizer == summarizer]:
        return same, "of this summariser"
    return [each for each in manifests if _same_model(each.summarizer, summarizer)], "of this model"


def _same_model(one: str, other: str) -> bool:
    models = [_model_of(identity) for identity in (one, other)]
    return models[0] == models[1] != ""


def _model_of(identity: str) -> str:
    try:
        return str(json.loads(identity).get("model", ""))
    except (ValueError, AttributeError):  # the extractive summariser, which has no model
        return ""


def _read_documents(root: IndexRoot, manifests: Sequence[Manifest]) -> list[Document]:
    """Documents that an LLM answered, of the latest indexes."""
    documents: list[Document] = []
    for manifest in sorted(manifests, key=lambda each: each.built_at, reverse=True):
        if len(documents) + count_where(manifest.counts, origin=Origin.LLM) > MAX_DOCUMENTS and documents:
            break
        try:
            found = root.open(manifest.name).table.documents()
        except StoreError:  # damaged: others tell as much
            continue
        documents.extend(each for each in found if each.origin is Origin.LLM and each.tokens_out)
    return documents


def _learn_pace(
    manifests: Iterable[Manifest], runs: Iterable[Mapping[str, Any]], settings: Settings, answer_tokens: float
) -> tuple[float, float, str]:
    """Calls per second, seconds per call, and what that is from."""
    concurrency = settings.llm.concurrency
    histogram = merge_histograms(manifest.usage.latencies for manifest in manifests)
    answers = sum(histogram.values())
    call_s = sum(float(bound) * n for bound, n in histogram.items()) / answers / 1000 if answers else ASSUMED_CALL_S
    for run in runs:
        requests, seconds = run.get("requests", 0), run.get("seconds", 0)
        if seconds and requests >= max(ENOUGH_CALLS, FULL_LOAD * run.get("llm_concurrency", concurrency)):
            rate = requests / seconds
            return rate, call_s, f"pace: {rate:.1f} calls/s, as in the run of {str(run.get('at', ''))[:16]}"
    if answers >= ENOUGH_CALLS:
        told = f"pace: {call_s:.2f} s a call in {answers:,} earlier ones, {concurrency} at a time"
        return concurrency / max(call_s, 1e-3), call_s, told
    rate = min(concurrency / ASSUMED_CALL_S, ASSUMED_TOKENS_OUT_PER_S / answer_tokens)
    told = f"pace: assumed {ASSUMED_TOKENS_OUT_PER_S:,.0f} tokens/s out and {ASSUMED_CALL_S:.0f} s a call"
    return rate, call_s, f"{told} (one H100, a model of 8 B parameters)"


def _learn_embedding(manifests: Iterable[Manifest], settings: Settings, model: str) -> tuple[float, str]:
    """Vectors per second of all devices together, and what that is from."""
    cluster = settings.cluster
    devices = len(cluster.local_gpus) or cluster.num_processes
    seen = [
        (manifest.usage.vectors_embedded, manifest.usage.embedding_s)
        for manifest in manifests
        if manifest.embedding_model == model
        and manifest.usage.vectors_embedded >= ENOUGH_VECTORS
        and manifest.usage.embedding_s  # none in an index of an earlier version
    ]
    seconds = sum(each for _, each in seen)
    if seconds > 0:
        rate = sum(n for n, _ in seen) / seconds
        return rate * devices, f"embedding: {rate:,.0f} texts/s a process, as in {len(seen)} earlier builds"
    kind = "hashing" if model.startswith("hashing") else "gpu" if cluster.local_gpus else "cpu"
    rate = ASSUMED_VECTORS_PER_S[kind]
    return rate * devices, f"embedding: assumed {rate:,.0f} texts/s a process"
