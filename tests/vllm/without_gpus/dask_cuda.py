"""Stands for dask-cuda where there is no GPU: the same cluster of workers under nannies, on the CPU."""

from typing import Any

from distributed import LocalCluster


class LocalCUDACluster(LocalCluster):
    """One worker process; which GPUs it would see is not looked at."""

    def __init__(self, *, CUDA_VISIBLE_DEVICES: list[int], device_memory_limit: None, **options: Any) -> None:  # noqa: N803
        super().__init__(processes=True, **options)
