"""Settings of where the work runs: `SUMMIDX_CLUSTER__...`, `[cluster]`."""

import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from summidx.settings.group import Group, unkeyed


class ClusterSettings(Group):
    """Where the work runs."""

    num_processes: int = Field(
        1,
        ge=1,
        description="Worker processes; 1 runs in this process. With `gpu_ids` it need not be said: one for each; fewer "
        "use the first of them only, and more are cut to one each.",
        json_schema_extra=unkeyed("where work runs"),
    )
    threads_per_worker: int = Field(
        2,
        ge=1,
        description="Repositories in flight per worker process, and so per GPU; they share its one model.",
        json_schema_extra=unkeyed("where work runs"),
    )
    gpu_ids: Annotated[tuple[int, ...], NoDecode] = Field(
        (),
        description="GPUs that embed, one worker process each, by the numbers that nvidia-smi shows; without any, the "
        "CPU embeds.",
        json_schema_extra=unkeyed("where work runs"),
    )
    force_cpu: bool = Field(
        False,
        description="Embed on the CPU even where there is a GPU; `gpu_ids` then counts for nothing.",
        json_schema_extra=unkeyed("where work runs"),
    )
    scheduler_address: str = Field(
        "",
        description="Address of a running Dask scheduler, such as tls://10.0.0.1:8786; its workers are used as they "
        "are.",
        json_schema_extra=unkeyed("where work runs"),
    )

    allowed_schedulers: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Addresses that a run of a deployment may name in the place of `scheduler_address`; no parameter "
        "of a run. Whoever types a command may name any.",
        json_schema_extra=unkeyed("where work runs"),
    )

    @property
    def local_gpus(self) -> tuple[int, ...]:
        """The GPUs of this machine that embed: none where the CPU is asked for, or a scheduler has its own workers."""
        return () if self.force_cpu or self.scheduler_address else self.gpu_ids

    @property
    def embeds_on_gpu(self) -> bool:
        """Whether a worker uses the GPU that it sees first. One that nobody gave it may be full of somebody's LLM."""
        return bool(self.local_gpus or (self.scheduler_address and not self.force_cpu))

    @field_validator("allowed_schedulers", mode="before")
    @classmethod
    def _split_allowed_schedulers(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("scheduler_address")
    @classmethod
    def _check_scheduler_address(cls, value: str) -> str:
        if value and not re.fullmatch(r"[a-z]+://\S+:\d+", value):
            raise ValueError(f"{value!r} is no address of a Dask scheduler: write tls://HOST:PORT or tcp://HOST:PORT")
        return value

    @field_validator("gpu_ids", mode="before")
    @classmethod
    def _parse_gpu_ids(cls, value: object) -> object:
        return parse_gpu_ids(value.split(",")) if isinstance(value, str) else value

    @field_validator("gpu_ids")
    @classmethod
    def _check_gpu_ids(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return parse_gpu_ids(value)


def parse_gpu_ids(parts: Iterable[object]) -> tuple[int, ...]:
    """Numbers of GPUs, each once; blank parts are passed over.

    Raises:
        ValueError: a part is no number of a GPU, or one is named twice.
    """
    written = [str(part).strip() for part in parts]
    for part in written:
        if part and not re.fullmatch(r"[0-9]{1,4}", part):
            raise ValueError(f"{part!r} is no number of a GPU: write them as nvidia-smi shows them, 0,1,2,3")
    ids = tuple(int(part) for part in written if part)
    if twice := sorted({number for number in ids if ids.count(number) > 1}):
        raise ValueError(f"GPU {twice[0]} is named twice: a worker process has a GPU for itself, so name each once")
    return ids
