"""Vectors of texts by the product's embedding model, each distinct text embedded once and kept for the next time."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from summidx.embedding import Embedder, InputType

Vectors = npt.NDArray[np.float32]

SLICE = 4_096
"""So many texts are embedded before what there is so far is told."""


def embed_once(embedder: Embedder, texts: Sequence[str], input_type: InputType, folder: Path) -> Vectors:
    """(len(texts), dim), L2-normalised; what was made before lies in `folder`."""
    distinct = list(dict.fromkeys(texts))
    digest = hashlib.sha256()
    for part in (embedder.identity, input_type, *distinct):
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    path = folder / f"vectors-{digest.hexdigest()[:16]}.npy"
    if not path.exists():
        start = time.perf_counter()
        parts = []
        for at in range(0, len(distinct), SLICE):
            parts.append(embedder.embed(distinct[at : at + SLICE], input_type=input_type).values)
            done = min(at + SLICE, len(distinct))
            print(f"{done} of {len(distinct)} texts embedded, {time.perf_counter() - start:.0f} s", flush=True)
        np.save(path, np.concatenate(parts))
    values = np.asarray(np.load(path), np.float32)
    place = {text: at for at, text in enumerate(distinct)}
    return values[[place[text] for text in texts]]
