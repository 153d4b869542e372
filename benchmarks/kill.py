"""What a killed worker costs: SIGKILL half-way through a repository, then the same command again.

    python -m benchmarks.kill

Counted is every request for a completion that reached the server in both runs, against the distinct questions of a
fault-free run. What was in flight at the kill is lost by nature; of the rest at most 2 % may be paid for twice.
"""

import argparse
import json
import sys
import time

from benchmarks import harness
from benchmarks.dry_run import dry_run
from benchmarks.saturation import find_projects

SLOTS = 64
ALLOWED = 0.02


def main() -> None:
    """Read the options, run, write the result."""
    parser = argparse.ArgumentParser(description="What a killed worker costs.")
    parser.add_argument("--project", default="distributed", help="an installed import package")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--at", type=float, default=0.5, help="share of the calls done at the kill")
    parser.add_argument("--write", action=argparse.BooleanOptionalAction, default=True, help="the result's file")
    options = parser.parse_args()

    result = harness.start_result("kill")
    ref, of = find_projects("", [options.project])[0]
    expected = len(dry_run(ref).keys)
    with harness.workplace() as folder, harness.running_server(slots=SLOTS, service_scale=1.0) as server:
        command = ["--stage", "summaries", "--llm-provider", "openai", "--llm-base-url", server.base_url]
        command += ["--llm-concurrency", str(SLOTS), "--num-processes", str(options.workers)]
        command += ["--index-root", str(folder / "index"), "--embedding-model", "hashing"]
        command += ["--repo", f"{ref.name}={ref.source}"]
        build = harness.Build(folder, command)
        _wait_for_calls(server, build, round(options.at * expected))
        victim = max(build.workers(), key=lambda each: sum(each.cpu_times()[:2]))
        at_kill = server.status()
        victim.kill()
        first = build.wait()
        after_first = server.status()
        second = harness.run_build(folder, command)
        after_second = server.status()
    in_flight = at_kill["running"] + at_kill["waiting"]
    beyond = after_second["received"] - expected
    allowed = ALLOWED * expected + in_flight
    result |= {
        "project": of,
        "workers": options.workers,
        "slots": SLOTS,
        "calls_fault_free": expected,
        "calls_done_at_kill": at_kill["finished"],
        "in_flight_at_kill": in_flight,
        "first_run": {"exit_code": first.exit_code, "calls_sent": after_first["received"]},
        "second_run": {
            "exit_code": second.exit_code,
            "calls_sent": after_second["received"] - after_first["received"],
            "cache_hits": second.usage("cache_hits"),
        },
        "calls_sent": after_second["received"],
        "calls_beyond_fault_free": beyond,
        "beyond_less_in_flight": round((beyond - in_flight) / expected, 4),
        "target_met": beyond <= allowed,
    }
    print(
        f"{of}: {expected} calls fault-free; {after_second['received']} with a worker killed after "
        f"{at_kill['finished']}, {in_flight} in flight: {beyond} beyond",
        file=sys.stderr,
    )
    print(harness.write_result(result) if options.write else json.dumps(result, indent=2))


def _wait_for_calls(server: harness.Server, build: harness.Build, n: int) -> None:
    """Wait until `n` calls are done.

    Raises:
        RuntimeError: the build ended before.
    """
    while server.status()["finished"] < n:
        if not build.is_running():
            raise RuntimeError(f"the build ended before {n} calls were done")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
