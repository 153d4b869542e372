"""Pure: a run while it goes, for a terminal of any size. Names are not ours, and are escaped.

summary-index  nightly                                                    12:03, about 8 min left
━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╸━━━━━━━━━━━━━━━━━━━━━━━━━━━━  69 %
138 of 200 repositories   133 built   5 failed   58 left   12 up to date
documents   41,203   57/s     LLM calls   24,100   31/s     tokens in/out   48.1k/s   12.0k/s
cache hits  12,034   33 %     in flight  251 of 256         GPU busy        0: 78 %  1: 81 %
worker 0   django                     summarise  ━━━━━━━━━━━━━━━━━━━━╸━━━━━━━━━   812/2,304  1:12
"""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flows.live import Snapshot, WorkerRow
from summidx.activity import RepoLook
from summidx.escaping import escape_line
from summidx.terminal import describe_seconds

WIDE, NARROW = 96, 64
"""From WIDE columns on the figures stand in three pairs of columns; below NARROW in one, and workers have no bars."""
MOST_ROWS = 16
"""Repositories under way that are shown, however high the terminal is."""
GPUS_SHOWN = 4
ORDER = {
    3: ("documents", "LLM calls", "tokens in", "cache hits", "in flight", "tokens out"),
    2: ("documents", "LLM calls", "cache hits", "in flight", "tokens in", "tokens out"),
    1: ("documents", "LLM calls", "in flight", "tokens out"),
}
"""The figures by how many columns they stand in; the narrowest leaves out what can be done without."""

LABEL, FIGURE, GOOD, BAD, NAME = "dim", "bold", "green", "bold red", "cyan"


def render_display(snapshot: Snapshot, width: int, height: int) -> RenderableType:
    """A run at one moment, no higher than `height` lines and no wider than `width` columns."""
    head: list[RenderableType] = [_title(snapshot, width)]
    if snapshot.to_build:
        head += [_bar(snapshot, width), _endings(snapshot, width), *_figures(snapshot, width)]
    if snapshot.phase:
        return Group(*head, Text(f"{snapshot.phase} …", style=LABEL))
    room = min(MOST_ROWS, height - 1 - sum(_height(each) for each in head))
    if room > 4 and snapshot.workers:
        head.append("")
        room -= 1
    return Group(*head, *_workers(snapshot.workers, width, room))


