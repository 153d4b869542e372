"""What states say."""

from flows.messages import FAILURES_SHOWN, REASON_CHARS, describe_build, describe_failures
from summidx.records import BuildReport, Outcome, Usage

COUNTS = {"function": {"ok": {"llm": 1200}, "degraded": {"extractive": 3}}, "repo": {"failed": {"llm": 1}}}
USAGE = Usage(llm_calls=1150, cache_hits=54, tokens_in=654321, tokens_out=45678, durations_s={"read": 1.5, "embed": 2})


def _report(outcome, counts=COUNTS):
    return BuildReport(name="flask", outcome=outcome, commit="", generation="g", counts=counts, skips={}, usage=USAGE)


def test_a_build_says_documents_by_status_calls_tokens_hits_and_seconds():
    assert describe_build(_report(Outcome.BUILT)) == (
        "built: 1,204 documents (3 degraded, 1 failed); 1,150 LLM calls, 54 cache hits, 654,321 tokens in, "
        "45,678 out; 3.5 s"
    )


def test_what_is_up_to_date_cost_nothing():
    assert describe_build(_report(Outcome.UP_TO_DATE, {"repo": {"ok": {"llm": 1}}})) == "up to date: 1 document"


def test_failures_are_named_with_their_reasons_the_first_ones_at_least():
    failures = [(f"r{i}", "StoreError", "no space") for i in range(FAILURES_SHOWN + 3)]
    message = describe_failures(failures, 120)
    assert message.startswith("11 of 120 repositories failed: r0 (StoreError: no space), r1 (StoreError: no space), ")
    assert message.endswith("r7 (StoreError: no space) and 3 more")


def test_a_killed_worker_has_no_error():
    assert describe_failures([("r", "", "it was killed")], 1) == "1 of 1 repository failed: r (it was killed)"


def test_names_and_reasons_that_are_not_ours_forge_nothing():
    message = describe_failures([("a\x1b[1m\n2 of 2", "E", "x\u202e\n" + "y" * 500)], 1)
    assert message.isprintable()
    assert len(message) < REASON_CHARS + 80
