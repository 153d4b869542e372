"""What a build is expected to cost, kept under the index root, and how far off that was once the build has run."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from summidx.errors import StoreError
from summidx.records import Usage
from summidx.store.generations import IndexRoot

PREDICTION = ".summidx/prediction.json"
CHECK = ".summidx/prediction-check.json"
"""Under the index root; no repository's folder starts with a dot."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoPrediction:
    """What one repository is expected to cost. `problem`: why nothing can be said of it, else ""."""

    name: str
    build_key: str
    why: str
    units: int = 0
    cache_hits: int = 0
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    vectors: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotTried:
    """A repository that is known to fail, and is not tried: since when, when again, and why, in one line."""

    name: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a run is expected to cost: the sums over the repositories that it builds, and its time."""

    made_at: str
    """ISO 8601, UTC."""
    repositories: tuple[RepoPrediction, ...]
    """Those that will be built."""
    up_to_date: int
    known_failures: tuple[NotTried, ...] = ()
    units: int
    cache_hits: int
    calls: int
    tokens_in: int
    tokens_out: int
    vectors: int
    """Texts to embed."""
    seconds: float
    llm_s: float
    """How long the LLM server needs for the calls, kept full."""
    embedding_s: float
    """How long all embedding devices together need."""
    basis: tuple[str, ...]
    """What the time and the lengths of answers are from, in words."""
    confirm: str = ""
    """What a build would stop for until it is confirmed (`plan.check_rebuild`), else ""."""

    @property
    def llm_busy(self) -> float:
        """Share of the run in which the LLM server has all that it can do."""
        return self.llm_s / self.seconds if self.seconds else 0.0

    @property
    def embedding_busy(self) -> float:
        """Share of the run in which the embedding devices are at work."""
        return self.embedding_s / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Figures that are predicted, and then counted. `seconds` is None where other repositories ran beside."""

    calls: int
    tokens_in: int
    tokens_out: int
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionCheck:
    """A prediction beside what the same builds then took."""

    made_at: str
    checked_at: str
    repositories: int
    """Repositories that were predicted and then built under the same build key."""
    predicted: Figures
    actual: Figures
    cached_since: int = 0
    """Summaries that were in the cache only after the prediction, so that they were not asked for."""

    def describe(self) -> str:
        """One line: `calls 100 (predicted 98, -2 %), ...`.

        Where answers that were predicted as calls were in the cache by then, it says so in the place of differences
        that say nothing of the prediction.
        """
        if self.cached_since:
            seconds = "" if self.actual.seconds is None else f", {round(self.actual.seconds):,} seconds"
            return (
                f"{self.actual.calls:,} calls{seconds} (predicted {self.predicted.calls:,} calls, before "
                f"{self.cached_since:,} {'summary' if self.cached_since == 1 else 'summaries'} came into the cache)"
            )
        told = []
        for name, what in (("calls", "calls"), ("tokens_in", "tokens in"), ("tokens_out", "tokens out")):
            told.append(_compare(what, getattr(self.predicted, name), getattr(self.actual, name)))
        if self.predicted.seconds is not None and self.actual.seconds is not None:
            told.append(_compare("seconds", round(self.predicted.seconds), round(self.actual.seconds)))
        return ", ".join(told)


def check_prediction(
    prediction: Prediction, built: Iterable[tuple[str, str, Usage]], seconds: float
) -> PredictionCheck | None:
    """Compare a prediction with a run, over the repositories that both have; None where they share none.

    Args:
        prediction: the last one that was made.
        built: name, build key and cost of each repository that the run built.
        seconds: how long the run took.
    """
    usages = {(name, key): usage for name, key, usage in built}
    expected = {(each.name, each.build_key): each for each in prediction.repositories if not each.problem}
    both = usages.keys() & expected.keys()
    if not both:
        return None
    same_run = usages.keys() == expected.keys()
    return PredictionCheck(
        made_at=prediction.made_at,
        checked_at=now_utc(),
        repositories=len(both),
        predicted=Figures(
            calls=sum(expected[each].calls for each in both),
            tokens_in=sum(expected[each].tokens_in for each in both),
            tokens_out=sum(expected[each].tokens_out for each in both),
            seconds=prediction.seconds if same_run else None,
        ),
        actual=Figures(
            calls=sum(usages[each].requests for each in both),
            tokens_in=sum(usages[each].tokens_in for each in both),
            tokens_out=sum(usages[each].tokens_out for each in both),
            seconds=round(seconds, 3) if same_run else None,
        ),
        cached_since=max(0, sum(usages[each].cache_hits - expected[each].cache_hits for each in both)),
    )


def load_prediction(index_root: str) -> Prediction | None:
    """The last prediction; None where there is none, or none that can be read: nothing depends on it."""
    return _load(index_root, PREDICTION, TypeAdapter(Prediction))


def write_prediction(prediction: Prediction, index_root: str) -> None:
    """Keep a prediction, in the place of the one before.

    Raises:
        StoreError: it cannot be written.
    """
    _write(index_root, PREDICTION, asdict(prediction))


def load_check(index_root: str) -> PredictionCheck | None:
    """How far off the last prediction was that a run has followed; None as `load_prediction`."""
    return _load(index_root, CHECK, TypeAdapter(PredictionCheck))


def write_check(check: PredictionCheck, index_root: str) -> None:
    """Keep how far off a prediction was.

    Raises:
        StoreError: it cannot be written.
    """
    _write(index_root, CHECK, asdict(check))


def sum_of(repositories: Sequence[RepoPrediction], name: str) -> int:
    """Sum of a figure over repositories."""
    return sum(getattr(each, name) for each in repositories)


def now_utc() -> str:
    """This moment, as predictions are dated."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _compare(what: str, predicted: int, actual: int) -> str:
    off = f", {100 * (predicted - actual) / actual:+.0f} %" if actual else ""
    return f"{what} {actual:,} (predicted {predicted:,}{off})"


def _load(index_root: str, name: str, adapter: "TypeAdapter[T]") -> T | None:
    try:
        found = IndexRoot(index_root).place.read_file(name)
        return None if found is None else adapter.validate_json(found)
    except (OSError, ValidationError, StoreError):
        return None


def _write(index_root: str, name: str, value: dict[str, object]) -> None:
    place = IndexRoot(index_root).place
    place.create()
    try:
        place.write_file(name, json.dumps(value, indent=1).encode())
    except OSError as error:
        raise StoreError(f"{place.where}/{name} cannot be written: {error.strerror}") from error
