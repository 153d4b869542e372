"""Make a tiny language model that a real vLLM serves on a CPU: no download, and each run makes the same weights.

Usage: .venv-vllm/bin/python tests/vllm/tiny_model.py FOLDER

A byte-level BPE tokenizer is trained on the sources of the standard library, then a Llama of two layers learns in about
a minute to answer any code with a sentence and a line of keywords. What it says is nonsense, but it comes to an end: a
model with random weights never does, so that each of its answers would be cut, and each document degraded.
"""

import random
import shutil
import sys
import sysconfig
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SEED = 20
VOCABULARY = 4096
CONTEXT = 4096
"""Tokens, prompt and answer together."""
STEPS = 100
TOKENS_PER_STEP = 2048
LENGTHS = (128, 256, 128, 1024)
"""Lengths of the training sequences, in tokens: attention has to have seen long prompts."""
ANSWER = 64
"""Tokens at the end of a sequence whose loss counts."""

VERBS = ("Reads", "Writes", "Builds", "Checks", "Parses", "Returns", "Sends", "Finds", "Opens", "Counts")
NOUNS = (
    "file",
    "value",
    "header",
    "message",
    "object",
    "address",
    "stream",
    "module",
    "name",
    "request",
    "result",
    "path",
)
ENDS = (
    "in order",
    "once",
    "for each caller",
    "without a copy",
    "as text",
    "from the cache",
    "at the start",
    "on error",
)

BEGIN, END = "<|begin|>", "<|end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|begin|>' + message['role'] + '\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|begin|>assistant\n' }}{% endif %}"
)


def read_sources() -> list[str]:
    """The top modules of the standard library, in a fixed order."""
    folder = Path(sysconfig.get_path("stdlib"))
    return [path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob("*.py"))]


def build_answer(rng: random.Random) -> str:
    """A summary in the form that summidx asks for; no word stands in it twice, so that no loop is learnt."""
    first, second, third, *keywords = rng.sample(NOUNS, 6)
    text = f"{rng.choice(VERBS)} the {first} of a {second} and its {third} {rng.choice(ENDS)}."
    return f"{text}\nKeywords: {', '.join(keywords)}"


def train_tokenizer(sources: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: every text can be encoded, and decodes to itself."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BEGIN, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sources, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=END,
        model_max_length=CONTEXT,
        chat_template=CHAT_TEMPLATE,
    )


def build_batch(
    sources: list[list[int]], tokenizer: PreTrainedTokenizerFast, length: int, rng: random.Random
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of shape (n, length) and labels of shape (n, ANSWER), those of the prompt -100; n * length tokens."""
    rows, labels = [], []
    for source in rng.choices(sources, k=TOKENS_PER_STEP // length):
        answer = tokenizer.encode(f"{END}\n{BEGIN}assistant\n{build_answer(rng)}{END}")
        prompt = length - len(answer)
        start = rng.randrange(len(source) - prompt)
        rows.append(source[start : start + prompt] + answer)
        labels.append(([-100] * ANSWER + answer)[-ANSWER:])
    return torch.tensor(rows), torch.tensor(labels)


def train_model(sources: list[str], tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Two layers, hidden size 256."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # with more, a busy machine waits at barriers: 1 s for an optimiser's step of 10 ms
    rng = random.Random(SEED)
    encoded = [ids for source in sources if len(ids := tokenizer.encode(source)) > 2 * max(LENGTHS)]
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=STEPS)
    for step in range(STEPS):
        ids, labels = build_batch(encoded, tokenizer, LENGTHS[step % len(LENGTHS)], rng)
        loss = model(input_ids=ids, labels=labels, logits_to_keep=ANSWER).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 20 == 19:
            print(f"step {step + 1} of {STEPS}: loss {loss.item():.2f}", flush=True)
    return model


def write_tiny_model(folder: Path) -> None:
    """Write model and tokenizer to `folder`, whole or not at all."""
    sources = read_sources()
    tokenizer = train_tokenizer(sources)
    model = train_model(sources, tokenizer)
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    tokenizer.save_pretrained(unfinished)
    model.save_pretrained(unfinished)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


if __name__ == "__main__":
    write_tiny_model(Path(sys.argv[1]))
