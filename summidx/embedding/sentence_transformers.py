"""Embedding with a sentence-transformers model."""

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from sentence_transformers.util import is_sentence_transformer_model

from summidx.embedding import InputType, ResolvedModel
from summidx.embedding.batches import CPU_BATCH_TOKENS, build_batches, find_batch_tokens
from summidx.embedding.loading import LOAD_FAULTS, describe_missing, explain_load, first_line, loading_quietly
from summidx.errors import DeviceLost, EmbeddingError
from summidx.records import Vectors

AGREES = 0.999
"""Least cosine of a vector in half precision to the one in float32: below it, half precision is not used."""
SAMPLES = (
    "parse_header: Read the first line of a file and return its fields by name.",
    "Session.close: Close every connection that is open, and wait until the server has answered.",
    "retry.py: Decorators that call a function again after an error, with a pause that doubles each time.",
    "x",
    "Config.__init__: Takes `path`, `strict=True` and `**overrides`; raises ValueError for a key that is not known.",
    "tests/unit: Tests of the parser, of the cache (SQLite and PostgreSQL), and of what is seen when either fails.",
)
"""On these a precision proves itself as a model is loaded."""
PROBE_TEXT = "read a line of the file; " * 30
PROBE_RUNS = 3
PROBE_MEMORY = 0.5
"""Share of the free memory that a batch of the probe may take: longer texts need more."""

_ASK_FOR_CODE = "if it is a model with code of its makers, whom you know, set `embedding.trust_remote_code`"

logger = logging.getLogger(__name__)

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Tokens:
    """Texts as the model reads them, cut to its length, without padding."""

    by_key: Mapping[str, Sequence[Sequence[int]]]
    """`input_ids` and what the tokenizer gives beside them: one sequence for each text."""
    shared: Mapping[str, Any]
    """What holds for all of them: the length of the prompt, for one."""

    @property
    def lengths(self) -> list[int]:
        return [len(ids) for ids in self.by_key["input_ids"]]


