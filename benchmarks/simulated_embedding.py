"""The command `python flows/build.py`, with an embedding model that takes time instead of computing.

    python -m benchmarks.simulated_embedding --repo PATH ...

Vectors are those of the `hashing` embedder; each text takes SECONDS_VARIABLE of a worker's embedding, which
sleeps meanwhile: so two cores hold eight workers. What each process embedded when is written to FOLDER_VARIABLE, one
file a process, one line `[start, end, texts]` of `time.monotonic` for each batch.

Worker processes are spawned, and so import their parent's main module, which this is: the embedder is put in the place
of the product's in every one of them, and no setting of the product knows of it.
"""

import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from summidx import engine
from summidx.embedding import Embedder, InputType
from summidx.embedding.hashing import HashingEmbedder
from summidx.records import Vectors

SECONDS_VARIABLE = "BENCHMARK_EMBEDDING_S"
FOLDER_VARIABLE = "BENCHMARK_EMBEDDING_FOLDER"


class SimulatedEmbedder:
    """The hashing embedder, slowed down to so many seconds for a text."""

    def __init__(self, text_s: float, folder: Path) -> None:
        self._hashing = HashingEmbedder()
        self._text_s = text_s
        self._one_at_a_time = threading.Lock()  # as a GPU is: the engine has two slices in hand
        self._file = folder / f"{os.getpid()}.jsonl"

    @property
    def identity(self) -> str:
        """That of the hashing embedder, whose vectors these are."""
        return self._hashing.identity

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._hashing.dim

    def embed(self, texts: Sequence[str], *, input_type: InputType) -> Vectors:
        """Embed `texts`, in no less than their service time."""
        with self._one_at_a_time:
            start_s = time.monotonic()
            vectors = self._hashing.embed(texts, input_type=input_type)
            time.sleep(max(0.0, start_s + self._text_s * len(texts) - time.monotonic()))
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps([start_s, time.monotonic(), len(texts)]) + "\n")
        return vectors


def load_simulated(*_: object, **__: object) -> Embedder:
    """Stands for `summidx.embedding.models.load_embedder`."""
    return SimulatedEmbedder(float(os.environ[SECONDS_VARIABLE]), Path(os.environ[FOLDER_VARIABLE]))


if __name__ in ("__main__", "__mp_main__"):  # the latter in a spawned process
    mock.patch.object(engine, "load_embedder", load_simulated).start()

if __name__ == "__main__":
    from flows.command import main

    main()
