"""Who turns text into vectors. One file per embedder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from summidx.records import Vectors

InputType = Literal["query", "document"]
"""Models may want a prefix for queries: it is always said which a text is."""


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """An embedding model fixed to its weights.

    `folder` is where it lies, or None for one of the hub's, pinned to `revision`. `identity` goes into keys.
    """

    model_id: str
    folder: Path | None
    identity: str
    revision: str | None = None


class Embedder(Protocol):
    """Turns texts into vectors. Used from one thread at a time."""

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
        """
        ...
