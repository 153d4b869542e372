"""What one worker process owns once: the LLM's event loop, the embedding threads, the cache; and Stop.

Repository threads submit work here and wait. `index_repo(pinned, engine)` is their only entrance.
"""

import asyncio
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from summidx.activity import Activity, Look
from summidx.answers import Answers
from summidx.cache import Cache
from summidx.daemon_threads import DaemonThreads, ShutDown
from summidx.embedding import Embedder, ResolvedModel
from summidx.embedding.models import load_embedder, resolve_model
from summidx.hierarchy import Tree
from summidx.keys import build_key
from summidx.llm.calls import Calls
from summidx.llm.limits import Demand
from summidx.records import Summary, UnitFailure, Vectors
from summidx.settings import Settings
from summidx.stop import Stop
from summidx.summarize import Settled, SummaryPolicy, SummaryUsage, Walk
from summidx.summarizers import ServedModel, Summarizer
from summidx.summarizers.degraded import Refusals
from summidx.summarizers.select import make_summarizer
from summidx.vectors import RepoVectors, TextVectors, TimedVectors, VectorUsage

POLL_S = 0.2
CLOSE_S = 8.0
"""A run ends within 15 s of a signal, whatever the database does: what is not written by then is left."""
LAST_S = 1.0
"""What is over by itself has so long to end."""

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Summarized:
    """The outcome of a repository's walk."""

    outcomes: Mapping[str, Summary | UnitFailure]
    usage: SummaryUsage


