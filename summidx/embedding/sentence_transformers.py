"""Embedding with a sentence-transformers model. The only importer of torch and sentence_transformers."""

import os
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer

from summidx.embedding import InputType, ResolvedModel
from summidx.errors import EmbeddingError
from summidx.records import Vectors

CPU_BATCH_TOKENS = 1024
"""On a CPU small batches stay in its caches: MiniLM, one thread: 3,300 tokens/s at 1,024 a batch, 2,600 at 4,096."""


class SentenceTransformersEmbedder:
    """A sentence-transformers model, with its own pooling and prompts, on one GPU or on the CPU.

    On a CPU it runs whole batches side by side, one thread each, instead of splitting each operation over threads:
    these wait for each other at every step, and on a busy machine that cost two thirds of the speed. Weights are
    float32 on the CPU, float16 on a GPU (a cosine of 0.999 and more to float32).
    """

    def __init__(
        self,
        resolved: ResolvedModel,
        *,
        batch_tokens: int,
        trust_remote_code: bool = False,
        force_cpu: bool = False,
        cpu_threads: int | None = None,
    ) -> None:
        """Load the model.

        Raises:
            EmbeddingError: it cannot be loaded; one line says why.
        """
        # The tokenizer's own threads would fight with ours, and warn at every fork.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        on_gpu = torch.cuda.is_available() and not force_cpu
        self._resolved = resolved
        self._model = _load(resolved, device="cuda:0" if on_gpu else "cpu", trust_remote_code=trust_remote_code)
        self._batch_tokens = batch_tokens if on_gpu else min(batch_tokens, CPU_BATCH_TOKENS)
        threads = 1 if on_gpu else cpu_threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(threads, "summidx-embed", initializer=None if on_gpu else _use_one_thread)
        dim = self._model.get_embedding_dimension()
        self._dim = dim if dim is not None else self.embed(["dimension"], input_type="document").dim

    @property
    def identity(self) -> str:
        """Model id and hash of its files, or its revision."""
        return self._resolved.identity

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._dim

    def embed(self, texts: Sequence[str], *, input_type: InputType) -> Vectors:
        """Embed `texts`, one row each, in their order; what exceeds the model's length is cut off by its tokenizer.

        Raises:
            EmbeddingError: the model failed, or a single text does not fit the GPU's memory.
        """
        if not texts:
            return Vectors(np.zeros((0, self._dim), dtype=np.float32))
        # Lone surrogates, of which a tokenizer knows nothing, become "?".
        texts = [text.encode("utf-8", "replace").decode() for text in texts]
        try:
            batches = list(build_batches(self._lengths(texts), self._batch_tokens))
            parts = self._pool.map(lambda batch: self._encode([texts[i] for i in batch], input_type), batches)
            values = np.concatenate(list(parts))
        except (RuntimeError, ValueError, IndexError) as error:
            raise EmbeddingError(
                f"the embedding model {self._resolved.model_id} failed: {_first_line(error)}"
            ) from error
        order = np.concatenate([np.asarray(batch) for batch in batches])
        result = np.empty_like(values)
        result[order] = values
        return Vectors(result)

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special ones included, as the model will see it."""
        limit = self._model.max_seq_length
        cut = {"truncation": True, "max_length": limit} if limit else {}
        encoded = self._model.tokenizer(list(texts), add_special_tokens=True, padding=False, **cut)
        return [len(ids) for ids in encoded["input_ids"]]

    def _encode(self, texts: list[str], input_type: InputType) -> npt.NDArray[np.float32]:
        """Vectors of one batch; on a GPU out of memory, of its halves."""
        encode = self._model.encode_query if input_type == "query" else self._model.encode_document
        try:
            values = encode(texts, batch_size=len(texts), show_progress_bar=False, convert_to_numpy=True)
        except torch.cuda.OutOfMemoryError:
            if len(texts) == 1:
                raise
        else:
            rows: npt.NDArray[np.float32] = np.asarray(values, dtype=np.float32)
            norms = np.linalg.norm(rows, axis=1, keepdims=True)
            if not (np.isfinite(norms).all() and (norms > 0).all()):
                raise ValueError("a vector is zero or not finite")
            normed: npt.NDArray[np.float32] = rows / norms
            return normed
        torch.cuda.empty_cache()
        half = len(texts) // 2
        return np.concatenate([self._encode(texts[:half], input_type), self._encode(texts[half:], input_type)])


def build_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Indices of texts in batches of similar length: longest first, each at most `batch_tokens` with its padding."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    for index in order:
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


class _SharedModel(SentenceTransformer):
    """A model whose forward pass several threads run at once; its tokenizer is not made for that."""

    _tokenizing = threading.Lock()

    def preprocess(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401 - as the overridden one
        with self._tokenizing:
            return dict(super().preprocess(*args, **kwargs))


def _load(resolved: ResolvedModel, *, device: str, trust_remote_code: bool) -> SentenceTransformer:
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    dtype = torch.float16 if device.startswith("cuda") else torch.float32
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations between the libraries, of no use to who runs this
            model = _SharedModel(
                str(resolved.folder or resolved.model_id),
                device=device,
                revision=resolved.revision,
                trust_remote_code=trust_remote_code,
                local_files_only=resolved.folder is not None,
                model_kwargs={"use_safetensors": True, "dtype": dtype},
            )
    except (OSError, RuntimeError, ValueError, KeyError, ImportError) as error:
        raise EmbeddingError(
            f"the embedding model {resolved.folder or resolved.model_id} cannot be loaded: {_first_line(error)}"
        ) from error
    return model.eval()


def _use_one_thread() -> None:
    torch.set_num_threads(1)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
