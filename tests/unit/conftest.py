"""Small real indexes to publish and read."""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from parts import require_part
from store_parts import build_document, build_manifest, build_vectors
from typer.testing import CliRunner

from summidx.cli import app
from summidx.embedding.hashing import HashingEmbedder
from summidx.records import Document, Level, Manifest, Status, Unit, Vectors
from summidx.store.generations import IndexRoot
from summidx.store.tokenize import build_search_text


@pytest.fixture
def document() -> Callable[..., Document]:
    return build_document


@pytest.fixture
def vectors() -> Callable[..., Vectors]:
    return build_vectors


@pytest.fixture
def manifest() -> Callable[..., Manifest]:
    return build_manifest


@pytest.fixture
def root(tmp_path) -> IndexRoot:
    return IndexRoot(tmp_path / "indexes")


@pytest.fixture
def publish(root) -> Callable[..., bool]:
    """Stage and publish documents (two by default); fields of the manifest and `expected` may be given."""

    def publish(documents: Sequence[Document] | None = None, *, expected: str | None = None, **values: object) -> bool:
        documents = documents if documents is not None else [build_document("a.py"), build_document("a.py::f")]
        manifest = build_manifest(documents, **values)
        staging = root.stage(manifest.name, manifest.generation)
        staging.write(documents, build_vectors(len(documents)), [])
        return root.publish(staging, manifest, expected_publish_id=expected)

    return publish


ENVIRONMENT = {"SUMMIDX_EMBEDDING__MODEL": "hashing/256"}


