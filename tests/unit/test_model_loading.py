"""One model is loaded at a time in a process."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from summidx.model_loading import one_model_at_a_time


def test_a_second_model_waits_for_the_first():
    inside, most = [0], [0]

    def load(_: int) -> None:
        with one_model_at_a_time():
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            inside[0] -= 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(load, range(24)))
    assert most == [1]


def test_who_gives_up_waits_no_longer_and_lets_the_first_go_on():
    given_up = threading.Event()
    entered = threading.Event()
    loaded: list[str] = []

    def load_default() -> None:
        with one_model_at_a_time():
            loaded.append("loaded")

    def wait() -> None:
        with one_model_at_a_time(given_up.is_set):
            entered.set()

    with ThreadPoolExecutor(1) as threads, one_model_at_a_time():
        waiting = threads.submit(wait)
        assert not entered.wait(0.5)
        given_up.set()
        waiting.result(timeout=30)
        assert not threads.submit(load_default).done()  # the first still loads
        time.sleep(0.5)
        assert loaded == []
    assert loaded == ["loaded"]
