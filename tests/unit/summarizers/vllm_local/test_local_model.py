"""What is known of a model on this machine before it is loaded. No vLLM is here: a folder stands for its package."""

import json

import pytest

from summidx.errors import UnknownModel, UsageError
from summidx.settings import LLMSettings, Provider
from summidx.summarizers.vllm_local import local_model
from summidx.summarizers.vllm_local.local_model import answer_shaping, find_local_model

ARG_UTILS = """
@dataclass
class EngineArgs:
    model: str = ModelConfig.model
    max_model_len: int | None = None
    dtype: str = "auto"

@dataclass
class AsyncEngineArgs(EngineArgs):
    enable_log_requests: bool = False
"""


@pytest.fixture
def vllm_package(tmp_path, monkeypatch):
    folder = tmp_path / "site" / "vllm"
    (folder / "engine").mkdir(parents=True)
    (folder / "engine" / "arg_utils.py").write_text(ARG_UTILS)
    monkeypatch.setattr(local_model, "_vllm_folder", lambda: folder)
    return folder


@pytest.fixture
def model(vllm_package, tmp_path):
    folder = tmp_path / "a-model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 40_000}))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 4096)
    return folder


def settings_of(model, **fields) -> LLMSettings:
    return LLMSettings(provider=Provider.VLLM, model=str(model), **fields)


def test_a_folder_is_known_by_its_name_and_what_lies_in_it_wherever_it_lies(model, tmp_path):
    found = find_local_model(settings_of(model))
    assert found.id == "a-model"
    assert found.root.startswith("sha256:")
    elsewhere = tmp_path / "elsewhere" / "a-model"
    elsewhere.parent.mkdir()
    model.rename(elsewhere)
    assert find_local_model(settings_of(elsewhere)) == found


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", lambda data: data.replace(b"40", b"50")),
        ("chat_template.jinja", lambda data: data + b"\n"),
        ("model.safetensors", lambda data: bytes(255 - byte for byte in data)),  # trained further: all numbers differ
        ("model.safetensors", lambda data: data[:-1]),
    ],
)
def test_another_model_in_the_same_folder_is_another_model(model, name, change):
    before = find_local_model(settings_of(model)).root
    (model / name).write_bytes(change((model / name).read_bytes()))
    assert find_local_model(settings_of(model)).root != before


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, 10_240),  # 8,000 for prompt and answer, room to ask again: no more memory than that is asked for
        ({"prompt_tokens": 100_000}, 40_000),
        ({"context_tokens": 6000}, 6000),
        ({"context_tokens": 6000, "engine_args": {"max_model_len": 7000}}, 7000),
    ],
)
def test_the_context_is_what_is_needed_or_what_is_set(model, fields, tokens):
    assert find_local_model(settings_of(model, **fields)).max_model_len == tokens


def test_the_context_of_a_model_of_several_parts_is_that_of_its_text(model):
    (model / "config.json").write_text(json.dumps({"text_config": {"max_position_embeddings": 2048}}))
    assert find_local_model(settings_of(model)).max_model_len == 2048


def test_how_a_model_is_laid_out_is_not_what_it_answers():
    assert answer_shaping({"tensor_parallel_size": 4, "gpu_memory_utilization": 0.5, "max_model_len": 9}) == {}
    assert answer_shaping({"dtype": "float16", "an_argument_of_tomorrow": 1, "enforce_eager": True}) == {
        "dtype": "float16",
        "an_argument_of_tomorrow": 1,
    }


@pytest.mark.parametrize(
    ("engine_args", "says"),
    [
        ({"dtpye": "float16"}, "dtpye"),
        ({"model": "other"}, r"llm\.model"),
        ({"max_model_len": "32k"}, "max_model_len"),
        ({"max_model_len": 0}, "max_model_len"),
        ({"hf_token": "hf_secret"}, "HF_TOKEN"),
    ],
)
def test_arguments_that_the_engine_cannot_take_are_refused_in_one_line(model, engine_args, says):
    with pytest.raises(UsageError, match=says) as refused:
        find_local_model(settings_of(model, engine_args=engine_args))
    assert "\n" not in str(refused.value)


def test_where_vllm_looks_otherwise_than_expected_nothing_is_refused_for_it(model, vllm_package):
    (vllm_package / "engine" / "arg_utils.py").unlink()
    assert find_local_model(settings_of(model, engine_args={"an_argument_of_tomorrow": 1})).id == "a-model"


@pytest.mark.parametrize(
    ("name", "says"), [("", "--llm-model"), ("/nowhere/at/all", "no folder"), ("../up", "no folder")]
)
def test_a_model_that_is_not_here_is_named(vllm_package, name, says):
    with pytest.raises((UsageError, UnknownModel), match=says):
        find_local_model(settings_of(name))


def test_a_folder_that_holds_no_model_is_refused(vllm_package, tmp_path):
    with pytest.raises(UnknownModel, match=r"config\.json"):
        find_local_model(settings_of(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UnknownModel, match="cannot be read"):
        find_local_model(settings_of(tmp_path))


def test_without_vllm_that_is_what_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(local_model, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="vLLM is not installed"):
        find_local_model(settings_of(tmp_path))
