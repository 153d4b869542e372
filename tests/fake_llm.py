"""A real HTTP server that speaks as much of the OpenAI API as the product uses, for tests.

It answers every prompt deterministically, as a function of all its bytes, counts what it is asked, and injects faults
by script. Run it by itself with `python tests/fake_llm.py --port 0`; it prints its URL.
"""

import argparse
import asyncio
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

VERBS = ("reads", "writes", "parses", "renders", "waits for", "retries", "opens", "closes", "sends", "checks")
NOUNS = ("file", "request", "answer", "header", "table", "index", "server", "client", "token", "summary", "path", "row")


@dataclass
class Answer:
    """What the server does with one request for a completion.

    Give `text` to answer, `status` (and `error`) to refuse, or one of the faults.
    """

    text: str | None = None
    finish_reason: str = "stop"
    status: int = 200
    error: dict[str, Any] | str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    hang: bool = False
    """Never answer."""
    until: threading.Event | None = None
    """Answer when it is set."""
    disconnect: bool = False
    """Break the connection instead of answering."""
    drip_s: float = 0.0
    """Send the body a byte at a time, with such a pause after each."""
    drip_headers_s: float = 0.0
    """Send headers one by one, without end, with such a pause after each."""
    hang_after_bytes: int = 0
    """Stop for ever after so many bytes of the body."""
    half_body: bool = False
    """Break the connection in the middle of the body."""
    huge_bytes: int = 0
    """Send a body of so many bytes."""
    raw: bytes | None = None
    """Send this body as it is."""
    no_usage: bool = False


def error(status: int, message: str, *, code: str | None = None, **headers: str) -> Answer:
    """A refusal in the form of the OpenAI API; headers with `_` for `-`."""
    body = {"error": {"message": message, "type": "fake", "param": None, "code": code}}
    return Answer(status=status, error=body, headers={k.replace("_", "-"): v for k, v in headers.items()})


def too_long(limit: int, prompt: int) -> Answer:
    """vLLM's refusal of a prompt that does not fit."""
    return error(
        400,
        f"This model's maximum context length is {limit} tokens. However, your prompt contains at least {prompt} input "
        "tokens. Please reduce the length of the input prompt.",
    )


def unauthorised() -> Answer:
    return error(401, "Incorrect API key provided: sk-sec***ret.", code="invalid_api_key")


def unknown_model(model: str) -> Answer:
    return error(404, f"The model `{model}` does not exist.", code="NotFoundError")


Script = Callable[[dict[str, Any], int], Answer | None]
"""Called with the request's body and how often this prompt was asked before; None: the usual answer."""


