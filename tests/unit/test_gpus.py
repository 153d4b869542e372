"""What NVIDIA's driver tells of the GPUs: one filled by vLLM, split ones, lost ones; and what it may not tell."""

import ctypes
import sys

import pynvml
import pytest
from fake_nvml import FILLED_BY_VLLM, GPU_IS_LOST, MIB, NO_PERMISSION, FakeGPU, FakeProcess, build_library

from summidx.errors import NoGPU
from summidx.gpus import GPU, GPUProcess, load_gpus


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    return ctypes.CDLL(str(build_library(tmp_path_factory.mktemp("nvml"))))


@pytest.fixture
def driver(library, tmp_path, monkeypatch):
    """Put GPUs into the machine."""
    monkeypatch.setattr(pynvml, "nvmlLib", library)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})

    def install(*gpus):
        (tmp_path / "gpus").write_text("".join(gpu.lines() for gpu in gpus))
        monkeypatch.setenv("FAKE_NVML", str(tmp_path / "gpus"))

    return install


def test_all_gpus_are_told_with_what_fills_them(driver):
    driver(FakeGPU(), FILLED_BY_VLLM)
    assert load_gpus() == (
        GPU(0, "NVIDIA H100 80GB HBM3", 81_559 * MIB, 81_008 * MIB),
        GPU(
            1,
            "NVIDIA H100 80GB HBM3",
            81_559 * MIB,
            714 * MIB,
            (GPUProcess(4711, "VLLM::EngineCore", 74_180 * MIB),),
        ),
    )


def test_the_largest_process_is_told_first_and_what_is_not_told_is_not_made_up(driver):
    driver(
        FakeGPU(processes=[FakeProcess(1, 300, "python"), FakeProcess(2, None, "a"), FakeProcess(3, 70_000, "b")]),
        FakeGPU(processes=[FakeProcess(4, 500, "hidden", name_fault=NO_PERMISSION)]),
        FakeGPU(processes_fault=NO_PERMISSION),
    )
    several, nameless, untold = load_gpus()
    assert [(each.pid, each.used_bytes) for each in several.processes] == [(3, 70_000 * MIB), (1, 300 * MIB), (2, None)]
    assert nameless.processes == (GPUProcess(4, "", 500 * MIB),)
    assert (untold.processes, untold.free_bytes) == ((), 81_008 * MIB)


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("/opt/venv/bin/python3 -m vllm serve --api-key sk-secret", "python3"),
        ("VLLM::Worker_TP0", "VLLM::Worker_TP0"),
        ("evil\x1b[31m\x07 --x", "evil?[31m?"),
        ("x" * 200, "x" * 40),
    ],
)
def test_a_process_has_no_arguments_and_no_terminal_codes(driver, said, name):
    driver(FakeGPU(processes=[FakeProcess(1, 1, said)]))
    assert [each.name for each in load_gpus()[0].processes] == [name]


def test_a_gpu_that_is_lost_or_split_does_not_hide_the_others(driver):
    driver(FakeGPU(fault=GPU_IS_LOST), FakeGPU(mig=True), FakeGPU())
    lost, split, whole = load_gpus()
    assert lost.fault == "it does not answer (GPU is lost)"
    assert "MIG" in split.fault
    assert (whole.id, whole.fault) == (2, "")


def test_no_driver_and_no_package_are_told_apart(driver, monkeypatch):
    monkeypatch.delenv("FAKE_NVML", raising=False)
    with pytest.raises(NoGPU, match=r"driver does not answer \(Driver Not Loaded"):
        load_gpus()
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(ctypes.CDLL, "__init__", lambda *_args, **_kwargs: (_ for _ in ()).throw(OSError))
    with pytest.raises(NoGPU, match="no NVIDIA driver is installed"):
        load_gpus()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(NoGPU, match=r"install summidx\[gpu\]"):
        load_gpus()
