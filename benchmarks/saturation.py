"""How full the LLM server is kept: 12 real projects, cold, against the best list schedule of their calls, and a peer.

    python -m benchmarks.saturation                          # all of it: some 25 minutes on a quiet machine
    python -m benchmarks.saturation --slots 64 --workers 2 --projects rich,typer --no-peer --no-write      # a look

The projects are distributions that summidx itself depends on, as they are installed; or, with `--repos-root`, the
repositories under a folder. What is measured, and against what: README.md.
"""

import argparse
import json
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.dry_run import DryRun, dry_run
from benchmarks.schedule import Busy, Job, Served, list_schedule, measure_busy
from benchmarks.server import MODEL, SERVICE_S
from summidx import sources
from summidx.records import RepoRef
from summidx.settings import Settings

PROJECTS = (
    *("dask", "distributed", "pydantic", "sentence_transformers", "aiohttp", "rich"),
    *("jinja2", "httpx2", "typer", "fastapi", "pydantic_settings", "tenacity"),
)
"""Import packages, the largest first: some 14,000 units that need a call, from 3,800 to 150."""
SCALES = {256: 4.0}
"""Times the service time, by slots: at 256 slots the calls per second are those of 64."""
HEADROOM = 1.25
"""Calls in flight for each slot: a few wait in the server's queue, so that a slot that falls free is taken at once."""
BUSY_TARGET = 0.95
SCHEDULE_TARGETS = {256: 0.90}
"""Share of the list schedule, by slots, else 0.93."""
PEER_PROMPTS = 4000
PEER_PACKAGES = ("llama-index-core", "llama-index-llms-openai-like", "openai[aiohttp]")
PEER_WORKERS = 64
REFUSED = "please refuse this prompt"
"""As llamaindex_peer.py has it."""


@dataclass(frozen=True, slots=True)
class Case:
    """One build."""

    slots: int
    workers: int
    time_scale: float = 1.0

    @property
    def scale(self) -> float:
        """Times the service time."""
        return SCALES.get(self.slots, 1.0) * self.time_scale

    @property
    def concurrency(self) -> int:
        """`--llm-concurrency`."""
        return round(self.slots * HEADROOM)


def find_projects(repos_root: str, names: Sequence[str]) -> list[tuple[RepoRef, str]]:
    """The repositories under `repos_root`, or else the installed packages `names`; with commit or version."""
    if repos_root:
        refs = sources.discover(repos_root)
        return [(ref, f"{ref.name} {sources.resolve(ref, Settings().sources).commit[:12]}") for ref in refs]
    site = Path(sysconfig.get_path("purelib"))
    of = {name: packages_distributions()[name][0] for name in names}
    return [(RepoRef(name, str(site / name)), f"{of[name]} {version(of[name])}") for name in names]


def run_case(case: Case, refs: Sequence[RepoRef], dry_runs: Sequence[DryRun]) -> dict[str, Any]:
    """Build everything cold, once, and compare it with the list schedule."""
    with (
        harness.workplace() as folder,
        harness.running_server(slots=case.slots, service_scale=case.scale) as server,
    ):
        options = ["--stage", "summaries", "--llm-provider", "openai", "--llm-base-url", server.base_url]
        options += ["--llm-concurrency", str(case.concurrency), "--num-processes", str(case.workers)]
        options += ["--index-root", str(folder / "index"), "--embedding-model", "hashing"]
        options += [option for ref in refs for option in ("--repo", f"{ref.name}={ref.source}")]
        build = harness.run_build(folder, options)
        record = server.record()
    served = [Served(*times) for *times, _ in record["requests"]]
    busy = measure_busy(served, case.slots)
    bound = list_schedule(build_jobs(dry_runs, case), case.slots)
    first_s, last_s = min(each.arrived_s for each in served), max(each.ended_s for each in served)
    parse_s = [each["report"]["usage"]["durations_s"].get("parse", 0.0) for each in build.repositories()]
    worker_cpu_s = build.cpu_between("worker", first_s, last_s)
    return {
        "who": "summidx",
        **asdict(case),
        "service_s": SERVICE_S * case.scale,
        "llm_concurrency": case.concurrency,
        **_rounded(busy),
        "list_schedule_s": round(bound.makespan_s, 2),
        "of_list_schedule": round(bound.makespan_s / busy.makespan_s, 4),
        "target_met": {
            # At 256 slots the tree's own shape leaves no order that could reach it.
            **({"busy_until_95": busy.busy_until_95 >= BUSY_TARGET} if case.slots not in SCALES else {}),
            "of_list_schedule": bound.makespan_s / busy.makespan_s >= SCHEDULE_TARGETS.get(case.slots, 0.93),
        },
        "list_schedule_loss": round(1 - bound.work_s / (case.slots * bound.makespan_s), 4),
        "distinct_calls_expected": len(frozenset().union(*(each.keys for each in dry_runs))),
        "command_s": round(build.seconds, 1),
        "until_first_call_s": round(first_s - build.started_s, 1),
        "after_last_answer_s": round(build.ended_s - last_s, 1),
        "parse_wall_s": {"sum": round(sum(parse_s), 1), "longest": round(max(parse_s), 1)},
        "worker_cpu_ms_per_call": round(1000 * worker_cpu_s / len(served), 2),
        "worker_cores_used": round(worker_cpu_s / (last_s - first_s), 2),
        "worker_peak_rss_mb": build.peak_rss_mb.get("worker", build.peak_rss_mb.get("flow")),
        "parser_peak_rss_mb": build.peak_rss_mb.get("parser"),
        "cpu_s": build.cpu_s,
        "server_cpu_ms_per_call": round(1000 * record["cpu_s"] / len(served), 3),
    }


