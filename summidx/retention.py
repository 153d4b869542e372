"""What runs leave behind, and for how long: plans, logs, results, caches that were set aside.

Each run deletes what is older than `keep_days`:

    INDEX_ROOT/.summidx/plans/RUN.json              for a Retry of the run
    INDEX_ROOT/.summidx/known-failures/NAME.json    of a repository that is not asked for any more
    LOG_DIR/<timestamp>-{run,worker}-*.{log,jsonl,html,json}
                                                    of each run and its workers; what the last runs cost is kept
    PREFECT_LOCAL_STORAGE_PATH/*                    results of our tasks; those of other flows are left alone
    CACHE.damaged-*                                 a damaged cache, after what could be read was carried over
"""

import json
import logging
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from summidx.errors import StoreError
from summidx.journal import RUNS_READ
from summidx.known_failures import FOLDER as KNOWN_FAILURES
from summidx.plan import PLANS
from summidx.settings import Settings
from summidx.store.generations import IndexRoot

DAY_S = 86_400
_LOG = re.compile(r"\d{8}T\d{6}Z-(run|worker)-[\w.-]+\.(log(\.\d)?|jsonl|html|json)")
_MAX_RESULT_BYTES = 1_000_000
_RESULT_FIELDS = {"name", "outcome", "commit", "generation", "counts"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunFile:
    """A file that a run left."""

    kind: str
    """`plans`, `known failures`, `logs`, `results` or `damaged caches`."""
    path: Path | str
    """The name under the index root of a plan or known failure, which may lie in a bucket; else a path."""
    size_bytes: int
    """On the disk, or in the bucket."""
    is_old: bool
    """Older than `keep_days`, and not needed."""


def prefect_home() -> Path:
    """Where Prefect keeps its database, as far as the environment says; Prefect's profiles are not read."""
    return Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()


def prefect_results() -> Path:
    """Where Prefect keeps results, as far as the environment says."""
    named = os.environ.get("PREFECT_LOCAL_STORAGE_PATH")
    return Path(named).expanduser() if named else prefect_home() / "storage"


def find_run_files(settings: Settings, results: Path) -> Iterator[RunFile]:
    """The files that runs left, old or not; `results` is Prefect's folder of results."""
    cache = Path(settings.cache_url.removeprefix("sqlite:///")) if settings.cache_url.startswith("sqlite:///") else None
    logs = [path for path in _list(Path(settings.log_dir)) if _LOG.fullmatch(path.name)]
    needed = set(sorted(path for path in logs if "-run-" in path.name and path.suffix == ".jsonl")[-RUNS_READ:])
    place = IndexRoot(settings.index_root).place
    known_days = max(settings.keep_days, settings.known_failure_days)
    for kind, folder, days in (("plans", PLANS, settings.keep_days), ("known failures", KNOWN_FAILURES, known_days)):
        for each in place.list_files(folder):
            yield RunFile(kind, each.name, each.size_bytes, is_old=each.written_at < time.time() - days * DAY_S)
    for file in _files("logs", logs, settings):
        yield file if file.path not in needed else RunFile(file.kind, file.path, file.size_bytes, is_old=False)
    for file in _files("results", _list(results), settings):
        if _is_ours(file):
            yield file
    if cache is not None:
        aside = [path for path in _list(cache.parent) if path.name.startswith(f"{cache.name}.damaged-")]
        yield from _files("damaged caches", aside, settings)


def sweep_runs(settings: Settings, results: Path, *, dry_run: bool = False) -> list[RunFile]:
    """Delete what runs left and is old, and return it. What cannot be deleted is left to the next sweep."""
    swept = []
    for file in [each for each in find_run_files(settings, results) if each.is_old]:
        try:
            if not dry_run:
                _delete(file, settings)
            swept.append(file)
        except (OSError, StoreError) as error:
            logger.warning("%s is old and cannot be deleted: %s", file.path, error)
    return swept


def _delete(file: RunFile, settings: Settings) -> None:
    if isinstance(file.path, str):
        IndexRoot(settings.index_root).place.delete_file(file.path)
    else:
        file.path.unlink(missing_ok=True)


def _list(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:  # none is there, or it is not ours to read
        return []


def _files(kind: str, paths: list[Path], settings: Settings) -> Iterator[RunFile]:
    oldest = time.time() - settings.keep_days * DAY_S
    for path in paths:
        try:
            found = path.lstat()
        except OSError:
            continue
        if path.is_file():
            yield RunFile(kind, path, found.st_blocks * 512, is_old=found.st_mtime < oldest)


def _is_ours(file: RunFile) -> bool:
    """A result of the task `summarize_and_embed_repo`: JSON, with the fields of its report."""
    try:
        if file.size_bytes > _MAX_RESULT_BYTES:
            return False
        record = json.loads(Path(file.path).read_text(encoding="utf-8"))
        is_json = record["metadata"]["serializer"]["type"] == "json"
        return bool(is_json and json.loads(record["result"]).keys() >= _RESULT_FIELDS)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
