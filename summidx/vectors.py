"""Vectors of texts: from the cache, from another thread's work in progress, or embedded now.

Two repositories of a process that embed the same text at the same moment embed it once, and everybody uses the vector
that won in the cache.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from summidx.cache import Cache
from summidx.keys import vector_key
from summidx.records import Vectors
from summidx.stop import Stop

EMBED_SLICE = 256
"""Texts handed to the embedding thread at once: the embedder sorts by length what it is given, other repositories take
turns between slices, and a stop is seen between them."""

Vector = npt.NDArray[np.float32]
T = TypeVar("T")


class Wait(Protocol):
    """Blocks until a future is done or a stop is requested, and returns its result."""

    def __call__(self, future: Future[T], stop: Stop, /) -> T:
        """The result of `future`; where `stop` comes first, raises what that says."""
        ...


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors in the order of the texts, and how many of their distinct texts were embedded now."""

    vectors: Vectors
    embedded: int
    reused: int


class TextVectors:
    """The vectors of one process, by text, under one model. Usable from several threads."""

    def __init__(self, cache: Cache, model: str, embed: Callable[[Sequence[str]], Future[Vectors]], wait: Wait) -> None:
        """Make it for a model.

        Args:
            cache: its policy decides what is looked up and kept.
            model: identity of the embedding model, its weights included.
            embed: submits texts to the embedding thread.
            wait: waits for that, or for a stop.
        """
        self._cache = cache
        self._model = model
        self._embed = embed
        self._wait = wait
        self._lock = threading.Lock()
        self._in_flight: dict[str, Future[Vector | None]] = {}
        """By key. The result is None where the thread that had the key could not embed it: it is free again then."""

    def get(self, texts: Sequence[str], stop: Stop) -> Embedded:
        """One vector for each of `texts`, of which there is at least one, in their order.

        Args:
            texts: what to embed.
            stop: seen between slices, and while waiting.

        Raises:
            Stopped: the run was told to stop.
            RepoTimeout: the repository's time is over.
            EmbeddingError: the model cannot be loaded or failed.
            CacheError: the cache failed.
        """
        by_key = {vector_key(text, self._model): text for text in texts}
        known: dict[str, Vector] = {}
        embedded = 0
        while missing := by_key.keys() - known.keys():
            mine, theirs = self._divide(missing)
            # First our own, then those of others, who do the same: nobody waits in a circle.
            try:
                embedded += self._get_mine({key: by_key[key] for key in mine}, known, stop)
            finally:
                self._settle(mine, known)
            for key, future in theirs.items():
                if (vector := self._wait(future, stop)) is not None:
                    known[key] = vector
        rows = np.stack([known[vector_key(text, self._model)] for text in texts]).astype(np.float32, copy=False)
        return Embedded(Vectors(rows), embedded=embedded, reused=len(by_key) - embedded)

    def _divide(self, keys: set[str]) -> tuple[set[str], dict[str, Future[Vector | None]]]:
        """Which keys this thread is to get, and the futures of those that others are at."""
        with self._lock:
            theirs = {key: self._in_flight[key] for key in keys if key in self._in_flight}
            mine = keys - theirs.keys()
            for key in mine:
                future: Future[Vector | None] = Future()
                future.set_running_or_notify_cancel()  # one who waits and gives up must not cancel it for the others
                self._in_flight[key] = future
        return mine, theirs

    def _settle(self, keys: Iterable[str], known: Mapping[str, Vector]) -> None:
        """Hand on what is known of `keys`, and let go of the rest; those that are settled are passed over."""
        with self._lock:
            settled = {key: self._in_flight.pop(key) for key in keys if key in self._in_flight}
        for key, future in settled.items():
            future.set_result(known.get(key))

    def _get_mine(self, by_key: Mapping[str, str], known: dict[str, Vector], stop: Stop) -> int:
        """Add the vectors of our texts, by key, to `known`; return how many the cache had not."""
        found = self._cache.get_vectors(by_key)
        known.update(found)
        self._settle(found, known)
        missing = sorted(by_key.keys() - found.keys(), key=lambda key: (len(by_key[key]), by_key[key]))
        for start in range(0, len(missing), EMBED_SLICE):
            stop.check()
            keys = missing[start : start + EMBED_SLICE]
            values = self._wait(self._embed([by_key[key] for key in keys]), stop).values
            known.update(self._cache.put_vectors(dict(zip(keys, values, strict=True)), model=self._model))
            self._settle(keys, known)
        return len(missing)
