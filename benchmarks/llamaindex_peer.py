"""The peer: LlamaIndex's IngestionPipeline with an asynchronous summary step. Runs in an environment of its own.

    llamaindex_peer.py throughput|change BASE_URL MODEL PROMPTS.json WORKERS

The step is a `BaseExtractor` with `num_workers` calls in flight, as LlamaIndex's own SummaryExtractor is. Its client
has the SDK's aiohttp transport, as ours has: with the default one it spends most of its time in the connection pool,
and keeps a fifth of 64 slots busy. Prints one line of JSON.
"""

import asyncio
import json
import resource
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from llama_index.core.async_utils import run_jobs
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.extractors import BaseExtractor
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import BaseNode, TextNode
from llama_index.llms.openai_like import OpenAILike
from openai import DefaultAioHttpClient
from pydantic import Field

FEW = 50
REFUSED = " please refuse this prompt"


class Summaries(BaseExtractor):  # type: ignore[misc]  # LlamaIndex is not installed where types are checked
    """Asks for one summary for each node; the node's text is the prompt."""

    llm: Any = Field(exclude=True)
    asked: int = 0

    async def aextract(self, nodes: Sequence[BaseNode]) -> list[dict[str, str]]:
        """The summaries, `num_workers` calls in flight."""
        jobs = [self._ask(node) for node in nodes]
        answers: list[dict[str, str]] = await run_jobs(jobs, workers=self.num_workers)
        return answers

    async def _ask(self, node: BaseNode) -> dict[str, str]:
        self.asked += 1
        system, user = json.loads(node.get_content())
        response = await self.llm.achat([ChatMessage(**system), ChatMessage(**user)])
        return {"summary": response.message.content or ""}


def make_step(base_url: str, model: str, workers: int) -> Summaries:
    """The step, with its client."""
    llm = OpenAILike(
        model=model,
        api_base=base_url,
        api_key="none",
        is_chat_model=True,
        max_tokens=200,
        max_retries=0,
        async_http_client=DefaultAioHttpClient(),
    )
    return Summaries(llm=llm, num_workers=workers, show_progress=False)


async def measure_throughput(step: Summaries, nodes: list[TextNode]) -> dict[str, Any]:
    """Run all prompts once."""
    before_s = time.process_time()
    await IngestionPipeline(transformations=[step]).arun(nodes=nodes)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = time.process_time() - before_s
    return {"version": version("llama-index-core"), "cpu_s": cpu_s, "peak_rss_mb": round(usage.ru_maxrss / 1024, 1)}


async def measure_change(step: Summaries, nodes: list[TextNode]) -> dict[str, Any]:
    """Run a few prompts, the same again with one changed, and once more with one that the server refuses."""
    pipeline = IngestionPipeline(transformations=[step])
    few = nodes[:FEW]
    await pipeline.arun(nodes=few)
    first, step.asked = step.asked, 0
    changed = [_with_text(few[0], " changed"), *few[1:]]
    await pipeline.arun(nodes=changed)
    second, step.asked = step.asked, 0
    try:
        done = await IngestionPipeline(transformations=[step]).arun(nodes=[_with_text(few[0], REFUSED), *few[1:]])
        lost = f"{len(done)} of {FEW} summaries came back"
    except Exception as error:
        lost = f"the run raised {type(error).__name__}: no summary came back"
    return {"calls_first": first, "calls_after_one_change": second, "with_one_failing_prompt": lost}


def _with_text(node: TextNode, addition: str) -> TextNode:
    system, user = json.loads(node.get_content())
    return TextNode(text=json.dumps([system, {**user, "content": user["content"] + addition}]))


def main() -> None:
    """Read the arguments, run, print."""
    what, base_url, model, prompts, workers = sys.argv[1:]
    nodes = [TextNode(text=json.dumps(messages)) for messages in json.loads(Path(prompts).read_text(encoding="utf-8"))]
    step = make_step(base_url, model, int(workers))
    task = measure_throughput(step, nodes) if what == "throughput" else measure_change(step, nodes)
    print(json.dumps(asyncio.run(task)))


if __name__ == "__main__":
    main()
