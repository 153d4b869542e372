"""Who turns text into vectors, and who reads texts with a query. One file for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from summidx.records import Vectors

InputType = Literal["query", "document"]
"""Models may want a prefix for queries: it is always said which a text is."""


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """An embedding model fixed to its weights.

    `folder` is where it lies, or None for one of the hub's, pinned to `revision`. `identity` goes into keys.

    It names the weights and not the arithmetic: a text's vectors from a GPU in float16 and from CPUs in float32 or
    bfloat16 have a cosine of 0.999 and more to each other and count as the same; the one that was first in the cache is
    used by all. Were precision a part of it, an index would be out of date on every other kind of machine. So vectors
    of two cold builds differ by rounding, as they do with the make-up of batches, and nothing else of them differs.

    What stands before a document, pooling, length and dimension are in `identity`, as far as they are not the model's
    own: they change its vectors. What stands before a query is not: it changes no vector of an index.
    """

    model_id: str
    folder: Path | None
    identity: str
    revision: str | None = None
    query_prompt: str = ""
    document_prompt: str = ""
    pooling: str = ""
    """As `embedding.pooling`; "": as the model's own modules say."""
    max_tokens: int = 0
    """A text is cut to so many; 0: to what the model takes."""
    dim: int = 0
    """The first so many dimensions are used; 0: all."""


class Embedder(Protocol):
    """Turns texts into vectors. Usable from several threads."""

    @property
    def identity(self) -> str:
        """Model id and weights' hash, as keys record it."""
        ...

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    def embed(self, texts: Sequence[str], *, input_type: InputType) -> Vectors:
        """Embed `texts`, one row each, in their order.

        Raises:
            EmbeddingError: the model failed.
            DeviceLost: its GPU failed, and nothing can be embedded in this process any more.
        """
        ...


class Reranker(Protocol):
    """Says how well texts answer a query, reading both together. Usable from several threads."""

    def score(self, query: str, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """(len(texts),): the larger the better; scores of different queries do not compare.

        Raises:
            EmbeddingError: the model failed.
        """
        ...
