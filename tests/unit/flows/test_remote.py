"""What is found out about the machines of a cluster before anything is built there."""

import http.server
import socket
import threading
from contextlib import ExitStack

import dask.config
import pytest
from distributed import Client, LocalCluster
from prefect.settings import PREFECT_API_URL, temporary_settings

import summidx
from flows.cluster import DASK_SETTINGS
from flows.remote import check_machines, find_fault
from summidx.errors import UsageError
from summidx.plan import Plan, write_plan

POSTGRES = "postgresql+psycopg://summidx:hush@db/summidx"
GOOD = {
    "version": summidx.__version__,
    "api": "http://api",
    "api_of_run": "http://api",
    "api_fault": "",
    "sees_plan": True,
    "cache": "postgresql+psycopg",
}


@pytest.fixture
def api_url():
    """Something answers there."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/api"
    with temporary_settings({PREFECT_API_URL: url}):
        yield url
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def connect(monkeypatch, api_url):
    """A client of a cluster in this process, with settings of Dask."""
    monkeypatch.setenv("PREFECT_API_URL", api_url)
    monkeypatch.setenv("SUMMIDX_CACHE__URL", POSTGRES)
    with ExitStack() as opened:

        def open_client(settings):
            opened.enter_context(dask.config.set(settings))  # the scheduler is in this process
            address = "127.0.0.1:0"
            cluster = LocalCluster(
                n_workers=1, processes=False, dashboard_address=address, worker_dashboard_address=address
            )
            return opened.enter_context(Client(opened.enter_context(cluster)))

        yield open_client


def check(client, index_root):
    return check_machines(client, "tls://10.0.0.1:8786", "run", str(index_root))


def test_a_cluster_that_has_all_is_not_spoken_of(connect, tmp_path):
    write_plan(Plan((), None), str(tmp_path), "run")

    assert check(connect(DASK_SETTINGS), tmp_path) == []


def test_an_index_root_that_is_not_shared_is_refused(connect, tmp_path):
    with pytest.raises(UsageError, match=r"does not see the plan of this run.* the same shared folder on all machines"):
        check(connect(DASK_SETTINGS), tmp_path)


def test_a_worker_without_prefect_api_is_refused(connect, tmp_path, monkeypatch):
    write_plan(Plan((), None), str(tmp_path), "run")
    client = connect(DASK_SETTINGS)
    monkeypatch.delenv("PREFECT_API_URL")

    with pytest.raises(UsageError, match=r"knows no Prefect API, .*: set PREFECT_API_URL there"):
        check(client, tmp_path)


def test_workers_that_do_not_reach_the_api_of_the_run_are_refused(connect, tmp_path):
    """Such as a loopback address, which is another machine there."""
    write_plan(Plan((), None), str(tmp_path), "run")
    client = connect(DASK_SETTINGS)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        with (
            temporary_settings({PREFECT_API_URL: away}),
            pytest.raises(
                UsageError, match=rf"does not reach .* {away} \(.*refused.*an address that all machines reach"
            ),
        ):
            check(client, tmp_path)


def test_a_cache_in_a_file_and_a_scheduler_of_other_settings_are_warned_of(connect, tmp_path, monkeypatch):
    write_plan(Plan((), None), str(tmp_path), "run")
    client = connect({})
    monkeypatch.delenv("SUMMIDX_CACHE__URL")

    cache, *scheduler = check(client, tmp_path)
    assert "set SUMMIDX_CACHE__URL to a PostgreSQL" in cache
    assert any("start it with DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=0" in line for line in scheduler)


def test_of_many_workers_with_one_fault_one_is_named_and_the_others_are_counted():
    looks = {
        "tls://a": GOOD,
        "tls://b": GOOD | {"version": "0.0.1"},
        "tls://c": ModuleNotFoundError("No module 'flows'"),
    }

    fault = find_fault(looks, "/index")

    assert fault.startswith(f"the Dask worker tls://b (and 1 more) has summidx 0.0.1 instead of {summidx.__version__},")
    assert find_fault({"tls://a": GOOD}, "/index") == ""
    assert "(ModuleNotFoundError: No module 'flows')" in find_fault({"tls://c": looks["tls://c"]}, "/index")