class SentenceTransformersEmbedder:
    """A sentence-transformers model, with its own pooling and prompts, on one GPU or on the CPU.

    On a CPU it runs whole batches side by side, one thread each, instead of splitting each operation over threads:
    these wait for each other at every step, and on a busy machine that cost two thirds of the speed.

    The model runs in float16 on a GPU (bfloat16 where its values do not fit that), in float32 on a CPU: its vectors are
    the same to 1e-4 in whatever batch a text is, so that an index built through the cache equals a cold build. bfloat16
    is to be asked for there. Vectors are float32.

    Usable from several threads: one is at the tokenizer while the model is at what another gave it.
    """

    def __init__(
        self,
        resolved: ResolvedModel,
        *,
        batch_tokens: int = 0,
        trust_remote_code: bool = False,
        force_cpu: bool = False,
        cpu_threads: int | None = None,
        cpu_bfloat16: bool = False,
    ) -> None:
        """Load the model.

        Args:
            resolved: which.
            batch_tokens: token budget of a batch; 0: `CPU_BATCH_TOKENS`, on a GPU what a probe of a second finds.
            trust_remote_code: run code that comes with the model.
            force_cpu: leave a GPU alone.
            cpu_threads: on a CPU; None: one for each core that this process may use.
            cpu_bfloat16: on a CPU that multiplies it, use it if its vectors agree (`AGREES`).

        Raises:
            EmbeddingError: it cannot be loaded; one line says why.
            DeviceLost: the GPU failed.
        """
        self._on_gpu = torch.cuda.is_available() and not force_cpu
        # A GPU waits for the tokenizer, which has the cores for itself; on a CPU its threads would fight with ours. It
        # warns at every fork unless it is told one or the other.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true" if self._on_gpu else "false")
        self._resolved = resolved
        self._trust_remote_code = trust_remote_code
        self._tokenizing = threading.Lock()
        self._lost = ""
        threads = 1 if self._on_gpu else cpu_threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(threads, "summidx-embed", initializer=None if self._on_gpu else _use_one_thread)
        self._batch_tokens = batch_tokens or CPU_BATCH_TOKENS
        self._model = self._load(torch.float16 if self._on_gpu else torch.float32)
        self._dim = self._settle_precision(cpu_bfloat16=cpu_bfloat16).dim
        if resolved.dim and resolved.dim != self._dim:
            raise EmbeddingError(
                f"the embedding model {resolved.model_id} has {self._dim} dimensions, fewer than the {resolved.dim} of "
                "`embedding.dim`"
            )
        if self._on_gpu and not batch_tokens:
            self._batch_tokens = self._probe_batch_tokens()

    @property
    def identity(self) -> str:
        """Model id and hash of its files, or its revision."""
        return self._resolved.identity

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._dim

    @property
    def precision(self) -> str:
        """In which the model runs here: `float32`, `float16` or `bfloat16`."""
        return str(self._model.dtype).removeprefix("torch.")

    @property
    def batch_tokens(self) -> int:
        """Token budget of a batch, padding included; it gets smaller where a batch did not fit the GPU's memory."""
        return self._batch_tokens

    def embed(self, texts: Sequence[str], *, input_type: InputType) -> Vectors:
        """Embed `texts`, one row each, in their order; what exceeds the model's length is cut off by its tokenizer.

        Raises:
            EmbeddingError: the model failed, or a single text does not fit the GPU's memory.
            DeviceLost: the GPU failed, now or before.
        """
        if self._lost:
            raise DeviceLost(self._lost)
        if not texts:
            return Vectors(np.zeros((0, self._dim), dtype=np.float32))
        try:
            tokens = self._tokenize(texts, input_type)
            batches = build_batches(tokens.lengths, self._batch_tokens)
            values = np.concatenate(list(self._pool.map(lambda batch: self._run(tokens, batch, input_type), batches)))
        except (RuntimeError, ValueError, IndexError) as error:
            raise self._explain(error) from error
        result = np.empty_like(values)
        result[np.concatenate([np.asarray(batch) for batch in batches])] = values
        return Vectors(result)

    def _tokenize(self, texts: Sequence[str], input_type: InputType) -> _Tokens:
        # Lone surrogates, of which a tokenizer knows nothing, become "?".
        clean = [text.encode("utf-8", "replace").decode() for text in texts]
        prompt = self._resolved.query_prompt if input_type == "query" else self._resolved.document_prompt
        with self._tokenizing:  # it is not made for several threads
            features = self._model.preprocess(
                clean,
                prompt=prompt or None,
                task=input_type,
                # Padding comes with the batches, for which the lengths must be known.
                processing_kwargs={"text": {"padding": False}, "common": {"return_tensors": None}},
            )
        of_texts = {key: value for key, value in features.items() if isinstance(value, list)}
        if "input_ids" not in of_texts:
            raise ValueError("it reads no tokens, as a transformer does; set `embedding.model` to another")
        return _Tokens(of_texts, {key: value for key, value in features.items() if key not in of_texts})

    def _run(self, tokens: _Tokens, batch: Sequence[int], input_type: InputType) -> Rows:
        """Vectors of one batch, normalised; on a GPU out of memory, of its halves."""
        try:
            rows = self._forward(tokens, batch, input_type)
        except RuntimeError as error:
            if not _is_out_of_memory(error) or len(batch) == 1:
                raise
        else:
            norms = np.linalg.norm(rows, axis=1, keepdims=True)
            if not (np.isfinite(norms).all() and (norms > 0).all()):
                raise ValueError("a vector is zero or not finite")
            normed: Rows = rows / norms
            return normed
        torch.cuda.empty_cache()  # outside of `except`, whose traceback holds what the failed batch took
        self._shrink(len(batch) * max(tokens.lengths[i] for i in batch))
        half = len(batch) // 2
        return np.concatenate([self._run(tokens, part, input_type) for part in (batch[:half], batch[half:])])

    @torch.inference_mode()
    def _forward(self, tokens: _Tokens, batch: Sequence[int], input_type: InputType) -> Rows:
        of_batch = {key: [values[i] for i in batch] for key, values in tokens.by_key.items()}
        padded = self._model.tokenizer.pad(of_batch, return_tensors="pt")
        features = {key: value.to(self._model.device) for key, value in padded.items()}
        vectors = self._model({**tokens.shared, **features}, task=input_type)["sentence_embedding"]
        rows: Rows = vectors[:, : self._model.truncate_dim].float().cpu().numpy()
        return rows

    def _shrink(self, failed_tokens: int) -> None:
        """Make batches smaller from now on, after one of so many tokens did not fit."""
        smaller = failed_tokens // 2
        if smaller < self._batch_tokens:
            logger.warning(
                "a batch of %d tokens did not fit the GPU's memory (does another process use it?): batches hold %d "
                "from now on",
                failed_tokens,
                smaller,
            )
            self._batch_tokens = smaller

    def _settle_precision(self, *, cpu_bfloat16: bool) -> Vectors:
        """Run in half precision where that gives the right vectors; those of the samples."""
        if self._on_gpu:
            try:
                return self._embed_samples()
            except DeviceLost:
                raise
            except EmbeddingError:  # infinities, most likely: float16 ends at 65,504, bfloat16 where float32 does
                del self._model  # first, so that there need not be room for both
                self._model = self._load(torch.bfloat16)
                return self._embed_samples()
        exact = self._embed_samples()
        if not cpu_bfloat16 or not _multiplies_bfloat16():
            return exact
        self._model.to(torch.bfloat16)
        try:
            least = float((self._embed_samples().values * exact.values).sum(axis=1).min())
        except EmbeddingError:  # an operation that this CPU does not have in bfloat16, or no numbers
            least = 0.0
        if least < AGREES:
            self._model = self._load(torch.float32)
        return exact

    def _embed_samples(self) -> Vectors:
        return self.embed(SAMPLES, input_type="document")

    def _probe_batch_tokens(self) -> int:
        free_bytes, _ = torch.cuda.mem_get_info()
        tokens = self._tokenize([PROBE_TEXT], "document")
        length = tokens.lengths[0]

        def measure(batch_tokens: int) -> float | None:
            batch = [0] * (batch_tokens // length)
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            try:
                self._forward(tokens, batch, "document")  # the first one also chooses its kernels
                if torch.cuda.max_memory_allocated() - before > PROBE_MEMORY * free_bytes:
                    return None
                start = time.perf_counter()
                for _ in range(PROBE_RUNS):
                    self._forward(tokens, batch, "document")
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise self._explain(error) from error
                return None
            return PROBE_RUNS * len(batch) * length / (time.perf_counter() - start)

        found = find_batch_tokens(measure)
        torch.cuda.empty_cache()  # what the largest batch took is of use to others
        return found

    def _load(self, dtype: torch.dtype) -> SentenceTransformer:
        resolved = self._resolved
        name = str(resolved.folder or resolved.model_id)
        try:
            with loading_quietly(unused="pooler") as missing:  # many files of BERT-like models come without it
                model = SentenceTransformer(
                    name,
                    device="cuda:0" if self._on_gpu else "cpu",
                    revision=resolved.revision,
                    trust_remote_code=self._trust_remote_code,
                    local_files_only=resolved.folder is not None,
                    truncate_dim=resolved.dim or None,
                    model_kwargs={"use_safetensors": True, "dtype": dtype},
                )
            pools = resolved.pooling or is_sentence_transformer_model(
                name, revision=resolved.revision, local_files_only=resolved.folder is not None
            )
        except LOAD_FAULTS as error:
            raise EmbeddingError(
                f"the embedding model {name} cannot be loaded: {explain_load(error, _ASK_FOR_CODE)}"
            ) from error
        if missing:
            raise EmbeddingError(
                f"the embedding model {name} is not whole: weights are missing ({describe_missing(missing)}), and its "
                f"vectors would mean nothing; {_ASK_FOR_CODE}, or fetch the model again"
            )
        if not pools:
            raise EmbeddingError(
                f"the embedding model {name} does not say how the vectors of tokens make one (it has no modules.json): "
                "set `embedding.pooling` to what its makers say (mean, cls or lasttoken)"
            )
        if resolved.pooling:
            _set_pooling(model, resolved.pooling)
        if resolved.max_tokens:
            model.max_seq_length = min(resolved.max_tokens, model.max_seq_length or resolved.max_tokens)
        return model.eval()

    def _explain(self, error: Exception) -> EmbeddingError:
        if self._on_gpu and isinstance(error, RuntimeError) and not _device_answers():
            self._lost = (
                f"the GPU failed and answers nothing more in this process ({first_line(error)}): nothing can be "
                "embedded until it is started again, and summaries are kept; if it fails again, look for it in "
                "`nvidia-smi` and for Xid in `dmesg`"
            )
            return DeviceLost(self._lost)
        return EmbeddingError(f"the embedding model {self._resolved.model_id} failed: {first_line(error)}")


def _device_answers() -> bool:
    """Whether the GPU still does what it is asked: after a sticky error every call of the process fails.

    It is asked, since the errors themselves do not tell: torch has no list, and its own libraries raise plain
    RuntimeErrors for either kind.
    """
    try:
        torch.cuda.synchronize()
        return bool(torch.ones(1, device="cuda:0").item() == 1.0)
    except RuntimeError as error:
        return _is_out_of_memory(error)


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether the GPU's memory is full; cuBLAS and the driver say so in words alone."""
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in str(error) for words in ("CUDA error: out of memory", "STATUS_ALLOC_FAILED")
    )


def _multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for it; elsewhere bfloat16 is slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _set_pooling(model: SentenceTransformer, mode: str) -> None:
    """Replace how the vectors of tokens make one.

    Raises:
        EmbeddingError: this model does it in a way of its own.
    """
    for name, module in model.named_children():
        if isinstance(module, Pooling):
            setattr(model, name, Pooling(module.embedding_dimension, mode, include_prompt=module.include_prompt))
            return
    raise EmbeddingError(f"the embedding model has no pooling that could be {mode}: leave `embedding.pooling` out")


def _use_one_thread() -> None:
    torch.set_num_threads(1)
