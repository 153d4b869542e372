"""Charts as SVG that stands in a page by itself: no script, no style of its own, nothing to be fetched.

The only importer of pygal. It draws in pure Python and escapes what it is given; the colours are those of the page
(`page.py`), so that a chart follows the reader's light or dark theme. What a point is shows when the pointer is on it.
"""

import itertools
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import pygal
from pygal.style import Style

from summidx.accounting import GROWTH, percentiles_ms
from summidx.escaping import escape_line
from summidx.report.records import RepoLine, RunLine, Timeline
from summidx.report.words import describe_count, describe_duration, describe_share, label_runs

# Pygal puts a finder for its maps among Python's own, in a form that Python warns of at every later import.
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != "pygal"]

WIDTH, HEIGHT = 720, 260
SLOWEST = 8
NAME_CHARS = 28
BARS = 28
"""At most, of the histogram."""
STEPS = ("read", "parse", "summarise", "embed", "write")

TICKS_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600)

Format = Callable[[float], str]
Point = float | Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing and what it says."""

    title: str
    note: str
    svg: str


def build_run_charts(run: RunLine, slowest: Sequence[RepoLine]) -> list[Chart]:
    """What one run did: over its time, by repository, and by answer; those without anything to show are left out."""
    charts = [
        _throughput(run.timeline),
        _in_flight(run.timeline),
        _latencies(run.latencies),
        _steps(slowest),
    ]
    return [chart for chart in charts if chart is not None]


def build_trend_charts(runs: Sequence[RunLine]) -> list[Chart]:
    """What changed from run to run, the oldest first; nothing of fewer than two."""
    if len(runs) < 2:
        return []
    labels = label_runs(runs)
    latencies = [run.latency_ms for run in runs]

    def trend(title: str, note: str, series: Mapping[str, Sequence[float | None]], form: Format) -> Chart:
        chart = _line(form, labels)
        for name, values in series.items():
            chart.add(name, [_point(value, label, form) for value, label in zip(values, labels, strict=True)])
        return _draw(chart, title, note)

    return [
        trend("Duration", "wall time of each run", {"duration": [run.seconds for run in runs]}, describe_duration),
        trend(
            "Tokens",
            "of all answers, as the server counts them",
            {"in": [run.tokens_in for run in runs], "out": [run.tokens_out for run in runs]},
            describe_count,
        ),
        trend(
            "Latency of LLM calls",
            "right within 10 %",
            {name: [_seconds(each[name]) for each in latencies] for name in ("p50", "p95", "p99")},
            describe_duration,
        ),
        trend(
            "Cache hit rate",
            "share of the questions that needed no call",
            {"hit rate": [run.hit_rate for run in runs]},
            describe_share,
        ),
        trend(
            "Repositories",
            "built and failed in each run",
            {
                "built": [float(run.repositories.get("built", 0)) for run in runs],
                "failed": [float(run.failed) for run in runs],
            },
            describe_count,
        ),
    ]


def _throughput(timeline: Timeline) -> Chart | None:
    """Tokens per second, from the differences of the sums."""
    seconds = timeline.column("seconds")
    columns = {"tokens in": timeline.column("tokens_in"), "tokens out": timeline.column("tokens_out")}
    if not any(columns["tokens out"]):
        columns = {"documents": timeline.column("documents")}
    if len(seconds) < 4:
        return None
    chart = _xy(lambda n: f"{describe_count(n)}/s", seconds)
    for name, column in columns.items():
        chart.add(name, _differences(seconds, column, name))
    unit = "documents" if "documents" in columns else "tokens"
    return _draw(chart, "Throughput", f"{unit} per second while the run went on")


def _in_flight(timeline: Timeline) -> Chart | None:
    """Whether the LLM server was kept full."""
    seconds, in_flight = timeline.column("seconds"), timeline.column("in_flight")
    if len(seconds) < 4 or not any(in_flight):
        return None
    chart = _xy(describe_count, seconds)
    for name, column in (("in flight", in_flight), ("limit", timeline.column("limit"))):
        points = [
            {"value": (s, n), "label": f"{describe_duration(s)}: {n:.0f} {name}"}
            for s, n in zip(seconds, column, strict=True)
            if s is not None and n is not None
        ]
        chart.add(name, points)
    gpu = [(s, n) for s, n in zip(seconds, timeline.column("gpu"), strict=False) if s is not None and n is not None]
    if gpu:
        chart.add("GPU busy, %", [{"value": (s, 100 * n), "label": describe_share(n)} for s, n in gpu])
    return _draw(chart, "Calls in flight", "against the limit, all workers together")


def _latencies(histogram: Mapping[str, int]) -> Chart | None:
    """How long answers were in coming."""
    bounds = sorted((float(bound), n) for bound, n in histogram.items())
    if not bounds:
        return None
    marks = {name: ms for name, ms in percentiles_ms(histogram).items() if ms is not None}
    bars = _coarsen(bounds)
    chart = pygal.Bar(**_options(describe_count), spacing=2, margin_top=24, x_label_rotation=0)
    chart.show_legend = False
    total = sum(n for _, n in bars)
    chart.x_labels = [describe_duration(bound / 1000) for bound, _ in bars]
    chart.x_labels_major_every = max(1, len(bars) // 7)
    chart.show_minor_x_labels = False
    chart.add(
        "answers",
        [
            {"value": n, "label": f"up to {describe_duration(bound / 1000)}: {n:,} answers ({n / total:.1%})"}
            for bound, n in bars
        ],
    )
    told = ", ".join(f"{name} {describe_duration(ms / 1000)}" for name, ms in marks.items())
    return _draw(chart, "Latency of LLM calls", f"{total:,} answers by time taken: {told}")


def _steps(slowest: Sequence[RepoLine]) -> Chart | None:
    """Where the time of the slowest repositories went."""
    shown = [repo for repo in slowest[:SLOWEST] if repo.seconds_by_step]
    if not shown:
        return None
    chart = pygal.HorizontalStackedBar(**_options(describe_duration), spacing=4)
    chart.show_minor_y_labels, chart.y_labels_major_count = True, None
    shown.reverse()  # pygal begins at the bottom
    chart.x_labels = [_short(repo.name) for repo in shown]
    others = {step for repo in shown for step in repo.seconds_by_step} - set(STEPS)
    for step in (*STEPS, *sorted(others)):
        chart.add(
            step,
            [
                {"value": seconds, "label": f"{escape_line(repo.name)}: {step} {describe_duration(seconds)}"}
                for repo in shown
                for seconds in (repo.seconds_by_step.get(step, 0.0),)
            ],
        )
    return _draw(chart, "Slowest repositories", "wall time by step")


def _options(form: Format) -> dict[str, Any]:
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "explicit_size": False,
        "disable_xml_declaration": True,
        "js": [],
        "css": [],
        "style": Style(font_family="inherit", value_font_size=0, label_font_size=11, major_label_font_size=11),
        "formatter": lambda _: "",  # what a point is stands in its label
        "value_formatter": form,
        "legend_at_bottom": True,
        "legend_at_bottom_columns": 5,
        "legend_box_size": 10,
        "show_title": False,
        "margin": 6,
        "margin_right": 24,
        "truncate_label": -1,
        "y_labels_major_count": 4,
        "show_minor_y_labels": False,
        "include_x_axis": True,
        "print_values": False,
        "no_data_text": "",
    }


def _xy(form: Format, seconds: Sequence[float | None]) -> Any:  # noqa: ANN401 - pygal has no types
    chart = pygal.XY(**_options(form), show_dots=True, dots_size=2, x_value_formatter=describe_duration)
    last = max((each for each in seconds if each is not None), default=0.0)
    tick = next((each for each in TICKS_S if each * 7 >= last), 2 * TICKS_S[-1])
    chart.x_labels = [float(each) for each in range(0, int(last) + 1, tick)]
    return chart


def _line(form: Format, labels: Sequence[str]) -> Any:  # noqa: ANN401
    chart = pygal.Line(**_options(form) | {"width": 460, "height": 220}, dots_size=3)
    chart.x_labels = list(labels)
    chart.x_labels_major_every = max(1, (len(labels) - 1) // 3)
    chart.show_minor_x_labels = False
    return chart


def _point(value: float | None, label: str, form: Format) -> Point:
    return None if value is None else {"value": value, "label": f"{label}: {form(value)}"}


def _differences(seconds: Sequence[float | None], sums: Sequence[float | None], name: str) -> list[Point]:
    """A rate per second between each two samples."""
    points: list[Point] = []
    known = [(s, n) for s, n in zip(seconds, sums, strict=False) if s is not None and n is not None]
    for (began, before), (ended, after) in itertools.pairwise(known):
        if ended > began:
            rate = max(0.0, (after - before) / (ended - began))
            label = f"{describe_duration(ended)}: {describe_count(rate)} {name}/s"
            points.append({"value": (ended, rate), "label": label})
    return points


def _coarsen(bounds: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    """The histogram in at most `BARS` bars, its empty buckets included; the last takes what is beyond it."""
    first, last = bounds[0][0], bounds[-1][0]
    growth = GROWTH
    while first * growth ** (BARS - 1) < last:
        growth *= GROWTH
    bars: list[tuple[float, int]] = []
    bound, left = first, list(bounds)
    while left:
        inside = [n for upper, n in left if upper <= bound * 1.001]
        left = left[len(inside) :]
        bars.append((bound, sum(inside)))
        bound *= growth
    return bars


def _short(name: str) -> str:
    safe = escape_line(name)
    return safe if len(safe) <= NAME_CHARS else f"{safe[: NAME_CHARS - 1]}…"


def _seconds(ms: float | None) -> float | None:
    return None if ms is None else ms / 1000


def _draw(chart: Any, title: str, note: str) -> Chart:  # noqa: ANN401
    chart.add_xml_filter(lambda root: _tidy(root, f"{title}: {note}"))
    svg = str(chart.render())
    # Comments and an id that is another one each time: the same run makes the same page.
    return Chart(title, note, re.sub(r"<!--.*?-->", "", re.sub(r' id="chart-[0-9a-f-]+"', "", svg), flags=re.DOTALL))


def _tidy(root: Element, description: str) -> Element:
    """Leave out styles of pygal's own, and let the pointer tell what each point is without a script."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in ("style", "script", "{http://www.w3.org/2000/svg}style"):
                parent.remove(child)
        parent.attrib.pop("style", None)
        labels = [each for each in parent if each.tag == "desc" and "label" in (each.get("class") or "")]
        descriptions = [each for each in parent if each.tag == "desc"]
        if descriptions:
            for each in descriptions:
                parent.remove(each)
            if labels:
                title = SubElement(parent, "title")
                title.text = labels[0].text
    for whole in root.findall("title"):
        whole.text = description
    root.set("role", "img")
    return root
