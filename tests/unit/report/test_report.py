"""The report of a run: read from lines that are old, torn or hostile, and shown as page, Markdown and JSON."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner

from summidx.cli import app
from summidx.errors import UsageError
from summidx.escaping import escape_markdown
from summidx.report.files import write_report
from summidx.report.markdown import render_markdown
from summidx.report.page import render_page
from summidx.report.records import add_history, find_last_run, load_history, load_record, read_record, render_record

HOSTILE = "<script>alert(1)</script>\"'|`x`](http://e.example)\x1b[31m\u202e"
FIELDS = ["seconds", "in_flight", "limit", "documents", "calls", "cache_hits", "tokens_in", "tokens_out", "gpu"]


def repo_line(name, ending="built", **more):
    line = {"kind": "repository", "at": "2026-11-27T01:00:00", "name": name, "ending": ending, "why": "new"}
    steps = {"read": 0.5, "parse": 1.0, "summarise": 6.0, "embed": 0.2, "write": 0.3}
    return line | {"seconds": 8.0, "seconds_by_step": steps, "documents": 40, "llm_calls": 30} | more


def run_line(day=27, **more):
    line = {"kind": "run", "at": f"2026-11-{day:02}T01:10:00", "flow_run_id": "3403", "seconds": 600.0 + day}
    return (
        line
        | {
            "repositories": {"built": 2, "failed": 1},
            "documents": 80,
            "llm_calls": 75,
            "requests": 80,
            "cache_hits": 25,
            "tokens_in": 90_000,
            "tokens_out": 9_000,
            "latencies": {"100.0": 50, "1000.0": 20, "10000.0": 5},
            "retries": {"Overloaded": 5},
            "summarizer": json.dumps({"model": "Qwen3-Coder"}),
        }
        | more
    )


def timeline():
    samples = [[2.0 * n, 60, 64, 10 * n, 9 * n, n, 900 * n, 90 * n, None] for n in range(30)]
    return {"fields": FIELDS, "samples": samples}


def write_lines(path, *lines):
    path.write_text("".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in lines))
    return path


@pytest.fixture
def log_dir(tmp_path):
    """Three nights: one of an older version, one whose last line is torn, one as it is now."""
    old = {"kind": "run", "at": "2026-11-20T01:10:00", "seconds": 900, "repositories": {"built": 3}, "unknown": 1}
    write_lines(tmp_path / "20261120T010000Z-run-aaaa.jsonl", old)
    write_lines(tmp_path / "20261121T010000Z-run-bbbb.jsonl", repo_line("a"), '{"kind": "run", "at": "2026-11')
    write_lines(
        tmp_path / "20261127T010000Z-run-cccc.jsonl",
        repo_line("a"),
        repo_line("slow", seconds=99.0),
        repo_line(HOSTILE, "failed", reason=f"SourceError: {HOSTILE}", seconds=0.0, seconds_by_step={}),
        "[1, 2]",
        '{"kind": "repository", "name": "tor',
        run_line(timeline=timeline()),
    )
    return tmp_path


class Tags(HTMLParser):
    """The tags of a page, its text, and whether what is opened is closed."""

    def __init__(self):
        super().__init__()
        self.tags, self.text, self.attributes = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attr) for attr in attrs]

    def handle_data(self, data):
        self.text.append(data)


def test_old_and_torn_lines_are_read_as_far_as_they_go(log_dir):
    record = load_record(find_last_run(log_dir))
    assert [repo.name for repo in record.repos] == ["a", "slow", HOSTILE]
    assert (record.is_whole, record.torn_lines) == (True, 2)
    assert [repo.name for repo in record.failures] == [HOSTILE]
    assert [repo.name for repo in record.slowest(1)] == ["slow"]
    assert [run.at[:10] for run in record.history] == ["2026-11-20", "2026-11-27"], "the torn one is left out"
    assert record.run.hit_rate == 0.25
    assert record.run.latency_ms == {"p50": 100.0, "p95": 10000.0, "p99": 10000.0}
    assert record.history[0].hit_rate is None


def test_a_run_that_was_killed_is_added_up_from_its_repositories(log_dir):
    record = load_record(log_dir / "20261121T010000Z-run-bbbb.jsonl")
    assert (record.is_whole, record.run.documents, record.run.llm_calls) == (False, 40, 30)
    assert "the run did not end" in render_page(record)
    assert "the run did not end" in render_markdown(record)


def test_an_old_run_is_compared_with_those_before_it_alone(log_dir):
    record = load_record(log_dir / "20261120T010000Z-run-aaaa.jsonl")
    assert [run.at[:10] for run in record.history] == ["2026-11-20"]
    assert len(load_history(log_dir)) == 2


def test_what_is_no_run_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(UsageError, match="build first"):
        find_last_run(tmp_path)
    with pytest.raises(UsageError, match="cannot be read"):
        load_record(tmp_path / "missing.jsonl")
    with pytest.raises(UsageError, match="no line of a run"):
        load_record(write_lines(tmp_path / "20261120T010000Z-run-a.jsonl", "nothing"))


def test_the_page_holds_no_script_fetches_nothing_and_shows_names_as_text(log_dir):
    page = render_page(load_record(find_last_run(log_dir)))
    tags = Tags()
    tags.feed(page)
    tags.close()
    assert not {"script", "img", "link", "iframe", "a", "object"} & set(tags.tags)
    assert not [each for each in tags.attributes if each[1].startswith("on") or each[1] in ("href", "src", "style")]
    assert r"""<script>alert(1)</script>"'|`x`](http://e.example)\x1b[31m\u202e""" in "".join(tags.text)
    policy = next(value for tag, name, value in tags.attributes if tag == "meta" and value and "default-src" in value)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in re.sub(r'xmlns="[^"]*"', "", page).replace("http://e.example", "").replace("http-equiv", "")
    assert "\x1b" not in page


