"""Builds one repository in a process that does nothing else, and says what that cost."""

import resource
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from summidx.engine import Engine
from summidx.pipeline import index_repo
from summidx.records import BuildReport, PinnedRepo, RepoRef
from summidx.settings import load_settings
from summidx.sources import resolve


@dataclass(frozen=True)
class Cost:
    """Of a build, in the process that built and in those that it started."""

    report: BuildReport
    cpu_s: float
    children_kib: int
    """Most memory that one of the processes had that this process has ever started."""
    grown_kib: int
    """By how much the most memory of this process has grown."""


def build(name: str, source: Path, index_root: Path) -> Cost:
    """Build an index of the folder or repository `source`, without an LLM."""
    settings = load_settings({"index_root": str(index_root), "embedding": {"model": "hashing"}})
    engine = Engine(settings)
    before, own_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.process_time()
    own_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        resolved = resolve(RepoRef(name, str(source)), settings.sources)
        build_key = engine.build_key(resolved.tree)
        report = index_repo(PinnedRepo(name, str(source), resolved.commit, build_key, uuid.uuid4().hex), engine)
    finally:
        engine.close()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    children_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(
        report,
        children_s + time.process_time() - own_s,
        after.ru_maxrss,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - own_kib,
    )