class FakeLLM:
    """The server. `base_url` is for `llm.base_url`; the counters may be read from any thread."""

    def __init__(
        self, *, model: str = "fake", max_model_len: int | None = 8192, api_key: str = "", chars_per_token: float = 4.0
    ) -> None:
        self.model = model
        self.max_model_len = max_model_len
        self.api_key = api_key
        self.chars_per_token = chars_per_token
        self.script: Script | None = None
        self.delay_s = 0.0
        """How long every answer takes."""
        self.slots = 0
        """So many answers are made at a time, the others wait, as `/metrics` shows; 0: no such bound."""
        self.models_delay_s = 0.0
        """How long it takes to say which models it serves."""
        self.tokenizes = True
        """Whether it counts tokens, as vLLM does and others do not."""
        self.base_url = ""
        self.reset()

    def reset(self) -> None:
        """Forget what was counted, and the faults that are still to come."""
        self.calls = 0
        """Requests for completions, whatever became of them."""
        self.prompts: Counter[str] = Counter()
        """How often each prompt (SHA-256 of its messages) was asked."""
        self.requests: list[dict[str, Any]] = []
        """The bodies, in the order of their coming."""
        self.request_headers: list[dict[str, str]] = []
        self.in_flight = 0
        self.max_in_flight = 0
        self.seconds: list[float] = []
        """How long each request took, from its coming until it was answered or its client hung up."""
        self.answered: list[tuple[float, int]] = []
        """When each request ended (`time.monotonic`), and its client's port."""
        self.ports: set[int] = set()
        """Of the clients that wait for an answer."""
        self.client_port = 0
        """Of the client whose request came last: a script may want to know who asks."""
        self.models_calls = 0
        self.tokenize_calls = 0
        self.working = 0
        self._turn: asyncio.Condition | None = None
        self._faults: list[Answer] = []
        self._called = threading.Event()

    def wait_for_call(self, timeout_s: float) -> bool:
        """Wait for a request for a completion to come in; blocks."""
        return self._called.wait(timeout_s)

    def fail_next(self, *answers: Answer) -> None:
        """Give these answers to the next requests for a completion, one each."""
        self._faults.extend(answers)

    def count_tokens(self, text: str) -> int:
        return max(1, round(len(text) / self.chars_per_token))

    def answer_text(self, messages: list[dict[str, str]]) -> str:
        """The usual answer: a sentence and keywords made of the hash of every byte of the prompt."""
        seed = hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).digest()
        verbs = [VERBS[byte % len(VERBS)] for byte in seed[:3]]
        nouns = [NOUNS[byte % len(NOUNS)] for byte in seed[3:6]]
        does = ", ".join(f"{verb} the {noun}" for verb, noun in zip(verbs, nouns, strict=True))
        return f"Text {seed.hex()[:12]}: {does}.\nKeywords: {nouns[0]}, {nouns[1]} {nouns[2]}"

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", self._completions)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_get("/metrics", self._metrics)
        return app

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        prompt = hashlib.sha256(json.dumps(body["messages"], sort_keys=True).encode()).hexdigest()
        before = self.prompts[prompt]
        self.calls += 1
        self.prompts[prompt] += 1
        self.requests.append(body)
        self.request_headers.append(dict(request.headers))
        self.in_flight += 1
        self._called.set()
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        assert request.transport is not None
        self.client_port = port = request.transport.get_extra_info("peername")[1]
        self.ports.add(port)
        came = time.monotonic()
        try:
            answer = self._faults.pop(0) if self._faults else None
            if answer is None and self.script is not None:
                answer = self.script(body, before)
            return await self._send(request, body, answer or self._refusal(request, body) or Answer())
        finally:
            self.in_flight -= 1
            self.ports.discard(port)
            self.answered.append((time.monotonic(), port))
            self.seconds.append(time.monotonic() - came)

    def _refusal(self, request: web.Request, body: dict[str, Any]) -> Answer | None:
        """What a real server refuses: a wrong key, another model, a prompt that does not fit."""
        if self.api_key and request.headers.get("Authorization") != f"Bearer {self.api_key}":
            return unauthorised()
        if body["model"] != self.model:
            return unknown_model(body["model"])
        tokens = self._prompt_tokens(body)
        if self.max_model_len and tokens + body.get("max_tokens", 0) > self.max_model_len:
            return too_long(self.max_model_len, min(tokens, self.max_model_len + 1))
        return None

    async def _send(self, request: web.Request, body: dict[str, Any], answer: Answer) -> web.StreamResponse:
        await self._work(answer.delay_s + self.delay_s)
        if answer.hang:
            await asyncio.sleep(3600)
        if answer.until is not None:
            await asyncio.to_thread(answer.until.wait, 3600)
        if answer.disconnect:
            assert request.transport is not None
            request.transport.close()
            raise web.HTTPServiceUnavailable  # nobody is there to read it
        if answer.drip_headers_s:
            return await self._drip_headers(request, answer.drip_headers_s)
        if answer.hang_after_bytes or answer.half_body:
            return await self._break_off(request, body, answer)
        if answer.huge_bytes:
            return await self._stream(request, answer, (b" " * 2**16 for _ in range(answer.huge_bytes // 2**16 + 1)))
        if answer.raw is not None:
            return web.Response(body=answer.raw, status=answer.status, headers=answer.headers)
        if answer.status >= 300:
            return web.json_response(answer.error or {}, status=answer.status, headers=answer.headers)
        completion = self._completion(body, answer)
        if answer.drip_s:
            data = json.dumps(completion).encode()
            return await self._stream(request, answer, (data[i : i + 1] for i in range(len(data))))
        return web.json_response(completion, headers=answer.headers)

    async def _work(self, seconds: float) -> None:
        if not self.slots:
            await asyncio.sleep(seconds)
            return
        self._turn = self._turn or asyncio.Condition()
        async with self._turn:
            await self._turn.wait_for(lambda: self.working < self.slots)
            self.working += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self.working -= 1
            async with self._turn:
                self._turn.notify()

    async def _drip_headers(self, request: web.Request, pause_s: float) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(b"HTTP/1.1 200 OK\r\n")
        for n in range(10**6):
            if request.transport.is_closing():
                break
            request.transport.write(f"X-Header-{n}: x\r\n".encode())
            await asyncio.sleep(pause_s)
        raise web.HTTPServiceUnavailable  # nobody is there to read it

    async def _break_off(self, request: web.Request, body: dict[str, Any], answer: Answer) -> web.StreamResponse:
        data = json.dumps(self._completion(body, answer)).encode()
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(data))})
        await response.prepare(request)
        await response.write(data[: answer.hang_after_bytes or len(data) // 2])
        if answer.hang_after_bytes:
            await asyncio.sleep(3600)
        assert request.transport is not None
        request.transport.close()
        return response

    async def _stream(self, request: web.Request, answer: Answer, chunks: Iterator[bytes]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json", **answer.headers})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
            await asyncio.sleep(answer.drip_s)
        await response.write_eof()
        return response

    def _completion(self, body: dict[str, Any], answer: Answer) -> dict[str, Any]:
        text = self.answer_text(body["messages"]) if answer.text is None else answer.text
        usage = {
            "prompt_tokens": self._prompt_tokens(body),
            "completion_tokens": self.count_tokens(text),
            "total_tokens": self._prompt_tokens(body) + self.count_tokens(text),
        }
        message = {"role": "assistant", "content": text}
        return {
            "id": "fake",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": answer.finish_reason}],
            "usage": None if answer.no_usage else usage,
        }

    def _prompt_tokens(self, body: dict[str, Any]) -> int:
        return sum(self.count_tokens(message["content"]) for message in body["messages"])

    async def _models(self, request: web.Request) -> web.Response:
        self.models_calls += 1
        await asyncio.sleep(self.models_delay_s)
        if self.api_key and request.headers.get("Authorization") != f"Bearer {self.api_key}":
            refusal = unauthorised()
            return web.json_response(refusal.error, status=refusal.status)
        card: dict[str, Any] = {"id": self.model, "object": "model", "created": 0, "owned_by": "fake"}
        if self.max_model_len:
            card |= {"root": f"/models/{self.model}", "max_model_len": self.max_model_len}
        return web.json_response({"object": "list", "data": [card]})

    async def _tokenize(self, request: web.Request) -> web.Response:
        self.tokenize_calls += 1
        if not self.tokenizes:
            raise web.HTTPNotFound
        body = await request.json()
        count = self._prompt_tokens(body) if "messages" in body else self.count_tokens(body["prompt"])
        return web.json_response({"count": count, "max_model_len": self.max_model_len, "tokens": []})

    async def _metrics(self, _: web.Request) -> web.Response:
        working = self.working if self.slots else self.in_flight
        running = f'vllm:num_requests_running{{model_name="{self.model}"}} {working}.0\n'
        waiting = f'vllm:num_requests_waiting{{model_name="{self.model}"}} {self.in_flight - working}.0\n'
        return web.Response(text=running + waiting)


async def start(server: FakeLLM, port: int = 0, host: str = "127.0.0.1") -> web.AppRunner:
    """Serve on an address; `server.base_url` is set then."""
    runner = web.AppRunner(server.app(), access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    host, bound = runner.addresses[0][:2]
    server.base_url = f"http://{host}:{bound}/v1"
    return runner


@contextmanager
def running(server: FakeLLM, port: int = 0, host: str = "127.0.0.1") -> Iterator[FakeLLM]:
    """Serve from a thread of its own, as long as the block runs."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fake-llm", daemon=True)
    thread.start()
    runner = asyncio.run_coroutine_threadsafe(start(server, port, host), loop).result(30)
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--model", default="fake")
    parser.add_argument("--max-model-len", type=int, default=8192)
    parser.add_argument("--delay-s", type=float, default=0.0)
    arguments = parser.parse_args()

    async def serve() -> None:
        server = FakeLLM(model=arguments.model, max_model_len=arguments.max_model_len)
        server.delay_s = arguments.delay_s
        await start(server, arguments.port)
        print(server.base_url, flush=True)
        await asyncio.Event().wait()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
