"""A real vLLM on the CPU: tokens per second through us against those of a bare client with the same prompts.

    make test-vllm                       # once: it installs vLLM into .venv-vllm and makes the tiny model
    python -m benchmarks.vllm_client

Through us means all that a worker does between the trees and the cache: walk, prompts, keys, gate, client, SQLite. The
bare client is aiohttp in a loop, with the very payloads that we sent, in their order. Rounds alternate; the first of
each is not counted, since it fills vLLM's prefix cache.
"""

import argparse
import asyncio
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import aiohttp

from benchmarks import harness
from benchmarks.saturation import find_projects
from summidx import sources
from summidx.accounting import CallRecord
from summidx.engine import Engine
from summidx.hierarchy import Tree, build_tree
from summidx.parsing import parse
from summidx.records import RepoRef, Summary
from summidx.settings import Settings, load_settings
from summidx.stop import Stop
from summidx.summarizers import PreparedRequest, Summarizer
from summidx.summarizers.select import make_summarizer, probe_model

PROJECTS = ("typer", "httpx2", "starlette")
CONCURRENCY = 32
TARGET = 0.95


class Recorder:
    """A summariser that keeps what it sends."""

    def __init__(self, summarizer: Summarizer) -> None:
        self._summarizer = summarizer
        self.payloads: list[dict[str, Any]] = []

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the summariser has
        return getattr(self._summarizer, name)

    async def answer(self, prepared: PreparedRequest, record: CallRecord) -> Summary:
        """The summariser's answer."""
        self.payloads.append(prepared.payload)
        return await self._summarizer.answer(prepared, record)


def load_tree(ref: RepoRef, settings: Settings) -> Tree:
    """Read and parse a repository: before the clock starts."""
    content = sources.read_source(ref.source, "", settings.sources, Stop())
    return build_tree(parse(content.files, settings.parsing, Stop()).units, ref.name)


def ask_through_us(trees: Sequence[Tree], settings: Settings) -> tuple[float, list[dict[str, Any]]]:
    """Summarise all trees at once, as a worker does, with an empty cache; seconds, and what was sent."""
    served = probe_model(settings.llm)
    with tempfile.TemporaryDirectory() as folder:
        settings = settings.model_copy(update={"index_root": folder})
        with closing(Engine(settings, served_model=served)) as engine, ThreadPoolExecutor(len(trees)) as threads:
            recorder = Recorder(make_summarizer(settings.llm, served))
            engine.__dict__["summarizer"] = recorder
            engine.cache  # noqa: B018 - opened before the clock starts, as the client's modules are loaded
            started = time.monotonic()
            list(threads.map(engine.summarize, trees))
            return time.monotonic() - started, recorder.payloads


def ask_bare(payloads: Sequence[Mapping[str, Any]], base_url: str) -> float:
    """Fire the same payloads, as many at once; seconds."""

    async def run() -> float:
        bodies = [
            json.dumps({**{k: v for k, v in each.items() if k != "extra_body"}, **each["extra_body"]}).encode()
            for each in payloads
        ]
        todo = iter(bodies)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def worker() -> None:
                for body in todo:
                    headers = {"Content-Type": "application/json"}
                    async with session.post(f"{base_url}/chat/completions", data=body, headers=headers) as response:
                        json.loads(await response.read())

            started = time.monotonic()
            await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
            return time.monotonic() - started

    return asyncio.run(run())


def measure(rounds: int) -> dict[str, Any]:
    """Alternate between us and the bare client."""
    vllm = _load_vllm_tests()
    with (
        harness.workplace() as folder,
        vllm.serve_vllm(vllm.PYTHON, vllm.MODEL, folder / "vllm.log") as server,
    ):
        settings = load_settings(
            {"llm": {"provider": "openai", "base_url": server.base_url, "concurrency": CONCURRENCY}}
        )
        trees = [load_tree(ref, settings) for ref, _ in find_projects("", PROJECTS)]

        def tokens() -> tuple[int, int]:
            return server.read_metric("vllm:prompt_tokens_total"), server.read_metric("vllm:generation_tokens_total")

        payloads: list[dict[str, Any]] = []
        us: list[dict[str, Any]] = []
        bare: list[dict[str, Any]] = []
        for number in range(rounds + 1):
            # Who goes first changes, so that neither always finds the machine as the other left it.
            for who in ("us", "bare") if number % 2 == 0 else ("bare", "us"):
                before = tokens()
                cpu_before_s = time.process_time()
                if who == "us":
                    seconds, payloads = ask_through_us(trees, settings)
                else:
                    seconds = ask_bare(payloads, server.base_url)
                tokens_in, tokens_out = (after - start for start, after in zip(before, tokens(), strict=True))
                measured = {
                    "seconds": round(seconds, 2),
                    "tokens_in": tokens_in,
                    "tokens_out": tokens_out,
                    "tokens_per_s": round((tokens_in + tokens_out) / seconds, 1),
                    "client_cpu_s": round(time.process_time() - cpu_before_s, 2),
                }
                print(who, measured, file=sys.stderr, flush=True)
                if number > 0:
                    (us if who == "us" else bare).append(measured)
    pairs = [one["tokens_per_s"] / other["tokens_per_s"] for one, other in zip(us, bare, strict=True)]
    ratio = statistics.median(pairs)
    return {
        "concurrency": CONCURRENCY,
        "calls": len(payloads),
        "us": us,
        "bare": bare,
        "ratios": [round(pair, 4) for pair in pairs],
        "tokens_per_s_of_bare": round(ratio, 4),
        "target_met": ratio >= TARGET,
    }


def _load_vllm_tests() -> Any:  # noqa: ANN401 - a module
    """How a vLLM is started stands with the tests, and only there."""
    spec = importlib.util.spec_from_file_location("real_vllm", harness.ROOT / "tests" / "real_vllm.py")
    if spec is None or spec.loader is None:
        raise RuntimeError("tests/real_vllm.py cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Read the options, run, write the result."""
    parser = argparse.ArgumentParser(description="Tokens per second of a real vLLM, through us and bare.")
    parser.add_argument("--rounds", type=int, default=3, help="pairs that count")
    parser.add_argument("--write", action=argparse.BooleanOptionalAction, default=True, help="the result's file")
    options = parser.parse_args()
    result = harness.start_result("vllm_client") | measure(options.rounds)
    print(f"through us {result['tokens_per_s_of_bare']} of a bare client's tokens per second", file=sys.stderr)
    print(harness.write_result(result) if options.write else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
