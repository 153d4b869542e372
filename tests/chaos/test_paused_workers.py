"""Workers that stand still, or are cut off, for longer than the scheduler waits, and are back much later."""

import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from dask_cluster import Cluster
from fake_llm import Answer, FakeLLM, running
from fleet import Fleet, commit_all, find_differences
from hosts import forwarded, network
from prefect_api import Api
from runs import Site, calls_of, check_all_final, check_report

from benchmarks.scaling import make_repositories
from summidx.store.generations import IndexRoot

TTL_S = 20
TTL_OF_WORKER_S = 5
"""For each worker on top of it: all start on the same few cores at once, and say nothing meanwhile."""
REPOSITORIES = 6
"""For each worker, of so many functions:"""
FUNCTIONS = 12
THREADS = 2
LATENCY_S = 0.1
AWAKE_S = 60
"""A worker that was taken for dead ends within this time of waking up."""


@pytest.fixture
def net(form):
    with network(form.cuts) as net:
        yield net


@pytest.fixture
def far_llm(net):
    """An LLM server that all hosts reach."""
    with running(FakeLLM(), host=net.address) as server:
        server.delay_s = LATENCY_S
        yield server


@pytest.fixture
def far_site(site, net):
    """Whose runs are told the address at which all hosts reach the Prefect API: they hand it on to the workers."""
    api = urlsplit(site.api.url)
    with forwarded(net.address, api.port):
        yield replace(site, api=Api(f"http://{net.address}:{api.port}{api.path}"))


@pytest.fixture
def cluster(far_site, net, form, tmp_path):
    ttl_s = TTL_S + TTL_OF_WORKER_S * (form.pauses + 1 + form.cuts)
    cluster = Cluster(tmp_path / "cluster", far_site, threads=THREADS, ttl_s=ttl_s, host=net.address)
    yield cluster
    cluster.close()


def test_workers_that_wake_up_or_are_found_again_too_late_publish_nothing(
    far_site, cluster, net, far_llm, api, form, rng, tmp_path, note_figures
):
    site, llm, here = far_site, far_llm, form.pauses + 1
    refs = make_repositories(tmp_path / "repos", [FUNCTIONS] * REPOSITORIES * (here + form.cuts))
    fleet = Fleet({ref.name: Path(ref.source) for ref in refs})
    names = fleet.write_list(tmp_path / "repos.txt")
    to = ("--scheduler-address", cluster.address, "--llm-base-url", llm.base_url)
    workers = [cluster.start_worker(net.address) for _ in range(here)]
    away = {host: cluster.start_worker(host.address, host.prefix) for host in net.hosts}

    release = threading.Event()
    llm.script = lambda body, before: Answer(until=release)  # so that nobody is done before all have begun
    first = site.start(names, *to)
    everybody = [*workers, *away.values()]
    assert first.wait_until(lambda: all(calls_of(worker, llm.ports) for worker in everybody)), first.stderr
    victims = rng.sample(workers, form.pauses)
    in_flight = 0
    for victim in victims:
        assert first.wait_until(partial(calls_of, victim, llm.ports)), first.stderr
        in_flight += calls_of(victim, llm.ports)
        victim.suspend()
    for host, worker in away.items():
        assert first.wait_until(partial(calls_of, worker, llm.ports)), first.stderr
        in_flight += calls_of(worker, llm.ports)
        host.cut_off()
    release.set()
    first.wait()
    check_report(api, first, fleet.names)

    for source in fleet.sources.values():
        commit_all(source, {"news.py": '"""What is new."""\n\nNEWS = ("one", "two")\n'})
    second = site.run(names, *to)
    check_report(api, second, fleet.names)
    assert set(second.endings().values()) == {"built"}
    published = _publish_ids(site, fleet)

    asked = llm.calls
    for victim in victims:
        victim.resume()
    for host in away:
        host.bring_back()
    _, awake = psutil.wait_procs([*victims, *away.values()], timeout=AWAKE_S)
    asked_awake = llm.calls - asked

    assert _publish_ids(site, fleet) == published
    check_all_final(api, first.began_at)
    expected = Site(tmp_path / "expected", dict(site.environment), site.api, site.options)
    expected.folder.mkdir()
    expected.run(names, "--llm-base-url", llm.base_url)
    assert not find_differences(site.index_root, expected.index_root, fleet.names)
    note_figures(
        "paused",
        {
            "repositories": len(fleet.names),
            "workers": len(everybody),
            "workers_paused": form.pauses,
            "links_cut": form.cuts,
            "calls_in_flight_then": in_flight,
            "calls_after_they_woke_up": asked_awake,
            "still_there": len(awake),
            "stale_publishes": 0,
        },
    )


def _publish_ids(site, fleet):
    return {name: IndexRoot(site.index_root).require_manifest(name).publish_id for name in fleet.names}
