"""What a real vLLM answers when something is wrong, and what becomes of it.

The faults that it cannot be made to have on demand are the simulator's (tests/fake_llm.py).
"""

import asyncio
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from summidx.accounting import CallRecord
from summidx.errors import Unauthorised, UnknownModel
from summidx.records import Level, Status, SummaryRequest, Unit
from summidx.settings import LLMSettings, Provider
from summidx.summarizers import ServedModel
from summidx.summarizers.openai_compatible import OpenAICompatibleSummarizer
from summidx.summarizers.select import probe_model

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


@pytest.fixture
def make_settings(vllm_server):
    def make(**fields) -> LLMSettings:
        own = {"provider": Provider.OPENAI, "base_url": vllm_server.base_url, "api_key": vllm_server.api_key}
        return LLMSettings(**{**own, "model": vllm_server.model, **fields})

    return make


def build_request(source: str) -> SummaryRequest:
    unit = Unit(
        id="p.py::f",
        level=Level.FUNCTION,
        path="p.py",
        name="f",
        qualified_name="f",
        language="python",
        start_line=1,
        end_line=1 + source.count("\n"),
        parent_id=None,
        own_source=source,
        signature="def f()",
    )
    return SummaryRequest(unit)


def ask(settings: LLMSettings, served: ServedModel | None, source: str):
    async def run():
        summarizer = OpenAICompatibleSummarizer(settings, served)
        record = CallRecord()
        try:
            return await summarizer.answer(summarizer.prepare(build_request(source)), record), record
        finally:
            await summarizer.aclose()

    return asyncio.run(run())


def wait_until(what, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.1)
    return bool(what())


def test_a_model_that_is_not_served_is_named_beside_those_that_are(make_settings):
    with pytest.raises(UnknownModel, match=r"'other'.*tiny"):
        probe_model(make_settings(model="other"))
    with pytest.raises(UnknownModel):
        ask(make_settings(model="other"), ServedModel("other"), "def f(): return 1")


def test_a_wrong_key_is_refused_and_not_shown(make_settings):
    settings = make_settings(api_key="the-wrong-key")
    with pytest.raises(Unauthorised, match="OPENAI_API_KEY") as probed:
        probe_model(settings)
    with pytest.raises(Unauthorised) as asked:
        ask(settings, ServedModel("tiny"), "def f(): return 1")
    assert "the-wrong-key" not in f"{probed.value} {asked.value}"


def test_the_server_says_what_it_serves_and_how_long_its_context_is(make_settings):
    served = probe_model(make_settings(model=""))
    assert (served.id, served.max_model_len) == ("tiny", 4096)
    assert served.root.endswith("tiny-model")


@pytest.mark.parametrize("counts", [True, False], ids=["counted before", "refused by the server"])
def test_a_prompt_that_is_longer_than_the_context_is_shortened_and_answered(make_settings, counts):
    """Digits have many more tokens than the estimate says, and this is one word, so that nothing can be split."""
    source = "\n".join(f"{n * n * n * 7919:030d}" for n in range(400))
    served = ServedModel("tiny", "", 4096 if counts else 20_000)  # 20,000 is not so: the server will say
    settings = make_settings(prompt_tokens=8000)

    summary, record = ask(settings, served, source)

    assert summary.status is Status.OK
    assert summary.truncated
    # Uncounted, a prompt may fill the context: vLLM takes it, and lowers the limit on the answer.
    assert summary.tokens_in + (settings.max_tokens_function if counts else 1) <= 4096
    assert record.requests == 1 + (0 if counts else record.retries["ContextTooLong"])


def test_what_was_asked_is_given_up_when_we_stop(vllm_server, make_settings):
    """Answers that would take a minute: the server does not go on with what nobody waits for."""
    endless = {"ignore_eos": True, "min_tokens": 1500}
    settings = make_settings(max_tokens_function=1500, extra_body=endless)
    summarizer = OpenAICompatibleSummarizer(settings, ServedModel("tiny", "", 4096))

    async def run() -> None:
        calls = [
            asyncio.create_task(summarizer.answer(summarizer.prepare(build_request(f"def f(): {n}")), CallRecord()))
            for n in range(32)
        ]
        try:
            begun = await asyncio.to_thread(wait_until, lambda: running(vllm_server) >= 8, 60)
            assert begun, (calls, vllm_server.log.read_text(errors="replace")[-2000:])
        finally:
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            await summarizer.aclose()

    asyncio.run(run())
    assert wait_until(lambda: running(vllm_server) == 0, 15)


def running(vllm_server) -> int:
    return vllm_server.read_metric("vllm:num_requests_running") + vllm_server.read_metric("vllm:num_requests_waiting")


def test_a_server_that_is_killed_and_started_again_costs_no_document(vllm_server, environment, repos, tmp_path):
    """SIGKILL in the middle of a run, 5 s of nothing, the model loaded again: the run waits for it."""
    command = [
        *(sys.executable, ROOT / "flows" / "build.py", "--json", "--index-root", tmp_path / "index"),
        *("--llm-provider", "openai", "--llm-base-url", vllm_server.base_url, "--llm-model", vllm_server.model),
        *("--llm-concurrency", "4", "--embedding-model", "hashing", "--repo", repos["pathspec"]),
    ]
    answered = vllm_server.read_metric("vllm:request_success_total")
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        out: list[str] = []
        reading = threading.Thread(target=lambda: out.extend(process.communicate()))
        reading.start()
        assert wait_until(lambda: vllm_server.read_metric("vllm:request_success_total") >= answered + 10, 120)
        vllm_server.kill()
        time.sleep(5)
        was_running = process.poll() is None
        vllm_server.start()
        reading.join()
    assert was_running
    assert process.returncode == 0, out[1]
    (report,) = [each["report"] for each in json.loads(out[0])["repositories"]]
    assert "failed" not in {status for by_status in report["counts"].values() for status in by_status}
    assert report["usage"]["retries"].keys() & {"ServerFault", "Overloaded"}
    assert vllm_server.read_metric("vllm:request_success_total") > 10  # of the new one
