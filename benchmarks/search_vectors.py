"""Vectors of texts by the product's embedding model, each distinct text embedded once and kept for the next time."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from summidx.cache import Cache
from summidx.embedding import Embedder, InputType
from summidx.keys import vector_key

Vectors = npt.NDArray[np.float32]

SLICE = 4_096
"""So many texts are embedded before they are kept, and what there is so far is told."""


def embed_once(embedder: Embedder, texts: Sequence[str], input_type: InputType, folder: Path) -> Vectors:
    """(len(texts), dim), L2-normalised; what was made before lies in the cache in `folder`."""
    model = f"{embedder.identity} {input_type}"
    keys = [vector_key(text, model) for text in texts]
    text_of = dict(zip(keys, texts, strict=True))
    cache = Cache(f"sqlite:///{folder / 'vectors.sqlite'}")
    try:
        known = dict(cache.get_vectors(text_of))
        missing = [key for key in text_of if key not in known]
        start = time.perf_counter()
        for at in range(0, len(missing), SLICE):
            part = missing[at : at + SLICE]
            values = embedder.embed([text_of[key] for key in part], input_type=input_type).values
            known |= cache.put_vectors(dict(zip(part, values, strict=True)), model=model)
            done = min(at + SLICE, len(missing))
            print(f"{done} of {len(missing)} texts embedded, {time.perf_counter() - start:.0f} s", flush=True)
    finally:
        cache.close()
    return np.stack([known[key] for key in keys]).astype(np.float32, copy=False)
