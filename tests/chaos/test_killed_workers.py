"""Worker processes that die: at random moments, and each time that they meet one repository."""

import signal
import threading
import time
from functools import partial

import psutil
import pytest
from fake_llm import Answer
from runs import calls_of, check_all_final, check_report, ports_of, process_at_port, with_no_fuss

LATENCY_S = 0.4
"""What a real server takes at least: an answer is in the cache 0.2 s after it came."""
EXTRA = 0.02
"""Share of all calls that kills may cost beyond what was in flight."""
CACHED_WITHIN_S = 0.4
"""Of an answer: 0.2 s until the next write of a group, and the write. In the short form, each of few calls is a large
share: there a kill may cost what the worker had been answered for so long."""


def test_random_kills_cost_little_and_lose_nothing(
    site, fleet, fleet_list, oracle, llm, api, form, rng, check_rows, note_figures
):
    llm.delay_s = LATENCY_S
    run = site.start(fleet_list)
    in_flight = just_answered = 0
    for moment in sorted(rng.uniform(0.05, 0.6) * oracle.calls for _ in range(form.kills)):
        busy = []
        assert run.wait_until(partial(_are_answered, llm, moment)), "the run ended before all kills"
        time.sleep(rng.uniform(0, LATENCY_S))  # answers come in waves: else each kill would follow upon one
        assert run.wait_until(partial(_find_busy, run, llm, busy)), "the run ended before all kills"
        victim = rng.choice(busy)
        with_no_fuss(victim.suspend)  # so that what it has is what it loses
        ports, then = ports_of(victim), time.monotonic()
        time.sleep(0.1)  # what it had sent has come in by now
        answered = [at - then for at, port in list(llm.answered) if port in ports]
        in_flight += len(ports & llm.ports) + sum(after_s > 0 for after_s in answered)
        just_answered += sum(-CACHED_WITHIN_S <= after_s <= 0 for after_s in answered)
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
            "repositories": len(fleet.names),
            "workers_killed": form.kills,
            "first_run": {ending: list(first.values()).count(ending) for ending in sorted(set(first.values()))},
            "calls_without_a_fault": oracle.calls,
            "calls": llm.calls,
            "calls_in_flight_at_kills": in_flight,
            "answered_just_before": just_answered,
            "extra_calls": extra,
            "extra_less_in_flight": round(max(0, extra - in_flight) / oracle.calls, 4),
        },
    )
    assert set(again.endings().values()) <= {"built", "up_to_date"}
    allowed = EXTRA * oracle.calls
    assert extra - in_flight <= (allowed if form.name == "long" else max(allowed, just_answered))


def _are_answered(llm, calls):
    return llm.calls - llm.in_flight >= calls


def _find_busy(run, llm, busy):
    """Workers with calls in flight, which have something to lose."""
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
    figures = {"repositories": len(endings), "built": list(endings.values()).count("built")}
    figures |= {"crashed": [n for n in endings if endings[n] == "crashed"], "workers_killed": len(killed)}
    note_figures("poison", figures)
    assert endings[poison] == "crashed"
    assert {ending for name, ending in endings.items() if name != poison} == {"built"}
    assert 1 <= len(killed) <= 2
    assert run.process.pid not in killed

    llm.script = None
    again = site.run(fleet_list)
    check_report(api, again, fleet.names)
    check_all_final(api, run.began_at)
    check_rows(site)


SLOW_START_S = 18
"""Dask gives up a local worker that is not back in 15 s."""


@pytest.mark.long_form
def test_a_worker_that_takes_long_to_come_back_is_waited_for(small_site, small_list, fake_llm, api):
    """As on a busy machine. There is no other one."""
    release = threading.Event()
    fake_llm.script = lambda body, before: Answer(until=release)
    small_site.extra_environment["SUMMIDX_CLUSTER__THREADS_PER_WORKER"] = "2"
    run = small_site.start(small_list, "--num-processes", "2")
    assert run.wait_until(lambda: len(run.workers()) == 2 and fake_llm.in_flight >= 4), run.stderr
    killed = run.workers()

    for worker in killed:
        with_no_fuss(worker.kill)
    assert run.wait_until(lambda: len(set(run.workers()) - set(killed)) == 2), run.stderr
    new = set(run.workers()) - set(killed)
    for worker in new:
        worker.suspend()
    time.sleep(SLOW_START_S)
    release.set()
    for worker in new:
        worker.resume()
    run.wait()

    assert set(run.endings().values()) == {"built"}
    check_report(api, run, run.endings())


@pytest.mark.long_form
def test_a_poisonous_repository_that_kills_the_run_itself_does_so_once(small_site, small_list, fake_llm, api):
    """With one process and no GPU, repositories are built in the run's own process: it dies with what it builds."""
    killed = []

    def kill_who_asks(body, _):
        if "fold_r3_" not in body["messages"][-1]["content"]:
            return None
        if (process := process_at_port(fake_llm.client_port)) is not None:
            killed.append(process.pid)
            with_no_fuss(process.kill)
        return Answer(hang=True)

    fake_llm.script = kill_who_asks
    first = small_site.start(small_list, "--num-processes", "1").wait()
    assert first.code == -signal.SIGKILL
    assert killed[0] == first.process.pid

    second = small_site.start(small_list, "--num-processes", "1").wait()
    endings = second.endings()
    check_report(api, second, endings)
    check_all_final(api, first.began_at)
    assert endings.pop("repo003") == "crashed"
    assert set(endings.values()) <= {"built", "up_to_date"}
    assert second.process.pid not in killed
    assert "died while it built in its own process" in second.stderr

    fake_llm.script = None
    again = "died while it built in its own process"
    third = small_site.run(small_list, "--num-processes", "1")
    assert set(third.endings().values()) <= {"built", "up_to_date"}
    assert again in third.stderr, "what it died of was not built since"
    fourth = small_site.run(small_list, "--num-processes", "1")
    assert again not in fourth.stderr
