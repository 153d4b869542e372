"""Threads that do not hold up the end of their process, as those of `ThreadPoolExecutor` do."""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class ShutDown(RuntimeError):
    """Work was handed to an executor that takes no more."""


class DaemonThreads(Executor):
    """An executor for work that may hang for long, such as with a database that is away."""

    def __init__(self, number: int, *, name: str) -> None:
        """Make an executor; its threads are started with the first work."""
        self._number = number
        self._name = name
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._work: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._is_shut = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Do `fn(*args, **kwargs)` in a thread.

        Raises:
            ShutDown: the executor takes no more work.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._is_shut:
                raise ShutDown("the executor takes no more work")
            self._work.put((future, lambda: fn(*args, **kwargs)))
            if not self._threads:
                names = (f"{self._name}_{i}" for i in range(self._number))
                self._threads = [threading.Thread(target=self._run, name=name, daemon=True) for name in names]
                for thread in self._threads:
                    thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - the protocol's
        """Take no more work; without `wait`, what is under way is left to itself."""
        with self._lock:
            self._is_shut = True
            if cancel_futures:
                self._cancel_waiting()
            for _ in self._threads:
                self._work.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _cancel_waiting(self) -> None:
        while True:
            try:
                item = self._work.get_nowait()
            except Empty:
                return
            if item is not None:
                item[0].cancel()

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            future, work = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = work()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
