"""Why an index is rebuilt, in words, from what CURRENT says that its key was made of."""

import json
from dataclasses import replace

import pytest

from summidx.changes import BuildInputs, Changes, find_changes
from summidx.keys import INDEX_VERSION, keyed_settings, recorded_settings
from summidx.settings import Settings, load_settings

URL = "http://127.0.0.1:1/v1"


def identity(**parts):
    return json.dumps({"provider": "openai", "model": "a", "root": "/a", "prompt": "1", "context_tokens": 8192} | parts)


def make_settings(**llm):
    return load_settings({"llm": {"provider": "openai", "model": "a", "base_url": URL} | llm})


@pytest.fixture
def inputs():
    return BuildInputs(tree="t1", settings=make_settings(), summarizer=identity(), embedding_model="hashing/256")


@pytest.fixture
def built(inputs, manifest):
    """The manifest of an index that was built of `inputs`."""
    return manifest(
        [],
        build_key=inputs.build_key,
        summarizer=inputs.summarizer,
        embedding_model=inputs.embedding_model,
        index_version=INDEX_VERSION,
        settings=recorded_settings(inputs.settings),
    )


def test_nothing_changed(built, inputs):
    assert find_changes(built, inputs) == Changes(content=False, others=())
    assert find_changes(built, inputs).describe() == ""


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"tree": "t2"}, "content changed"),
        ({"settings": make_settings(max_tokens=400)}, "llm.max_tokens changed: 350 -> 400"),
        ({"settings": make_settings(summary_language="Deutsch")}, "llm.summary_language changed: English -> Deutsch"),
        ({"summarizer": identity(model="b", root="/b")}, "model changed: a -> b"),
        ({"summarizer": identity(root="/c")}, "model changed: its root /a -> /c"),
        ({"summarizer": identity(prompt="2")}, "prompt version changed: 1 -> 2"),
        (
            {"summarizer": identity(context_tokens=4096)},
            "context of the model, in tokens, changed: 8192 -> 4096",
        ),
        ({"embedding_model": "m@sha256:" + "ab" * 32}, "embedding model changed: hashing/256 -> m@sha256:abababab"),
        (
            {"settings": load_settings({"llm": {"provider": "extractive"}}), "summarizer": "extractive/1"},
            "llm.provider changed: openai -> extractive",
        ),
        (
            {"tree": "t2", "settings": make_settings(seed=7), "summarizer": identity(prompt="2")},
            "content changed; prompt version changed: 1 -> 2; llm.seed changed: 0 -> 7",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_change_is_named_with_what_was_and_what_is(built, inputs, changed, why):
    assert find_changes(built, replace(inputs, **changed)).describe() == why


def test_levels_are_named_as_they_are_written(built, inputs):
    settings = inputs.settings.model_copy(update={"levels": inputs.settings.levels[2:]})
    why = find_changes(built, replace(inputs, settings=settings)).describe()
    assert why == "levels changed: function,class,file,directory,repo -> file,directory,repo"


def test_a_new_index_version_is_the_tools(built, inputs):
    older = replace(built, index_version=INDEX_VERSION - 1, build_key="older")
    assert find_changes(older, inputs).describe() == (
        f"tool version changed: index version {INDEX_VERSION - 1} -> {INDEX_VERSION}"
    )


def test_an_index_that_does_not_say_what_it_was_made_of_is_told_by_what_is_known(built, inputs):
    older = replace(built, index_version=None, settings=None, build_key="older")
    assert find_changes(older, inputs).describe() == "settings or version changed"
    assert find_changes(older, replace(inputs, tree="t2")).describe() == "content changed"
    other_model = replace(inputs, summarizer=identity(model="b"))
    assert find_changes(older, other_model).describe() == "model changed: a -> b"


def test_what_an_operator_fills_freely_is_told_to_have_changed_and_not_what_it_is(built, inputs):
    settings = make_settings(extra_body={"guard": "hf_secret_token"})
    changes = find_changes(built, replace(inputs, settings=settings))
    assert changes.describe() == "llm.extra_body changed"
    assert "hf_secret_token" not in json.dumps(recorded_settings(settings))


def test_no_secret_is_among_the_recorded_settings(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("SUMMIDX_CACHE__URL", "postgresql+psycopg://u:hunter2@db/c")
    recorded = json.dumps(recorded_settings(make_settings()))
    assert "secret" not in recorded
    assert "hunter2" not in recorded
    assert {"llm.api_key", "cache.url"}.isdisjoint(name for name, _ in keyed_settings(Settings()))
