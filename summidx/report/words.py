"""Pure: figures in words, the same in the page, in its charts and in Markdown."""

import json
from collections.abc import Sequence

from summidx.keys import shorten_hashes
from summidx.report.records import RunLine, RunRecord


def describe_duration(seconds: float) -> str:
    """`80 ms`, `4.2 s`, `12.5 min`, `3 h`."""
    if seconds < 0.95:
        return f"{seconds * 1000:.0f} ms" if seconds else "0"
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    number, unit = (seconds / 60, "min") if seconds < 5400 else (seconds / 3600, "h")
    return f"{number:.1f}".removesuffix(".0") + f" {unit}"


def describe_count(n: float) -> str:
    """`812`, `2.3k`, `1.2M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(n) >= size:
            return f"{n / size:.1f}".removesuffix(".0") + unit
    return f"{n:.1f}".removesuffix(".0")


def describe_share(share: float) -> str:
    """`45 %`."""
    return f"{share * 100:.0f} %"


def describe_verdict(record: RunRecord) -> str:
    """How the run ended, in a few words."""
    run, n = record.run, len(record.repos)
    total = "1 repository" if n == 1 else f"{n:,} repositories"
    if not record.is_whole:
        return f"the run did not end: {total} by then, {run.failed:,} failed"
    left = run.repositories.get("not_attempted", 0)
    more = f", {left:,} not attempted" if left else ""
    return f"{run.failed:,} of {total} failed{more}" if run.failed or left else f"{total}, none failed"


def describe_model(identity: str) -> str:
    """Who writes the summaries, or embeds: the model's name where the identity is JSON."""
    try:
        known = json.loads(identity)
    except ValueError:
        return shorten_hashes(identity)
    model = known.get("model") if isinstance(known, dict) else None
    return str(model) if model else shorten_hashes(identity)


def label_runs(runs: Sequence[RunLine]) -> list[str]:
    """A short name for each run, no two the same: its day, its time, both, or its number."""
    times = [run.at[:16].replace("T", " ") for run in runs]
    numbers = [str(number) for number in range(1, len(runs) + 1)]
    choices = ([time[5:10] for time in times], [time[11:] for time in times], [time[5:] for time in times], numbers)
    return next(labels for labels in choices if len(set(labels)) == len(runs))
