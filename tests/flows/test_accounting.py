"""What a run cost: in its report, and as JSON lines beside its log."""

import json

import pytest
from fake_llm import error


@pytest.fixture
def lines(build):
    """The lines of accounting of the last run, those of repositories by name."""

    def read():
        (path,) = sorted((build.cwd / "logs" / "summary_index").glob("*-run-*.jsonl"))[-1:]
        assert path.with_suffix(".log").exists()
        found = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line["kind"] for line in found] == ["repository"] * (len(found) - 1) + ["run"]
        return {line["name"]: line for line in found[:-1]}, found[-1]

    return read


def options(fake_llm):
    return ("--llm-provider", "openai", "--llm-model", "fake", "--llm-base-url", fake_llm.base_url)


def test_what_a_run_cost_is_told_by_repository_and_in_all(build, fake_llm, repos, lines, prefect_env):
    build.extra_env["OPENAI_API_KEY"] = "sk-very-secret"
    report = build.report("--repo", repos / "alpha", "--repo", repos / "beta", *options(fake_llm))

    by_name, run = lines()
    assert set(by_name) == {"alpha", "beta"}
    for name, line in by_name.items():
        usage = report["by_name"][name]["report"]["usage"]
        assert (line["ending"], line["why"], line["reason"]) == ("built", "new", "")
        assert (line["llm_calls"], line["tokens_in"]) == (usage["llm_calls"], usage["tokens_in"])
        assert line["counts"] == build.current(name)["counts"]
        assert line["build_key"] == build.current(name)["build_key"]
        assert set(line["seconds_by_step"]) == {"read", "parse", "summarise", "embed", "write"}
        assert line["latency_ms"]["p50"] <= line["latency_ms"]["p99"]
        assert line["vectors_embedded"] > 0
    totals = report["totals"]
    assert run["repositories"] == {"built": 2}
    assert (run["requests"], totals["requests"]) == (fake_llm.calls, fake_llm.calls)
    assert run["tokens_in"] == totals["tokens_in"] == sum(line["tokens_in"] for line in by_name.values()) > 0
    assert json.loads(run["summarizer"])["model"] == "fake"
    assert run["embedding_model"] == "hashing/256"

    again = build.report("--repo", repos / "alpha", "--repo", repos / "beta", *options(fake_llm))
    by_name, run = lines()
    assert [line["ending"] for line in by_name.values()] == ["up_to_date"] * 2
    assert (run["requests"], again["totals"]["requests"], again["totals"]["cache_hits"]) == (0, 0, 0)

    for path in (build.cwd / "logs").rglob("*.jsonl"):
        told = path.read_text()
        assert "sk-very-secret" not in told
        assert "for item in items" not in told


@pytest.mark.parametrize("processes", [1, 2])
def test_what_a_failed_repository_cost_does_not_vanish(build, fake_llm, repos, lines, processes):
    """Its functions are answered and paid for; then the server refuses everything else."""

    def refuse_parents(body, _):
        is_function = body["max_tokens"] == 200
        return None if is_function else error(400, "no")

    fake_llm.script = refuse_parents
    build.extra_env["SUMMIDX_MAX_FAILED"] = "0"
    where = build.cwd.parent / "many"
    for number in range(5):
        (where / f"d{number}").mkdir(parents=True)
        (where / f"d{number}" / "code.py").write_text(SOURCE)
    report = build.report(
        "--repo", f"many={where}", *options(fake_llm), "--num-processes", str(processes), "--max-retries", "0", code=1
    )

    many = report["by_name"]["many"]
    assert many["ending"] == "failed"
    assert "documents failed" in many["reason"]
    usage = many["cost"]["usage"]
    assert usage["tokens_in"] > 0
    assert usage["requests"] == fake_llm.calls
    assert report["totals"]["requests"] == fake_llm.calls
    by_name, run = lines()
    assert by_name["many"]["requests"] == run["requests"] == fake_llm.calls
    assert by_name["many"]["counts"]["file"]["failed"]["none"] == 5
    assert by_name["many"]["tokens_in"] == run["tokens_in"] == usage["tokens_in"]


def test_a_run_says_how_far_off_the_plan_was(build, fake_llm, repos):
    named = ("--repo", repos / "alpha", "--repo", repos / "beta", *options(fake_llm))
    assert build.report(*named[:2], *options(fake_llm))["prediction"] is None

    predicted = build.plan(*named)
    assert [(each["name"], each["why"]) for each in predicted["repositories"]] == [("beta", "new")]
    check = build.report(*named)["prediction"]

    assert check["repositories"] == 1
    assert check["predicted"]["calls"] == check["actual"]["calls"] == predicted["calls"] > 0
    assert check["actual"]["seconds"] > 0
    assert build.plan(*named)["last_prediction"] == check


SOURCE = '''def total(items):
    """Sum the items."""
    result = 0
    for item in items:
        result += item
    return result
'''
