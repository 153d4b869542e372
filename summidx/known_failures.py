"""Repositories that failed for a permanent reason (`errors`): they are listed, and not tried again every night.

    INDEX_ROOT/.summidx/known-failures/NAME.json     one small file for each, replaced as a whole

It says nothing of an index (CURRENT does): only that a build of this key was tried, and must fail the same way. It lies
with the indexes, so that all machines that build into one root know it, whichever Prefect server they report to. What
it holds is compared with the next plan's: another build key, error, limit or release of summidx, and it counts for
nothing. A success removes it. A run keeps no list in memory that another run could miss: the files are the list.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath

from pydantic import TypeAdapter

import summidx
from summidx.errors import StorageUnavailable, StoreError, SummidxError, UsageError
from summidx.escaping import escape_text
from summidx.records import PinnedRepo
from summidx.settings import Settings
from summidx.store.generations import IndexRoot
from summidx.store.names import escape_name, unescape_name, without_surrogates

FOLDER = ".summidx/known-failures"
"""Under the index root; no repository's folder starts with a dot."""
REASON_CHARS = 1000

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFailure:
    """A build that failed, and what would have to change for another try to make sense."""

    source: str
    """As all texts here without lone surrogates, which JSON does not take."""
    commit: str
    """As it was pinned: a revision that was not found stands as it was given."""
    build_key: str
    """"" where the repository could not even be pinned: the next plan tries that again at no cost."""
    error: str
    """Name of the error's class."""
    reason: str
    """One line, fit to be shown."""
    limits: Mapping[str, int]
    """The settings that are not part of the build key, and that the error may have been about."""
    tool_version: str
    first_failed_at: str
    last_failed_at: str
    """ISO 8601, UTC."""

    def is_of(self, pin: PinnedRepo, error: SummidxError | None, settings: Settings) -> bool:
        """Whether a build of `pin` would fail as this did.

        Args:
            pin: what would be built.
            error: why it could not be pinned (it then has no build key), else None.
            settings: of the run.
        """
        if error is not None and (not error.permanent or type(error).__name__ != self.error):
            return False
        pinned = (without_surrogates(pin.source), without_surrogates(pin.commit), pin.build_key)
        known = (self.source, self.commit, self.build_key)
        same_tool = self.tool_version == summidx.__version__
        return pinned == known and same_tool and self.limits == _limits(settings)

    def again_at(self, settings: Settings) -> datetime:
        """From when on it is tried again, UTC."""
        return datetime.fromisoformat(self.last_failed_at) + timedelta(days=settings.known_failure_days)

    def describe(self, settings: Settings) -> str:
        """One line for a plan: since when, when again, and why."""
        since, again = self.first_failed_at[:10], f"{self.again_at(settings):%Y-%m-%d}"
        return f"known failure since {since}, tried again on {again} (or with --retry-known): {self.reason}"


_KNOWN = TypeAdapter(KnownFailure)


def load_known_failures(index_root: str) -> dict[str, KnownFailure]:
    """All that is known under an index root, by name of the repository; what cannot be read is not known.

    Raises:
        StorageUnavailable: object storage does not answer.
    """
    place = IndexRoot(index_root).place
    found = {}
    for file in place.list_files(FOLDER):
        if not file.name.endswith(".json"):
            continue
        try:
            data = place.read_file(file.name)
            if data is None:  # its repository was built in this moment
                continue
            name = unescape_name(PurePosixPath(file.name).stem)
            failure = _KNOWN.validate_json(data)
            datetime.fromisoformat(failure.last_failed_at).astimezone(UTC)
        except StorageUnavailable:
            raise
        except (OSError, ValueError, UsageError):
            logger.warning("%s/%s is no known failure that can be read, and counts for nothing", place.where, file.name)
            continue
        found[name] = failure
    return found


def find_known(
    known: Mapping[str, KnownFailure], pin: PinnedRepo, error: SummidxError | None, settings: Settings
) -> KnownFailure | None:
    """The known failure for which a repository is not tried now; None where it is to be tried.

    Args:
        known: `load_known_failures`.
        pin: what would be built.
        error: why it could not be pinned, else None.
        settings: `retry_known`, and for how long a failure counts.
    """
    failure = known.get(pin.name)
    if failure is None or settings.retry_known or not failure.is_of(pin, error, settings):
        return None
    return failure if datetime.now(UTC) < failure.again_at(settings) else None


class FailureNotes:
    """Keeps what is known up to date while a run goes on. A disk that refuses costs a note, never the run."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._place = IndexRoot(settings.index_root).place
        self._known = load_known_failures(settings.index_root)

    def succeeded(self, name: str) -> None:
        """Forget the failure of a repository that was built, or is up to date."""
        if self._known.pop(name, None) is not None:
            self._try(lambda: self._place.delete_file(_file_name(name)))

    def failed(self, pin: PinnedRepo, error: object) -> KnownFailure | None:
        """Take note of a failure: what was known before of the same one, else None.

        A failure that is not permanent leaves what is known of the same build, and removes what is known of another.
        """
        before = self._known.get(pin.name)
        if not isinstance(error, SummidxError) or not error.permanent:
            if before is not None and before.build_key != pin.build_key:
                self.succeeded(pin.name)
            return None
        now = datetime.now(UTC).isoformat(timespec="seconds")
        note = KnownFailure(
            source=without_surrogates(pin.source),
            commit=without_surrogates(pin.commit),
            build_key=pin.build_key,
            error=type(error).__name__,
            reason=without_surrogates(escape_text(error.reason)[:REASON_CHARS]),
            limits=_limits(self._settings),
            tool_version=summidx.__version__,
            first_failed_at=now,
            last_failed_at=now,
        )
        is_same = before is not None and before.is_of(pin, None, self._settings) and before.error == note.error
        if before is not None and is_same:
            note = replace(note, first_failed_at=before.first_failed_at)
        self._known[pin.name] = note
        data = json.dumps(asdict(note), indent=1).encode()
        self._try(lambda: self._place.write_file(_file_name(pin.name), data))
        return before if is_same else None

    def _try(self, change: Callable[[], object]) -> None:
        try:
            change()
        except (OSError, StoreError) as error:
            logger.warning("what is known of failures cannot be kept under the index root: %s", error)


def _limits(settings: Settings) -> dict[str, int]:
    """The settings by which a repository is refused, and which are not in the build key, since they change no row."""
    return {
        "sources.max_files": settings.sources.max_files,
        "sources.max_total_bytes": settings.sources.max_total_bytes,
        "parsing.memory_mb": settings.parsing.memory_mb,
    }


def _file_name(name: str) -> str:
    return f"{FOLDER}/{escape_name(name)}.json"
