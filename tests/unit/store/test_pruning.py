"""Indexes are removed when nobody needs them, never while they are built or published."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from summidx.errors import StoreError, UnknownIndex
from summidx.store.generations import IndexRoot
from summidx.store.pruning import find_prunable, remove_index, sweep_index

NOW = datetime.now(UTC)


@pytest.fixture
def sources(tmp_path, publish):
    """Two indexes whose sources are there, one of them old, and two whose are not, one of them old."""
    days = {"here": 1, "here-old": 40, "gone": 1, "gone-old": 40}
    for name, age in days.items():
        source = tmp_path / "repos" / name
        if name.startswith("here"):
            source.mkdir(parents=True)
        publish(name=name, source=str(source), built_at=(NOW - timedelta(days=age)).isoformat())


@pytest.mark.parametrize(
    ("missing", "days", "expected"),
    [
        (True, None, ["gone", "gone-old"]),
        (False, 30, ["gone-old", "here-old"]),
        (True, 30, ["gone-old"]),
        (False, None, []),
    ],
)
def test_what_is_missing_old_or_both_is_found(root, sources, missing, days, expected):
    older_than = None if days is None else timedelta(days=days)
    assert [each.name for each in find_prunable(root, missing=missing, older_than=older_than)] == expected


def test_a_source_that_cannot_be_asked_about_is_not_missing(root, publish, tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    publish(source=str(loop))
    assert find_prunable(root, missing=True, older_than=None) == []


def test_a_removed_index_is_gone_and_can_be_built_again(root, sources, publish):
    (prunable,) = find_prunable(root, missing=True, older_than=timedelta(days=30))
    assert remove_index(root, prunable) == ""
    assert root.names() == ["gone", "here", "here-old"]
    with pytest.raises(UnknownIndex):
        root.open("gone-old")
    assert sum(path.stat().st_size for path in root.index_folder("gone-old").rglob("*") if path.is_file()) == 0
    assert remove_index(root, prunable) == "it is gone"
    assert publish(name="gone-old")
    assert root.open("gone-old").table.count() == 2


def test_what_is_being_built_is_left_alone(root, sources, document, vectors):
    (prunable,) = find_prunable(root, missing=True, older_than=timedelta(days=30))
    with root.stage("gone-old", "g2"):
        assert remove_index(root, prunable) == "it is being built"
    assert root.open("gone-old").table.count() == 2


def test_what_was_published_since_it_was_looked_at_is_left_alone(root, sources, publish):
    (prunable,) = find_prunable(root, missing=True, older_than=timedelta(days=30))
    publish(name="gone-old", publish_id="p2", expected="p1")
    assert remove_index(root, prunable) == "it was published anew meanwhile"
    assert root.open("gone-old").manifest.publish_id == "p2"


def _publish_often(path, here, rounds, results):
    sys.path.insert(0, here)
    from conftest import build_document, build_manifest, build_vectors

    root = IndexRoot(path)
    documents = [build_document(f"{n}.py") for n in range(3)]
    for n in range(rounds):
        with root.stage("repo", f"g{n}") as staging:
            staging.write(documents, build_vectors(3), [])
            current = root.find_manifest("repo")
            manifest = build_manifest(documents, generation=f"g{n}", publish_id=f"p{n}", source="/no/such/folder")
            expected = current.publish_id if current else None
            results.put(root.publish(staging, manifest, expected_publish_id=expected))


def test_a_publish_at_the_same_moment_is_whole_or_there_is_no_index(root):
    """Each index that is read while one process publishes and this one prunes is whole."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_publish_often, args=(root.path, str(Path(__file__).parents[1]), 30, results))
    process.start()
    removed = 0
    while process.is_alive():
        for prunable in find_prunable(root, missing=True, older_than=None):
            removed += remove_index(root, prunable) == ""
        manifest = root.read_manifest("repo")
        if manifest is not None and (damage := root.find_damage("repo")):
            raise AssertionError(damage)
    process.join()
    assert process.exitcode == 0, "a publish failed because it was pruned beside it"
    assert all(results.get(timeout=10) for _ in range(30))
    assert removed


WRITER = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from conftest import build_document, build_manifest, build_vectors
from summidx.store import folder, generations
root = generations.IndexRoot(sys.argv[1])
documents = [build_document("a.py")]
staging = root.stage(sys.argv[3], "killed")
staging.write(documents, build_vectors(1), [])
if sys.argv[4] == "staged":
    os.kill(os.getpid(), signal.SIGKILL)
folder.write_current = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
manifest = build_manifest(documents, name=sys.argv[3], generation="killed", publish_id="p9")
root.publish(staging, manifest, expected_publish_id=None)
"""


def kill_writer(root, name, until):
    here = Path(__file__).parents[1]
    command = [sys.executable, "-c", WRITER, str(root.path), str(here), name, until]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(here.parent)}, check=False)
    assert done.returncode == -signal.SIGKILL


def test_what_dead_writers_left_is_swept_also_where_nothing_was_ever_published(root, publish):
    for until in ("staged", "publish"):
        kill_writer(root, "never", until)
    publish()
    kill_writer(root, "repo", "staged")
    for name in ("never", "repo"):
        sweep_index(root, name)
        assert list((root.index_folder(name) / "staging").iterdir()) == []
    assert list((root.index_folder("never") / "generations").iterdir()) == []
    assert root.open("repo").table.count() == 2


def test_where_current_is_damaged_no_generation_is_swept(root, publish):
    publish()
    (root.index_folder("repo") / "CURRENT").write_text("{")
    sweep_index(root, "repo")
    assert len(list((root.index_folder("repo") / "generations").iterdir())) == 1


def test_an_index_that_cannot_be_removed_says_so(root, sources, monkeypatch):
    (prunable,) = find_prunable(root, missing=True, older_than=timedelta(days=30))
    shutil.rmtree(root.index_folder("gone-old") / "generations")
    with pytest.raises(StoreError, match="cannot be removed"):
        remove_index(root, prunable)
