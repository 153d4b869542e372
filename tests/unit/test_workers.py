"""How many worker processes a run has, and on which GPUs."""

import pytest

from summidx.errors import UsageError
from summidx.settings import load_settings
from summidx.workers import fit_workers


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(**cluster):
    settings, warnings = fit_workers(load_settings({"cluster": cluster}))
    return (settings.cluster.num_processes, settings.cluster.gpu_ids), warnings


@pytest.mark.parametrize(
    ("cluster", "fitted"),
    [
        ({}, (1, ())),
        ({"num_processes": 3}, (3, ())),
        ({"gpu_ids": "6,7"}, (2, (6, 7))),
        ({"gpu_ids": [6, 7], "num_processes": 2}, (2, (6, 7))),
        ({"gpu_ids": "6,7", "force_cpu": True}, (1, (6, 7))),
        ({"gpu_ids": "6,7", "force_cpu": True, "num_processes": 4}, (4, (6, 7))),
        ({"gpu_ids": ""}, (1, ())),
    ],
)
def test_what_can_be_done_as_it_is_asked_for_is_done_without_a_word(cluster, fitted):
    assert fit(**cluster) == (fitted, [])


def test_more_processes_than_gpus_are_cut_to_one_on_each_with_a_warning():
    fitted, (warning,) = fit(num_processes=4, gpu_ids="0,1")
    assert fitted == (2, (0, 1))
    assert warning.startswith("--num-processes 4 is cut to 2: ")
    assert "--gpu-ids names 0,1" in warning


def test_fewer_processes_than_gpus_use_the_first_of_them_with_a_warning():
    fitted, (warning,) = fit(num_processes=2, gpu_ids="7,3,5,1")
    assert fitted == (2, (7, 3))
    assert "leaves GPU 5,1 of --gpu-ids unused" in warning


def test_a_number_from_the_environment_counts_as_asked_for(monkeypatch):
    monkeypatch.setenv("SUMMIDX_CLUSTER__NUM_PROCESSES", "1")
    fitted, (warning,) = fit(gpu_ids="0,1")
    assert fitted == (1, (0,))
    assert "--num-processes 1" in warning


def test_the_workers_of_a_scheduler_are_not_ours_to_count():
    address = "tls://10.0.0.1:8786"
    assert fit(scheduler_address=address) == ((1, ()), [])
    _, (warning,) = fit(scheduler_address=address, gpu_ids="0,1", num_processes=8)
    assert warning.startswith("--num-processes 8 and --gpu-ids 0,1 count for nothing: ")
    assert address in warning


def test_vllm_in_the_worker_has_one_process_and_all_gpus():
    llm = {"llm": {"provider": "vllm"}}
    settings, (warning,) = fit_workers(load_settings(llm | {"cluster": {"gpu_ids": "0,1", "num_processes": 2}}))
    assert (settings.cluster.num_processes, settings.cluster.gpu_ids) == (1, (0, 1))
    assert "tensor_parallel_size" in warning
    with pytest.raises(UsageError, match="--scheduler-address"):
        fit_workers(load_settings(llm | {"cluster": {"scheduler_address": "tcp://10.0.0.1:8786"}}))
