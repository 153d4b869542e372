"""What a run needs is looked at before it, and each trouble comes with what to do."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from typer.testing import CliRunner

from summidx import doctor
from summidx.cli import app
from summidx.doctor import CHECKS, State, examine
from summidx.errors import UsageError
from summidx.settings import load_settings


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))


def settings_of(root, **more):
    return load_settings({"index_root": str(root.path), "embedding": {"model": "hashing"}, "min_free_mb": 0} | more)


def by_check(findings):
    return {each.check: each for each in findings}


def flip(root, name):
    path = root.generation_folder(name, root.read_manifest(name)) / "skips.json"
    path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))


@pytest.fixture
def prefect_api(monkeypatch):
    """An API that says what `answer` holds: a status and a body."""
    answer = [200, b"true"]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.path == "/api/health"
            self.send_response(answer[0])
            self.end_headers()
            self.wfile.write(answer[1])

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{server.server_port}/api")
        yield answer
        server.shutdown()


def test_every_check_has_a_finding_and_all_is_well_before_the_first_build(root):
    findings = examine(settings_of(root))
    assert by_check(findings).keys() == CHECKS.keys()
    assert {each.state for each in findings} <= {State.OK, State.WARNING}


def test_a_model_that_the_server_does_not_serve_is_named_with_what_it_serves(root, fake_llm):
    llm = {"provider": "openai", "base_url": fake_llm.base_url}
    assert by_check(examine(settings_of(root, llm=llm)))["LLM"].said == "fake is served, context 8192 tokens"
    found = by_check(examine(settings_of(root, llm=llm | {"model": "other"})))["LLM"]
    assert found.state is State.FAILED
    assert "fake" in found.said
    assert "--llm-model" in found.said


def test_a_server_that_is_not_there_fails_at_once(root):
    llm = {"provider": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "m", "max_retries": 9}
    assert by_check(examine(settings_of(root, llm=llm)))["LLM"].state is State.FAILED


def test_an_embedding_model_that_is_nowhere_fails(root):
    found = by_check(examine(settings_of(root, embedding={"model": "./nowhere"})))["embedding model"]
    assert found.state is State.FAILED
    assert "embedding.model" in found.said


def test_the_prefect_api_is_asked_for_its_health(root, prefect_api):
    assert by_check(examine(settings_of(root)))["Prefect API"].state is State.OK
    prefect_api[:] = [500, b""]
    found = by_check(examine(settings_of(root)))["Prefect API"]
    assert (found.state, "500" in found.said, "unset PREFECT_API_URL" in found.to_do) == (State.FAILED, True, True)


def test_a_prefect_api_that_is_away_fails(root, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert by_check(examine(settings_of(root)))["Prefect API"].state is State.FAILED


def test_an_index_that_does_not_open_is_named(root, publish):
    for name in ("one", "two"):
        publish(name=name)
    (root.index_folder("two") / "CURRENT").write_text("{")
    found = [each for each in examine(settings_of(root)) if each.check == "index root"]
    assert [(each.state, each.index) for each in found] == [(State.FAILED, "two")]


def test_too_little_free_space_fails(root):
    found = by_check(examine(settings_of(root, min_free_mb=10**9)))["free space"]
    assert found.state is State.FAILED
    assert "summidx disk" in found.to_do


def test_only_a_whole_reading_finds_every_flipped_bit_and_the_next_look_knows_of_it(root, publish):
    for name in ("one", "two", "three"):
        publish(name=name)
    flip(root, "one")
    flip(root, "three")
    assert all(each.state is State.OK for each in examine(settings_of(root)) if each.check == "index root")
    found = [each for each in examine(settings_of(root), whole=True) if each.check == "whole reading"]
    assert sorted(each.index for each in found if each.state is State.FAILED) == ["one", "three"]
    assert found[-1].said == "1 of 3 indexes are whole"
    again = [each for each in examine(settings_of(root)) if each.check == "index root"]
    assert sorted(each.index for each in again) == ["one", "three"]


@pytest.mark.parametrize("error", [UsageError("what is wrong; what to do"), RuntimeError("a bug\nin a check")])
def test_what_a_check_raises_is_a_finding_and_the_others_still_look(root, monkeypatch, error):
    def check(settings):
        raise error

    monkeypatch.setitem(doctor.CHECKS, "cache", check)
    found = by_check(examine(settings_of(root)))
    assert found.keys() == CHECKS.keys()
    assert found["cache"].state is State.FAILED
    assert "\n" not in found["cache"].said


class TestCommand:
    @pytest.fixture
    def run(self, root):
        return lambda *args: CliRunner().invoke(
            app, ["doctor", "--index-root", str(root.path), "--embedding-model", "hashing", *args]
        )

    def test_all_well_is_exit_code_0(self, run, root, publish):
        publish()
        done = run("--verify")
        assert done.exit_code == 0, done.stdout
        assert "1 of 1 indexes are whole" in done.stdout

    def test_damage_is_named_and_is_exit_code_1(self, run, root, publish):
        publish(name="pallets/flask\x1b[31m")
        flip(root, "pallets/flask\x1b[31m")
        done = run("--verify")
        assert done.exit_code == 1
        assert r"pallets/flask\x1b[31m: damaged: skips.json is not as it was written" in done.stdout
        assert "the next run builds it again" in done.stdout
        assert "\x1b" not in done.stdout
        told = json.loads(run("--verify", "--json").stdout)
        assert (told["ok"], told["damaged"]) == (False, ["pallets/flask\x1b[31m"])

    def test_a_damaged_cache_is_repaired_by_what_it_says(self, run, root, publish):
        publish()
        (root.path / "cache.sqlite").write_bytes(b"\xff" * 10_000)
        done = run()
        assert done.exit_code == 1
        assert "summidx cache repair" in done.stdout
        repaired = CliRunner().invoke(app, ["cache", "repair", "--index-root", str(root.path)])
        assert (repaired.exit_code, repaired.stdout) == (0, "it was repaired\n")
        assert run("--verify").exit_code == 0
