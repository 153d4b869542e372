"""How a run ended stays what it was, however its cluster closes; no worker process is left."""

import logging
import multiprocessing
import threading
import time
from contextlib import ExitStack

from flows.closing import close_cluster


def test_a_cluster_that_closes_is_closed_without_a_word(caplog):
    closed = []
    resources = ExitStack()
    resources.callback(closed.append, "cluster")
    with caplog.at_level(logging.WARNING):
        close_cluster(resources)
    assert (closed, caplog.records) == (["cluster"], [])


def test_a_close_that_raises_is_told_and_not_raised(caplog):
    def fail():
        raise TimeoutError("a worker did not end")

    resources = ExitStack()
    resources.callback(fail)
    with caplog.at_level(logging.WARNING):
        close_cluster(resources)
    assert "did not close (TimeoutError: a worker did not end)" in caplog.text


def test_a_close_that_hangs_is_given_up_and_what_is_left_of_the_workers_is_killed(caplog):
    go_on = threading.Event()
    spawn = multiprocessing.get_context("spawn")
    worker = spawn.Process(target=time.sleep, args=[600], daemon=True, name="Dask Worker process (from Nanny)")
    other = spawn.Process(target=time.sleep, args=[600], daemon=True)
    worker.start()
    other.start()
    resources = ExitStack()
    resources.callback(go_on.wait, 600)
    try:
        with caplog.at_level(logging.WARNING):
            close_cluster(resources, within_s=0.2)
        assert not worker.is_alive()
        assert other.is_alive(), "it belongs to somebody else"
    finally:
        go_on.set()
        other.kill()
    assert "did not close (not within 0 s)" in caplog.text
