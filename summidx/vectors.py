"""Vectors of texts: from the cache, from another thread's work in progress, or embedded now.

Two repositories of a process that embed the same text at the same moment embed it once, and everybody uses the vector
that won in the cache. A repository's texts are embedded while its other summaries are still being written: else the
first and largest of a run would keep the embedding idle for as long as the LLM is at it.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from summidx.cache import Cache
from summidx.keys import vector_key
from summidx.records import Vectors
from summidx.stop import Stop

EMBED_SLICE = 256
"""Texts handed to the embedding threads at once: the embedder sorts by length what it is given, other repositories take
turns between slices, and a stop is seen between them."""
IDLE_SLICE = 32
"""Texts that are handed over at once where nothing is being embedded: what embedding leaves undone while the LLM is at
it is waited for at the end."""

Vector = npt.NDArray[np.float32]
T = TypeVar("T")


class Wait(Protocol):
    """Blocks until a future is done or a stop is requested, and returns its result."""

    def __call__(self, future: Future[T], stop: Stop, /) -> T:
        """The result of `future`; where `stop` comes first, raises what that says."""
        ...


@dataclass(frozen=True, slots=True)
class TimedVectors:
    """What the embedding threads give for a slice."""

    vectors: Vectors
    seconds: float
    """What it took there, without the time that the slice waited for its turn; what two take at once counts once."""


@dataclass(slots=True)
class VectorUsage:
    """What the vectors of one repository cost so far, in distinct texts."""

    embedded: int = 0
    """Embedded for it; also one that was embedded before its document got another summary in the try at the end."""
    reused: int = 0
    """From the cache, or from another repository's work in progress."""
    seconds: float = 0.0
    """Of the embedding threads."""


class TextVectors:
    """The vectors of one process, by text, under one model. Usable from several threads."""

    def __init__(
        self, cache: Cache, model: str, embed: Callable[[Sequence[str]], Future[TimedVectors]], wait: Wait
    ) -> None:
        """Make it for a model.

        Args:
            cache: its policy decides what is looked up and kept.
            model: identity of the embedding model, its weights included.
            embed: submits texts to the embedding threads.
            wait: waits for that, or for a stop.
        """
        self._cache = cache
        self._model = model
        self._embed = embed
        self._wait = wait
        self._lock = threading.Lock()
        self._in_flight: dict[str, Future[Vector | None]] = {}
        """By key. The result is None where the thread that had the key could not embed it: it is free again then."""

    def of_repo(self, usage: VectorUsage, stop: Stop) -> "RepoVectors":
        """The vectors of one repository; what they cost is added to `usage`."""
        return RepoVectors(self, usage, stop, self._wait)

    def collect(self, texts: Iterable[str], known: dict[str, Vector], usage: VectorUsage, stop: Stop) -> None:
        """Add the vectors of `texts`, by key, to `known`; those that it has are passed over.

        Args:
            texts: what to embed.
            known: vectors by key.
            usage: what it costs is added, also where it does not come to its end.
            stop: seen between slices, and while waiting.

        Raises:
            Stopped: the run was told to stop.
            RepoTimeout: the repository's time is over.
            EmbeddingError: the model cannot be loaded or failed.
            CacheError: the cache failed.
        """
        by_key = {key: text for text in texts if (key := self.key_of(text)) not in known}
        while missing := by_key.keys() - known.keys():
            mine, theirs = self._divide(missing)
            # First our own, then those of others, who do the same: nobody waits in a circle.
            try:
                self._get_mine({key: by_key[key] for key in mine}, known, usage, stop)
            finally:
                self._settle(mine, known)
            for key, future in theirs.items():
                if (vector := self._wait(future, stop)) is not None:
                    known[key] = vector
                    usage.reused += 1

    @property
    def is_idle(self) -> bool:
        """Nothing is being looked up or embedded."""
        return not self._in_flight

    def key_of(self, text: str) -> str:
        """Key of a text's vector under this model."""
        return vector_key(text, self._model)

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

    def _get_mine(self, by_key: Mapping[str, str], known: dict[str, Vector], usage: VectorUsage, stop: Stop) -> None:
        """Add the vectors of our texts, by key, to `known`."""
        found = self._cache.get_vectors(by_key)
        known.update(found)
        usage.reused += len(found)
        self._settle(found, known)
        missing = sorted(by_key.keys() - found.keys(), key=lambda key: (len(by_key[key]), by_key[key]))
        for start in range(0, len(missing), EMBED_SLICE):
            stop.check()
            keys = missing[start : start + EMBED_SLICE]
            timed = self._wait(self._embed([by_key[key] for key in keys]), stop)
            usage.embedded += len(keys)
            usage.seconds += timed.seconds
            vectors = dict(zip(keys, timed.vectors.values, strict=True))
            known.update(self._cache.put_vectors(vectors, model=self._model))
            self._settle(keys, known)


class RepoVectors:
    """The vectors of one repository. What is added is embedded in a thread of its own, `EMBED_SLICE` texts at a time.

    Where nothing else is being embedded, `IDLE_SLICE` are enough. Vectors are kept here until the end, whatever the
    cache keeps. A context manager: what is not begun at its end is dropped.
    """

    def __init__(self, shared: TextVectors, usage: VectorUsage, stop: Stop, wait: Wait) -> None:
        self._shared = shared
        self._usage = usage
        self._stop = stop
        self._wait = wait
        self._known: dict[str, Vector] = {}
        self._waiting: list[str] = []
        self._slices: SimpleQueue[list[str]] = SimpleQueue()
        self._closed = False
        self._ahead: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._slices.put([])

    def add(self, text: str) -> None:
        """Have `text` embedded with others; for one thread, which does not wait.

        Raises:
            EmbeddingError, CacheError: embedding has failed, so that more summaries are of no use.
        """
        if self._ahead is not None and self._ahead.done():
            self._ahead.result()
        self._waiting.append(text)
        is_full = len(self._waiting) >= EMBED_SLICE
        if not is_full and not (len(self._waiting) >= IDLE_SLICE and self._shared.is_idle):
            return
        self._slices.put(self._waiting)
        self._waiting = []
        if self._ahead is None:
            self._ahead = Future()
            self._ahead.set_running_or_notify_cancel()
            threading.Thread(target=self._run, args=[self._ahead], name="summidx-vectors", daemon=True).start()

    def get(self, texts: Sequence[str]) -> Vectors:
        """One vector for each of `texts`, of which there is at least one, in their order. Nothing is added after it.

        Raises:
            Stopped: the run was told to stop.
            RepoTimeout: the repository's time is over.
            EmbeddingError: the model cannot be loaded or failed.
            CacheError: the cache failed.
        """
        if self._ahead is not None:
            self._slices.put([])
            self._wait(self._ahead, self._stop)
        self._shared.collect(texts, self._known, self._usage, self._stop)
        rows = np.stack([self._known[self._shared.key_of(text)] for text in texts])
        return Vectors(rows.astype(np.float32, copy=False))

    def _run(self, done: Future[None]) -> None:
        try:
            while (texts := self._slices.get()) and not self._closed:
                self._shared.collect(texts, self._known, self._usage, self._stop)
        except Exception as error:  # raised where they are waited for
            done.set_exception(error)
        else:
            done.set_result(None)