def build_jobs(dry_runs: Sequence[DryRun], case: Case) -> dict[str, Job]:
    """All calls of all repositories as one graph, with the case's service time."""
    service_s = SERVICE_S * case.scale
    jobs: dict[str, Job] = {}
    for each in dry_runs:
        for name, job in each.jobs.items():
            jobs.setdefault(name, Job(job.seconds * service_s, job.needs))
    return jobs


def run_peer(slots: int, dry_runs: Sequence[DryRun], folder: Path) -> dict[str, Any]:
    """LlamaIndex on function prompts of the same projects: independent ones, so that its order does not matter."""
    python = folder / "venv" / "bin" / "python"
    if not python.exists():
        venv.create(folder / "venv", with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *PEER_PACKAGES]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return {"who": "LlamaIndex", "not_measured": f"it cannot be installed: {done.stderr.strip()[-300:]}"}
    by_key = {key: payload for each in dry_runs for key, payload in each.payloads.items()}
    every = max(1, len(by_key) // PEER_PROMPTS)
    prompts = [by_key[key]["messages"] for key in sorted(by_key)[::every][:PEER_PROMPTS]]
    (folder / "prompts.json").write_text(json.dumps(prompts), encoding="utf-8")
    with harness.running_server(slots=slots, service_scale=1.0) as server:
        report = _ask_peer(python, folder, server.base_url, "throughput")
        served = [Served(*times) for *times, _ in server.record()["requests"]]
    with harness.running_server(slots=slots, service_scale=0.0, refuse=REFUSED) as server:
        again = _ask_peer(python, folder, server.base_url, "change")
    return {
        "who": f"LlamaIndex {report['version']} IngestionPipeline, {PEER_WORKERS} workers",
        "slots": slots,
        "service_s": SERVICE_S,
        **_rounded(measure_busy(served, slots)),
        "cpu_ms_per_call": round(1000 * report["cpu_s"] / len(served), 2),
        "peak_rss_mb": report["peak_rss_mb"],
        "one_prompt_of_50_changed": again,
    }


def _ask_peer(python: Path, folder: Path, base_url: str, what: str) -> dict[str, Any]:
    script = Path(__file__).with_name("llamaindex_peer.py")
    command = [str(python), str(script), what, base_url, MODEL, str(folder / "prompts.json"), str(PEER_WORKERS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode != 0:
        raise RuntimeError(f"the peer ended with {done.returncode}:\n{done.stderr[-2000:]}")
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def _rounded(busy: Busy) -> dict[str, Any]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(busy).items()}


def render_row(case: Mapping[str, Any]) -> str:
    """One line for a person."""
    if "not_measured" in case:
        return f"{case['who']}: {case['not_measured']}"
    bound = f", {case['of_list_schedule']:.3f} of the list schedule" if "of_list_schedule" in case else ""
    workers = f", {case['workers']} workers" if "workers" in case else ""
    lost = "/".join(f"{100 * case[name]:.1f}" for name in ("lost_at_start", "lost_between", "lost_in_tail"))
    return (
        f"{case['who']}{workers}, {case['slots']} slots: {case['calls']} calls in {case['makespan_s']:.1f} s, "
        f"busy until 95 % {case['busy_until_95']:.3f}{bound}; lost at start/between/tail {lost} %"
    )


def main() -> None:
    """Read the options, run, write the result."""
    parser = argparse.ArgumentParser(description="How full the LLM server is kept.")
    parser.add_argument("--repos-root", default="", help="repositories instead of installed distributions")
    parser.add_argument("--projects", default=",".join(PROJECTS), help="installed import packages")
    parser.add_argument(
        "--time-scale", type=float, default=1.0, help="times all service times: on a busy machine, more shows the order"
    )
    parser.add_argument("--slots", default="64,16,256")
    parser.add_argument("--workers", default="2,4")
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True, help="LlamaIndex too")
    parser.add_argument("--write", action=argparse.BooleanOptionalAction, default=True, help="the result's file")
    options = parser.parse_args()

    result = harness.start_result("saturation")
    projects = find_projects(options.repos_root, options.projects.split(","))
    dry_runs = [dry_run(ref) for ref, _ in projects]
    result["projects"] = [
        {"name": ref.name, "version": of, "units": len(each.tree.units), "calls": len(each.keys)}
        for (ref, of), each in zip(projects, dry_runs, strict=True)
    ]
    result["simulator_ceiling"] = harness.measure_ceiling()
    result["cases"] = cases = []
    all_slots = [int(slots) for slots in options.slots.split(",")]
    for slots in all_slots:
        for workers in options.workers.split(","):
            case = Case(slots, int(workers), options.time_scale)
            cases.append(run_case(case, [ref for ref, _ in projects], dry_runs))
            print(render_row(cases[-1]), file=sys.stderr, flush=True)
    if options.peer:
        with harness.workplace() as folder:
            cases.append(run_peer(all_slots[0], dry_runs, folder))
            print(render_row(cases[-1]), file=sys.stderr, flush=True)
    if options.write:
        print(harness.write_result(result))
    else:
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
