"""The simulated server that figures rest on: its slots, its queue, its answers; and the dry run that stands for it."""

import asyncio
import json
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from benchmarks import harness
from benchmarks.dry_run import SERVED, dry_run
from benchmarks.schedule import list_schedule
from benchmarks.server import MODEL, SERVICE_S, build_answer
from summidx.engine import Engine
from summidx.records import RepoRef, UnitFailure
from summidx.settings import load_settings

SCALE = 0.2


def messages(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": "Describe."}, {"role": "user", "content": text}]


async def ask_all(base_url: str, texts: list[str]) -> list[dict[str, Any]]:
    async with aiohttp.ClientSession() as session:

        async def ask(number: int, text: str) -> dict[str, Any]:
            await asyncio.sleep(0.005 * number)  # so that they come in this order
            body = {"model": MODEL, "messages": messages(text)}
            async with session.post(f"{base_url}/chat/completions", json=body) as response:
                answer: dict[str, Any] = await response.json()
                return answer

        return await asyncio.gather(*(ask(number, text) for number, text in enumerate(texts)))


def test_an_answer_follows_from_every_byte_of_the_prompt() -> None:
    assert build_answer(messages("x")) == build_answer(messages("x"))
    assert len({build_answer(messages(text)) for text in ("x", "y", "x ", "")}) == 4
    assert build_answer([{"role": "user", "content": "x"}]) != build_answer([{"role": "system", "content": "x"}])


def test_slots_are_never_overfilled_and_the_queue_keeps_its_order() -> None:
    texts = [f"prompt {number}" for number in range(6)]
    with harness.running_server(slots=2, service_scale=SCALE) as server:
        answers = asyncio.run(ask_all(server.base_url, texts))
        record = server.record()
    assert [each["choices"][0]["message"]["content"] for each in answers] == [build_answer(messages(t)) for t in texts]
    assert (record["received"], record["finished"], record["running"], record["waiting"]) == (6, 6, 0, 0)
    requests = sorted(record["requests"], key=lambda request: request[1])
    assert [prompt for *_, prompt in requests] == [build_answer(messages(text))[5:21] for text in texts]
    for _, started_s, ended_s, _ in requests:
        assert ended_s - started_s >= SERVICE_S * SCALE - 0.002
        running = [r for r in requests if r[1] <= started_s < r[2]]
        assert len(running) <= 2


def test_metrics_say_what_runs_and_what_waits_as_vllm_does() -> None:
    async def look(base_url: str) -> str:
        asking = asyncio.create_task(ask_all(base_url, ["a", "b", "c"]))
        metrics = f"{base_url.removesuffix('/v1')}/metrics"
        async with aiohttp.ClientSession() as session:
            text = ""
            deadline = time.monotonic() + 30
            while "waiting{" not in text or '"} 2.0' not in text.splitlines()[3]:
                assert time.monotonic() < deadline, text
                async with session.get(metrics) as response:
                    text = await response.text()
        await asking
        return text

    with harness.running_server(slots=1, service_scale=1.0) as server:
        text = asyncio.run(look(server.base_url))
    assert text.splitlines()[1] == f'vllm:num_requests_running{{engine="0",model_name="{MODEL}"}} 1.0'
    assert text.splitlines()[3] == f'vllm:num_requests_waiting{{engine="0",model_name="{MODEL}"}} 2.0'


def test_a_client_that_hangs_up_frees_its_slot() -> None:
    async def hang_up(base_url: str) -> None:
        impatient = aiohttp.ClientTimeout(total=0.1)
        async with aiohttp.ClientSession(timeout=impatient) as session:
            with pytest.raises(TimeoutError):
                await session.post(f"{base_url}/chat/completions", json={"model": MODEL, "messages": messages("x")})
        await asyncio.sleep(0.1)

    with harness.running_server(slots=1, service_scale=1000.0) as server:
        asyncio.run(hang_up(server.base_url))
        status = server.status()
    assert (status["received"], status["aborted"], status["running"], status["finished"]) == (1, 1, 0, 0)


def test_a_prompt_is_refused_on_request() -> None:
    with harness.running_server(slots=1, service_scale=0.0, refuse="poison") as server:
        body = json.dumps({"model": MODEL, "messages": messages("some poison")}).encode()
        request = urllib.request.Request(f"{server.base_url}/chat/completions", data=body)
        with pytest.raises(urllib.error.HTTPError, match="400") as refused:
            urllib.request.urlopen(request, timeout=30)
        refused.value.close()


def test_a_dry_run_asks_what_a_real_build_asks(tmp_path: Path) -> None:
    """Call for call: the list schedule is of the very calls that are measured."""
    repo = tmp_path / "repo"
    (repo / "package").mkdir(parents=True)
    source = "def {name}(path):\n    data = open(path).read()\n    lines = data.split()\n    return len(lines)\n"
    (repo / "package" / "a.py").write_text(source.format(name="first") + source.format(name="second"))
    (repo / "package" / "b.py").write_text(source.format(name="first"))
    expected = dry_run(RepoRef("repo", str(repo)))
    with harness.running_server(slots=4, service_scale=0.0) as server:
        llm = {"provider": "openai", "base_url": server.base_url}
        settings = load_settings({"llm": llm, "index_root": str(tmp_path / "index")})
        with closing(Engine(settings, served_model=SERVED)) as engine:
            summarized = engine.summarize(expected.tree)
        record = server.record()
    assert not [each for each in summarized.outcomes.values() if isinstance(each, UnitFailure)]
    assert {each.key for each in summarized.outcomes.values()} - {""} == expected.keys
    assert record["received"] == len(expected.keys)
    assert list_schedule(expected.jobs, 64).longest_path_s == 4.0  # function, file, directory, repository
