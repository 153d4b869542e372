"""A simulated LLM server: vLLM as its clients see it, with nothing behind it but a clock.

It has a number of slots. A request that finds one free is answered after its service time (200 ms and 2 ms for each of
80 output tokens, times `--service-scale`); the others wait their turn, first come, first served. The answer is a
function of every byte of the prompt. Written on asyncio's protocols, since it must never be what is measured: its own
ceiling is in every result (`harness.measure_ceiling`).

    python -m benchmarks.server --slots 64 --port 8000

serves `/v1/chat/completions`, `/v1/models`, `/tokenize`, `/metrics` and `/health`, and for the benchmarks `/status`
(counts, and the server's own CPU time), `/record` (each request's times, too) and `/reset`. It prints its base URL when
it is up.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MODEL = "simulated"
MAX_MODEL_LEN = 32_768
OUTPUT_TOKENS = 80
BASE_S = 0.2
PER_TOKEN_S = 0.002
SERVICE_S = BASE_S + PER_TOKEN_S * OUTPUT_TOKENS
"""Service time of one request, in seconds, at a scale of 1."""
BYTES_PER_TOKEN = 3.6

VERBS = (
    *("reads", "writes", "parses", "renders", "awaits", "retries", "opens", "closes", "sends", "checks", "merges"),
    *("splits", "caches", "signs", "sorts", "filters", "copies", "locks", "counts", "maps", "binds", "walks"),
)
NOUNS = (
    *("file", "request", "answer", "header", "table", "index", "server", "client", "token", "summary", "path", "row"),
    *("event", "session", "queue", "schema", "worker", "task", "socket", "field", "query", "record", "buffer", "key"),
)


def build_answer(messages: Sequence[Mapping[str, str]]) -> str:
    """The answer to a prompt: some 60 words that follow from each of its bytes, and a line of keywords."""
    hashed = hashlib.sha512()
    for message in messages:
        hashed.update(f"{message['role']}\0{message['content']}\0".encode("utf-8", "surrogatepass"))
    seed = hashed.digest()
    verbs = [VERBS[byte % len(VERBS)] for byte in seed]
    nouns = [NOUNS[byte % len(NOUNS)] for byte in seed]
    clauses = [f"{verbs[i]} the {nouns[i + 1]} of the {nouns[i + 2]}" for i in range(0, 30, 3)]
    terms = [f"{nouns[i]} {nouns[i + 1]}" for i in range(30, 36, 2)]
    return f"Text {seed.hex()[:16]}: {', '.join(clauses)}.\nKeywords: {', '.join(terms)}"


@dataclass(slots=True)
class Job:
    """A request for a completion on its way through the server. Times are of `time.monotonic`."""

    prompt: str
    arrived_s: float
    done: Callable[[], None]
    started_s: float = 0.0
    ended_s: float = 0.0
    gone: bool = False
    """The client went away: it takes no slot any more, or gives its slot back."""


class SimulatedLLM:
    """Slots, a queue beyond them, and the times of all that went through. Lives on one event loop."""

    def __init__(self, *, slots: int, service_s: float, refuse: str = "") -> None:
        self.slots = slots
        self.refuse = refuse
        """Prompts that hold this text are refused; "": none."""
        self.service_s = service_s
        self.running = 0
        self.waiting: deque[Job] = deque()
        self.finished: list[Job] = []
        self.received = 0
        self.aborted = 0
        self._cpu_from_s = time.process_time()

    def submit(self, job: Job) -> None:
        """Take a slot, or a place in the queue."""
        self.received += 1
        if self.running < self.slots:
            self._start(job)
        else:
            self.waiting.append(job)

    def abort(self, job: Job) -> None:
        """The client hung up: as vLLM, the request is dropped, and its slot is free at once."""
        job.gone = True
        self.aborted += 1
        if job.started_s:
            self._leave()

    def _start(self, job: Job) -> None:
        self.running += 1
        job.started_s = time.monotonic()
        if self.service_s > 0:
            loop = asyncio.get_running_loop()
            loop.call_at(loop.time() + self.service_s, self._finish, job)
        else:
            self._finish(job)

    def _finish(self, job: Job) -> None:
        if job.gone:
            return
        job.ended_s = time.monotonic()
        self.finished.append(job)
        self._leave()
        job.done()

    def _leave(self) -> None:
        self.running -= 1
        while self.waiting and self.running < self.slots:
            job = self.waiting.popleft()
            if not job.gone:
                self._start(job)

    def status(self) -> dict[str, Any]:
        """What is counted, since the last reset, and what is here now."""
        return {
            "slots": self.slots,
            "service_s": self.service_s,
            "received": self.received,
            "finished": len(self.finished),
            "aborted": self.aborted,
            "running": self.running,
            "waiting": sum(not job.gone for job in self.waiting),
            "cpu_s": time.process_time() - self._cpu_from_s,
        }

    def record(self) -> dict[str, Any]:
        """The same, and what went through, in the order of its ending: arrived, started, ended, prompt."""
        requests = [[job.arrived_s, job.started_s, job.ended_s, job.prompt] for job in self.finished]
        return {**self.status(), "requests": requests}

    def reset(self) -> None:
        """Forget what went through."""
        self.finished = []
        self.received = self.aborted = 0
        self._cpu_from_s = time.process_time()


class Connection(asyncio.Protocol):
    """One connection: HTTP/1.1 with keep-alive, one request at a time, bodies with a Content-Length."""

    def __init__(self, llm: SimulatedLLM) -> None:
        self._llm = llm
        self._data = bytearray()
        self._job: Job | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the signature is asyncio's
        """Drop what the client waited for."""
        self._transport = None
        if self._job is not None:
            self._llm.abort(self._job)

    def data_received(self, data: bytes) -> None:
        """Answer when a request is whole."""
        self._data += data
        if self._job is None:
            self._take()

    def _take(self) -> None:
        head_end = self._data.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = bytes(self._data[:head_end])
        length = _content_length(head)
        end = head_end + 4 + length
        if len(self._data) < end:
            return
        body = bytes(self._data[head_end + 4 : end])
        del self._data[:end]
        method, path, _ = head.split(b" ", 2)
        self._route(method, path.partition(b"?")[0], body)

    def _route(self, method: bytes, path: bytes, body: bytes) -> None:
        llm = self._llm
        match method, path:
            case b"POST", b"/v1/chat/completions":
                self._complete(json.loads(body))
            case b"GET", b"/v1/models":
                card = {"id": MODEL, "object": "model", "created": 0, "owned_by": "benchmarks", "root": f"/{MODEL}"}
                self._send_json({"object": "list", "data": [{**card, "max_model_len": MAX_MODEL_LEN}]})
            case b"POST", b"/tokenize":
                count = count_tokens(json.loads(body))
                self._send_json({"count": count, "max_model_len": MAX_MODEL_LEN, "tokens": []})
            case b"GET", b"/metrics":
                self._send(200, _render_metrics(llm).encode(), b"text/plain; version=0.0.4")
            case b"GET", b"/health":
                self._send(200, b"", b"text/plain")
            case b"GET", b"/status":
                self._send_json(llm.status())
            case b"GET", b"/record":
                self._send_json(llm.record())
            case b"POST", b"/reset":
                llm.reset()
                self._send_json({})
            case _:
                self._send(404, b'{"error": {"message": "no such path"}}', b"application/json")

    def _complete(self, body: dict[str, Any]) -> None:
        if self._llm.refuse and any(self._llm.refuse in message["content"] for message in body["messages"]):
            self._send(400, b'{"error": {"message": "refused", "code": 400}}', b"application/json")
            return
        text = build_answer(body["messages"])
        usage = {"prompt_tokens": count_tokens(body), "completion_tokens": OUTPUT_TOKENS}
        usage["total_tokens"] = sum(usage.values())
        message = {"role": "assistant", "content": text}
        answer = {
            "id": "simulated",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": usage,
        }
        data = json.dumps(answer).encode()

        def done() -> None:
            self._job = None
            self._send(200, data, b"application/json")

        # The first 16 hex digits of the answer are those of the prompt's hash: enough to tell prompts apart.
        job = Job(prompt=text[5:21], arrived_s=time.monotonic(), done=done)
        self._job = job
        self._llm.submit(job)

    def _send_json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), b"application/json")

    def _send(self, status: int, body: bytes, content_type: bytes) -> None:
        if self._transport is None:
            return
        reason = {200: b"OK", 400: b"Bad Request", 404: b"Not Found"}[status]
        self._transport.write(
            b"HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s"
            % (status, reason, content_type, len(body), body)
        )
        if self._data and self._job is None:
            self._take()


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def count_tokens(body: Mapping[str, Any]) -> int:
    """Tokens of a prompt, as this server counts: roughly."""
    texts = [message["content"] for message in body["messages"]] if "messages" in body else [body.get("prompt", "")]
    return 8 + int(sum(map(len, texts)) / BYTES_PER_TOKEN)


def _render_metrics(llm: SimulatedLLM) -> str:
    waiting = sum(not job.gone for job in llm.waiting)
    label = f'{{engine="0",model_name="{MODEL}"}}'
    return (
        "# TYPE vllm:num_requests_running gauge\n"
        f"vllm:num_requests_running{label} {float(llm.running)}\n"
        "# TYPE vllm:num_requests_waiting gauge\n"
        f"vllm:num_requests_waiting{label} {float(waiting)}\n"
    )


async def serve(llm: SimulatedLLM, port: int) -> None:
    """Serve on the loopback address until the process is told to end; prints the base URL when up."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(llm), "127.0.0.1", port, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    print(f"http://127.0.0.1:{port}/v1", flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(description="A simulated LLM server.")
    parser.add_argument("--slots", type=int, default=64, help="requests served at once")
    parser.add_argument(
        "--service-scale", type=float, default=1.0, help=f"times {SERVICE_S:g} s for each request; 0: at once"
    )
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--refuse", default="", help="refuse prompts that hold this text, with status 400")
    options = parser.parse_args()
    llm = SimulatedLLM(slots=options.slots, service_s=SERVICE_S * options.service_scale, refuse=options.refuse)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(llm, options.port))


if __name__ == "__main__":
    main()
