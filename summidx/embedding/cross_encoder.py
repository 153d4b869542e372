"""Reranking with a cross-encoder of sentence-transformers, which reads a query and a text together."""

import os
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import CrossEncoder

from summidx.embedding.loading import LOAD_FAULTS, describe_missing, explain_load, first_line, loading_quietly
from summidx.errors import EmbeddingError

_PAIRS_AT_ONCE = 16
_NO_CODE = "it is not run, name a model without"


class CrossEncoderReranker:
    """A cross-encoder with one output, on one GPU or on the CPU. Usable from several threads, one after the other.

    Args:
        name: a folder, or a model of the hub.
        revision: of a hub's model.
        force_cpu: leave a GPU alone.

    Raises:
        EmbeddingError: it cannot be loaded, or is no such model; one line says why.
    """

    def __init__(self, name: str, *, revision: str | None = None, force_cpu: bool = False) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else it warns at every fork
        self._name = name
        self._lock = threading.Lock()
        on_gpu = torch.cuda.is_available() and not force_cpu
        try:
            with loading_quietly() as missing:
                self._model = CrossEncoder(
                    name,
                    device="cuda:0" if on_gpu else "cpu",
                    revision=revision,
                    local_files_only=revision is None,
                    activation_fn=torch.nn.Identity(),  # what it says, not squeezed between 0 and 1
                    model_kwargs={"use_safetensors": True, "dtype": torch.float32},  # whatever its files are in
                )
        except LOAD_FAULTS as error:
            raise EmbeddingError(
                f"the cross-encoder {name} cannot be loaded: {explain_load(error, _NO_CODE)}"
            ) from error
        if missing:
            raise EmbeddingError(
                f"{name} is no cross-encoder, or not whole: weights are missing ({describe_missing(missing)}), and "
                "what it says would mean nothing; name a model that is trained to rerank"
            )
        if self._model.num_labels != 1:
            raise EmbeddingError(
                f"the model {name} says {self._model.num_labels} things of a pair of texts, where a reranker says one: "
                "how well they fit; name a model that is trained to rerank"
            )

    def score(self, query: str, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """How well each text answers the query, by the model's own scale; see `Reranker`.

        The query is read anew with each text: give the text that a `Query` embeds, which is bounded.
        """
        pairs = [(_clean(query), _clean(text)) for text in texts]
        if not pairs:
            return np.zeros(0, np.float32)
        try:
            with self._lock:
                scores = self._model.predict(pairs, batch_size=_PAIRS_AT_ONCE, show_progress_bar=False)
        except (RuntimeError, ValueError, IndexError) as error:
            raise EmbeddingError(f"the cross-encoder {self._name} failed: {first_line(error)}") from error
        found = np.asarray(scores, np.float32)
        if not np.isfinite(found).all():
            raise EmbeddingError(f"the cross-encoder {self._name} failed: a score is not finite")
        return found


def _clean(text: str) -> str:
    """Lone surrogates, of which a tokenizer knows nothing, become "?"."""
    return text.encode("utf-8", "replace").decode()