def describe_clock(seconds: float) -> str:
    """A time that goes on: `0:07`, `12:03`, `1:02:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def describe_count(n: float) -> str:
    """A count in few characters: `812`, `2,304`, `48.1k`, `1.2M`."""
    if n < 10_000:
        return f"{n:,.0f}"
    return f"{n / 1e6:.1f}M" if n >= 999_950 else f"{n / 1e3:.1f}k"


def describe_rate(n: float) -> str:
    """A rate per second in few characters."""
    return f"{n:.1f}/s" if 0 < n < 10 else f"{describe_count(n)}/s"


def _title(snapshot: Snapshot, width: int) -> RenderableType:
    time = describe_clock(snapshot.elapsed_s)
    if snapshot.eta_s is not None and snapshot.done < snapshot.to_build:
        time += f", about {describe_seconds(snapshot.eta_s)} left"
    name = Text(escape_line(snapshot.title), style=NAME)
    title = Text.assemble(("summary-index", "bold"), "  ", name) if width >= NARROW else name
    grid = Table.grid(expand=True, padding=(0, 1), pad_edge=False)
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_column(justify="right", no_wrap=True)
    grid.add_row(title, time)
    return grid


def _bar(snapshot: Snapshot, width: int) -> RenderableType:
    grid = Table.grid(expand=True)
    grid.add_column(ratio=1)
    grid.add_column(justify="right", width=6, no_wrap=True)
    # No round 100 % before the last one has ended.
    share = snapshot.share if snapshot.done == snapshot.to_build else min(snapshot.share, 0.999)
    bar = ProgressBar(total=1.0, completed=share, width=max(8, width - 6), complete_style=GOOD, finished_style=GOOD)
    grid.add_row(bar, Text(f"{int(100 * share)} %", style=FIGURE))
    return grid


def _endings(snapshot: Snapshot, width: int) -> RenderableType:
    failed = snapshot.failed
    built = snapshot.done - failed - snapshot.endings.get("not_attempted", 0)
    parts = [
        (snapshot.done, f"of {snapshot.to_build:,} {'repositories' if width >= NARROW else ''}".rstrip(), FIGURE),
        (built, "built", GOOD if built else LABEL),
        (failed, "failed", BAD if failed else LABEL),
        (snapshot.endings.get("not_attempted", 0), "not attempted", "yellow"),
        (snapshot.to_build - snapshot.done, "left", ""),
        (snapshot.up_to_date, "up to date", LABEL),
        (snapshot.known_failures, "known failures", LABEL),
    ]
    always = ("built", "failed", "left")
    told = [
        Text(f"{n:,} {what}", style=style) for n, what, style in parts if n or what in always or what.startswith("of ")
    ]
    line = Text("   " if width >= 80 else "  ", no_wrap=True, overflow="ellipsis").join(told)
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _figures(snapshot: Snapshot, width: int) -> list[RenderableType]:
    figures, rates = snapshot.figures, snapshot.rates
    seen = figures.cache_hits + figures.calls
    columns = 3 if width >= WIDE else 2 if width >= NARROW else 1
    pairs = {
        "documents": (f"{figures.documents:,}", describe_rate(rates.get("documents", 0))),
        "LLM calls": (f"{figures.calls:,}", describe_rate(rates.get("calls", 0))),
        "tokens in": (describe_count(figures.tokens_in), describe_rate(rates.get("tokens_in", 0))),
        "cache hits": (f"{figures.cache_hits:,}", f"{figures.cache_hits / seen:.0%}" if seen else "-"),
        "in flight": (f"{snapshot.in_flight:,}", f"of {snapshot.limit:,}"),
        "tokens out": (describe_count(figures.tokens_out), describe_rate(rates.get("tokens_out", 0))),
    }
    shown = ORDER[columns] if snapshot.asks_llm else ("documents",)
    grid = Table.grid(padding=(0, 1))
    for _ in range(columns):
        grid.add_column(width=10, style=LABEL, no_wrap=True)
        grid.add_column(width=9, justify="right", style=FIGURE, no_wrap=True)
        grid.add_column(width=9 if columns > 1 else 8, justify="right", no_wrap=True)
        if columns > 1:
            grid.add_column(width=1 if columns == 3 else 2)
    spare = ("",) if columns > 1 else ()
    for start in range(0, len(shown), columns):
        cells = [cell for label in shown[start : start + columns] for cell in (label, *pairs[label], *spare)]
        grid.add_row(*cells)
    lines: list[RenderableType] = [grid]
    if gpus := [(row.name, row.gpu) for row in snapshot.workers if row.gpu is not None]:
        told = "   ".join(
            f"{escape_line(name)}: {gpu.busy:.0%}, {gpu.used_bytes / 2**30:.0f} of {gpu.total_bytes / 2**30:.0f} GiB"
            for name, gpu in gpus[:GPUS_SHOWN]
        )
        more = f"   and {len(gpus) - GPUS_SHOWN} more" if len(gpus) > GPUS_SHOWN else ""
        lines.append(Text.assemble(("GPU        ", LABEL), told + more, no_wrap=True, overflow="ellipsis"))
    return lines


def _workers(workers: Sequence[WorkerRow], width: int, room: int) -> list[RenderableType]:
    """A line for each repository under way, grouped by worker."""
    rows = [(worker.name, i == 0, repo) for worker in workers for i, repo in enumerate(worker.repos)]
    if not rows or room < 2:
        return []
    shown = rows if len(rows) <= room else rows[: room - 1]
    grid = Table.grid(padding=(0, 1), expand=True)
    many = len(workers) > 1
    if many:
        grid.add_column(no_wrap=True, style=LABEL, overflow="ellipsis", max_width=18)
    grid.add_column(ratio=2, no_wrap=True, overflow="ellipsis", style=NAME)
    grid.add_column(width=9, no_wrap=True)
    bar_width = max(8, (width - 60) // 2) if width >= NARROW else 0
    if bar_width:
        grid.add_column(width=bar_width)
    grid.add_column(width=13 if width >= NARROW else 5, justify="right", no_wrap=True)
    if width >= NARROW:
        grid.add_column(width=7, justify="right", no_wrap=True, style=LABEL)
    for name, is_first, repo in shown:
        cells: list[RenderableType] = []
        if many:
            cells.append(f"worker {escape_line(name)}" if is_first else "")
        cells += [Text(escape_line(repo.name)), repo.step]
        if bar_width:
            cells += [_repo_bar(repo, bar_width), f"{repo.settled:,}/{repo.units:,}" if repo.units else ""]
            cells.append(describe_clock(repo.seconds))
        else:
            cells.append(f"{int(100 * repo.share)} %" if repo.units else "")
        grid.add_row(*cells)
    left = len(rows) - len(shown)
    return [grid, Text(f"and {left} more under way", style=LABEL)] if left else [grid]


def _repo_bar(repo: RepoLook, width: int) -> RenderableType:
    if not repo.units:
        return ""
    return ProgressBar(
        total=repo.units, completed=min(repo.settled, repo.units), width=width, complete_style=NAME, finished_style=GOOD
    )


def _height(part: RenderableType) -> int:
    return part.row_count if isinstance(part, Table) else 1
