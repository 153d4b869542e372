"""What a model on this machine is, read from its files: no vLLM here, since the flow that plans asks this, too."""

import ast
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from summidx.errors import UnknownModel, UsageError
from summidx.settings import LLMSettings
from summidx.summarizers import ServedModel

TEXTS = ("*.json", "*.jinja", "*.txt", "*.model", "*.py")
WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf")
SAMPLES = 64
SAMPLE_BYTES = 4096
"""Of each file of weights so many pieces are read, evenly spaced: training changes nearly all of a model's numbers, and
the whole of 140 GB takes minutes."""

HUB_TIMEOUT_S = 20.0

CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length")
"""Under which names models' configurations give their context, in tokens, as vLLM looks for it."""
ROUND_TO = 1024
ROOM = 1024
"""Tokens of context kept for what a chat template, a nudge and a wrong estimate may add."""

OURS = frozenset({"model", "served_model_name", "enable_log_requests"})
"""Arguments of the engine that are set here, from settings of their own."""
SHAPES_NOTHING = frozenset(
    {
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "data_parallel_size",
        "distributed_executor_backend",
        "gpu_memory_utilization",
        "kv_cache_memory_bytes",
        "cpu_offload_gb",
        "swap_space",
        "block_size",
        "max_model_len",
        "max_num_seqs",
        "max_num_batched_tokens",
        "enforce_eager",
        "enable_prefix_caching",
        "enable_chunked_prefill",
        "disable_log_stats",
        "download_dir",
        "use_tqdm_on_load",
        "device_ids",
    }
)
"""Arguments that say where and how fast a model runs, not what it answers; all others are part of its identity."""


def find_local_model(settings: LLMSettings) -> ServedModel:
    """The model that vLLM would load for `settings`: its name, what identifies its files, and its context in tokens.

    Nothing is loaded. `root` is `sha256:...` over the files of a folder, or the commit of a model of the hub.

    Raises:
        UsageError: no model is named, vLLM is not installed, or `llm.engine_args` cannot be used.
        UnknownModel: there is no such model.
    """
    if not settings.model:
        raise UsageError("no model is named: set `llm.model` (--llm-model) to a folder or the id of a model for vLLM")
    if _vllm_folder() is None:
        raise UsageError(
            "vLLM is not installed here, so it cannot run in the worker: install vllm beside summidx (README), or name "
            "a server that runs elsewhere with --llm-provider openai --llm-base-url"
        )
    _check_engine_args(settings.engine_args)
    folder = Path(settings.model).expanduser()
    if folder.is_dir():
        folder = folder.resolve()
        name, root = folder.name, f"sha256:{_fingerprint(folder)}"
    else:
        folder, root = _hub_snapshot(settings)
        name = settings.model
    return ServedModel(name, root, context_tokens(settings, _read_config(folder)))


