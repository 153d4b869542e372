"""What must be in order before a run, looked at without changing anything: `summidx doctor`.

Each check is a function of the settings that yields findings; `CHECKS` lists them in the order in which they are shown.
To add one, write such a function and add it there. What a check raises is a finding, too.
"""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from summidx.cache.integrity import examine_cache
from summidx.embedding import room
from summidx.embedding.models import resolve_model
from summidx.errors import NoGPU, SummidxError, UsageError
from summidx.gpus import load_gpus
from summidx.settings import CachePolicy, Provider, Settings
from summidx.space import describe_bytes, free_spaces
from summidx.store.generations import IndexRoot
from summidx.store.verification import read_whole
from summidx.summarizers.select import probe_model

ANSWERS_WITHIN_S = 15.0
"""A server that needs longer to say that it is there is not there."""


class State(StrEnum):
    """How a finding is meant: `failed`: a run cannot do its work, or an index is damaged; `warning`: it can."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, each text in one line."""

    check: str
    """What was looked at: `LLM`, `cache`, `index root`, ..."""
    state: State
    said: str
    to_do: str = ""
    """What to do about it; "" where `said` says it, or nothing is to be done."""
    details: tuple[str, ...] = ()
    """Further lines: a table, for instance."""
    index: str = ""
    """The name of the index that it is about, where it is about one."""


Check = Callable[[Settings], Iterable[Finding]]


def examine(settings: Settings, *, whole: bool = False, tell: Callable[[str], None] = lambda _: None) -> list[Finding]:
    """All findings, in the order of `CHECKS`.

    Args:
        settings: those that a run would have.
        whole: read every index and the cache whole as well (`read_whole`), which takes as long as reading takes. A
            damaged index is then marked, so that the next run builds it again.
        tell: told what is looked at next.
    """
    findings: list[Finding] = []
    for name, check in (*CHECKS.items(), *(WHOLE_CHECKS.items() if whole else ())):
        tell(name)
        try:
            findings.extend(check(settings))
        except SummidxError as error:
            findings.append(Finding(name, State.FAILED, str(error)))
        except Exception as error:
            said = f"it could not be looked at: {type(error).__name__}: {error}"
            findings.append(Finding(name, State.FAILED, " ".join(said.split()), "please report it"))
    return findings


def check_llm(settings: Settings) -> Iterator[Finding]:
    """The server answers and serves the model, or the model's files are here."""
    llm = settings.llm
    if llm.provider is Provider.EXTRACTIVE:
        yield Finding("LLM", State.OK, "none is used: `llm.provider` is extractive")
        return
    once = llm.model_copy(update={"max_retries": 0, "timeout_s": min(llm.timeout_s, ANSWERS_WITHIN_S)})
    served = probe_model(once)
    if served is None:
        return
    context = f", context {served.max_model_len} tokens" if served.max_model_len else ""
    where = "is on this machine" if llm.provider is Provider.VLLM else "is served"
    yield Finding("LLM", State.OK, f"{served.id} {where}{context}")


def check_embedding_model(settings: Settings) -> Iterator[Finding]:
    """The embedding model is to be found, and its weights are what they claim to be."""
    resolved = resolve_model(settings.embedding)
    where = f" in {resolved.folder}" if resolved.folder else ""
    prompts = {"queries": resolved.query_prompt, "documents": resolved.document_prompt}
    before = "".join(f", {text!r} before {what}" for what, text in prompts.items() if text)
    yield Finding("embedding model", State.OK, f"{resolved.model_id}{where}{before}")


def check_cache(settings: Settings) -> Iterator[Finding]:
    """The cache opens, and SQLite finds nothing wrong with its pages."""
    yield from _check_cache(settings, whole=False)


def check_index_root(settings: Settings) -> Iterator[Finding]:
    """The index root can be written, and each index under it opens and has all its files."""
    root = IndexRoot(settings.index_root)
    where = root.place.where
    if found := root.place.examine():
        yield Finding("index root", State.OK, f"{where} {found}")
        return
    names = root.names()
    damaged = 0
    for name, damage in zip(names, root.each(root.find_damage, names), strict=True):
        if damage:
            damaged += 1
            yield _damaged_index(name, damage)
    if not damaged:
        n = len(names)
        yield Finding("index root", State.OK, f"{where}: {n} index{'es open' if n != 1 else ' opens'}")


def check_gpus(settings: Settings) -> Iterator[Finding]:
    """The GPUs of this machine, who computes on them, and whether those that a run uses have room for the model."""
    is_used = bool(settings.cluster.local_gpus)
    try:
        gpus = load_gpus()
    except NoGPU as error:
        if is_used:
            room.check_gpus(settings)  # says so of these GPUs
        yield Finding("GPUs", State.OK, f"none here is used: {error}")
        return
    table = tuple(room.render_table(gpus, room.load_model_need(settings.embedding)))
    if not is_used:
        yield Finding("GPUs", State.OK, f"{len(gpus)} here, none asked for (`cluster.gpu_ids`)", details=table)
        return
    try:
        room.check_gpus(settings)
    except UsageError as error:
        yield Finding("GPUs", State.FAILED, str(error), details=table)
    else:
        said = f"{room.name_gpus(settings.cluster.local_gpus)} can be used, {len(gpus)} here"
        yield Finding("GPUs", State.OK, said, details=table)


