"""Whether workers scale: 1, 2, 4 and 8 of them on 200 repositories with a heavy tail in size, against a list schedule.

    python -m benchmarks.scaling                             # all of it: some 14 minutes on a quiet machine
    python -m benchmarks.scaling --workers 2 --repositories 20 --no-write          # a look

Neither the LLM nor the embedding computes: both take time, so that two cores hold eight workers. What each worker adds
is 16 slots of the LLM and an embedding model of its own. The service times are multiplied by the number of workers, so
that the bound, and the calls that two cores must make in a second, are the same with 1 worker as with 8: what differs
is over how many processes the work is spread. README.md says what is measured against what.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pygit2

from benchmarks import harness
from benchmarks.dry_run import DryRun, dry_run
from benchmarks.saturation import HEADROOM
from benchmarks.schedule import Busy, Job, Schedule, Served, list_schedule, measure_busy
from benchmarks.server import SERVICE_S
from benchmarks.simulated_embedding import FOLDER_VARIABLE, SECONDS_VARIABLE
from summidx.records import RepoRef

WORKERS = (1, 2, 4, 8)
REPOSITORIES = 200
FUNCTIONS = 30.0
"""Mean of a repository."""
SIGMA = 1.2
"""Of the log-normal distribution of sizes: the largest of 200 has 7 % of all functions, the smaller half 13 %."""
SLOTS_PER_WORKER = 16
REPOSITORIES_IN_FLIGHT = 16
"""Of each worker, as many as it has slots: at the end of a run many small ones have one call after another to make."""
TEXT_S = 0.0125
"""For one text, times the number of workers: embedding takes about half as long as the LLM."""
TARGET = 0.9
EMBEDDER = "embedder"
FUNCTIONS_PER_FILE = 12
FILES_PER_FOLDER = 10
METHODS = 4
"""Of each file with at least twice as many functions, in a class."""


@dataclass(frozen=True, slots=True)
class Case:
    """One build: so many workers, each with its slots of the LLM and its embedding model."""

    workers: int

    @property
    def slots(self) -> int:
        """Of the LLM, all workers together."""
        return SLOTS_PER_WORKER * self.workers

    @property
    def text_s(self) -> float:
        """Embedding one text."""
        return TEXT_S * self.workers


def list_sizes(repositories: int, mean: float = FUNCTIONS) -> list[int]:
    """Functions of each repository: the quantiles of a log-normal distribution, the smallest first."""
    quantiles = [NormalDist().inv_cdf((i + 0.5) / repositories) for i in range(repositories)]
    whole = sum(math.exp(SIGMA * z) for z in quantiles) / repositories
    return [max(1, round(mean / whole * math.exp(SIGMA * z))) for z in quantiles]


def make_repositories(root: Path, sizes: Sequence[int]) -> list[RepoRef]:
    """A bare git repository of Python code for each size; no function of one is another's."""
    author = pygit2.Signature("A. Author", "author@example.org", 1_700_000_000, 0)
    refs = []
    for number, functions in enumerate(sizes):
        path = root / f"repo{number:03d}.git"
        repo = pygit2.init_repository(path, bare=True)
        index = pygit2.Index()
        for name, text in render_files(f"r{number}", functions).items():
            index.add(pygit2.IndexEntry(name, repo.create_blob(text.encode()), pygit2.enums.FileMode.BLOB))
        repo.create_commit("HEAD", author, author, "all", index.write_tree(repo), [])
        refs.append(RepoRef(path.stem, str(path)))
    return refs


def render_files(tag: str, functions: int) -> dict[str, str]:
    """Source of so many functions, `FUNCTIONS_PER_FILE` to a file; `tag` is in all of them."""
    files = {}
    for number, start in enumerate(range(0, functions, FUNCTIONS_PER_FILE)):
        numbers = range(start, min(functions, start + FUNCTIONS_PER_FILE))
        methods = numbers[:METHODS] if len(numbers) >= 2 * METHODS else numbers[:0]
        parts = [_render_function(tag, n) for n in numbers[len(methods) :]]
        if methods:
            body = "\n".join(_render_function(tag, n, indent="    ", first="self, ") for n in methods)
            parts.insert(
                0, f'class Ledger_{tag}_{start}:\n    """Keeps the rows of {tag} that began at {start}."""\n\n{body}'
            )
        folder = "" if functions <= FUNCTIONS_PER_FILE else f"part{number // FILES_PER_FOLDER}/"
        files[f"{folder}module{number}.py"] = "\n\n".join(parts)
    return files


