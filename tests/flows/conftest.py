"""Real runs: the command in its own process, real repositories, one real Prefect server for all."""

import json
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pygit2
import pytest
from prefect_api import Api, clean_environment, running_api

BUILD = Path(__file__).parents[2] / "flows" / "build.py"


def _make_repo(path: Path, *commits: Mapping[str, str]) -> list[str]:
    """A git repository with these commits, each a full tree; their ids."""
    repo = pygit2.init_repository(path, initial_head="main")
    author = pygit2.Signature("A. Author", "author@example.org", 1_700_000_000, 0)
    ids: list[str] = []
    for files in commits:
        index = pygit2.Index()
        for name, text in files.items():
            index.add(pygit2.IndexEntry(name, repo.create_blob(text.encode()), pygit2.enums.FileMode.BLOB))
        parents = [repo.head.target] if ids else []
        ids.append(str(repo.create_commit("HEAD", author, author, "change", index.write_tree(repo), parents)))
    return ids


def _module(name: str, n: int = 3) -> str:
    """Python source with `n` functions that are no trivial ones."""
    return "\n\n".join(
        f"def {name}_{i}(items):\n"
        f'    """Sum what {name} {i} gives."""\n'
        f"    total = {i}\n    for item in items:\n        total += item\n    return total\n"
        for i in range(n)
    )


class _Command(subprocess.Popen[str]):
    """A command that is killed where its test fails, so that the test says why, and does not wait for its end."""

    def __exit__(self, kind: type[BaseException] | None, *args: object) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, *args)


@dataclass
class Build:
    """Runs `python flows/build.py` in a folder of its own."""

    cwd: Path
    env: dict[str, str]
    options: tuple[str, ...] = ("--embedding-model", "hashing", "--index-root", "index")
    extra_env: dict[str, str] = field(default_factory=dict)
    path: Path = BUILD

    def start(self, *args: str | Path, **popen: Any) -> subprocess.Popen[str]:
        return _Command(
            [sys.executable, BUILD, *map(str, args), *self.options],
            cwd=self.cwd,
            env=self.env | self.extra_env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **popen,
        )

    def __call__(self, *args: str | Path) -> subprocess.CompletedProcess[str]:
        with self.start(*args) as process:
            out, err = process.communicate()
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def run_script(self, script: Path) -> subprocess.CompletedProcess[str]:
        """Run a script that starts the flow itself."""
        return subprocess.run(
            [sys.executable, script],
            cwd=self.cwd,
            env=self.env | self.extra_env,
            capture_output=True,
            text=True,
            check=False,
        )

    def report(self, *args: str | Path, code: int = 0) -> dict[str, Any]:
        """The report of `--json`; fails the test if the exit code is another."""
        done = self(*args, "--json")
        assert done.returncode == code, done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        report["by_name"] = {each["name"]: each for each in report["repositories"]}
        return report

    def summidx(self, name: str, *args: str | Path) -> subprocess.CompletedProcess[str]:
        """The command `summidx NAME` with the same options."""
        command = [Path(sys.executable).with_name("summidx"), name, *map(str, args), *self.options]
        return subprocess.run(
            command, cwd=self.cwd, env=self.env | self.extra_env, capture_output=True, text=True, check=False
        )

    def plan(self, *args: str | Path) -> dict[str, Any]:
        """What `summidx plan` predicts with the same options."""
        done = self.summidx("plan", *args, "--json")
        assert done.returncode == 0, done.stderr
        prediction: dict[str, Any] = json.loads(done.stdout)
        return prediction

    @property
    def logs(self) -> list[Path]:
        return sorted((self.cwd / "logs" / "summary_index").glob("*.log"))

    def current(self, name: str) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads((self.cwd / "index" / name / "CURRENT").read_text())
        return manifest


class HoldingLLM(ThreadingHTTPServer):
    """An OpenAI-compatible server that answers at once, except calls that contain HOLDME or POISON: those it holds."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _LLMHandler)
        self.held: queue.Queue[int] = queue.Queue()
        """The client's port, for each call that is held for the word HOLDME."""
        self.release = threading.Event()
        self.poisoned: queue.Queue[int] = queue.Queue()
        """The same for POISON: a test may end the worker process that has read it."""
        self.release_poison = threading.Event()
        self.keys: set[str | None] = set()
        """The Authorization headers of all calls."""

    @property
    def options(self) -> tuple[str, ...]:
        url = f"http://127.0.0.1:{self.server_port}/v1"
        return ("--llm-provider", "openai", "--llm-model", "stub", "--llm-base-url", url)

    def handle_error(self, *args: object) -> None:
        """A client that was killed is no error."""


class _LLMHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HoldingLLM

    def do_GET(self) -> None:
        self._send({"object": "list", "data": [{"id": "stub", "object": "model", "created": 0, "owned_by": "test"}]})

    def do_POST(self) -> None:
        self.server.keys.add(self.headers["Authorization"])
        body = self.rfile.read(int(self.headers["Content-Length"]))
        for word, held, release in (
            (b"HOLDME", self.server.held, self.server.release),
            (b"POISON", self.server.poisoned, self.server.release_poison),
        ):
            if word in body:
                held.put(self.client_address[1])
                release.wait(400)
        message = {"role": "assistant", "content": "It adds numbers up for a report.\n\nKeywords: sum, report"}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        usage = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
        completion = {"id": "1", "object": "chat.completion", "created": 0, "model": "stub"}
        self._send(completion | {"choices": [choice], "usage": usage})

    def _send(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def prefect_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment with a Prefect home of its own and no setting of the developer's."""
    return clean_environment(tmp_path_factory.mktemp("prefect-home"))


@pytest.fixture(scope="session")
def api(prefect_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """`prefect server start`, for all tests of this folder."""
    with running_api(prefect_env, tmp_path_factory.mktemp("prefect-server") / "log") as api:
        yield api


@pytest.fixture
def build(api: Api, prefect_env: dict[str, str], tmp_path: Path) -> Build:
    """The command, with its records at the shared server."""
    (tmp_path / "work").mkdir()
    return Build(tmp_path / "work", prefect_env | {"PREFECT_API_URL": api.url})


@pytest.fixture(scope="session")
def repos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two git repositories and a plain folder. Do not change them."""
    root = tmp_path_factory.mktemp("repos")
    _make_repo(root / "alpha", {"alpha.py": _module("alpha"), "README.md": "# Alpha\n"})
    _make_repo(root / "beta", {"pkg/beta.py": _module("beta")})
    (root / "notes").mkdir()
    (root / "notes" / "notes.md").write_text("# Notes\n")
    return root


@pytest.fixture(scope="session")
def first_run(
    api: Api, prefect_env: dict[str, str], repos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Build, subprocess.CompletedProcess[str]]:
    """One build of `repos`, and what it said."""
    build = Build(tmp_path_factory.mktemp("first"), prefect_env | {"PREFECT_API_URL": api.url})
    return build, build("--repos-root", repos)


@pytest.fixture
def built(build: Build, first_run: tuple[Build, object]) -> Build:
    """The command, where all of `repos` is built."""
    shutil.copytree(first_run[0].cwd / "index", build.cwd / "index")
    return build


@pytest.fixture
def llm() -> Iterator[HoldingLLM]:
    with HoldingLLM() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.release.set()
        server.release_poison.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def make_repo() -> Callable[..., list[str]]:
    return _make_repo


@pytest.fixture
def module() -> Callable[..., str]:
    return _module
