"""SIGTERM and SIGINT: at random moments, at each stage of a run, and again while it ends."""

import signal
import time
from datetime import UTC, datetime
from functools import partial

import pytest
from fake_llm import Answer
from runs import check_all_final, check_report, terminate, wait_until_gone

ENDS_WITHIN_S = 15
INTERRUPTED = "interrupted: what is finished is kept, and the same command goes on from here"
STARTING_S = 6
"""Every third signal comes so soon that no call may have been made yet."""


_LONG = pytest.mark.long_form


def test_sigterm_ends_a_run_in_time_and_the_next_one_goes_on(
    site, fleet, fleet_list, oracle, llm, api, form, rng, check_rows, note_figures
):
    longest_s, early, began_at = 0.0, 0, time.time()
    for number, moment in enumerate(sorted(rng.uniform(0.05, 0.8) * oracle.calls for _ in range(form.signals))):
        run = site.start(fleet_list)
        if number % 3 == 2:
            early += 1
            at = time.monotonic() + rng.uniform(0, STARTING_S)
            assert run.wait_until(partial(_is_past, at)), run.stderr
        else:
            assert run.wait_until(partial(_are_answered, llm, moment)), run.stderr
        longest_s = max(longest_s, _end(run, form, signal.SIGTERM, was_early=number % 3 == 2))
        check_all_final(api, began_at)

    last = site.run(fleet_list)

    check_report(api, last, fleet.names)
    check_all_final(api, began_at)
    check_rows(site)
    note_figures(
        "sigterm",
        {
            "repositories": len(fleet.names),
            "signals": form.signals,
            "before_the_first_call": early,
            "longest_s": round(longest_s, 2),
            "calls_without_a_fault": oracle.calls,
            "calls": llm.calls,
        },
    )


STAGES = {
    "planning": lambda run, llm: llm.models_calls > 0,
    "start of the cluster": lambda run, llm: bool(run.workers()),
    "drain": lambda run, llm: llm.in_flight >= 4,
}


@pytest.mark.parametrize("stage", [pytest.param(each, marks=_LONG if each != "drain" else ()) for each in STAGES])
def test_sigterm_ends_a_run_at_any_stage(stage, small_site, small_list, fake_llm, api, form):
    fake_llm.script = lambda body, before: Answer(hang=True)
    if stage == "planning":
        fake_llm.models_delay_s = 60
    run = small_site.start(small_list)
    assert run.wait_until(partial(STAGES[stage], run, fake_llm)), run.stderr

    _end(run, form, signal.SIGTERM)

    assert run.stderr.splitlines()[-1] == INTERRUPTED
    assert (fake_llm.calls > 0) == (stage == "drain")
    task_runs = check_all_final(api, run.began_at)
    assert task_runs == (6 if stage == "drain" else 0)


@pytest.mark.parametrize(
    ("processes", "after_s"),
    [(2, 1.0), *(pytest.param(*each, marks=_LONG) for each in [(1, 0.05), (1, 1.0), (1, 2.5), (2, 0.05), (2, 2.5)])],
)
def test_who_presses_ctrl_c_again_changes_nothing(processes, after_s, small_site, small_list, fake_llm, api, form):
    fake_llm.script = lambda body, before: Answer(hang=True)
    run = small_site.start(small_list, "--num-processes", str(processes))
    assert run.wait_until(lambda: fake_llm.in_flight >= 4), run.stderr

    terminate(run, signal.SIGINT)
    time.sleep(after_s)
    terminate(run, signal.SIGINT)
    time.sleep(0.2)
    terminate(run, signal.SIGTERM)
    _end(run, form, signal.SIGINT)

    assert run.stderr.splitlines()[-1] == INTERRUPTED
    check_all_final(api, run.began_at)
    (flow_run,) = [each for each in api.flow_runs() if each["created"] >= _iso(run.began_at)]
    assert flow_run["state_name"] == "Crashed"


def _iso(began_at):
    return datetime.fromtimestamp(began_at, UTC).isoformat()


def _end(run, form, number, *, was_early=False):
    """Send the signal; once the run has ended, in time and as it should: how long that took, in seconds."""
    start = time.monotonic()
    terminate(run, number)
    run.wait(ENDS_WITHIN_S + form.slack_s)
    seconds = time.monotonic() - start
    assert run.code == 128 + number or (run.code == -number and was_early), run.stderr
    assert seconds <= ENDS_WITHIN_S + form.slack_s
    assert not wait_until_gone(run, max(1.0, form.slack_s))
    return seconds


def _is_past(moment):
    return time.monotonic() >= moment


def _are_answered(llm, n):
    return llm.calls - llm.in_flight >= n