class Engine:
    """One per worker process, shared by its repository threads. Everything heavy is made when first needed."""

    def __init__(
        self, settings: Settings, *, served_model: ServedModel | None = None, max_calls: int | None = None
    ) -> None:
        """Make an engine; nothing heavy is loaded yet.

        Args:
            settings: those of the run.
            served_model: what the LLM server said it serves.
            max_calls: calls in flight that this process may have now, where the endpoint's limit is divided over
                several processes (`set_cap`); None: it has the endpoint to itself (`llm.concurrency` at most).
        """
        self.settings = settings
        self._max_calls = max_calls
        self.stop = Stop()
        self.activity = Activity()
        self._served_model = served_model
        self._orders = itertools.count()
        self._refusals = Refusals()
        self._lock = threading.RLock()
        self._io = DaemonThreads(2, name="summidx-cache")
        # Two: one is at the tokenizer, or waits for its last batch, while the model is at what the other gave it.
        self._embedding = ThreadPoolExecutor(2, thread_name_prefix="summidx-embedding")
        self._loading = threading.Lock()
        self._embedded_until = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: threading.Thread | None = None

    @cached_property
    def summarizer(self) -> Summarizer:
        """Who answers requests for summaries."""
        return make_summarizer(self.settings.llm, self._served_model)

    @cached_property
    def embedding_model(self) -> ResolvedModel:
        """Which model embeds; resolving it loads nothing."""
        return resolve_model(self.settings.embedding)

    @cached_property
    def cache(self) -> Cache:
        """The cache of summaries and vectors."""
        return Cache(self.settings.cache_url, policy=self.settings.cache.policy)

    @cached_property
    def _calls(self) -> Calls:
        return Calls(self.summarizer, self.settings.llm, self.stop, cap=self._max_calls)

    @cached_property
    def _answers(self) -> Answers:
        return Answers(self.cache, self._io, retry_degraded=self.settings.retry_degraded)

    @cached_property
    def _vectors(self) -> TextVectors:
        return TextVectors(
            self.cache,
            self.embedding_model.identity,
            lambda texts: self._submit_embedding(lambda: self._embed_now(texts)),
            self._wait,
        )

    @property
    def _embedder(self) -> Embedder:
        """Loaded in an embedding thread, once, and only when a text has no vector yet."""
        with self._loading:  # what a cached_property does not hold from Python 3.12 on
            return self._loaded_embedder

    @cached_property
    def _loaded_embedder(self) -> Embedder:
        cluster = self.settings.cluster
        cores = len(os.sched_getaffinity(0))
        share = max(1, cores // max(1, cluster.num_processes)) if not cluster.scheduler_address else None
        start = time.perf_counter()
        embedder = load_embedder(self.settings.embedding, force_cpu=not cluster.embeds_on_gpu, cpu_threads=share)
        logger.info("loaded the embedding model %s in %.1f s", embedder.identity, time.perf_counter() - start)
        return embedder

    def build_key(self, tree: str) -> str:
        """Key of the index of a source whose content has the fingerprint `tree`, under this engine's settings."""
        with self._lock:
            summarizer, embedding_model = self.summarizer.identity, self.embedding_model.identity
        return build_key(tree, self.settings, summarizer=summarizer, embedding_model=embedding_model)

    def summarize(
        self,
        tree: Tree,
        usage: SummaryUsage | None = None,
        stop: Stop | None = None,
        settled: Settled | None = None,
    ) -> Summarized:
        """Summarise every unit of `tree`; blocks the calling thread.

        Args:
            tree: the repository's units.
            usage: what the walk costs is added to it, also where the walk does not come to its end.
            stop: the repository's own; None: the run's. What it has asked the LLM by then is still answered, into the
                cache.
            settled: told of each outcome, in the event loop's thread; what it raises ends the walk.

        Raises:
            Stopped: the run was told to stop.
            RepoTimeout: the repository's time is over.
            LLMError: no call can succeed (`Unauthorised`, `UnknownModel`, `Outage`).
            CacheError: the cache failed.
        """
        policy = SummaryPolicy(frozenset(self.settings.levels), self.settings.tests)
        stop = stop or self.stop
        with self._lock:  # the parts are made once, whichever thread comes first
            stop.check()
            walk = Walk(tree, policy, self.summarizer, self._answers, self._calls, stop, order=next(self._orders))
            walk.usage, walk.refusals, walk.settled = usage or walk.usage, self._refusals, settled
            walking = asyncio.run_coroutine_threadsafe(walk.run(), self._running_loop())
        outcomes = self._wait(walking, stop)
        return Summarized(outcomes, walk.usage)

    def set_cap(self, cap: int) -> None:
        """Let this process have so many calls in flight: its share, as whoever divides the endpoint's limit says."""
        self._max_calls = cap  # no lock: the caller is the event loop of a worker, which must not wait
        calls: Calls | None = self.__dict__.get("_calls")
        loop = self._loop
        if calls is not None and loop is not None:
            with suppress(RuntimeError):  # closed in this moment
                loop.call_soon_threadsafe(calls.set_cap, cap)

    def demand(self) -> Demand:
        """What this process's calls are doing, for whoever divides the endpoint's limit; each loss is told once."""
        calls: Calls | None = self.__dict__.get("_calls")
        return calls.demand() if calls is not None else Demand()

    def look(self) -> Look:
        """What this process is doing; unlike `demand`, it may be asked by anybody, and as often as they like."""
        calls: Calls | None = self.__dict__.get("_calls")
        if calls is None:
            return self.activity.look()
        gate = calls.gate
        return self.activity.look(in_flight=gate.in_flight, waiting=gate.waiting, cap=gate.cap)

    def vectors(self, usage: VectorUsage | None = None, stop: Stop | None = None) -> RepoVectors:
        """The vectors of one repository: what the cache has is not embedded again.

        Args:
            usage: what they cost is added to it.
            stop: the repository's own; None: the run's.
        """
        with self._lock:
            return self._vectors.of_repo(usage or VectorUsage(), stop or self.stop)

    def no_vectors(self, stop: Stop | None = None) -> Vectors:
        """Of a repository without documents: no rows, as long as the model's vectors are.

        Raises:
            Stopped, RepoTimeout, EmbeddingError: as `RepoVectors.get`.
        """
        dim = self._wait(self._submit_embedding(lambda: self._embedder.dim), stop or self.stop)
        return Vectors(np.zeros((0, dim), np.float32))

    def close(self) -> None:
        """Stop what runs and free threads and connections, within about `CLOSE_S`. The engine cannot be used again."""
        self.stop.request("the engine was closed")
        deadline = time.monotonic() + CLOSE_S
        with self._lock:
            loop, self._loop = self._loop, None
            if loop is not None and self._loop_thread is not None:
                self._close_loop(loop, self._loop_thread)
        self._embedding.shutdown(cancel_futures=True)
        if "cache" in self.__dict__:
            closing = threading.Thread(target=self.cache.close, name="summidx-closing", daemon=True)
            closing.start()
            closing.join(max(LAST_S, deadline - time.monotonic()))
            if closing.is_alive():
                logger.warning(
                    "%r was not closed in time: counts of its use are lost, and claims end with their lease", self.cache
                )

    def _close_loop(self, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
        closing = asyncio.run_coroutine_threadsafe(self._close_clients(), loop)
        try:
            in_time = closing.result(CLOSE_S + LAST_S)
        except TimeoutError:
            in_time = False
            logger.warning("the connections to the LLM were not closed in time, and are left behind")
        self._io.shutdown(wait=in_time, cancel_futures=True)
        asyncio.run_coroutine_threadsafe(_cancel_tasks(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def _submit_embedding(self, work: Callable[[], T]) -> Future[T]:
        try:
            return self._embedding.submit(copy_context().run, work)  # what is logged there is said of this repository
        except RuntimeError:
            self.stop.check()  # the engine was closed
            raise

    def _embed_now(self, texts: Sequence[str]) -> TimedVectors:
        start = time.perf_counter()
        vectors = self._embedder.embed(texts, input_type="document")
        with self._lock:  # what two slices take at the same time counts once
            end = time.perf_counter()
            seconds = end - max(start, self._embedded_until)
            self._embedded_until = end
        return TimedVectors(vectors, seconds)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            self.stop.check()  # an engine that was closed starts nothing again
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._loop_thread = threading.Thread(target=self._loop.run_forever, name="summidx-llm", daemon=True)
                self._loop_thread.start()
            return self._loop

    def _wait(self, future: Future[T], stop: Stop) -> T:
        """The future's result; gives it up as soon as `stop` is requested, and raises what that says then."""
        while True:
            try:
                return future.result(timeout=POLL_S)
            except TimeoutError:
                if future.done():  # the TimeoutError was the result's own
                    return future.result()
                if stop.is_requested:
                    future.cancel()
                    stop.check()
            except (CancelledError, ShutDown):
                stop.check()  # by `close`
                raise

    async def _close_clients(self) -> bool:
        """Give up the calls in flight, and close what they used; False where the cache did not end within `CLOSE_S`."""
        in_time = True
        if "_answers" in self.__dict__:
            cancelling = asyncio.create_task(self._answers.cancel())
            _, late = await asyncio.wait({cancelling}, timeout=CLOSE_S)
            in_time = not late
            if late:
                logger.warning(
                    "%r did not end within %.0f s: %d answers are not in it, and are asked for again by the next run",
                    self.cache,
                    CLOSE_S,
                    self._answers.unwritten,
                )
            else:
                cancelling.result()
        if "_calls" in self.__dict__:
            await self._calls.aclose()
        if "summarizer" in self.__dict__:
            await self.summarizer.aclose()
        return in_time


async def _cancel_tasks() -> None:
    """Cancel what still runs on this loop: who waits for a walk is told so."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=LAST_S)
