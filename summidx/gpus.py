"""The GPUs of this machine, as NVIDIA's driver tells of them (NVML). The only importer of pynvml.

An id is the number that `nvidia-smi` shows: GPUs in the order of their places on the bus, whatever CUDA_VISIBLE_DEVICES
says in this process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from summidx.errors import NoGPU

NAME_CHARS = 40

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GPUProcess:
    """A process that holds memory of a GPU. `name` is "" and `used_bytes` None where the driver does not tell."""

    pid: int
    name: str
    used_bytes: int | None


@dataclass(frozen=True, slots=True)
class GPU:
    """One GPU. `fault` says why nothing can run on it, or is ""."""

    id: int
    name: str
    total_bytes: int
    free_bytes: int
    processes: tuple[GPUProcess, ...] = ()
    """What computes on it, whoever it belongs to, the largest first; of another container often nothing is told."""
    fault: str = ""


def load_gpus() -> tuple[GPU, ...]:
    """Ask the driver for all GPUs of the machine, in the order of their ids.

    Raises:
        NoGPU: there is no driver, it does not answer, or the package to ask it is not installed.
    """
    try:
        import pynvml
    except ImportError as error:
        raise NoGPU(f"NVIDIA's driver cannot be asked ({error}): install summidx[gpu]") from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        raise NoGPU("no NVIDIA driver is installed (libnvidia-ml.so.1 is not found)") from None
    except pynvml.NVMLError as error:
        raise NoGPU(f"NVIDIA's driver does not answer ({error})") from None
    try:
        return tuple(_load_gpu(pynvml, number) for number in range(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError as error:
        raise NoGPU(f"NVIDIA's driver does not answer ({error})") from None
    finally:
        pynvml.nvmlShutdown()


def _load_gpu(nvml: Any, number: int) -> GPU:  # noqa: ANN401 - a module without types
    """One GPU. A fault of one must not hide the others."""
    try:
        device = nvml.nvmlDeviceGetHandleByIndex(number)
        name = nvml.nvmlDeviceGetName(device)
        memory = nvml.nvmlDeviceGetMemoryInfo(device)
    except nvml.NVMLError as error:
        return GPU(number, "", 0, 0, fault=f"it does not answer ({error})")
    mig, _ = _ask(nvml, lambda: nvml.nvmlDeviceGetMigMode(device), (0, 0))
    running: list[Any] = _ask(nvml, lambda: nvml.nvmlDeviceGetComputeRunningProcesses(device), [])
    processes = [_load_process(nvml, each) for each in running]
    return GPU(
        number,
        _plain(name),
        int(memory.total),
        int(memory.free),
        tuple(sorted(processes, key=lambda each: (-(each.used_bytes or 0), each.pid))),
        fault="it is split by MIG, and its number names none of the parts" if mig else "",
    )


def _load_process(nvml: Any, info: Any) -> GPUProcess:  # noqa: ANN401 - a module without types
    command = _ask(nvml, lambda: str(nvml.nvmlSystemGetProcessName(info.pid)), "")
    return GPUProcess(info.pid, _plain_name(command), info.usedGpuMemory)


def _ask(nvml: Any, question: Callable[[], T], otherwise: T) -> T:  # noqa: ANN401 - a module without types
    """What the driver answers; `otherwise` where it may not, or cannot, say that of this GPU."""
    try:
        return question()
    except nvml.NVMLError:
        return otherwise


def _plain_name(command: str) -> str:
    """A process's name without its folder and arguments: those may hold secrets, and anybody can choose them."""
    return _plain(command.split(maxsplit=1)[0].rpartition("/")[2] if command.split() else "")


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)[:NAME_CHARS]
