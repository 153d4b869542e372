"""Whether the GPUs of a run have room for the embedding model, and what to do where they have not."""

import logging
from collections.abc import Sequence

from summidx.embedding.memory import MemoryNeed, load_need
from summidx.embedding.models import resolve_model
from summidx.errors import EmbeddingError, NoGPU, UsageError
from summidx.gpus import GPU, GPUProcess, load_gpus
from summidx.settings import EmbeddingSettings, Provider, Settings

GIB = 2**30
NAMED_PROCESSES = 3
SHARE_OF_VLLM = "--gpu-memory-utilization"
NAME_WIDTH = 24

logger = logging.getLogger(__name__)


def check_gpus(settings: Settings) -> None:
    """Refuse a run whose GPUs cannot be used, before anything is started for it.

    Raises:
        UsageError: there is no driver, or as `check_room`.
        EmbeddingError: the embedding model cannot be found.
    """
    ids = settings.cluster.gpu_ids
    try:
        gpus = load_gpus()
    except NoGPU as error:
        raise UsageError(f"{name_gpus(ids)} cannot be used: {error}; or embed on the CPU with --force-cpu") from None
    model = resolve_model(settings.embedding).model_id
    check_room(gpus, ids, None, model=model)
    need = load_model_need(settings.embedding)
    if need is None:
        logger.warning(
            "%s is not downloaded yet, so its need of GPU memory is not known: that %s can hold it is not checked",
            model,
            name_gpus(ids),
        )
    # vLLM in the worker has one process on all the GPUs: that with the lowest number embeds as well.
    check_room(gpus, sorted(ids)[: settings.cluster.num_processes], need, model=model)


def load_model_need(settings: EmbeddingSettings) -> MemoryNeed | None:
    """What one worker needs on its GPU for the model of `settings`; None where that is not known before its download.

    Raises:
        EmbeddingError: the model cannot be found or read.
    """
    return load_need(resolve_model(settings), settings.batch_tokens)


def check_room(gpus: Sequence[GPU], ids: Sequence[int], need: MemoryNeed | None, *, model: str) -> None:
    """Refuse GPUs that are not there, that nothing can run on, or that have no room for the model.

    Args:
        gpus: those of the machine.
        ids: those that embed, one worker process each.
        need: what one worker needs; None where that is not known: then room is not looked at.
        model: its name, for the message.

    Raises:
        UsageError: one line that names each GPU that cannot be used, what is free and needed, and what to change.
    """
    by_id = {gpu.id: gpu for gpu in gpus}
    advice = "choose others with --gpu-ids, or embed on the CPU with --force-cpu"
    if missing := [number for number in ids if number not in by_id]:
        there = f"ids {', '.join(map(str, sorted(by_id)))}" if by_id else "no GPU"
        raise UsageError(
            f"{name_gpus(missing)} of --gpu-ids {_is_or_are(missing)} not here: nvidia-smi knows {there} on this "
            f"machine; {advice}"
        )
    if faulty := [by_id[number] for number in ids if by_id[number].fault]:
        problems = "; ".join(f"GPU {gpu.id} cannot be used: {gpu.fault}" for gpu in faulty)
        raise UsageError(f"{problems}: {advice}")
    if need is None:
        return
    if full := [by_id[number] for number in ids if by_id[number].free_bytes < need.total_bytes]:
        raise UsageError(_render_refusal(full, gpus, need, model))


def find_idle_gpus(settings: Settings) -> str:
    """A line on GPUs of this machine that have room for the model while the CPU is to embed, or ""."""
    cluster = settings.cluster
    if cluster.embeds_on_gpu or cluster.force_cpu or settings.llm.provider is Provider.VLLM:
        return ""
    try:
        need = load_model_need(settings.embedding)
        gpus = load_gpus()
    except (NoGPU, EmbeddingError):  # whoever embeds says what is wrong with the model
        return ""
    if need is None or not need.weights_bytes:
        return ""
    roomy = [gpu.id for gpu in gpus if not gpu.fault and gpu.free_bytes >= need.total_bytes]
    if not roomy:
        return ""
    return (
        f"{name_gpus(roomy)} {'have' if len(roomy) > 1 else 'has'} room for the embedding model, and the CPU embeds: "
        f"--gpu-ids {','.join(map(str, roomy))} is many times as fast; --force-cpu says that the CPU is meant"
    )


