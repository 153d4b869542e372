"""SIGTERM at random moments, again and again, until a run is let be."""

import time
from functools import partial

from runs import check_all_final, check_report, terminate, wait_until_gone

ENDS_WITHIN_S = 15
STARTING_S = 6
"""Every third signal comes so soon that no call may have been made yet."""


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
        start = time.monotonic()
        terminate(run)
        run.wait(ENDS_WITHIN_S + form.slack_s)
        seconds = time.monotonic() - start
        longest_s = max(longest_s, seconds)
        assert run.code == 128 + 15 or (run.code == -15 and number % 3 == 2), run.stderr
        assert seconds <= ENDS_WITHIN_S + form.slack_s
        assert not wait_until_gone(run, max(1.0, form.slack_s))
        check_all_final(api, began_at)

    last = site.run(fleet_list)

    check_report(api, last, fleet.names)
    check_all_final(api, began_at)
    check_rows(site)
    note_figures(
        "sigterm",
        {
            "signals": form.signals,
            "before_the_first_call": early,
            "longest_s": round(longest_s, 2),
            "calls_without_a_fault": oracle.calls,
            "calls": llm.calls,
        },
    )


def _is_past(moment):
    return time.monotonic() >= moment


def _are_answered(llm, n):
    return llm.calls - llm.in_flight >= n
