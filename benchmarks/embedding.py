"""Vectors per second: the product's path against plain `SentenceTransformer.encode`; on a GPU, also against its peak.

The texts are what an extractive build of real repositories embeds, all distinct. Ours is what a repository goes
through: `Engine.vectors().get`, in slices through the embedding threads, with no cache. The peer gets all texts in one
call, so that it sorts them all by length. Both have the same weights, maximum length and number of threads, and a
process each. Rounds alternate.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer

from benchmarks import harness
from benchmarks.saturation import find_projects
from summidx import sources
from summidx.documents import build_documents, embedding_text
from summidx.embedding.models import resolve_model
from summidx.engine import Engine
from summidx.hierarchy import build_tree
from summidx.parsing import parse
from summidx.records import RepoRef
from summidx.settings import EmbeddingSettings, Settings, load_settings
from summidx.stop import Stop

PROJECTS = ("click", "jinja2", "starlette", "httpx", "sqlalchemy")
BATCH_SIZES = (8, 16, 32, 64, 128, 256)
"""Of these the best one is the second peer's."""
TUNING_TEXTS = 256
TARGET = 1.0
COSINE_TARGET = 0.999
PEAK_BF16_TFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "L40S": 362.0, "L4": 121.0}
"""Dense bfloat16, from the data sheets of the SXM or PCIe card of that name."""

Rows = npt.NDArray[np.float32]
T = TypeVar("T")


def collect_texts(refs: Sequence[RepoRef], settings: Settings) -> list[str]:
    """The distinct texts that an extractive build of the repositories embeds, in its order."""
    texts: dict[str, None] = {}
    for ref in refs:
        stop = Stop()
        resolved = sources.resolve(ref, settings.sources, stop)
        content = sources.read_source(ref.source, resolved.commit, settings.sources, stop)
        tree = build_tree(parse(content.files, settings.parsing, stop).units, ref.name)
        with closing(Engine(settings)) as engine:
            outcomes = engine.summarize(tree).outcomes
        documents = build_documents(tree, outcomes, frozenset(settings.levels), searchable=True)
        texts.update(dict.fromkeys(embedding_text(document) for document in documents))
    return list(texts)