def context_tokens(settings: LLMSettings, config: Mapping[str, Any]) -> int:
    """The context that the model is loaded with: as it is set, else what the longest prompt needs, if it has so much.

    All that a model can read is not asked for: vLLM refuses to load one whose context has no room in the memory.
    """
    asked = settings.engine_args.get("max_model_len") or settings.context_tokens
    if asked:
        return int(asked)
    needed = settings.prompt_tokens + 2 * max(settings.max_tokens, settings.max_tokens_function) + ROOM
    needed = -(-needed // ROUND_TO) * ROUND_TO
    nested = config.get("text_config")
    places = [config, nested] if isinstance(nested, Mapping) else [config]
    found = [length for place in places for name in CONTEXT_FIELDS if isinstance(length := place.get(name), int)]
    return min([needed, *found])


def answer_shaping(engine_args: Mapping[str, Any]) -> dict[str, Any]:
    """What of the engine's arguments may change an answer: a part of the model's identity."""
    return {name: value for name, value in engine_args.items() if name not in SHAPES_NOTHING}


def _check_engine_args(engine_args: Mapping[str, Any]) -> None:
    if ours := sorted(OURS & engine_args.keys()):
        raise UsageError(f"`llm.engine_args` holds {', '.join(ours)}, which is set by `llm.model`: leave it out")
    if isinstance(engine_args.get("hf_token"), str):  # it would stand in identities, and so in CURRENT and in logs
        raise UsageError("`llm.engine_args` holds hf_token: set HF_TOKEN in the environment, settings are no secrets")
    known = _engine_arg_names() if engine_args else None
    if known and (unknown := sorted(engine_args.keys() - known)):
        raise UsageError(
            f"`llm.engine_args` holds {', '.join(unknown)}, which this vLLM's engine does not take: its arguments are "
            "those of `vllm serve`, with _ for -"
        )
    length = engine_args.get("max_model_len")
    if length is not None and not (isinstance(length, int) and length > 0):
        raise UsageError(f"`llm.engine_args` holds max_model_len={length!r}: write a number of tokens")


def _engine_arg_names() -> frozenset[str] | None:
    """What the installed vLLM's engine takes, read from its source: to import it takes 15 s and half a GB.

    None where the source is not as expected; the engine itself refuses an unknown name later.
    """
    folder = _vllm_folder()
    if folder is None:
        return None
    try:
        source = (folder / "engine" / "arg_utils.py").read_text(encoding="utf-8")
        classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    except (OSError, ValueError, SyntaxError):
        return None
    fields = {
        statement.target.id
        for each in classes
        if each.name in ("EngineArgs", "AsyncEngineArgs")
        for statement in each.body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    }
    return frozenset(fields) if "max_model_len" in fields else None


def _vllm_folder() -> Path | None:
    """Where vLLM is installed; a folder that is only called so is none."""
    spec = find_spec("vllm")
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _read_config(folder: Path) -> Mapping[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnknownModel(
            f"the folder {folder} holds no config.json, so it is no model that vLLM can load: set `llm.model` to the "
            "folder of a model in the format of Hugging Face"
        ) from None
    except (OSError, ValueError) as error:
        raise UnknownModel(
            f"the model's {path} cannot be read ({error}): repair it, or set another `llm.model`"
        ) from None
    if not isinstance(config, Mapping):
        raise UnknownModel(f"the model's {path} is no JSON object: repair it, or set another `llm.model`")
    return config


def _hub_snapshot(settings: LLMSettings) -> tuple[Path, str]:
    """Folder and commit of a model of the hub, of which only the configuration is fetched, if it is not here yet."""
    name = settings.model
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith((".", "~")):
        raise UnknownModel(f"the model {name!r} is no folder here and no model id; set `llm.model` (--llm-model)")
    from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_OFFLINE

    revision = settings.engine_args.get("revision")
    reason = "HF_HUB_OFFLINE is set"
    config = None
    if not HF_HUB_OFFLINE:
        try:
            commit = HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT_S).sha
            config = hf_hub_download(name, "config.json", revision=commit)
        except Exception as error:  # the hub's client lets through the errors of its HTTP library
            reason = type(error).__name__
    config = config or try_to_load_from_cache(name, "config.json", revision=revision)
    if not isinstance(config, str):
        raise UnknownModel(
            f"the model {name!r} is no folder here, and the hub cannot be asked for it ({reason}): set `llm.model` to "
            "a folder, or connect once"
        )
    return Path(config).parent, Path(config).parent.name


def _fingerprint(folder: Path) -> str:
    """SHA-256 over what a folder's model is made of: configuration, tokenizer, template, code; weights by samples."""
    whole = hashlib.sha256()
    try:
        for file in _find(folder, TEXTS):
            whole.update(f"{file.name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
        for file in _find(folder, WEIGHTS):
            whole.update(f"{file.name}\0{_sample(file)}\n".encode())
    except OSError as error:
        raise UnknownModel(f"the model's folder {folder} cannot be read ({error}): mend its rights") from None
    return whole.hexdigest()


def _find(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})


def _sample(file: Path) -> str:
    """SHA-256 of a file's size and of pieces of it."""
    size = file.stat().st_size
    sample = hashlib.sha256(str(size).encode())
    with file.open("rb") as stream:
        for piece in range(SAMPLES):
            stream.seek(max(0, size - SAMPLE_BYTES) * piece // (SAMPLES - 1))
            sample.update(stream.read(SAMPLE_BYTES))
    return sample.hexdigest()
