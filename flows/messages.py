"""Pure: what the states of flow runs and task runs say, a line each."""

from collections.abc import Sequence

from summidx.escaping import escape_line, escape_text
from summidx.records import BuildReport, Outcome, Status, count_where

FAILURES_SHOWN = 8
REASON_CHARS = 240
"""Of each reason; all of it is in the state of the repository's own task run."""

DONE = {
    Outcome.BUILT: "built",
    Outcome.UP_TO_DATE: "up to date",
    Outcome.SUPERSEDED: "another run published first, and this build was discarded",
    Outcome.SUMMARIZED: "summaries are in the cache, nothing was published",
}


def describe_build(report: BuildReport) -> str:
    """What was done with a repository, and what it cost: documents by status, calls, tokens, cache hits, seconds."""
    documents = count_where(report.counts)
    unusual = {status: count_where(report.counts, status=status) for status in (Status.DEGRADED, Status.FAILED)}
    odd = ", ".join(f"{n:,} {status}" for status, n in unusual.items() if n)
    told = f"{DONE[report.outcome]}: {documents:,} document{'' if documents == 1 else 's'}{f' ({odd})' if odd else ''}"
    if report.outcome is Outcome.UP_TO_DATE:
        return told
    usage = report.usage
    return (
        f"{told}; {usage.llm_calls:,} LLM calls, {usage.cache_hits:,} cache hits, {usage.tokens_in:,} tokens in, "
        f"{usage.tokens_out:,} out; {sum(usage.durations_s.values()):.1f} s"
    )


def describe_failures(failures: Sequence[tuple[str, str, str]], total: int) -> str:
    """Which repositories failed and why, the first by name.

    Args:
        failures: name, type of the error ("" where its worker was killed), and reason of each.
        total: repositories of the run.
    """
    shown = ", ".join(
        f"{escape_line(name)} ({f'{error}: ' if error else ''}{shorten(reason)})"
        for name, error, reason in failures[:FAILURES_SHOWN]
    )
    more = len(failures) - FAILURES_SHOWN
    repositories = "repository" if total == 1 else "repositories"
    return f"{len(failures)} of {total} {repositories} failed: {shown}{f' and {more} more' if more > 0 else ''}"


def shorten(reason: str) -> str:
    """The beginning of a reason, on one line."""
    line = escape_text(reason)
    return line if len(line) <= REASON_CHARS else f"{line[: REASON_CHARS - 3].rstrip()}..."