def pick_evenly(texts: Sequence[str], count: int) -> list[str]:
    """So many of the texts, from all of them alike."""
    return [texts[i * len(texts) // count] for i in range(min(count, len(texts)))]


def flop_per_token(config: Mapping[str, Any], length: float) -> float:
    """Multiplications and additions of one token's forward pass, from a model's `config.json`.

    Args:
        config: of a transformer as transformers writes it; `num_key_value_heads` and `head_dim` where it has them.
        length: tokens of the text that it stands in: attention grows with it.
    """
    hidden, layers, inner = config["hidden_size"], config["num_hidden_layers"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    key_value_heads = config.get("num_key_value_heads") or heads
    projections = hidden * head * (2 * heads + 2 * key_value_heads)
    gated = config.get("hidden_act") in ("silu", "swiglu", "gelu_pytorch_tanh")  # as in Llama, Qwen and Gemma
    feed_forward = (3 if gated else 2) * hidden * inner
    attention = 2 * heads * head * length
    return float(2 * layers * (projections + feed_forward + attention))


def normalized(rows: npt.NDArray[Any]) -> Rows:
    """The rows with length 1, as float32."""
    values: Rows = np.asarray(rows, dtype=np.float32)
    normed: Rows = values / np.linalg.norm(values, axis=1, keepdims=True)
    return normed


@dataclass(frozen=True, slots=True)
class Taken:
    """Vectors of all texts in their order, of length 1, and what they took: wall and CPU seconds of the process."""

    rows: Rows
    wall_s: float
    cpu_s: float


class Side:
    """A process of its own: torch's threads and memory are set for a whole process."""

    def __init__(self, opener: Callable[..., None], *arguments: object) -> None:
        self._executor = ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn"), initializer=opener, initargs=arguments
        )

    def run(self, function: Callable[..., T], *arguments: object) -> T:
        """What `function` gives there."""
        return self._executor.submit(function, *arguments).result()

    def close(self) -> None:
        """End the process."""
        self._executor.shutdown()


_here: dict[str, Any] = {}
"""What a side holds in its own process."""


def open_ours(settings_json: str) -> None:
    """Make the engine, and load its model."""
    settings = load_settings(json.loads(settings_json))
    _here["engine"] = Engine(settings)
    _here["engine"].vectors().get(["The model is loaded, and is no part of the first round."])


def describe_ours() -> dict[str, Any]:
    """In which precision the model runs, and in which batches."""
    embedder = _here["engine"]._embedder  # noqa: SLF001 - nobody else asks
    return {"precision": embedder.precision, "batch_tokens": embedder.batch_tokens}


def run_ours(texts: Sequence[str]) -> Taken:
    """As a repository's texts are embedded."""

    def embed() -> Rows:
        with _here["engine"].vectors() as vectors:
            values: Rows = vectors.get(texts).values
        return values

    return measure(embed)


def open_peers(place: str, revision: str | None, device: str, threads: int) -> None:
    """Load the model as plain sentence-transformers does."""
    torch.set_num_threads(threads)
    _here["plain"] = SentenceTransformer(place, device=device, revision=revision)


def add_peer_in(precision: str, place: str, revision: str | None, device: str) -> None:
    """Load it once more, in another precision."""
    model_kwargs = {"dtype": getattr(torch, precision)}
    _here[precision] = SentenceTransformer(place, device=device, revision=revision, model_kwargs=model_kwargs)


def run_peer(model: str, batch_size: int, texts: Sequence[str]) -> Taken:
    """All texts in one call."""
    return measure(lambda: normalized(_here[model].encode(list(texts), batch_size=batch_size, show_progress_bar=False)))


def tune_peer(model: str, texts: Sequence[str]) -> int:
    """The batch size that is fastest here."""
    run_peer(model, BATCH_SIZES[0], texts)  # the first one is slower
    return min(BATCH_SIZES, key=lambda size: run_peer(model, size, texts).wall_s)


def describe_peer(texts: Sequence[str]) -> dict[str, Any]:
    """The model's configuration, its longest text, and the tokens of each of `texts`."""
    model = _here["plain"]
    encoded = model.tokenizer(list(texts), truncation=True, max_length=model.max_seq_length)
    return {
        "config": model[0].model.config.to_dict(),
        "max_length": model.max_seq_length,
        "lengths": [len(ids) for ids in encoded["input_ids"]],
        "device": torch.cuda.get_device_name(0) if model.device.type == "cuda" else "cpu",
    }


def measure(run: Callable[[], Rows]) -> Taken:
    """Run it, and take the time."""
    cpu, start = time.process_time(), time.perf_counter()
    rows = run()
    return Taken(rows, time.perf_counter() - start, time.process_time() - cpu)


def compare(n_rounds: int, texts: Sequence[str], settings: Settings, threads: int) -> dict[str, Any]:
    """Alternate ours and the peers over the same texts."""
    resolved = resolve_model(settings.embedding)
    on_gpu = settings.cluster.embeds_on_gpu
    where = str(resolved.folder or resolved.model_id), resolved.revision, "cuda:0" if on_gpu else "cpu"
    tuning = pick_evenly(texts, TUNING_TEXTS)
    with (
        closing(Side(open_ours, settings.model_dump_json())) as ours,
        closing(Side(open_peers, *where, threads)) as plain,
    ):
        about, setup = plain.run(describe_peer, texts), ours.run(describe_ours)
        best = plain.run(tune_peer, "plain", tuning)
        peers = {"plain, its defaults": ("plain", 32), "plain, its best batch size": ("plain", best)}
        if (precision := setup["precision"]) != "float32":
            plain.run(add_peer_in, precision, *where)
            best = plain.run(tune_peer, precision, tuning)
            peers[f"plain, its best batch size, in {precision}"] = (precision, best)
        ours.run(run_ours, tuning)
        rounds = []
        for _ in range(n_rounds):
            taken = ours.run(run_ours, texts)
            each: dict[str, Any] = {"ours": {"wall_s": taken.wall_s, "cpu_s": taken.cpu_s}}
            for name, (model, batch_size) in peers.items():
                theirs = plain.run(run_peer, model, batch_size, texts)
                cosine = float((taken.rows * theirs.rows).sum(axis=1).min())
                each[name] = {"wall_s": theirs.wall_s, "cpu_s": theirs.cpu_s, "cosine_min": cosine}
            rounds.append(each)
    lengths = about["lengths"]
    tokens = sum(lengths)
    mean_length = sum(length * length for length in lengths) / tokens
    return {
        "embedding_model": resolved.identity,
        "device": about["device"],
        "threads": threads,
        **setup,
        "texts": len(texts),
        "tokens": tokens,
        "tokens_median": statistics.median(lengths),
        "max_length": about["max_length"],
        "ours": summarize_ours(rounds, tokens),
        "peers": {
            name: {"batch_size": batch_size, **summarize_peer(rounds, name, tokens)}
            for name, (_, batch_size) in peers.items()
        },
        **(
            fraction_of_peak(about["device"], rounds, tokens, flop_per_token(about["config"], mean_length))
            if on_gpu
            else {}
        ),
    }


def summarize_ours(rounds: Sequence[Mapping[str, Any]], tokens: int) -> dict[str, Any]:
    """Tokens per second of each round, and of a CPU second."""
    return {
        "tokens_per_s": [round(tokens / each["ours"]["wall_s"]) for each in rounds],
        "tokens_per_cpu_s": round(tokens * len(rounds) / sum(each["ours"]["cpu_s"] for each in rounds)),
    }


def summarize_peer(rounds: Sequence[Mapping[str, Any]], name: str, tokens: int) -> dict[str, Any]:
    """The same of a peer; ours is so many times as fast: in the median round, in the worst and in the best."""
    ratios = [each[name]["wall_s"] / each["ours"]["wall_s"] for each in rounds]
    return {
        "tokens_per_s": [round(tokens / each[name]["wall_s"]) for each in rounds],
        "tokens_per_cpu_s": round(tokens * len(rounds) / sum(each[name]["cpu_s"] for each in rounds)),
        "ours_is_faster": round(statistics.median(ratios), 3),
        "from_to": [round(min(ratios), 3), round(max(ratios), 3)],
        "cosine_min": round(min(each[name]["cosine_min"] for each in rounds), 6),
    }


def fraction_of_peak(name: str, rounds: Sequence[Mapping[str, Any]], tokens: int, flop: float) -> dict[str, Any]:
    """What of the card's bfloat16 peak the product's path reaches, with all that lies around the forward pass."""
    peak = next((tflops for card, tflops in PEAK_BF16_TFLOPS.items() if card in name.split()), None)
    seconds = statistics.median(each["ours"]["wall_s"] for each in rounds)
    tflops = tokens * flop / seconds / 1e12
    return {
        "gflop_per_token": round(flop / 1e9, 4),
        "tflop_per_s": round(tflops, 2),
        "peak_bf16_tflop_per_s": peak,
        "of_peak": round(tflops / peak, 4) if peak else None,
    }


def main() -> None:
    """Read the options, run, write the result."""
    parser = argparse.ArgumentParser(description="Speed of embedding against plain sentence-transformers.")
    parser.add_argument("--texts", type=int, default=2000, help="how many, evenly from all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="of the CPU, for either side; 0: all cores")
    parser.add_argument("--force-cpu", action="store_true", help="leave the GPU alone")
    parser.add_argument("--embedding-model", default=EmbeddingSettings().model)
    parser.add_argument("--repos-root", default="", help="folder of repositories; else some installed packages")
    parser.add_argument("--write", action=argparse.BooleanOptionalAction, default=True, help="the result's file")
    options = parser.parse_args()

    result = harness.start_result("embedding")
    projects = find_projects(options.repos_root, PROJECTS)
    result["projects"] = [of for _, of in projects]
    with harness.workplace() as folder:
        settings = load_settings(
            {
                "index_root": str(folder),
                "cache": {"policy": "off"},
                "embedding": {"model": options.embedding_model},
                "cluster": {"gpu_ids": [0] if torch.cuda.is_available() and not options.force_cpu else []},
            }
        )
        cores = sorted(os.sched_getaffinity(0))
        threads = min(options.threads or len(cores), len(cores))
        os.sched_setaffinity(0, cores[:threads])  # for the sides, too
        texts = pick_evenly(collect_texts([ref for ref, _ in projects], settings), options.texts)
        result |= compare(options.rounds, texts, settings, threads)
    default, *_ = result["peers"].values()
    result["target_met"] = {
        "speed": default["ours_is_faster"] >= TARGET,
        "cosine": all(peer["cosine_min"] >= COSINE_TARGET for peer in result["peers"].values()),
    }
    for name, peer in result["peers"].items():
        print(
            f"{result['device']}, {result['precision']}: {peer['ours_is_faster']} x {name} "
            f"(batches of {peer['batch_size']}), from {peer['from_to'][0]} to {peer['from_to'][1]}; "
            f"least cosine {peer['cosine_min']}",
            file=sys.stderr,
        )
    print(harness.write_result(result) if options.write else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
