"""What is to be seen of one worker process: its repositories, its calls, its GPU."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from summidx.activity import Look
from summidx.llm.limits import Demand


@dataclass(frozen=True, slots=True)
class GPUUse:
    """The GPU that a worker embeds on, as Dask's own monitor last saw it."""

    busy: float
    """Share of the time in which something ran on it, from 0 to 1."""
    used_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class WorkerLook:
    """One worker process at one moment."""

    name: str = ""
    """What Dask calls the worker."""
    demand: Demand | None = None
    """What its calls need; None where that was not asked for."""
    work: Look = field(default_factory=Look)
    gpu: GPUUse | None = None


def find_gpu_use(worker: Any) -> GPUUse | None:  # noqa: ANN401 - a worker of Dask, without types
    """What Dask's monitor of `worker`, which looks twice a second, last saw of its GPU; None where it has none."""
    seen: Mapping[str, Any] = getattr(getattr(worker, "monitor", None), "quantities", {})
    try:
        names = ("gpu_utilization", "gpu_memory_used", "gpu-memory-total")
        busy, used, total = (float(seen[name][-1]) for name in names)
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return GPUUse(busy / 100, int(used), int(total))
