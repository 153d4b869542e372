"""The cluster that a run's settings make: in this process, worker processes, or one process on each GPU."""

import os

import pytest
from distributed import Client

from flows.cluster import make_cluster
from flows.preflight import check_cluster
from summidx.errors import UsageError
from summidx.settings import load_settings
from summidx.workers import fit_workers


@pytest.fixture(autouse=True)
def no_gpus(tmp_path, monkeypatch):
    """dask-cuda then looks at no device, and starts its cluster all the same."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DASK_CUDA_TEST_DISABLE_DEVICE_SPECIFIC", "1")
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)


def start(**cluster):
    """What each worker finds in its process, and how many repositories it takes at once."""

    def look():
        return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("CUDA_DEVICE_ORDER")

    settings, _ = fit_workers(load_settings({"cluster": cluster}))
    with make_cluster(settings) as started, Client(started) as client:
        client.wait_for_workers(settings.cluster.num_processes, timeout=120)
        threads = client.nthreads()
        found = client.run(look)
    assert set(found) == set(threads)
    return list(found.values()), list(threads.values())


def test_one_process_without_gpus_is_this_one():
    found, threads = start(threads_per_worker=3)
    assert [pid for pid, *_ in found] == [os.getpid()]
    assert threads == [3]


@pytest.mark.parametrize("gpu_ids", [(), (6, 7)])
def test_several_processes_without_gpus_or_on_the_cpu_are_worker_processes(gpu_ids):
    found, threads = start(num_processes=2, gpu_ids=gpu_ids, force_cpu=True)
    assert len({pid for pid, *_ in found} - {os.getpid()}) == 2
    assert threads == [2, 2]
    assert {visible for _, visible, _ in found} == {os.environ.get("CUDA_VISIBLE_DEVICES")}


@pytest.mark.parametrize(
    ("cluster", "first"),
    [
        ({"gpu_ids": "7,3"}, {"7,3", "3,7"}),
        ({"gpu_ids": "7,3", "num_processes": 1}, {"7"}),
        ({"gpu_ids": "5", "num_processes": 4}, {"5"}),
    ],
)
def test_each_gpu_has_one_process_for_which_it_is_the_first(cluster, first):
    """Of the GPUs that a process sees the first, `cuda:0`, is its own; a number is the one that nvidia-smi shows."""
    found, threads = start(**cluster, threads_per_worker=4)
    assert {visible for _, visible, _ in found} == first
    assert len({pid for pid, *_ in found} - {os.getpid()}) == len(first)
    assert {order for *_, order in found} == {"PCI_BUS_ID"}
    assert threads == [4] * len(first)


def test_certificates_that_are_missing_are_found_out_before_anything_is_started():
    settings = load_settings({"cluster": {"scheduler_address": "tls://127.0.0.1:9"}})
    with pytest.raises(UsageError, match="DASK_DISTRIBUTED__COMM__TLS__CA_FILE"):
        check_cluster(settings)
