"""Whether both stages overlap: the wall time of both together against the longer of the two alone.

    python -m benchmarks.overlap

The service time of the simulated server is chosen after the embedding was measured, so that both stages take about as
long: then overlap is worth the most, and its lack costs the most. README.md says what that means on a machine without a
GPU, where the embedding takes all cores and the client of the LLM shares them.
"""

import argparse
import json
import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.dry_run import dry_run
from benchmarks.saturation import find_projects
from benchmarks.server import SERVICE_S
from summidx.records import RepoRef

PROJECTS = (
    *("tenacity", "pydantic_settings", "typer", "httpx2", "starlette", "fastapi", "uvicorn", "httpx"),
    *("click", "websockets", "jinja2", "anyio"),
)
"""Of much the same size: what cannot overlap is the first one's summaries and the last one's embedding."""
SLOTS = 16
ALLOWED = 1.15


def run_both_and_alone(refs: Sequence[RepoRef], options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Embedding alone, summaries alone, both; each cold but for what it must be given."""
    calls = len(frozenset().union(*(dry_run(ref).keys for ref in refs)))
    nothing = folder / "nothing"
    nothing.mkdir()
    (nothing / "nothing.py").write_text('"""Nothing."""\n', encoding="utf-8")
    specs = [option for ref in refs for option in ("--repo", f"{ref.name}={ref.source}")]

    def build(name: str, scale: float, *more: str) -> harness.Watched:
        with harness.running_server(slots=SLOTS, service_scale=scale) as server:
            command = ["--llm-provider", "openai", "--llm-base-url", server.base_url, "--force-cpu"]
            command += ["--llm-concurrency", str(SLOTS + 4), "--num-processes", str(options.workers)]
            command += ["--index-root", str(folder / name), "--embedding-model", options.embedding_model]
            return harness.run_build(folder / f"{name}-run", [*command, *more])

    build("warm", 0.0, *specs, "--stage", "summaries")
    starts_s = [build("start", 0.0, "--repo", str(nothing)).seconds]
    (folder / "embedding").mkdir()
    for file in (folder / "warm").glob("cache.sqlite*"):
        shutil.copy(file, folder / "embedding")
    embedding = build("embedding", 0.0, *specs)
    scale = options.scale or max(0.1, (embedding.seconds - starts_s[0]) * SLOTS / (calls * SERVICE_S))
    summaries = build("summaries", scale, *specs, "--stage", "summaries")
    both = build("both", scale, *specs)
    starts_s.append(build("start-again", 0.0, "--repo", str(nothing)).seconds)
    start_s = statistics.mean(starts_s)
    longer_s = max(embedding.seconds, summaries.seconds)
    ratio = (both.seconds - start_s) / (longer_s - start_s)
    return {
        "workers": options.workers,
        "slots": SLOTS,
        "embedding_model": options.embedding_model,
        "calls": both.usage("llm_calls"),
        "texts_embedded": both.usage("vectors_embedded"),
        "service_s": round(SERVICE_S * scale, 3),
        "start_alone_s": round(start_s, 1),
        "starts_s": [round(each, 1) for each in starts_s],
        "embedding_alone_s": round(embedding.seconds, 1),
        "summaries_alone_s": round(summaries.seconds, 1),
        "both_s": round(both.seconds, 1),
        "both_of_longer": round(both.seconds / longer_s, 3),
        "both_of_longer_without_start": round(ratio, 3),
        "target_met": ratio <= ALLOWED,
        "worker_cpu_s": {
            "embedding": embedding.cpu_s.get("worker", embedding.cpu_s["flow"]),
            "summaries": summaries.cpu_s.get("worker", summaries.cpu_s["flow"]),
            "both": both.cpu_s.get("worker", both.cpu_s["flow"]),
        },
    }


def main() -> None:
    """Read the options, run, write the result."""
    parser = argparse.ArgumentParser(description="Whether both stages overlap.")
    parser.add_argument("--projects", type=int, default=len(PROJECTS), help="how many")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scale", type=float, default=0.0, help="times the service time; 0: as the embedding takes")
    parser.add_argument("--embedding-model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--write", action=argparse.BooleanOptionalAction, default=True, help="the result's file")
    options = parser.parse_args()

    result = harness.start_result("overlap")
    projects = find_projects("", PROJECTS[: options.projects])
    result["projects"] = [of for _, of in projects]
    with harness.workplace() as folder:
        result |= run_both_and_alone([ref for ref, _ in projects], options, folder)
    print(
        f"embedding alone {result['embedding_alone_s']} s, summaries alone {result['summaries_alone_s']} s, both "
        f"{result['both_s']} s: {result['both_of_longer']} of the longer, {result['both_of_longer_without_start']} "
        f"without the {result['start_alone_s']} s of the start",
        file=sys.stderr,
    )
    print(harness.write_result(result) if options.write else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
