"""What the end of a run says in a terminal."""

import io
import logging

import pytest

from flows.logs import log_file
from flows.progress import RepoResult, build_report
from flows.terminal import Terminal
from summidx.records import BuildReport, Fault, Outcome, Status, Usage
from summidx.settings import load_settings


@pytest.fixture
def shown():
    """What is shown of one repository's build."""

    def show(counts, faults=(), **usage):
        report = BuildReport(
            name="fl",
            outcome=Outcome.BUILT,
            commit="",
            generation="",
            counts=counts,
            skips={},
            usage=Usage(durations_s={}, **usage),
            faults=faults,
        )
        stream = io.StringIO()
        results = [RepoResult("fl", "built", "new", report)]
        Terminal(stream).ended(build_report(flow_run_id="", settings=load_settings(), seconds=1.0, results=results))
        return stream.getvalue()

    return show


def test_documents_that_failed_within_the_number_allowed_are_named(shown):
    counts = {"function": {"ok": {"llm": 5}, "failed": {"none": 3}}}
    fault = Fault("a.py::f", Status.FAILED, "InvalidOutput: it repeats itself")
    text = shown(counts, (fault,))
    assert (
        "warning: 3 documents failed in fl (first: a.py::f: InvalidOutput: it repeats itself); "
        "the next run tries them again\n"
    ) in text
    assert "warning" not in shown({"function": {"ok": {"llm": 5}}})


def test_requests_beyond_the_calls_are_accounted_for(shown):
    assert "324 calls (330 requests, 4 of them for parts of long texts or in vain)" in shown(
        {}, llm_calls=324, requests=330, retries={"Overloaded": 2}
    )
    assert "324 calls (326 requests), 0" in shown({}, llm_calls=324, requests=326, retries={"Overloaded": 2})


HOSTILE = "a\x1b[31m\x9b1m\u202eb\nINFO forged\u2028c\ud800"
ESCAPED = r"a\x1b[31m\x9b1m\u202eb\nINFO forged\u2028c\ud800"


def test_what_a_repository_is_called_steers_no_terminal():
    stream = io.StringIO()
    terminal = Terminal(stream)
    terminal.tell(f"  {HOSTILE}: new")
    result = RepoResult(HOSTILE, "failed", "new", reason=HOSTILE)
    report = build_report(flow_run_id="", settings=load_settings(), seconds=1.0, results=[result])
    terminal.ended(report)
    shown = stream.getvalue()
    assert shown.startswith(f"  {ESCAPED}: new\n")
    assert shown.count(ESCAPED) == 2, "the line and the message; the table wraps"
    reason = ESCAPED.replace(r"\n", " ").replace(r"\u2028", " ")
    assert report.message() == f"1 of 1 repository failed: {ESCAPED} ({reason})"
    assert all(each.isprintable() for each in shown.replace("\n", ""))


def test_what_is_logged_forges_no_line(tmp_path, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's keeps what it cannot send to its main process
    log = logging.getLogger("summidx.test")
    with log_file(str(tmp_path), "run") as path:
        try:
            (tmp_path / HOSTILE).read_text()
        except UnicodeEncodeError as error:
            error.reason = HOSTILE
            log.exception("%s", HOSTILE)
    first, *rest = path.read_text().split("\n")
    assert first.endswith(f"summidx.test: {ESCAPED}")
    assert rest[0] == "Traceback (most recent call last):"
    assert r"a\x1b[31m\x9b1m\u202eb" in "\n".join(rest)
    assert all(each.isprintable() for line in rest for each in line)
