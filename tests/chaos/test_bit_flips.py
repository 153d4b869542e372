"""Bits flip on the disk: every damaged index is found, nothing else is named, and the next run makes all of it right.

Real builds under an LLM that answers by its prompt alone, seeded flips. `CHAOS=long` for more of them.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from summidx.cache.integrity import repair_cache
from summidx.cli import app
from summidx.engine import Engine
from summidx.pipeline import index_repo
from summidx.plan import make_plan
from summidx.records import Document, RepoRef
from summidx.settings import Settings, load_settings
from summidx.store.generations import IndexRoot

pytestmark = pytest.mark.chaos

IS_LONG = os.environ.get("CHAOS") == "long"
ROUNDS = 30 if IS_LONG else 3
CACHES = 40 if IS_LONG else 5
SEED = 20261128
NAMES = tuple(f"repo{n}" for n in range(8))

SEARCH = (Path(sys.executable).with_name("summidx"), "search", "sum", "--mode", "bm25")

Rows = dict[str, list[Document]]


@pytest.fixture
def settings(tmp_path, fake_llm) -> Settings:
    llm = {"provider": "openai", "base_url": fake_llm.base_url, "model": "fake"}
    index = {"index_root": str(tmp_path / "index"), "embedding": {"model": "hashing"}, "llm": llm}
    return load_settings(index | {"log_dir": str(tmp_path / "logs")})


@pytest.fixture
def refs(tmp_path) -> list[RepoRef]:
    for n, name in enumerate(NAMES):
        folder = tmp_path / "repos" / name
        folder.mkdir(parents=True)
        for part in range(1 + n % 3):
            body = "\n\n".join(
                f'def {name}_{part}_{i}(items):\n    """Sum {i}."""\n    total = {i}\n    for item in items:\n'
                "        total += item\n    return total"
                for i in range(4)
            )
            (folder / f"part{part}.py").write_text(f"{body}\n")
    return [RepoRef(name, str(tmp_path / "repos" / name)) for name in NAMES]


def build(refs: list[RepoRef], settings: Settings) -> dict[str, str]:
    """A run's work; why each repository was built, or that it is up to date."""
    plan = make_plan(refs, settings)
    engine = Engine(settings, served_model=plan.served_model)
    try:
        for planned in plan.to_build:
            index_repo(planned.pin, engine, expected_publish_id=planned.expected_publish_id)
    finally:
        engine.close()
    return {planned.pin.name: planned.why for planned in plan.repos}


def read_rows(settings: Settings) -> Rows:
    root = IndexRoot(settings.index_root)
    return {name: root.open(name).table.documents() for name in NAMES}


def doctor(settings: Settings) -> tuple[int, list[str], list[dict[str, object]]]:
    """Exit code of `doctor --verify`, the damaged indexes that it names, and all findings that failed."""
    command = ["doctor", "--verify", "--json", "--index-root", settings.index_root, "--embedding-model", "hashing"]
    done = CliRunner().invoke(app, command)
    told = json.loads(done.stdout)
    return done.exit_code, told["damaged"], [each for each in told["findings"] if each["state"] == "failed"]


def files_of(settings: Settings, name: str) -> Iterator[Path]:
    """CURRENT, and the files of the generation that it names."""
    root = IndexRoot(settings.index_root)
    yield root.index_folder(name) / "CURRENT"
    folder = root.generation_folder(name, root.read_manifest(name))
    yield from sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def flip(path: Path, chosen: random.Random, bits: int = 1) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(bits):
        data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
    path.write_bytes(data)


def test_every_damaged_index_is_found_and_the_next_run_rebuilds_it(refs, settings):
    build(refs, settings)
    oracle = read_rows(settings)
    chosen = random.Random(SEED)
    flipped_files = set()
    for _ in range(ROUNDS):
        damaged = sorted(chosen.sample(NAMES, chosen.randrange(1, len(NAMES))))
        for name in damaged:
            path = chosen.choice(list(files_of(settings, name)))
            flip(path, chosen)
            flipped_files.add(path.name if path.name == "CURRENT" else path.suffix)
        code, named, _ = doctor(settings)
        assert (code, named) == (1, damaged)
        whys = build(refs, settings)
        assert sorted(name for name, why in whys.items() if why.startswith("damaged")) == damaged, whys
        assert {why for name, why in whys.items() if name not in damaged} <= {"up to date"}
        assert read_rows(settings) == oracle
        assert doctor(settings)[:2] == (0, [])
    assert len(flipped_files) > 2


def test_a_run_before_anybody_looked_neither_dies_nor_makes_it_worse(refs, settings):
    """Plan and search read what LanceDB makes of flipped bits; each in a process of its own, which must not die."""
    build(refs, settings)
    chosen = random.Random(SEED + 1)
    for _ in range(ROUNDS):
        for name in NAMES:
            flip(chosen.choice(list(files_of(settings, name))[1:]), chosen)
        done = subprocess.run(
            [*SEARCH, "--index-root", settings.index_root],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (0, 1), done.stderr
        assert "Traceback" not in done.stderr
        assert "please report it" not in done.stderr
        if "panicked" in done.stderr:  # LanceDB says so itself; we say what that means, and go on with the others
            assert "is damaged (" in done.stderr
        build(refs, settings)
        doctor(settings)
        build(refs, settings)
        assert doctor(settings)[:2] == (0, [])


def test_bits_that_flip_in_the_cache_never_reach_an_index(refs, settings, tmp_path):
    build(refs, settings)
    oracle = read_rows(settings)
    chosen = random.Random(SEED + 2)
    cache = Path(settings.index_root) / "cache.sqlite"
    whole = cache.read_bytes()
    for n in range(CACHES):
        cache.write_bytes(whole)
        flip(cache, chosen, bits=1 if n % 2 else 20)
        doctor(settings)  # whatever it finds, it changes nothing
        for name in NAMES:
            shutil.rmtree(IndexRoot(settings.index_root).index_folder(name))
        build(refs, settings)
        assert read_rows(settings) == oracle, n
        repair_cache(settings.cache_url)
        assert doctor(settings)[:1] == (0,), doctor(settings)
        for left in cache.parent.glob("cache.sqlite.damaged-*"):
            left.unlink()
