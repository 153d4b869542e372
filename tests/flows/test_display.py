"""A run, as a person sees it who started it in a terminal, and one who looks into the Prefect UI."""

import json
import re
import sys

import pytest
from terminals import run_in_terminal

HOSTILE = "<b>|`x`"


@pytest.fixture
def shown(build, fake_llm, repos):
    """The screens of a run of two workers, of three repositories of which one fails, while others write too."""
    fake_llm.delay_s = 0.5
    options = ("--llm-provider", "openai", "--llm-model", "fake", "--llm-base-url", fake_llm.base_url)
    command = [sys.executable, str(build.path), "--repo", str(repos / "alpha"), "--repo", f"b={repos / 'beta'}"]
    command += ["--repo", f"{HOSTILE}={repos / 'alpha'}@no-such", "--num-processes", "2", *options, *build.options]
    # Prefect's log goes to the same terminal, from all processes.
    env = build.env | {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO"}
    return run_in_terminal(command, cwd=build.cwd, env=env, columns=100, rows=30)


def test_a_run_is_seen_in_the_terminal_and_in_the_ui(shown, build, api):
    assert shown.code == 1, shown.lines
    drawn = [frame for frame in shown.frames if "of 3 repositories" in frame]
    assert any(re.search(r"in flight +\d+ +of 256", frame) for frame in drawn)
    assert any(re.search(r"worker \d (alpha|b) +(read|parse|summarise)", frame) for frame in drawn), drawn[-1]
    assert any("1 failed" in frame and "left" in frame for frame in drawn)

    text = "\n".join(shown.lines)
    assert "[3/3] " in text
    assert "1 of 3 repositories failed: <b>|`x`" in text
    assert re.search(r"Beginning flow run|Created task run|Finished in state", text), "what others wrote is above it"
    for part in ("3 repositories   ", "in flight", "tokens out", "━"):
        assert not any(part in line for line in shown.lines), "nothing of the display is left behind"
    assert shown.raw.count("\x1b[?25l") == shown.raw.count("\x1b[?25h"), "the cursor is there again"

    run = api.last_flow_run()
    artifacts = api.post("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
    by_key = {each["key"]: each for each in artifacts}
    progress = by_key["summary-index-progress"]
    assert progress["data"] == 100.0
    assert progress["description"].startswith("3 of 3 repositories; **1 failed**; ")
    table = json.loads(by_key["summary-index-repositories"]["data"])
    assert (table[0]["repository"], table[0]["state"]) == (HOSTILE, "failed")
    assert "no-such" in table[0]["note"]
    assert {row["state"] for row in table[1:]} == {"built"}
    markdown = by_key["summary-index-report"]["data"]
    assert markdown.startswith("# 1 of 3 repositories failed\n")
    assert r"\<b\>\|\`x\`" in markdown
    assert "LLM calls" in markdown

    (page,) = (build.cwd / "logs" / "summary_index").glob("*-run-*-report.html")
    assert f"Report:  logs/summary_index/{page.name}" in shown.lines
    assert "&lt;b&gt;|`x`" in page.read_text()
    told = json.loads(page.with_suffix(".json").read_text())
    assert told["run"]["repositories"] == {"built": 2, "failed": 1}
    assert told["run"]["latency_ms"]["p50"] >= 450

    tasks = {each["name"]: each["id"] for each in api.task_runs(run["id"])}
    for name, other in (("alpha", "b"), ("b", "alpha")):
        logs = api.post("/logs/filter", {"logs": {"task_run_id": {"any_": [tasks[name]]}}, "limit": 200})
        said = "\n".join(each["message"] for each in logs)
        assert "published generation" in said
        assert "calls to the LLM" in said
        assert build.current(name)["generation"] in said
        assert build.current(other)["generation"] not in said, "each under its own task"
    workers = "".join(log.read_text() for log in build.logs if "worker" in log.name)
    assert re.search(r"summidx\.pipeline: \[alpha\] published generation", workers)
    noise = [line for line in workers.splitlines() if not re.search(r" (summidx|prefect|flows)\.", line)]
    assert noise == [], "libraries are quiet"
