"""A machine with NVIDIA GPUs, for tests without one: a library in the place of the driver's, under the real pynvml."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from parts import require_part

NO_PERMISSION, GPU_IS_LOST = 4, 15
"""Return codes of NVML."""
MIB = 2**20


@dataclass(frozen=True)
class FakeProcess:
    pid: int
    used_mib: int | None
    name: str
    """As the driver says it: the beginning of the command line."""
    name_fault: int = 0

    def line(self) -> str:
        used = -1 if self.used_mib is None else self.used_mib * MIB
        return f"process\t{self.pid}\t{used}\t{self.name_fault}\t{self.name}\n"


@dataclass(frozen=True)
class FakeGPU:
    """Sizes are those that nvidia-smi showed of an H100, with vLLM at its default of 0.9 of it."""

    free_mib: int = 81_008
    processes: Sequence[FakeProcess] = ()
    name: str = "NVIDIA H100 80GB HBM3"
    total_mib: int = 81_559
    mig: bool = False
    fault: int = 0
    processes_fault: int = 0

    def lines(self) -> str:
        sizes = f"{self.total_mib * MIB}\t{self.free_mib * MIB}"
        faults = f"{int(self.mig)}\t{self.fault}\t{self.processes_fault}"
        return f"gpu\t{self.name}\t{sizes}\t{faults}\n" + "".join(each.line() for each in self.processes)


VLLM = FakeProcess(4711, 74_180, "VLLM::EngineCore")
FILLED_BY_VLLM = FakeGPU(free_mib=714, processes=[VLLM])


def build_library(folder: Path) -> Path:
    """Compile the library into `folder`, under the name by which the driver's is found."""
    compiler = shutil.which("gcc")
    require_part("gcc", present=compiler is not None, how="apt-get install gcc libc6-dev")
    library = folder / "libnvidia-ml.so.1"
    source = Path(__file__).with_suffix(".c")
    subprocess.run(
        [str(compiler), "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, source], check=True, capture_output=True
    )
    return library


def make_environment(folder: Path, gpus: Sequence[FakeGPU], library: Path) -> dict[str, str]:
    """The environment of a process that finds `gpus`; what they say is kept in `folder`."""
    answers = folder / "gpus.txt"
    answers.write_text("".join(gpu.lines() for gpu in gpus))
    return {
        "FAKE_NVML": str(answers),
        "LD_LIBRARY_PATH": str(library.parent),
        # dask-cuda then looks at no device, and neither does Dask's own monitor.
        "DASK_CUDA_TEST_DISABLE_DEVICE_SPECIFIC": "1",
        "DASK_DISTRIBUTED__DIAGNOSTICS__NVML": "False",
    }
