"""Real git repositories, made by the real git in a clean environment."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from summidx.settings import SourceSettings
from summidx.sources import SourceContent, parse_spec, read_source, resolve
from summidx.stop import Stop

GIT_ENV = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.org",
    "GIT_AUTHOR_DATE": "2024-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2024-01-01T00:00:00Z",
    "PATH": os.environ["PATH"],
    "LC_ALL": "C.UTF-8",
}

Git = Callable[..., str]


@pytest.fixture
def git() -> Git:
    """Run git in a folder; return what it prints."""

    def run(folder: Path, *args: str, data: bytes = b"", **env: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *args],
            input=data,
            env=GIT_ENV | env,
            check=False,
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == 0, f"git {args}: {done.stderr.decode()}"
        return done.stdout.decode("utf-8", "surrogateescape").strip()

    return run


@pytest.fixture
def repo(tmp_path: Path, git: Git) -> Path:
    """An empty repository with branch main."""
    folder = tmp_path / "repo"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    return folder


@pytest.fixture
def commit(git: Git) -> Callable[..., str]:
    """Write files and commit everything; return the commit's id."""

    def run(folder: Path, **files: str | bytes) -> str:
        for name, content in files.items():
            path = folder / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "--allow-empty", "-m", "change")
        return git(folder, "rev-parse", "HEAD")

    return run


@pytest.fixture
def read() -> Callable[..., SourceContent]:
    """Resolve a spec and read it, as a build does; both must agree on the tree."""

    def run(spec: str | Path, **settings: int) -> SourceContent:
        chosen = SourceSettings(**settings)
        ref = parse_spec(str(spec))
        resolved = resolve(ref, chosen)
        content = read_source(ref.source, resolved.commit, chosen, Stop())
        assert content.tree == resolved.tree
        return content

    return run


@pytest.fixture
def as_nobody() -> Iterator[None]:
    """Run as a user without rights: permissions mean nothing to root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
