"""An embedder without a model: hashed bags of words. For tests, and for trying the flow without torch."""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from summidx.embedding import InputType
from summidx.records import Vectors

_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[^\W\dA-Z_]+|[A-Z]+|\d+")


class HashingEmbedder:
    """Signed feature hashing (Weinberger et al., 2009) of lower-case words and parts of identifiers.

    A real geometry: texts that share words are near, others nearly at right angles. Deterministic on every machine.
    """

    def __init__(self, dim: int = 256) -> None:
        """Make an embedder of vectors of length `dim`.

        Raises:
            ValueError: fewer than 8 dimensions tell nothing apart.
        """
        if dim < 8:
            raise ValueError(f"a hashing embedder needs at least 8 dimensions, not {dim}")
        self._dim = dim

    @property
    def identity(self) -> str:
        """`hashing/DIM`."""
        return f"hashing/{self._dim}"

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._dim

    def embed(self, texts: Sequence[str], *, input_type: InputType) -> Vectors:  # noqa: ARG002 - both are words
        """Embed `texts`; a word counts log(1 + times). A text without a word is the first unit vector."""
        values = np.zeros((len(texts), self._dim), dtype=np.float32)
        for number, text in enumerate(texts):
            row = values[number]
            for word, times in Counter(word.lower() for word in _WORD.findall(text)).items():
                index, sign = _slot(word)
                row[index % self._dim] += sign * math.log1p(times)
            if not row.any():
                row[0] = 1.0
        return Vectors(values / np.linalg.norm(values, axis=1, keepdims=True))


@lru_cache(maxsize=100_000)
def _slot(word: str) -> tuple[int, int]:
    """A place and a sign for a word, from independent bits of its hash."""
    number = int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
    return number >> 1, 1 if number & 1 else -1
