"""Pure: the report of a run in Markdown, with charts in Mermaid, as the Prefect UI shows it."""

import json
import re
from collections.abc import Mapping, Sequence

from summidx.escaping import escape_markdown
from summidx.report.records import RepoLine, RunLine, RunRecord
from summidx.report.words import (
    describe_count,
    describe_duration,
    describe_model,
    describe_share,
    describe_verdict,
    label_runs,
)

FAILED_SHOWN = 50
SLOWEST_SHOWN = 10
REASON_CHARS = 300
TREND_RUNS = 20
ENDINGS = {
    "built": "#2fa572",
    "up_to_date": "#5b8def",
    "summarized": "#8f7ae5",
    "superseded": "#9aa4b2",
    "known_failure": "#8a6d6d",
    "not_attempted": "#e0a03a",
    "stopped": "#c2703d",
    "crashed": "#b03a5b",
    "failed": "#e05252",
}
"""Colours of the slices, in their order; Mermaid gives them out by size."""

_INK = "#8b95a5"
"""Readable on the UI's dark and on its light page: Mermaid's own colours are not on the dark one."""


def render_markdown(record: RunRecord) -> str:
    """The report: how it ended, what it cost, what failed, what was slow, and how that compares with earlier runs."""
    run = record.run
    writes, embeds = (
        escape_markdown(describe_model(each)) or "unknown" for each in (run.summarizer, run.embedding_model)
    )
    parts = [
        f"# {escape_markdown(describe_verdict(record))}",
        _totals(run),
        _failed("Failed", record.failures),
        _failed("Known failures, not tried again", record.known_failures),
        _pie(run),
        _slowest(record.slowest(SLOWEST_SHOWN)),
        _trends(record.history[-TREND_RUNS:]),
        f"Summaries by {writes}, vectors by {embeds}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _totals(run: RunLine) -> str:
    latency = run.latency_ms
    rows = [
        ("duration", describe_duration(run.seconds)),
        (
            "repositories",
            ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in run.repositories.items()) or "none",
        ),
        ("documents", f"{run.documents:,}"),
    ]
    if run.llm_calls or run.cache_hits:
        retries = ", ".join(f"{n:,} {kind}" for kind, n in run.retries.items())
        rows += [
            ("cache hits", f"{run.cache_hits:,} ({describe_share(run.hit_rate or 0.0)} of the questions)"),
            ("LLM calls", f"{run.llm_calls:,} ({run.requests:,} requests; retries: {retries or 'none'})"),
            ("tokens", f"{run.tokens_in:,} in, {run.tokens_out:,} out"),
            (
                "latency",
                ", ".join(f"{name} {describe_duration(ms / 1000)}" for name, ms in latency.items() if ms is not None)
                or "-",
            ),
        ]
    if run.lost_tries:
        rows.append(("lost tries", f"{run.lost_tries:,}, whose worker process was killed: not in these figures"))
    return _table(("", ""), [(name, escape_markdown(value)) for name, value in rows])


def _failed(title: str, failures: Sequence[RepoLine]) -> str:
    if not failures:
        return ""
    rows = [
        (escape_markdown(repo.name), repo.ending.replace("_", " "), escape_markdown(repo.reason[:REASON_CHARS]))
        for repo in failures[:FAILED_SHOWN]
    ]
    more = len(failures) - FAILED_SHOWN
    return f"## {title}\n\n{_table(('repository', 'ended', 'why'), rows)}" + (
        f"\n\nand {more:,} more" if more > 0 else ""
    )


def _slowest(repos: Sequence[RepoLine]) -> str:
    if not repos:
        return ""
    rows = [
        (
            escape_markdown(repo.name),
            repo.ending.replace("_", " "),
            describe_duration(repo.seconds),
            f"{repo.documents:,}",
            f"{repo.llm_calls:,}",
            f"{repo.cache_hits:,}",
            f"{repo.tokens_in:,}",
            f"{repo.tokens_out:,}",
        )
        for repo in repos
    ]
    heads = ("repository", "ended", "time", "documents", "LLM calls", "cache hits", "tokens in", "tokens out")
    return f"## Slowest\n\n{_table(heads, rows, right_from=2)}"