def name_gpus(ids: Sequence[int]) -> str:
    """`GPU 3`, or `GPUs 1, 3`."""
    return f"GPU{'s' if len(ids) > 1 else ''} {', '.join(map(str, ids))}"


def render_size(size_bytes: int) -> str:
    """So many bytes, as nvidia-smi's readers think of them: `1.2 GiB`."""
    return f"{size_bytes / GIB:.1f} GiB"


def render_process(process: GPUProcess) -> str:
    """`VLLM::EngineCore (pid 4711, 70.1 GiB)`."""
    name = process.name or "a process whose name is not told"
    held = f", {render_size(process.used_bytes)}" if process.used_bytes is not None else ""
    return f"{name} (pid {process.pid}{held})"


def render_table(gpus: Sequence[GPU], need: MemoryNeed | None) -> list[str]:
    """The GPUs, a line each: what is free, what the model needs, and what computes on it."""
    needed = render_size(need.total_bytes) if need else "not known"
    lines = [f"id  {'name':{NAME_WIDTH}} {'total':>9} {'free':>9} {'need':>9}  held by"]
    for gpu in gpus:
        held = gpu.fault or ", ".join(map(render_process, gpu.processes)) or "-"
        sizes = " ".join(f"{size:>9}" for size in (render_size(gpu.total_bytes), render_size(gpu.free_bytes), needed))
        lines.append(f"{gpu.id:>2}  {gpu.name:{NAME_WIDTH}} {sizes}  {held}")
    return lines


def _render_refusal(full: Sequence[GPU], gpus: Sequence[GPU], need: MemoryNeed, model: str) -> str:
    problems = "; ".join(
        f"GPU {gpu.id} ({gpu.name}) has {render_size(gpu.free_bytes)} free{_held(gpu)}" for gpu in full
    )
    needed = (
        f"embedding with {model} needs {render_size(need.total_bytes)} (weights {render_size(need.weights_bytes)}, one "
        f"batch {render_size(need.activations_bytes)}, CUDA itself {render_size(need.overhead_bytes)})"
    )
    roomy = [gpu.id for gpu in gpus if not gpu.fault and gpu.free_bytes >= need.total_bytes]
    advice = [
        f"use {name_gpus(roomy)}, which {'have' if len(roomy) > 1 else 'has'} room (--gpu-ids)" if roomy else "",
        "end that process or give it less"
        + (f" (vLLM: {SHARE_OF_VLLM})" if any(_is_vllm(each) for gpu in full for each in gpu.processes) else "")
        if any(gpu.processes for gpu in full)
        else "",
        # The batch is worth a word only where it decides.
        "lower `embedding.batch_tokens` (to 2048, say)" if need.activations_bytes > need.total_bytes // 4 else "",
        "embed on the CPU with --force-cpu",
    ]
    return f"{problems}; {needed}: {', or '.join(filter(None, advice))}"


def _held(gpu: GPU) -> str:
    if not gpu.processes:
        return ""
    named = ", ".join(render_process(each) for each in gpu.processes[:NAMED_PROCESSES])
    more = len(gpu.processes) - NAMED_PROCESSES
    return f", held by {named}{f' and {more} more' if more > 0 else ''}"


def _is_vllm(process: GPUProcess) -> bool:
    return "vllm" in process.name.lower()


def _is_or_are(ids: Sequence[int]) -> str:
    return "are" if len(ids) > 1 else "is"
