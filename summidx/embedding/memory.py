"""How much memory of a GPU an embedding model needs, estimated from its files before anything is loaded. No torch.

    need = weights + activations of one batch + what every process with CUDA takes

An estimate from above: a GPU that it calls too full might just do, one that it calls free enough should.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from summidx.embedding import ResolvedModel
from summidx.embedding.batches import LEAST_GPU_TOKENS
from summidx.errors import EmbeddingError

MIB = 2**20

CONTEXT_BYTES = 700 * MIB
"""CUDA's context with PyTorch's kernels: "from 200+ to 700+ MB" by GPU and driver, and 300 MB with the lazy loading of
CUDA 11.7 (pytorch/pytorch#28113, #107667)."""
WORKSPACE_BYTES = 2 * 32 * MIB
"""Of cuBLAS and of cuBLASLt: 32 MiB each on Hopper, less elsewhere (pytorch/pytorch#120925)."""
SLACK = 1.2
"""PyTorch's allocator holds more than is in use: "up to an additional 20 %" (Accelerate's guide to estimates)."""

HALF_BYTES = 2
"""Of a weight, and of an activation: on a GPU every model is loaded in float16, whatever its file holds."""
INTEGER_BYTES = {"I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1}

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""
LONGEST_TEXT = 512
"""In tokens, where the model's files do not say."""

_LAYER = re.compile(r"(?:^|\.)(\d+)\.")


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """What one worker process needs on its GPU, in bytes."""

    weights_bytes: int
    activations_bytes: int
    overhead_bytes: int = CONTEXT_BYTES + WORKSPACE_BYTES

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.weights_bytes + self.activations_bytes + self.overhead_bytes


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor as the header of a safetensors file describes it. `dtype` is the format's name: F32, BF16, I64."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def load_need(resolved: ResolvedModel, batch_tokens: int) -> MemoryNeed | None:
    """What a worker needs for the model `resolved`; None where its files are not on this machine yet.

    Args:
        resolved: the model; one without files (`hashing`) needs CUDA's own memory only, as its worker opens the GPU.
        batch_tokens: token budget of a batch; 0: the least with which the probe on the GPU begins.

    Raises:
        EmbeddingError: its files cannot be read.
    """
    if resolved.folder is None and resolved.revision is None:
        return MemoryNeed(0, 0)
    folder = resolved.folder or _cached_folder(resolved)
    if folder is None:
        return None
    tensors = [tensor for file in sorted(folder.rglob("*.safetensors")) for tensor in load_tensors(file)]
    return estimate_need(tensors, batch_tokens=batch_tokens or LEAST_GPU_TOKENS, longest_text=load_longest_text(folder))


def estimate_need(tensors: Iterable[Tensor], *, batch_tokens: int, longest_text: int) -> MemoryNeed:
    """Weights as they are loaded, and the activations of one batch.

    Of a token, every matrix of one layer gives an output, and an activation function, a norm or a copy makes it two.
    Layers run one after the other, so the widest counts once. Attention never holds its scores (PyTorch's fused
    kernels), but its mask: one row of the batch's width for each token.

    Args:
        tensors: all of the model.
        batch_tokens: token budget of a batch, padding included. What is embedded are summaries: none is longer.
        longest_text: tokens of the longest text that the model takes.
    """
    tensors = list(tensors)
    weights = sum(prod(tensor.shape) * INTEGER_BYTES.get(tensor.dtype, HALF_BYTES) for tensor in tensors)
    outputs: dict[str, int] = defaultdict(int)
    for tensor in tensors:
        if len(tensor.shape) == 2 and (number := _LAYER.search(tensor.name)):
            outputs[tensor.name[: number.end()]] += tensor.shape[0]
    numbers = batch_tokens * (2 * max(outputs.values(), default=0) + min(longest_text, batch_tokens))
    return MemoryNeed(weights, int(numbers * HALF_BYTES * SLACK))


def load_tensors(file: Path) -> list[Tensor]:
    """The tensors of a safetensors file, by its header alone: 8 bytes of length, little-endian, then JSON.

    Raises:
        EmbeddingError: it is none.
    """
    try:
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header: Mapping[str, Any] = json.loads(stream.read(min(size, MAX_HEADER_BYTES)))
        return [
            Tensor(name, str(entry["dtype"]), tuple(int(n) for n in entry["shape"]))
            for name, entry in header.items()
            if name != "__metadata__"
        ]
    except OSError as error:
        raise EmbeddingError(f"the embedding model's file {file} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EmbeddingError(
            f"the embedding model's file {file} is no safetensors file ({type(error).__name__}: {error}), so the model "
            "cannot be loaded: fetch it again"
        ) from None


def load_longest_text(folder: Path) -> int:
    """Tokens of the longest text that the model takes: as sentence-transformers finds it, then as its configuration."""
    said = _read_json(folder / "sentence_bert_config.json").get("max_seq_length")
    if not isinstance(said, int):
        said = _read_json(folder / "config.json").get("max_position_embeddings")
    return said if isinstance(said, int) and said > 0 else LONGEST_TEXT


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):  # what is wrong with it is said when the model is loaded
        return {}
    return value if isinstance(value, dict) else {}


def _cached_folder(resolved: ResolvedModel) -> Path | None:
    """Where the hub's client keeps the model, or None where it is not there with its weights."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(resolved.model_id, "config.json", revision=resolved.revision)
    folder = Path(config).parent if isinstance(config, str) else None
    return folder if folder and any(folder.rglob("*.safetensors")) else None