def test_the_page_has_its_charts_and_figures(log_dir):
    page = render_page(load_record(find_last_run(log_dir)))
    for title in (
        "Throughput",
        "Calls in flight",
        "Latency of LLM calls",
        "Slowest repositories",
        "Duration",
        "Tokens",
    ):
        assert f"<b>{title}</b>" in page
    assert "p50 100 ms, p95 10 s, p99 10 s" in page
    assert "1 of 3 repositories failed" in page
    for drawing in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        ET.fromstring(drawing)
    assert "slow: summarise 6.0 s" in page, "what a bar is, for the pointer"
    assert page == render_page(load_record(find_last_run(log_dir))), "the same run makes the same page"


def test_a_run_with_nothing_to_show_makes_a_page_without_charts():
    page = render_page(
        read_record([json.dumps({"kind": "run", "at": "2026-11-27", "repositories": {"up_to_date": 5}})])
    )
    assert "<svg" not in page
    assert "5 up to date" in page


def test_markdown_shows_names_as_text_and_its_charts_cannot_be_broken_out_of(log_dir):
    record = load_record(find_last_run(log_dir))
    text = render_markdown(add_history(record, [*record.history, *(read_record([json.dumps(run_line(26))]).history)]))
    outside = re.sub(r"```mermaid.*?```", "", text, flags=re.DOTALL)
    assert r"\<script\>alert(1)\</script\>" in outside
    assert not re.search(r"(?<!\\)[<`]", outside), "no HTML, no code"
    assert "http://" not in outside, "no link"
    rows = [line for line in outside.splitlines() if line.startswith("|") and "SourceError" in line]
    assert len(rows) == 1
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 4, "three cells"
    charts = re.findall(r"```mermaid\n(.*?)```", text, flags=re.DOTALL)
    assert any("pie showData" in chart for chart in charts)
    assert any("xychart-beta" in chart for chart in charts)
    for chart in charts:
        theme = json.loads(re.search(r"%%\{init: (.*)\}%%", chart)[1])
        assert theme["theme"] == "base"


def test_equal_days_are_told_apart_in_a_chart(log_dir):
    lines = [json.dumps(run_line(27, at=f"2026-11-27T0{n}:00:00")) for n in (1, 2)]
    history = [read_record([line]).run for line in lines]
    text = render_markdown(add_history(read_record([lines[1]]), history))
    assert 'x-axis ["01:00", "02:00"]' in text


@pytest.mark.parametrize(
    "text", ["a|b", "a\nb", "<b>", "[x](y)", "`code`", "*x*", "_x_", "~~x~~", "www.e.example", "$x$"]
)
def test_markup_is_escaped(text):
    escaped = escape_markdown(text)
    assert "\n" not in escaped
    for char in "|<>[]`*_~$":
        assert not re.search(rf"(?<!\\){re.escape(char)}", escaped)
    assert "www.e" not in escaped


def test_json_holds_the_same_figures(log_dir):
    path = find_last_run(log_dir)
    page = write_report(load_record(path), path)
    assert page.name == "20261127T010000Z-run-cccc-report.html"
    told = json.loads(page.with_suffix(".json").read_text())
    assert told["run"]["latency_ms"] == {"p50": 100.0, "p95": 10000.0, "p99": 10000.0}
    assert told["run"]["hit_rate"] == 0.25
    assert [run["seconds"] for run in told["runs"]] == [900, 627]
    assert told["failed"][0]["name"] == HOSTILE
    assert len(told["timeline"]["samples"]) == 30
    assert render_record(load_record(path)) == told
    assert page not in set(log_dir.glob("*-run-*.jsonl"))


def test_a_report_that_cannot_be_written_says_so(log_dir, tmp_path):
    path = find_last_run(log_dir)
    with pytest.raises(UsageError, match="--log-dir"):
        write_report(load_record(path), tmp_path / "missing" / path.name)


def test_the_command_makes_the_report_of_an_old_run_again(log_dir):
    name = "20261120T010000Z-run-aaaa"
    done = CliRunner().invoke(app, ["report", str(log_dir / f"{name}.jsonl")])
    assert (done.exit_code, Path(done.stdout.strip())) == (0, log_dir / f"{name}-report.html")
    last = CliRunner().invoke(app, ["report", "--log-dir", str(log_dir), "--json"])
    assert json.loads(last.stdout)["run"]["flow_run_id"] == "3403"
    missing = CliRunner().invoke(app, ["report", "--log-dir", str(log_dir / "none")])
    assert missing.exit_code == 2
    assert "build first" in missing.stderr


def test_known_failures_are_listed_apart_from_new_ones():
    lines = [repo_line("a"), repo_line("gone", "known_failure", reason="no such folder", seconds=0.0)]
    record = read_record(
        [json.dumps(each) for each in (*lines, run_line(repositories={"built": 1, "known_failure": 1}))]
    )
    assert record.failures == ()
    for text in (render_page(record), render_markdown(record)):
        assert "2 repositories, none failed" in text
        assert "Known failures, not tried again" in text
        assert "no such folder" in text