def _render_function(tag: str, number: int, *, indent: str = "", first: str = "") -> str:
    lines = [
        f"def fold_{tag}_{number}({first}rows, limit):",
        f"    total = {number}",
        "    for row in rows:",
        f'        if row.kind == "{tag}-{number}" and row.size < limit:',
        f"            total += row.size * {number % 7 + 2}",
        "    return total",
    ]
    return "".join(f"{indent}{line}\n" for line in lines)


def build_jobs(dry_runs: Sequence[DryRun], case: Case) -> dict[str, Job]:
    """All calls as one graph, and the embedding of each document after its summary, on whichever worker is free."""
    service_s = SERVICE_S * case.workers
    jobs: dict[str, Job] = {}
    for each in dry_runs:
        for name, job in each.jobs.items():
            jobs.setdefault(name, Job(job.seconds * service_s, job.needs))
        for unit_id in each.tree.units:
            jobs[f"embed:{each.name}:{unit_id}"] = Job(case.text_s, (f"{each.name}:{unit_id}",), EMBEDDER)
    return jobs


def find_losses(measured: Busy, makespan_s: float, bound: Busy, bound_makespan_s: float) -> dict[str, float]:
    """What the makespan has beyond the bound's, in seconds, by cause; together it is the whole difference.

    `start_up`: until all slots were busy once. `tail`: after 95 % of the calls were answered, until the last index was
    published. `orchestration`: slots that were free in between. `service`: answers that took longer than their service
    time, and calls beyond the bound's.

    Args:
        measured: the LLM's slots in the run.
        makespan_s: of the run, from its first call until the last index was published.
        bound: the slots in the list schedule.
        bound_makespan_s: of the list schedule.
    """

    def beyond(share: str) -> float:
        return float(getattr(measured, share) * measured.makespan_s - getattr(bound, share) * bound.makespan_s)

    after_last_s = (makespan_s - measured.makespan_s) - (bound_makespan_s - bound.makespan_s)
    return {
        "start_up": beyond("lost_at_start"),
        "tail": beyond("lost_in_tail") + after_last_s,
        "orchestration": beyond("lost_between"),
        "service": beyond("busy"),
    }


def run_case(case: Case, refs: Sequence[RepoRef], dry_runs: Sequence[DryRun]) -> dict[str, Any]:
    """Build everything cold, once, and compare it with the list schedule."""
    jobs = build_jobs(dry_runs, case)
    bound = list_schedule(jobs, {"slot": case.slots, EMBEDDER: case.workers})
    with (
        harness.workplace() as folder,
        harness.running_server(slots=case.slots, service_scale=float(case.workers)) as server,
    ):
        embedded = folder / "embedded"
        embedded.mkdir()
        options = ["--llm-provider", "openai", "--llm-base-url", server.base_url]
        options += ["--llm-concurrency", str(round(case.slots * HEADROOM)), "--num-processes", str(case.workers)]
        options += ["--index-root", str(folder / "index"), "--embedding-model", "hashing"]
        (folder / "repos.txt").write_text("".join(f"{ref.name}={ref.source}\n" for ref in refs), encoding="utf-8")
        environment = {
            SECONDS_VARIABLE: str(case.text_s),
            FOLDER_VARIABLE: str(embedded),
            "SUMMIDX_CLUSTER__THREADS_PER_WORKER": str(REPOSITORIES_IN_FLIGHT),
        }
        build = harness.run_build(
            folder,
            [*options, "--repos-file", str(folder / "repos.txt")],
            environment=environment,
            program=("-m", "benchmarks.simulated_embedding"),
        )
        record = server.record()
        batches = [json.loads(line) for file in embedded.iterdir() for line in file.read_text().splitlines()]
        to_monotonic_s = time.monotonic() - time.time()
        published_s = [to_monotonic_s + path.stat().st_mtime for path in (folder / "index").glob("*/CURRENT")]
        embedders = len(list(embedded.iterdir()))
    if len(published_s) != len(refs) or embedders != case.workers:
        raise RuntimeError(f"{len(published_s)} of {len(refs)} indexes published, {embedders} simulated embedders")
    busy = measure_busy([Served(*times) for *times, _ in record["requests"]], case.slots)
    first_s = min(request[0] for request in record["requests"])
    makespan_s = max(published_s) - first_s
    planned = measure_busy(list_served(bound, jobs), case.slots)
    texts = sum(n for *_, n in batches)
    return {
        "workers": case.workers,
        "slots": case.slots,
        "service_s": SERVICE_S * case.workers,
        "text_s": case.text_s,
        "repositories_in_flight": REPOSITORIES_IN_FLIGHT * case.workers,
        "calls": busy.calls,
        "calls_expected": len(frozenset().union(*(each.keys for each in dry_runs))),
        "texts": texts,
        "texts_expected": sum(job.kind == EMBEDDER for job in jobs.values()),
        "makespan_s": round(makespan_s, 2),
        "list_schedule_s": round(bound.makespan_s, 2),
        "of_list_schedule": round(bound.makespan_s / makespan_s, 4),
        "target_met": bound.makespan_s / makespan_s >= TARGET,
        "lost_s": {
            cause: round(seconds, 2)
            for cause, seconds in find_losses(busy, makespan_s, planned, bound.makespan_s).items()
        },
        "slots_busy": round(busy.busy, 4),
        "slots_busy_in_list_schedule": round(planned.busy, 4),
        "embedders_busy": round(sum(end - start for start, end, _ in batches) / (case.workers * makespan_s), 4),
        "until_first_call_s": round(first_s - build.started_s, 1),
        "of_list_schedule_with_start": round(bound.makespan_s / (makespan_s + first_s - build.started_s), 4),
        "after_last_publish_s": round(build.ended_s - max(published_s), 1),
        "command_s": round(build.seconds, 1),
        "cores_used": round(_cores(build, first_s, max(published_s)) + record["cpu_s"] / makespan_s, 2),
        "cpu_s": build.cpu_s,
        "worker_peak_rss_mb": build.peak_rss_mb.get("worker", build.peak_rss_mb.get("flow")),
    }


