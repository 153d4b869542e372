"""Pure: the report of a run as one HTML page that needs nothing else: no script, no network, light and dark.

Every text that is not ours is escaped twice over: what would steer a terminal or hide (`escaping`), then HTML. The
page forbids itself everything but its own style sheet, which is named by its hash.
"""

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from importlib.resources import files

from summidx.escaping import escape_line, escape_text
from summidx.report.charts import Chart, build_run_charts, build_trend_charts
from summidx.report.records import BAD_ENDINGS, RepoLine, RunLine, RunRecord
from summidx.report.words import describe_count, describe_duration, describe_model, describe_share, describe_verdict

LISTED = 2_000
"""Repositories in the table; the JSON beside the page has all."""
SLOWEST = 15
REASON_CHARS = 600

STYLE = files("summidx.report").joinpath("page.css").read_text(encoding="utf-8")


def render_page(record: RunRecord) -> str:
    """The page of a run."""
    run = record.run
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    body = "\n".join(
        [
            _head(record),
            _tiles(run),
            _failures("Failed", record.failures),
            _failures("Known failures, not tried again", record.known_failures),
            _charts("This run", build_run_charts(run, record.slowest(SLOWEST))),
            _charts("Over runs", build_trend_charts(record.history), small=True),
            _slowest(record.slowest(SLOWEST)),
            _all(record.repos),
        ]
    )
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>summidx: run {_text(run.flow_run_id[:8] or 'unknown')}</title>"
        f"<style>{STYLE}</style></head><body><main>\n{body}\n</main></body></html>\n"
    )


def _head(record: RunRecord) -> str:
    run = record.run
    bad = " bad" if run.failed or run.repositories.get("not_attempted") or not record.is_whole else ""
    workers = f"{run.num_processes} worker processes" if run.num_processes != 1 else "1 worker process"
    writes, embeds = (describe_model(each) or "unknown" for each in (run.summarizer, run.embedding_model))
    device = f"{run.gpus} GPUs" if run.gpus else "embedding on the CPU"
    about = (
        f"run {run.flow_run_id or 'unknown'}, ended {run.at[:19].replace('T', ' ')} UTC; "
        f"summaries by {writes}, vectors by {embeds}; "
        f"{workers}, {device}, at most {run.llm_concurrency:,} calls in flight"
    )
    torn = f'<p class="about">{record.torn_lines} lines could not be read</p>' if record.torn_lines else ""
    return (
        f'<h1>Summary index run</h1><p class="about">{_text(about)}</p>{torn}'
        f'<div class="verdict{bad}">{_text(describe_verdict(record))}</div>'
    )


def _tiles(run: RunLine) -> str:
    built = run.repositories.get("built", 0) + run.repositories.get("summarized", 0)
    latency = run.latency_ms
    retries = sum(run.retries.values())
    tiles = [
        ("duration", describe_duration(run.seconds), ""),
        ("repositories built", f"{built:,}", f"{run.repositories.get('up_to_date', 0):,} up to date"),
        (
            "documents",
            f"{run.documents:,}",
            f"{run.vectors_embedded:,} embedded, {run.vectors_reused:,} vectors reused",
        ),
    ]
    if run.llm_calls or run.cache_hits:
        tiles += [
            ("cache hits", _share(run.hit_rate), f"{run.cache_hits:,} of {run.cache_hits + run.llm_calls:,} questions"),
            ("LLM calls", f"{run.llm_calls:,}", f"{run.requests:,} requests, {retries:,} retries"),
            ("tokens", f"{describe_count(run.tokens_in)} in", f"{describe_count(run.tokens_out)} out"),
            ("latency, median", _ms(latency["p50"]), f"p95 {_ms(latency['p95'])}, p99 {_ms(latency['p99'])}"),
        ]
    cells = (
        f'<div class="tile"><dt>{_text(name)}</dt><dd>{_text(value)}<small>{_text(note)}</small></dd></div>'
        for name, value, note in tiles
    )
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def _failures(title: str, failures: Sequence[RepoLine]) -> str:
    if not failures:
        return ""
    rows = (
        f'<tr><td>{_text(repo.name)}</td><td class="bad left">{_text(repo.ending.replace("_", " "))}</td>'
        f'<td class="why">{_text(repo.reason[:REASON_CHARS])}</td></tr>'
        for repo in failures[:LISTED]
    )
    return f"<h2>{_text(title)}</h2>{_table(('repository', 'ended', 'why'), rows, left=3)}"


def _charts(title: str, charts: Sequence[Chart], *, small: bool = False) -> str:
    if not charts:
        return ""
    figures = (
        f"<figure><figcaption><b>{_text(chart.title)}</b><span>{_text(chart.note)}</span></figcaption>{chart.svg}</figure>"
        for chart in charts
    )
    return f'<h2>{_text(title)}</h2><div class="charts{" small" if small else ""}">{"".join(figures)}</div>'


def _slowest(repos: Sequence[RepoLine]) -> str:
    return f"<h2>Slowest</h2>{_repo_table(repos)}" if repos else ""


def _all(repos: Sequence[RepoLine]) -> str:
    shown = sorted(repos, key=lambda repo: repo.name)[:LISTED]
    more = f'<p class="quiet">and {len(repos) - LISTED:,} more, in the JSON</p>' if len(repos) > LISTED else ""
    return f"<details><summary>All {len(repos):,} repositories</summary>{_repo_table(shown)}{more}</details>"


def _repo_table(repos: Iterable[RepoLine]) -> str:
    heads = (
        "repository",
        "ended",
        "why built",
        "documents",
        "LLM calls",
        "cache hits",
        "tokens in",
        "tokens out",
        "time",
    )
    rows = (
        f'<tr><td>{_text(repo.name)}</td><td class="left {"bad" if repo.ending in BAD_ENDINGS else "good"}">'
        f'{_text(repo.ending.replace("_", " "))}</td><td class="left quiet why">{_text(repo.why[:80])}</td>'
        + "".join(
            f"<td>{value}</td>"
            for value in (
                *(f"{n:,}" for n in (repo.documents, repo.llm_calls, repo.cache_hits, repo.tokens_in, repo.tokens_out)),
                describe_duration(repo.seconds) if repo.seconds else "",
            )
        )
        + "</tr>"
        for repo in repos
    )
    return _table(heads, rows, left=3)


def _table(heads: Sequence[str], rows: Iterable[str], *, left: int) -> str:
    head = "".join(f'<th class="{"left" if i < left else "right"}">{_text(each)}</th>' for i, each in enumerate(heads))
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _share(share: float | None) -> str:
    return "-" if share is None else describe_share(share)


def _ms(ms: float | None) -> str:
    return "-" if ms is None else describe_duration(ms / 1000)


def _text(text: str) -> str:
    return html.escape(escape_line(escape_text(text)))