def check_space(settings: Settings) -> Iterator[Finding]:
    """There is room on every disk that a run writes to."""
    for space in free_spaces(settings):
        said = f"{describe_bytes(space.free_bytes)} free of {describe_bytes(space.size_bytes)} for {space.what}"
        if space.free_bytes < settings.min_free_mb * 2**20 or not space.has_inodes:
            why = "" if space.has_inodes else ", and no file can be made (no inode is left)"
            advice = f"free some (`summidx disk` shows what takes it): a run needs {settings.min_free_mb} MiB to begin"
            yield Finding("free space", State.FAILED, said + why, advice)
        elif space.free_bytes < space.size_bytes / 20:
            yield Finding("free space", State.WARNING, said, "`summidx disk` shows what takes it")
        else:
            yield Finding("free space", State.OK, said)


def check_prefect_api(_: Settings) -> Iterator[Finding]:
    """The Prefect API that the environment names is healthy."""
    url = os.environ.get("PREFECT_API_URL", "")
    if not url:
        yield Finding(
            "Prefect API", State.OK, "PREFECT_API_URL is not set: each run starts a server of its own, and ends it"
        )
        return
    advice = "start it, or unset PREFECT_API_URL to have one started for each run"
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=ANSWERS_WITHIN_S) as response:  # noqa: S310 - the operator's own URL
            healthy = json.load(response) is True
    except urllib.error.HTTPError as error:
        reason = f"it answers {error.code} to /health"
    except (OSError, ValueError) as error:
        reason = f"it cannot be reached ({getattr(error, 'reason', error)})"
    else:
        reason = "" if healthy else "it does not say that it is healthy"
    if reason:
        yield Finding("Prefect API", State.FAILED, f"{url}: {reason}, so runs would have no record", advice)
    else:
        yield Finding("Prefect API", State.OK, f"{url} is healthy")


def verify_indexes(settings: Settings) -> Iterator[Finding]:
    """Every index read whole: each file's bytes, each row."""
    root = IndexRoot(settings.index_root)
    names = root.names()
    whole = without_digests = 0
    for name in names:
        found = read_whole(root, name)
        if not found.faults:
            whole += 1
            without_digests += not found.has_digests
            continue
        advice = _REBUILT if not found.not_marked else f"delete its folder: it could not be marked ({found.not_marked})"
        yield Finding("whole reading", State.FAILED, f"damaged: {found.faults[0]}", advice, found.faults[1:], name)
    if whole:
        yield Finding("whole reading", State.OK, f"{whole} of {len(names)} indexes are whole")
    if without_digests:
        yield Finding(
            "whole reading",
            State.WARNING,
            f"{without_digests} of them were built before digests were kept: a text that changed there is not seen",
            "they get digests when they are built again",
        )


def verify_cache(settings: Settings) -> Iterator[Finding]:
    """Every row of the cache read, and its digest compared."""
    yield from _check_cache(settings, whole=True)


CHECKS: dict[str, Check] = {
    "LLM": check_llm,
    "embedding model": check_embedding_model,
    "GPUs": check_gpus,
    "cache": check_cache,
    "index root": check_index_root,
    "free space": check_space,
    "Prefect API": check_prefect_api,
}
"""By the name that its findings have."""

WHOLE_CHECKS: dict[str, Check] = {"whole reading": verify_indexes, "cache, whole": verify_cache}
"""Those that `--verify` adds."""

_REBUILT = "the next run builds it again"


def _check_cache(settings: Settings, *, whole: bool) -> Iterator[Finding]:
    name = "cache, whole" if whole else "cache"
    if settings.cache.policy is CachePolicy.OFF:
        yield Finding(name, State.OK, "it is not used: `cache.policy` is off")
        return
    found = examine_cache(settings.cache_url, whole=whole)
    if found.faults:
        yield Finding(
            name,
            State.FAILED,
            f"{found.shown} is damaged: {found.faults[0]}",
            "run `summidx cache repair`: what can still be read is kept, and what is lost is paid for again",
            found.faults[1:],
        )
    elif not found.schema:
        yield Finding(name, State.OK, f"{found.shown} is not there yet; the first build makes it")
    elif found.changed_rows:
        said = f"{found.shown}: {found.changed_rows} of {found.rows} entries are not what was put there"
        yield Finding(name, State.WARNING, said, "they count as missing, and are asked for again when needed")
    elif found.is_older:
        yield Finding(name, State.OK, f"{found.shown} has schema {found.schema}; the next build brings it up to date")
    else:
        yield Finding(name, State.OK, f"{found.shown}{f': {found.rows} entries are whole' if whole else ' opens'}")


def _damaged_index(name: str, damage: str) -> Finding:
    return Finding("index root", State.FAILED, f"damaged: {damage}", _REBUILT, index=name)
