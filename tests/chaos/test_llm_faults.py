"""An LLM server that refuses, fails, drips, and is away for a while."""

import hashlib
import json
import threading
import time
from collections import Counter

from fake_llm import Answer, error
from fleet import read_rows
from runs import check_all_final, check_report

BUSY, FAILED, DRIPS = 0.10, 0.05, 0.02
DEADLINE_S = 10.0
"""`--llm-timeout`."""
MOST_REFUSED = 2
"""Times that one question is refused, beside the outage: a question has four tries. So none may end as failed, and an
outage that counted as more than one try would show."""
AWAY_AFTER = 40
"""Calls, then the outage begins."""


def test_no_call_is_late_and_no_unit_is_lost(site, fleet, llm, api, form, rng, tmp_path, check_rows, note_figures):
    part = fleet.part(slice(form.llm_repositories))
    seed = rng.random()
    faults = {"busy": 0, "failed": 0, "drips": 0, "away": 0}
    outage = Outage(form.outage_s)
    refused = Counter()

    def misbehave(body, before):
        if llm.calls >= AWAY_AFTER:
            outage.begin()
        prompt = json.dumps(body["messages"], sort_keys=True)
        share = int.from_bytes(hashlib.sha256(f"{seed} {before} {prompt}".encode()).digest()[:4]) / 2**32
        if outage.is_on:
            faults["away"] += 1
            return Answer(disconnect=True) if share < 0.5 else Answer(hang=True)
        if not faults["drips"] and llm.calls >= AWAY_AFTER // 2:
            share = BUSY + FAILED  # the rarest, of which there may be none by chance
        if refused[prompt] >= MOST_REFUSED or share >= BUSY + FAILED + DRIPS:
            return None
        refused[prompt] += 1
        if share < BUSY:
            faults["busy"] += 1
            return error(429, "busy", Retry_After="1")
        if share < BUSY + FAILED:
            faults["failed"] += 1
            return error(500, "it broke")
        faults["drips"] += 1
        return Answer(drip_s=0.5)

    llm.script = misbehave
    run = site.run(part.write_list(tmp_path / "part.txt"), "--llm-timeout", str(DEADLINE_S))

    check_report(api, run, part.names)
    check_all_final(api, run.began_at)
    failed = [each for name in part.names for each in read_rows(site.index_root, name) if each["status"] == "failed"]
    requests, longest_s = llm.calls, max(llm.seconds)
    llm.script = None
    check_report(api, site.run(part.write_list(tmp_path / "part.txt")), part.names)
    check_rows(site, part)
    assert outage.was_on
    assert all(faults.values())
    note_figures(
        "llm",
        {
            "repositories": len(part.names),
            "requests": requests,
            "faults": faults,
            "outage_s": form.outage_s,
            "deadline_s": DEADLINE_S,
            "longest_call_s": round(longest_s, 2),
            "retries": run.report["totals"]["retries"],
        },
    )
    assert longest_s <= DEADLINE_S + form.slack_s
    assert not failed, [each["reason"] for each in failed]


class Outage:
    """A span of time that begins once."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None
        self._lock = threading.Lock()

    def begin(self) -> None:
        with self._lock:
            self._since = self._since or time.monotonic()

    @property
    def is_on(self) -> bool:
        return self._since is not None and time.monotonic() - self._since < self._seconds

    @property
    def was_on(self) -> bool:
        return self._since is not None and not self.is_on
