"""What a person in front of a terminal sees of a run: a display that is drawn over itself, lines above it.

Where there is no terminal, or one that cannot be drawn on (`TERM=dumb`), the lines are all.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from rich.console import Console, ConsoleDimensions, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from flows.capture import caught_lines
from flows.display import render_display
from flows.live import LiveRun
from flows.progress import LineKind, RepoResult, RunReport
from summidx.accounting import Totals
from summidx.escaping import escape_line
from summidx.index_uri import is_uri
from summidx.settings import EmbeddingSettings

ROWS = 20
"""More up-to-date repositories than this are counted, not listed."""


SLOWEST = 10
"""Of more repositories than `ROWS`, so many are listed in a terminal, beside those that failed."""
FRAME_S = 0.7
"""As often as the workers are heard; a frame takes some 10 ms of CPU time."""
STYLES: dict[LineKind, str] = {"plain": "", "ended": "dim", "failed": "red", "warning": "yellow", "other": "dim"}


class Terminal:
    """Writes a run's lines, and at its end a table of what was done and where it lies."""

    def __init__(self, stream: TextIO) -> None:
        self.report: RunReport | None = None
        self._console = Console(file=stream, highlight=False)
        self._run = LiveRun()
        self._display: Live | None = None
        # Rich works out in one thread where the last frame began, and draws the next: a line of another thread between
        # the two would leave pieces of frames behind.
        self._drawing = threading.RLock()

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Draw the display in this block, until the report is there; nothing but lines where it cannot be drawn."""
        plain = self._console
        if not plain.is_terminal or plain.is_dumb_terminal:
            yield
            return
        with caught_lines(lambda line: self.tell(line, "other")) as screen:
            if screen is None:
                yield
                return
            self._console = Console(file=screen, highlight=False, force_terminal=True)
            self._display = Live(
                console=self._console,
                get_renderable=self._render,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,  # they are caught already, and those of other processes with them
                redirect_stderr=False,
            )
            ended = threading.Event()
            thread = threading.Thread(target=self._draw, args=(ended,), name="summidx-display", daemon=True)
            try:
                screen.write("\r\x1b[2K")  # what the command has written there while it began
                self._display.start(refresh=True)
                thread.start()
                yield
            finally:
                ended.set()
                self._stop()
        self._console = plain

    def follow(self, run: LiveRun) -> None:
        """Draw this run."""
        self._run = run

    def tell(self, line: str, kind: LineKind = "plain") -> None:
        """Show a line, above the display."""
        with self._drawing:
            self._console.print(Text(escape_line(line), style=STYLES[kind]), soft_wrap=True)

    def ended(self, report: RunReport, page: Path | None = None) -> None:
        """Take the report, and show it in the place of the display."""
        self._stop()
        self.report = report
        self._console.print(render_table(report, brief=self._console.is_terminal), soft_wrap=True)
        self.tell(f"{report.message()} in {report.seconds:.0f} s")
        for line in describe_totals(report.totals):
            self.tell(line)
        if report.lost_tries:
            tries = "1 try" if report.lost_tries == 1 else f"{report.lost_tries} tries"
            self.tell(f"         without what {tries} cost whose worker process was killed: that is not known")
        if report.prediction is not None:
            self.tell(f"Plan:    {report.prediction.describe()}")
        for warning in report.warnings():
            self.tell(f"warning: {warning}", "warning")
        self.tell(f"Indexes: {report.index_root}")
        if page is not None:
            self.tell(f"Report:  {_short(str(page))}")
        if any(each.report is not None and each.ending != "summarized" for each in report.repositories):
            options = f"--index-root {_short(report.index_root)}"
            if report.embedding_model != EmbeddingSettings().model:
                options += f" --embedding-model {report.embedding_model}"
            self.tell(f'Next:    summidx search "where do we retry" {options}')

    def _draw(self, ended: threading.Event) -> None:
        while not ended.wait(FRAME_S):
            with self._drawing, suppress(OSError):  # the terminal is gone, and with it whoever looked
                if self._display is None:
                    return
                self._display.refresh()

    def _stop(self) -> None:
        """Take the display away."""
        with self._drawing:
            display, self._display = self._display, None
            if display is not None:
                with suppress(OSError):
                    display.stop()

    def _render(self) -> RenderableType:
        width, height = os.get_terminal_size(self._console.file.fileno())
        self._console.size = ConsoleDimensions(max(width, 20), max(height, 4))
        return render_display(self._run.snapshot(), width, height)


def render_table(report: RunReport, *, brief: bool = False) -> Table:
    """What was done with each repository; with `brief`, of many only those that failed and those that took longest."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("repository", overflow="fold")
    table.add_column("outcome")
    for column in ("documents", "LLM calls", "cache hits", "seconds"):
        table.add_column(column, justify="right")
    shown = _pick(report.repositories) if brief else report.repositories
    for each in shown:
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
    if left := len(report.repositories) - len(shown):
        table.add_row(Text(f"and {left:,} more", style="dim"))
    return table


def _pick(repositories: Sequence[RepoResult]) -> Sequence[RepoResult]:
    """Those that failed and those that took longest, where they are too many to be read; in their order."""
    if len(repositories) <= ROWS:
        return repositories
    slowest = sorted(repositories, key=lambda each: each.seconds, reverse=True)[:SLOWEST]
    return [each for each in repositories if each.failed or any(each is slow for slow in slowest)]


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
