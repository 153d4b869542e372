"""Models of well-known families, tiny and with random weights, in folders that hold what those of the makers hold.

Their tokenizer is that of all-MiniLM-L6-v2 (the extra `minilm`).
"""

import json
import shutil
from pathlib import Path
from typing import Any

WIDTH = 32
CODE_OF_MAKERS = "raise SystemExit('code of a model was run')\n"


def write_tiny_model(
    folder: Path,
    kind: str = "bert",
    *,
    pooling: str = "mean",
    prompts: dict[str, str] | None = None,
    has_modules: bool = True,
    width: int = WIDTH,
    seed: int = 0,
) -> Path:
    """Write a model.

    Args:
        folder: where to, which is what the model is known by.
        kind: of its layers: `bert`, `qwen3`, `qwen2`, `nomic_bert`.
        pooling: as sentence-transformers names it.
        prompts: of its own files; None: they say nothing of prompts.
        has_modules: whether it is a model of sentence-transformers, or one of transformers only.
        width: length of its vectors.
        seed: of its weights.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    from summidx.embedding.models import resolve_model
    from summidx.settings import EmbeddingSettings

    source = resolve_model(EmbeddingSettings()).folder
    assert source is not None
    shape: dict[str, Any] = {
        "vocab_size": 30_522,
        "hidden_size": width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    if kind.startswith("qwen"):
        shape |= {"num_key_value_heads": 1, "head_dim": width // 2, "intermediate_size": 64, "pad_token_id": 0}
    else:
        shape |= {"intermediate_size": 64, "max_position_embeddings": 512}
    torch.manual_seed(seed)
    AutoModel.from_config(AutoConfig.for_model(kind, **shape)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(source / name, folder)
    if pooling == "lasttoken":
        change_json(folder / "tokenizer_config.json", padding_side="left")
    if has_modules:
        write_modules(folder, pooling, width)
    if prompts is not None:
        (folder / "config_sentence_transformers.json").write_text(
            json.dumps({"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"})
        )
    return folder


def write_tiny_cross_encoder(folder: Path, *, labels: int = 1, seed: int = 0) -> Path:
    """Write a cross-encoder, in the files that sentence-transformers has for one."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    write_tiny_model(folder, has_modules=False)
    config = AutoConfig.from_pretrained(folder)
    config.num_labels = labels
    torch.manual_seed(seed)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


def write_modules(folder: Path, pooling: str, width: int = WIDTH) -> None:
    """What makes a folder of transformers one of sentence-transformers."""
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [
        {"idx": n, "name": str(n), "path": f"{n}_{kind}" if n else "", "type": f"sentence_transformers.models.{kind}"}
        for n, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 128, "do_lower_case": False}))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    modes = {"mean": "mean_tokens", "cls": "cls_token", "lasttoken": "lasttoken", "max": "max_tokens"}
    flags = {f"pooling_mode_{name}": name == modes[pooling] for name in modes.values()}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": width} | flags))
    (folder / "2_Normalize").mkdir(exist_ok=True)


def write_code_of_makers(folder: Path) -> None:
    """Have a model bring code of its own, which ends whoever runs it."""
    auto_map = {"AutoConfig": "configuration_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
    change_json(folder / "config.json", auto_map=auto_map)
    for name in ("configuration_own.py", "modeling_own.py"):
        (folder / name).write_text(CODE_OF_MAKERS)


def drop_weights(folder: Path, part: str) -> None:
    """Take the weights whose names hold `part` out of a model."""
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    weights = {name: tensor for name, tensor in load_file(file).items() if part not in name}
    save_file(weights, file, metadata={"format": "pt"})


def change_json(file: Path, **values: object) -> None:
    """Set values of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
