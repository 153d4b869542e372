"""Whether chosen GPUs have room for the model, and what is said where they have not."""

import pytest

from summidx.embedding import room
from summidx.embedding.memory import MIB, MemoryNeed
from summidx.embedding.room import check_room
from summidx.errors import NoGPU, UsageError
from summidx.gpus import GPU, GPUProcess
from summidx.settings import load_settings

NEED = MemoryNeed(100 * MIB, 200 * MIB, 700 * MIB)
VLLM = GPUProcess(4711, "VLLM::EngineCore", 74_180 * MIB)


def gpu(number, free_mib=81_000, processes=(), fault=""):
    return GPU(number, "NVIDIA H100 80GB HBM3", 81_559 * MIB, free_mib * MIB, processes, fault)


def refuse(gpus, ids, need=NEED):
    with pytest.raises(UsageError) as raised:
        check_room(gpus, ids, need, model="all-MiniLM-L6-v2")
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_gpus_with_room_are_not_refused_whatever_the_others_hold():
    check_room([gpu(0, 714, (VLLM,)), gpu(1), gpu(2, 1000)], [1, 2], NEED, model="m")


def test_a_full_gpu_is_named_with_what_is_free_what_is_needed_who_holds_it_and_what_to_do():
    said = refuse([gpu(0, 714, (VLLM,)), gpu(1), gpu(2)], [0, 1])
    assert "GPU 0 (NVIDIA H100 80GB HBM3) has 0.7 GiB free" in said
    assert "held by VLLM::EngineCore (pid 4711, 72.4 GiB)" in said
    assert "all-MiniLM-L6-v2 needs 1.0 GiB (weights 0.1 GiB, one batch 0.2 GiB, CUDA itself 0.7 GiB)" in said
    assert "use GPUs 1, 2, which have room (--gpu-ids)" in said
    assert "vLLM: --gpu-memory-utilization" in said
    assert "--force-cpu" in said
    assert "GPU 1 (" not in said


def test_no_advice_is_given_that_does_not_help():
    nameless = GPUProcess(1, "", None)
    said = refuse([gpu(0, 10, (nameless,)), gpu(1, 20)], [0, 1])
    assert "GPU 0 (" in said
    assert "GPU 1 (" in said
    assert "a process whose name is not told (pid 1)" in said
    assert "have room" not in said
    assert "vLLM" not in said
    assert "batch_tokens" not in said
    assert "batch_tokens" in refuse([gpu(0, 10)], [0], MemoryNeed(100 * MIB, 900 * MIB, 700 * MIB))


def test_only_the_largest_processes_are_named():
    several = tuple(GPUProcess(number, f"p{number}", MIB) for number in range(5))
    assert "p2 (pid 2, 0.0 GiB) and 2 more" in refuse([gpu(0, 10, several)], [0])


def test_gpus_that_are_not_there_or_cannot_be_used_are_refused_even_where_the_need_is_not_known():
    assert "GPUs 2, 9 of --gpu-ids are not here: nvidia-smi knows ids 0, 1" in refuse([gpu(0), gpu(1)], [2, 9], None)
    assert "GPU 0 of --gpu-ids is not here: nvidia-smi knows no GPU" in refuse([], [0], None)
    assert "GPU 1 cannot be used: it is lost" in refuse([gpu(0), gpu(1, fault="it is lost")], [0, 1], None)
    check_room([gpu(0, 0)], [0], None, model="m")


@pytest.mark.parametrize(
    ("options", "gpus", "said"),
    [
        ({}, [gpu(0), gpu(1, 714, (VLLM,)), gpu(2)], "GPUs 0, 2 have room for the embedding model"),
        ({}, [gpu(0, 714, (VLLM,)), gpu(1, fault="it is lost")], ""),
        ({}, [], ""),
        ({"cluster": {"force_cpu": True}}, [gpu(0)], ""),
        ({"cluster": {"gpu_ids": [0]}}, [gpu(0), gpu(1)], ""),
        ({"llm": {"provider": "vllm", "model": "m"}}, [gpu(0)], ""),
        ({"embedding": {"model": "hashing"}}, [gpu(0)], ""),
    ],
)
def test_gpus_with_room_are_named_while_the_cpu_embeds(options, gpus, said, monkeypatch):
    if "embedding" not in options:
        monkeypatch.setattr(room, "load_model_need", lambda _: NEED)
    monkeypatch.setattr(room, "load_gpus", lambda: gpus)
    found = room.find_idle_gpus(load_settings(options))
    assert found.startswith(said) if said else found == ""
    assert "--gpu-ids 0,2" in found or not said


def test_without_a_driver_nothing_is_said_of_gpus(monkeypatch):
    def refuse_to_answer():
        raise NoGPU("no driver")

    monkeypatch.setattr(room, "load_model_need", lambda _: NEED)
    monkeypatch.setattr(room, "load_gpus", refuse_to_answer)
    assert room.find_idle_gpus(load_settings({})) == ""