@pytest.fixture
def clean_environment(monkeypatch, tmp_path):
    for name in os.environ:
        if name.startswith(("SUMMIDX_", "COLUMNS")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def summidx(root, clean_environment):
    """Run `summidx ARGUMENTS --index-root ROOT` in this process."""

    def run(*arguments, stdin=None, with_root=True, **environment):
        where = ["--index-root", str(root.path)] if with_root else []
        return CliRunner().invoke(app, [*arguments, *where], input=stdin, env=ENVIRONMENT | environment)

    return run


EMBEDDER = HashingEmbedder(256)


def build_corpus_document(document_id: str, summary: str, source: str = "", **values: object) -> Document:
    """A document whose words for BM25 are made from its own source and summary, as a build makes them."""
    document = build_document(document_id, summary=summary, **({"keywords": (), "calls": ()} | values))
    unit = Unit(
        **{name: getattr(document, name) for name in ("id", "level", "path", "name", "qualified_name", "language")},
        start_line=document.start_line,
        end_line=document.end_line,
        parent_id=None,
        own_source=source,
    )
    return replace(document, search_text=build_search_text(unit, summary, ()))


def build_http_corpus() -> list[Document]:
    """A small repository: two classes, a test, documentation, all five levels."""
    document = build_corpus_document
    nowhere = {"start_line": 0, "end_line": 0, "language": "", "signature": ""}
    return [
        document(".", "An HTTP client.", level=Level.REPO, qualified_name="http-client", name="http-client", **nowhere),
        document("src/http/", "The library.", level=Level.DIRECTORY, path="src/http/", name="http", **nowhere),
        document("src/http/adapters.py", "Transport adapters and their connection pools."),
        document(
            "src/http/adapters.py::HTTPAdapter",
            "Sends requests over pooled connections.",
            "class HTTPAdapter:",
            level=Level.CLASS,
            start_line=10,
            end_line=60,
        ),
        document(
            "src/http/adapters.py::HTTPAdapter.send",
            "Sends a prepared request and returns the response.",
            'def send(self, request):\n    raise ConnectionError("Max retries exceeded")',
            start_line=12,
            end_line=40,
        ),
        document(
            "src/http/adapters.py::HTTPAdapter.handle_status",
            "Waits and tries again when the server answers 429 Too Many Requests.",
            "def handle_status(self, status):\n    if status == 429:\n        self.backoff()",
            start_line=42,
            end_line=60,
        ),
        document(
            "src/http/cookies.py::parse_cookie",
            "Reads the Set-Cookie header into a cookie jar.",
            "def parse_cookie(header): ...",
            status=Status.DEGRADED,
            reason="InvalidOutput",
            start_line=3,
        ),
        document("src/http/cookies.py", "", status=Status.FAILED, origin=None, reason="Overloaded: 429"),
        document(
            "tests/test_adapters.py::test_handle_status",
            "Waits and tries again when the server answers 429 Too Many Requests.",
            "def test_handle_status(): # 429 handle status backoff",
            is_test=True,
        ),
        document("docs/guide.md", "Guide to cookies: Set-Cookie header, cookie jar.", "cookies", is_secondary=True),
    ]


def publish_corpus(root: IndexRoot, name: str, documents: Sequence[Document], **values: object) -> None:
    """Publish documents as the index `name`, embedded by `hashing/256`."""
    texts = [f"{document.qualified_name}: {document.summary}" for document in documents]
    manifest = build_manifest(
        documents, **({"name": name, "embedding_model": EMBEDDER.identity, "dim": EMBEDDER.dim} | values)
    )
    with root.stage(name, manifest.generation) as staging:
        staging.write(documents, EMBEDDER.embed(texts, input_type="document"), [])
        current = root.read_manifest(name)
        assert root.publish(staging, manifest, expected_publish_id=current.publish_id if current else None)


@pytest.fixture
def corpus() -> Callable[[], list[Document]]:
    return build_http_corpus


@pytest.fixture
def corpus_document() -> Callable[..., Document]:
    return build_corpus_document


@pytest.fixture
def publish_documents(root) -> Callable[..., None]:
    return partial(publish_corpus, root)


@pytest.fixture
def http(corpus, publish_documents):
    """The small repository, published as `http`."""
    publish_documents("http", corpus(), skips={"binary": 2})


POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/usr/lib/postgresql/none"))


@pytest.fixture
def sqlite_url(tmp_path):
    return f"sqlite:///{tmp_path / 'deep' / 'cache.sqlite'}"


def run_postgres(program: str, *arguments: str) -> None:
    as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    command = [*as_user, str(POSTGRES / program), *arguments]
    subprocess.run(command, check=True, cwd="/tmp", stdout=subprocess.DEVNULL)


def start_postgres(home: Path) -> None:
    options = f"-c listen_addresses='' -k {home} -p 5432 -F"
    run_postgres("pg_ctl", "-D", f"{home}/data", "-l", f"{home}/log", "-w", "-o", options, "start")


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory):
    require_part("PostgreSQL", present=(POSTGRES / "initdb").exists(), how="apt-get install postgresql")
    pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
    # The socket's path must stay short, and the server's user must reach it.
    home = Path(os.path.realpath(subprocess.check_output(["mktemp", "-d", "/tmp/pg.XXXXXX"], text=True).strip()))
    if os.geteuid() == 0:  # the server refuses to run as root
        shutil.chown(home, "postgres", "postgres")
    run_postgres("initdb", "-D", f"{home}/data", "-A", "trust", "-U", "test", "--no-sync")
    start_postgres(home)
    yield f"postgresql+psycopg://test@/postgres?host={home}&port=5432"
    run_postgres("pg_ctl", "-D", f"{home}/data", "-m", "immediate", "stop")
    shutil.rmtree(home)


@pytest.fixture
def postgres_url(postgres_server):
    import sqlalchemy as sa

    yield postgres_server
    engine = sa.create_engine(postgres_server)
    with engine.begin() as connection:  # also what a killed process left open
        others = "pid <> pg_backend_pid() AND backend_type = 'client backend'"
        connection.execute(sa.text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"))
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request):
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def restart_postgres(postgres_url) -> Callable[[], None]:
    """Kill the server, as a crash would, and start it again."""
    home = Path(postgres_url.partition("host=")[2].partition("&")[0])

    def restart() -> None:
        run_postgres("pg_ctl", "-D", f"{home}/data", "-m", "immediate", "stop")
        start_postgres(home)

    return restart
