"""A server's own queue: read where it is shown, and nothing said where it is not."""

import http.server
import socket
import threading
import time

import pytest

from summidx.llm.server_load import LoadReader, ServerLoad, parse_load

VLLM = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 40.0
vllm:num_requests_running{engine="1",model_name="m"} 24.0
vllm:num_requests_running{engine="0",model_name="other"} 9.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:num_requests_waiting{engine="1",model_name="m"} 2.0
vllm:num_requests_waiting{engine="0",model_name="other"} 7.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 500.0
"""


def test_all_engines_of_the_model_count_and_no_other_model():
    assert parse_load(VLLM, "m") == ServerLoad(64, 3)
    assert parse_load(VLLM, "nobody names it so") == ServerLoad(73, 10)
    assert parse_load("vllm:num_requests_running 3\nvllm:num_requests_waiting 1e1\n", "") == ServerLoad(3, 10)


@pytest.mark.parametrize(
    "page",
    ["", "<html>", "vllm:num_requests_running 3\n", VLLM.replace("waiting", "x"), VLLM.replace("40.0", "e.+"), "\x00"],
)
def test_a_page_that_lacks_a_number_says_nothing(page):
    load = parse_load(page, "m")
    assert load is None or load == ServerLoad(24, 3)


def test_a_real_page_is_read_at_the_root_of_the_server(fake_llm):
    assert LoadReader(fake_llm.base_url, "fake").read() == ServerLoad(0, 0)


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        self.server.answer(self)

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def serve():
    servers = []

    def start(answer):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        server.daemon_threads, server.asked, server.answer = True, [], answer
        server.handle_error = lambda *args: None  # a reader that has enough is no error
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        servers.append(server)
        return server, f"http://127.0.0.1:{server.server_port}/api/v1"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _send(status, body=b"", **headers):
    def answer(handler):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        _send(404),
        _send(401, VLLM.encode()),
        _send(302, Location="/elsewhere"),
        _send(200, b"hello"),
        _send(200, b"x" * 3_000_000),
    ],
    ids=["absent", "refused", "redirect", "other content", "huge"],
)
def test_a_server_that_does_not_show_it_is_left_alone_for_a_while_without_a_word(serve, answer, caplog):
    server, url = serve(answer)
    reader = LoadReader(url)
    assert [reader.read() for _ in range(5)] == [None] * 5
    assert server.asked == [("/api/metrics", None)], "no key, no other page, and asked once"
    assert not caplog.records


def test_a_server_that_hangs_or_drips_costs_a_second_or_two(serve):
    def drip(handler):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b"# comment\n")
            time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        for url in (f"http://127.0.0.1:{silent.getsockname()[1]}/v1", serve(drip)[1]):
            started = time.monotonic()
            assert LoadReader(url).read() is None
            assert time.monotonic() - started < 3


def test_nobody_there_is_no_error():
    assert LoadReader("http://127.0.0.1:9/v1").read() is None