def list_served(schedule: Schedule, jobs: Mapping[str, Job]) -> list[Served]:
    """The calls of a schedule as a server would have seen them."""
    return [
        Served(start_s, start_s, end_s)
        for name, (start_s, end_s) in schedule.spans.items()
        if jobs[name].kind != EMBEDDER
    ]


def _cores(build: harness.Watched, start_s: float, end_s: float) -> float:
    """CPU seconds a second, of all processes of a build but the simulated server."""
    kinds = {"flow", "prefect", "other"} | ({"worker"} if build.workers else set())
    return sum(build.cpu_between(kind, start_s, end_s) for kind in kinds) / (end_s - start_s)


def render_row(case: Mapping[str, Any]) -> str:
    """One line for a person."""
    lost = ", ".join(f"{cause.replace('_', ' ')} {seconds:.1f} s" for cause, seconds in case["lost_s"].items())
    return (
        f"{case['workers']} workers: {case['calls']} calls, {case['texts']} texts in {case['makespan_s']:.1f} s, "
        f"{case['of_list_schedule']:.3f} of the list schedule ({case['list_schedule_s']:.1f} s), "
        f"{case['of_list_schedule_with_start']:.3f} with the start; lost: {lost}; {case['cores_used']} cores"
    )


def main() -> None:
    """Read the options, run, write the result."""
    parser = argparse.ArgumentParser(description="Whether workers scale.")
    parser.add_argument("--workers", default=",".join(map(str, WORKERS)))
    parser.add_argument("--repositories", type=int, default=REPOSITORIES)
    parser.add_argument("--write", action=argparse.BooleanOptionalAction, default=True, help="the result's file")
    options = parser.parse_args()

    result = harness.start_result("scaling")
    sizes = list_sizes(options.repositories)
    with harness.workplace() as folder:
        refs = make_repositories(folder, sizes)
        with ThreadPoolExecutor(2) as pool:  # most of it is the parsing processes
            dry_runs = list(pool.map(dry_run, refs))
        result["repositories"] = {
            "number": len(sizes),
            "functions": {"smallest": sizes[0], "median": sizes[len(sizes) // 2], "largest": sizes[-1]},
            "all_functions": sum(sizes),
        }
        result["simulator_ceiling"] = harness.measure_ceiling()
        result["cases"] = cases = []
        for workers in options.workers.split(","):
            cases.append(run_case(Case(int(workers)), refs, dry_runs))
            print(render_row(cases[-1]), file=sys.stderr, flush=True)
    print(harness.write_result(result) if options.write else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
