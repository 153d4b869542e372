"""What a person in front of a terminal sees of a run."""

import os
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.progress import RunReport
from summidx.accounting import Totals
from summidx.escaping import escape_line
from summidx.index_uri import is_uri
from summidx.settings import EmbeddingSettings

ROWS = 20
"""More up-to-date repositories than this are counted, not listed."""


class Terminal:
    """Writes a run's lines, and at its end a table of what was done and where it lies."""

    def __init__(self, stream: TextIO) -> None:
        self.report: RunReport | None = None
        self._console = Console(file=stream, highlight=False, soft_wrap=True)

    def tell(self, line: str) -> None:
        """Show a line."""
        self._console.print(Text(escape_line(line)))

    def ended(self, report: RunReport) -> None:
        """Take the report, and show it."""
        self.report = report
        self._console.print(render_table(report))
        self.tell(f"{report.message()} in {report.seconds:.0f} s")
        for line in describe_totals(report.totals):
            self.tell(line)
        if report.lost_tries:
            tries = "1 try" if report.lost_tries == 1 else f"{report.lost_tries} tries"
            self.tell(f"         without what {tries} cost whose worker process was killed: that is not known")
        if report.prediction is not None:
            self.tell(f"Plan:    {report.prediction.describe()}")
        for warning in report.warnings():
            self.tell(f"warning: {warning}")
        self.tell(f"Indexes: {report.index_root}")
        if any(each.report is not None and each.ending != "summarized" for each in report.repositories):
            options = f"--index-root {_short(report.index_root)}"
            if report.embedding_model != EmbeddingSettings().model:
                options += f" --embedding-model {report.embedding_model}"
            self.tell(f'Next:    summidx search "where do we retry" {options}')


def render_table(report: RunReport) -> Table:
    """What was done with each repository."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("repository", overflow="fold")
    table.add_column("outcome")
    for column in ("documents", "LLM calls", "cache hits", "seconds"):
        table.add_column(column, justify="right")
    for each in report.repositories:
        if each.ending == "up_to_date" and report.up_to_date > ROWS:
            continue
        usage = each.usage
        table.add_row(
            Text(escape_line(each.name)),
            each.ending.replace("_", " "),
            str(each.documents) if each.report else "",
            str(usage.llm_calls) if usage else "",
            str(usage.cache_hits) if usage else "",
            f"{sum(usage.durations_s.values()):.1f}" if usage else "",
        )
    return table


def describe_totals(totals: Totals) -> list[str]:
    """What the LLM was asked and how it answered, in lines; none where it was not asked."""
    if not totals.requests and not totals.cache_hits:
        return []
    asked = (
        f"{totals.llm_calls:,} calls ({totals.requests:,} requests{_beyond(totals)}), {totals.cache_hits:,} cache hits"
    )
    lines = [f"LLM:     {asked}, {totals.tokens_in:,} tokens in, {totals.tokens_out:,} out"]
    known = [f"{name} {ms / 1000:.2f} s" for name, ms in totals.latency_ms.items() if ms is not None]
    if known:
        retries = ", ".join(f"{n} {kind}" for kind, n in totals.retries.items())
        lines.append(f"         latency {', '.join(known)}; retries: {retries or 'none'}")
    return lines


def _beyond(totals: Totals) -> str:
    """Requests that are neither a unit's last nor a retry: for parts of texts that are too long, or never answered."""
    parts = totals.requests - totals.llm_calls - sum(totals.retries.values())
    return f", {parts:,} of them for parts of long texts or in vain" if parts > 0 else ""


def _short(path: str) -> str:
    if is_uri(path):
        return path
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative
