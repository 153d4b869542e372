"""Worker processes that die: at random moments, and each time that they meet one repository."""

from functools import partial

import psutil
from fake_llm import Answer
from runs import calls_of, check_all_final, check_report, process_at_port, with_no_fuss

LATENCY_S = 0.4
"""What a real server takes at least: an answer is in the cache 0.2 s after it came."""


def test_random_kills_cost_little_and_lose_nothing(
    site, fleet, fleet_list, oracle, llm, api, form, rng, check_rows, note_figures
):
    llm.delay_s = LATENCY_S
    run = site.start(fleet_list)
    in_flight = 0
    for moment in sorted(rng.uniform(0.05, 0.6) * oracle.calls for _ in range(form.kills)):
        busy = []
        assert run.wait_until(partial(_find_busy, run, llm, moment, busy)), "the run ended before all kills"
        victim = rng.choice(busy)
        in_flight += llm.in_flight
        with_no_fuss(victim.kill)
        psutil.wait_procs([victim], timeout=30)
    run.wait()
    check_report(api, run, fleet.names)
    first = run.endings()

    again = site.run(fleet_list)

    check_report(api, again, fleet.names)
    check_all_final(api, run.began_at)
    check_rows(site)
    extra = llm.calls - oracle.calls
    note_figures(
        "kills",
        {
            "workers_killed": form.kills,
            "first_run": {ending: list(first.values()).count(ending) for ending in sorted(set(first.values()))},
            "calls_without_a_fault": oracle.calls,
            "calls": llm.calls,
            "calls_in_flight_at_kills": in_flight,
            "extra_calls": extra,
            "extra_less_in_flight": round(max(0, extra - in_flight) / oracle.calls, 4),
        },
    )
    assert set(again.endings().values()) <= {"built", "up_to_date"}
    assert extra <= form.extra * oracle.calls + in_flight


def _find_busy(run, llm, moment, busy):
    """Once so many calls are answered: workers with calls in flight, which have something to lose."""
    if llm.calls - llm.in_flight >= moment:
        found = [worker for worker in run.workers() if calls_of(worker, llm.ports)]
        busy[:] = sorted(found, key=lambda worker: worker.pid)
    return bool(busy)


def test_a_poisonous_repository_costs_two_workers_and_itself(
    site, fleet, fleet_list, llm, api, form, check_rows, note_figures
):
    """Who asks about it is killed at once, as by a fault in native code that its content sets off."""
    number = form.generated * 3 // 4
    poison, killed = f"repo{number:03d}", set()

    def kill_who_asks(body, _):
        if f"fold_r{number}_" not in body["messages"][-1]["content"]:
            return None
        if (process := process_at_port(llm.client_port)) is not None:
            killed.add(process.pid)
            with_no_fuss(process.kill)
        return Answer(hang=True)

    llm.script = kill_who_asks
    run = site.start(fleet_list).wait()

    check_report(api, run, fleet.names)
    endings = run.endings()
    note_figures("poison", {"workers_killed": len(killed), "crashed": [n for n in endings if endings[n] == "crashed"]})
    assert endings[poison] == "crashed"
    assert {ending for name, ending in endings.items() if name != poison} == {"built"}
    assert 1 <= len(killed) <= 2
    assert run.process.pid not in killed

    llm.script = None
    again = site.run(fleet_list)
    check_report(api, again, fleet.names)
    check_all_final(api, run.began_at)
    check_rows(site)