def _pie(run: RunLine) -> str:
    slices = [(name, run.repositories[name]) for name in ENDINGS if run.repositories.get(name)]
    if len(slices) < 2:
        return ""
    by_size = sorted(slices, key=lambda each: -each[1])
    colours = {f"pie{i}": ENDINGS[name] for i, (name, _) in enumerate(by_size, start=1)}
    theme = colours | {
        "pieTitleTextColor": _INK,
        "pieLegendTextColor": _INK,
        "pieSectionTextColor": "#ffffff",
        "pieStrokeColor": "#00000000",
        "pieOuterStrokeColor": "#00000000",
        "pieOpacity": "1",
    }
    lines = [f'    "{name.replace("_", " ")}" : {n}' for name, n in by_size]
    return "\n".join(["## Repositories", "", "```mermaid", _init(theme), "pie showData", *lines, "```"])


def _trends(runs: Sequence[RunLine]) -> str:
    if len(runs) < 2:
        return ""
    labels = [_label(each) for each in label_runs(runs)]
    minutes = [run.seconds / 60 for run in runs]
    charts = [_xychart("Duration, minutes", labels, minutes)]
    if any(run.tokens_out for run in runs):
        charts.append(_xychart("Tokens out, thousands", labels, [run.tokens_out / 1000 for run in runs]))
    if any(run.hit_rate is not None for run in runs):
        charts.append(_xychart("Cache hit rate, percent", labels, [100 * (run.hit_rate or 0.0) for run in runs]))
    rows = [
        (
            run.at[:16].replace("T", " "),
            describe_duration(run.seconds),
            f"{run.repositories.get('built', 0):,}",
            f"{run.failed:,}",
            describe_count(run.tokens_in),
            describe_count(run.tokens_out),
            "-" if run.hit_rate is None else describe_share(run.hit_rate),
            "-" if (p95 := run.latency_ms["p95"]) is None else describe_duration(p95 / 1000),
        )
        for run in reversed(runs)
    ]
    heads = ("run (UTC)", "time", "built", "failed", "tokens in", "tokens out", "cache hits", "p95")
    table = _table(heads, [tuple(map(escape_markdown, row)) for row in rows], right_from=1)
    return "\n\n".join(["## Over runs", *charts, table])


def _xychart(title: str, labels: Sequence[str], values: Sequence[float]) -> str:
    parts = [f"{axis}Axis{part}Color" for axis in "xy" for part in ("Label", "Title", "Tick", "Line")]
    ink = dict.fromkeys(["titleColor", *parts], _INK)
    theme = {"xyChart": ink | {"backgroundColor": "#00000000", "plotColorPalette": "#5b8def"}}
    top = max([*values, 1.0])
    places = 2 if top < 10 else 1
    shown = ", ".join(f"{value:.{places}f}" for value in values)
    names = ", ".join(f'"{label}"' for label in labels)
    lines = [f'    title "{title}"', f"    x-axis [{names}]", f"    y-axis 0 --> {top * 1.05:.{places}f}"]
    chart = ["```mermaid", _init(theme), "xychart-beta", *lines, f"    bar [{shown}]", "```"]
    return "\n".join(chart)


def _init(theme: Mapping[str, object]) -> str:
    return f"%%{{init: {json.dumps({'theme': 'base', 'themeVariables': theme})}}}%%"


def _label(text: str) -> str:
    """Only what cannot end a string of Mermaid's: the times of runs are read from files."""
    return re.sub(r"[^\w .:-]", "_", text)[:24]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right_from: int | None = None) -> str:
    rule = ["---:" if right_from is not None and i >= right_from else "---" for i in range(len(heads))]
    lines = [heads, rule, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
