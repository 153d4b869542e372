"""When a run gives up what is away."""

import http.server
import queue
import threading
from unittest.mock import Mock

import pytest
from distributed import Client, LocalCluster

from flows import watch
from flows.watch import Patience, Watch

ANSWER_S = 30


@pytest.fixture
def api():
    """An API that answers."""
    asked = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.set()
            self.send_error(404)

        def log_message(self, *args):
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked = asked
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        server.url = f"http://127.0.0.1:{server.server_port}/api"
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(watch, "PERIOD_S", 0.05)
    monkeypatch.setattr(watch, "API_AWAY_S", 0.5)
    monkeypatch.setattr(watch, "WORKERS_AWAY_S", 0.5)


def test_patience_begins_anew_with_each_sign_of_life():
    patience = Patience(10)
    assert not patience.is_over(present=False, now=0)
    assert not patience.is_over(present=True, now=9)
    assert not patience.is_over(present=False, now=11)
    assert not patience.is_over(present=False, now=20)
    assert patience.is_over(present=False, now=21)


def test_an_api_that_does_not_come_back_is_given_up_once_with_its_address(quick, api):
    said, gave_up = queue.Queue(), queue.Queue()
    looking = Watch(api.url, Mock(status="closed"), "the scheduler", said.put, gave_up.put)
    api.asked.wait(ANSWER_S)
    api.shutdown()
    api.server_close()
    assert gave_up.get(timeout=ANSWER_S) == f"the Prefect API {api.url} has been away for 0 s"
    assert said.get_nowait() == f"the Prefect API {api.url} is away: the run waits for it"
    assert not looking.wait_for_api()
    assert gave_up.empty()
    looking.close()


def test_an_api_that_was_never_reached_from_here_is_not_missed(quick):
    gave_up = queue.Queue()
    looking = Watch("http://127.0.0.1:9/api", Mock(status="closed"), "the scheduler", Mock(), gave_up.put)
    with pytest.raises(queue.Empty):
        gave_up.get(timeout=3)
    assert looking.wait_for_api()
    looking.close()


def test_a_cluster_whose_workers_do_not_come_back_is_given_up(quick, api):
    gave_up = queue.Queue()
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        looking = Watch(api.url, client, "the scheduler", Mock(), gave_up.put)
        assert looking.wait_for_api()
        with pytest.raises(queue.Empty):
            gave_up.get(timeout=2)
        cluster.scale(0)
        assert gave_up.get(timeout=ANSWER_S) == "the scheduler has had no worker for 0 s"
        looking.close()
