"""One suite over both places of an index root: a folder, and a prefix in a bucket of a real S3-compatible server."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from store_parts import build_document, build_manifest, build_vectors

from summidx.disk import measure_indexes
from summidx.errors import Stopped, StoreError, UnknownIndex
from summidx.export.formats import Format
from summidx.export.writing import export_index
from summidx.plan import Plan, load_plan, write_plan
from summidx.records import Skip, SkipReason
from summidx.search.ranking import Mode
from summidx.search.searcher import Searcher
from summidx.store.fleet import FLEET_FROM, refresh_fleet
from summidx.store.generations import IndexRoot, generation_name
from summidx.store.inventory import FILES, MARK
from summidx.store.pruning import find_prunable, remove_index, sweep_index
from summidx.store.verification import read_whole

DOCUMENTS = [build_document("a.py"), build_document("a.py::f")]


@pytest.fixture(params=["folder", "bucket"])
def uri(request, tmp_path):
    return str(tmp_path / "indexes") if request.param == "folder" else request.getfixturevalue("s3")


@pytest.fixture
def root(uri):
    return IndexRoot(uri)


def publish(root, documents=DOCUMENTS, *, expected=None, check=lambda: None, **values):
    manifest = build_manifest(documents, **values)
    with root.stage(manifest.name, manifest.generation) as staging:
        staging.write(documents, build_vectors(len(documents)), [Skip("logo.png", SkipReason.BINARY)])
        return root.publish(staging, manifest, expected_publish_id=expected, check=check)


def generations(root, name="repo"):
    return sorted(each.name for each in root.place.index(name).generations())


def files(root, name="repo"):
    return root.files(name, root.read_manifest(name))


def test_a_published_index_reads_back_as_it_was_written(root):
    assert root.names() == []
    assert root.verify("repo", "key").why == "new"
    assert publish(root)
    opened = root.open("repo")
    assert opened.manifest == build_manifest(DOCUMENTS) == root.read_manifest("repo")
    assert opened.table.documents() == DOCUMENTS
    assert [match.row for match in opened.table.bm25([("retry", 1.0)], 5)] == [0, 1]
    assert len(opened.table.nearest(np.array([1, 0, 0, 0], np.float32), 2)) == 2
    assert root.read_skips("repo", opened.manifest) == (Skip("logo.png", SkipReason.BINARY),)
    assert root.verify("repo", "key").manifest == opened.manifest
    assert root.verify("repo", "other key").why == "content or settings changed"
    assert root.size_bytes("repo") > 1000
    with pytest.raises(UnknownIndex, match="there are: repo"):
        root.require_manifest("other")


@pytest.mark.parametrize("form", Format)
def test_an_index_can_be_exported_from_where_it_lies(root, tmp_path, form):
    assert publish(root, name="pallets/flask")
    output = tmp_path / "out"
    done = export_index(root.open("pallets/flask"), form, output, vectors=True)
    assert done.documents == len(DOCUMENTS)
    assert done.size_bytes == sum(
        each.stat().st_size for each in (output.rglob("*.md") if output.is_dir() else [output]) if each.is_file()
    )


def test_names_that_are_no_safe_folder_come_back_and_can_be_searched(root):
    names = ["..", "a+b@1=2 %2F", "pallets/flask", "été"]
    for name in names:
        assert publish(root, name=name)
    root.place.write_file(".summidx/plans/x.json", b"{}")
    assert root.names() == names
    for name in names:
        assert len(root.open(name).table.bm25([("retry", 1.0)], 5)) == 2
        assert root.find_damage(name) == ""


def test_of_two_runs_the_one_that_was_overtaken_is_discarded_and_its_equal_is_not_replaced(root):
    assert publish(root, publish_id="p1", commit="c1")
    assert publish(root, publish_id="p2", commit="c2", expected="p1")
    assert not publish(root, publish_id="p3", commit="c1", expected="p1")
    assert not publish(root, publish_id="p4", commit="c2", expected=None)
    assert publish(root, publish_id="p5", commit="c2", build_key="other settings", expected="p1")
    assert root.read_manifest("repo").publish_id == "p5"
    assert generations(root) == ["g1.p2", "g1.p5"]


def test_a_run_that_is_stopped_before_the_swap_publishes_nothing_and_leaves_nothing(root):
    publish(root)

    def stop():
        raise Stopped("stopped: enough")

    with pytest.raises(Stopped):
        publish(root, publish_id="p2", expected="p1", check=stop)
    assert root.read_manifest("repo").publish_id == "p1"
    assert generations(root) == ["g1.p1"]
    assert root.place.index("repo").staging() == []


def test_the_current_generation_and_the_one_before_are_kept_and_a_search_there_can_end(root):
    publish(root)
    before = root.open("repo").table
    publish(root, publish_id="p2", expected="p1")
    assert len(before.bm25([("retry", 1.0)], 5)) == 2
    for n in range(3, 6):
        publish(root, publish_id=f"p{n}", expected=f"p{n - 1}")
    assert generations(root) == ["g1.p4", "g1.p5"]
    (use,) = measure_indexes(root)
    assert use.current_bytes > 1000
    assert use.previous_bytes > 1000
    assert (use.building_bytes, use.left_bytes) == (0, 0)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff"], ids=["empty", "cut", "list", "no text"])
def test_a_corrupt_current_is_damage_and_can_be_replaced(root, damage):
    publish(root)
    root.place.write_file("repo/CURRENT", damage)
    assert root.names() == ["repo"]
    assert root.verify("repo", "key").why.startswith("damaged: ")
    sweep_index(root, "repo")
    assert generations(root) == ["g1.p1"], "nobody knows which generation is read"
    assert publish(root, publish_id="p2", expected=None)
    assert root.verify("repo", "key").manifest.publish_id == "p2"


def test_what_is_damaged_is_found_marked_and_rebuilt(root):
    publish(root)
    assert read_whole(root, "repo").faults == ()
    there = files(root)
    data = next(name for name in there.sizes() if name.startswith("documents.lance/data"))
    before = there.read(data)
    base = f"repo/generations/{generation_name(root.read_manifest('repo'))}"

    root.place.write_file(f"{base}/{data}", before[:-1] + bytes([before[-1] ^ 1]))
    assert root.verify("repo", "key").manifest is not None, "its size is right"
    found = read_whole(root, "repo")
    assert found.faults == (f"{data} is not as it was written",)
    assert MARK in there.sizes()
    assert "found by a whole reading" in root.verify("repo", "key").why
    assert root.verify("repo", "key").manifest is None

    for n, (name, why) in enumerate(((data, "has 3 bytes instead of"), (FILES, "is damaged"), ("skips.json", "has 3"))):
        publish(root, publish_id=f"p-{n}", expected=root.read_manifest("repo").publish_id)
        sizes = files(root).sizes()
        name = name if name in sizes else next(each for each in sizes if each.startswith("documents.lance/data"))  # noqa: PLW2901
        root.place.write_file(f"repo/generations/g1.p-{n}/{name}", b"xyz")
        assert why in root.verify("repo", "key").why
    publish(root, publish_id="p-last", expected=root.read_manifest("repo").publish_id)
    assert read_whole(root, "repo").faults == ()
    root.place.delete_file(f"repo/generations/g1.p-last/{FILES}")
    assert root.verify("repo", "key").why == f"damaged: {FILES} is missing"


def test_an_index_that_nobody_needs_is_removed_and_can_be_built_again(root):
    old = (datetime.now(UTC) - timedelta(days=40)).isoformat()
    publish(root, name="gone", source="/no/such/folder", built_at=old)
    publish(root, name="here", built_at=datetime.now(UTC).isoformat())
    (prunable,) = find_prunable(root, missing=False, older_than=timedelta(days=30))
    publish(root, name="gone", publish_id="p2", expected="p1", built_at=old)
    assert remove_index(root, prunable) == "it was published anew meanwhile"
    (prunable,) = find_prunable(root, missing=False, older_than=timedelta(days=30))
    with root.stage("gone", "g2"):
        assert remove_index(root, prunable) == "it is being built"
    assert remove_index(root, prunable) == ""
    assert root.names() == ["here"]
    assert generations(root, "gone") == []
    assert remove_index(root, prunable) == "it is gone"
    assert root.verify("gone", "key").why == "new"
    assert publish(root, name="gone", publish_id="p3", expected=None)
    assert root.open("gone").table.count() == 2


def test_files_of_runs_are_kept_listed_and_deleted(root, uri):
    assert load_plan(uri, "run-1") is None
    write_plan(Plan((), None, summarizer="ours"), uri, "run-1")
    assert load_plan(uri, "run-1").summarizer == "ours"
    (plan,) = root.place.list_files(".summidx/plans")
    assert plan.name == ".summidx/plans/run-1.json"
    assert plan.size_bytes > 0
    assert abs(plan.written_at - datetime.now(UTC).timestamp()) < 60
    root.place.write_file(plan.name, b"{")
    with pytest.raises(StoreError, match="start a new run instead of a retry"):
        load_plan(uri, "run-1")
    root.place.delete_file(plan.name)
    root.place.delete_file(plan.name)
    assert root.place.list_files(".summidx/plans") == []


def _race(uri, number, barrier, results):
    root = IndexRoot(uri)
    documents = [build_document(f"{number}/{n}.py") for n in range(number + 1)]
    with root.stage("repo", f"g{number}") as staging:
        staging.write(documents, build_vectors(len(documents)), [])
        manifest = build_manifest(documents, commit=f"c{number}", generation=f"g{number}", publish_id=f"p{number}")
        barrier.wait(timeout=120)
        published = root.publish(staging, manifest, expected_publish_id="p-first")
    results.put((number, published))


def test_of_eight_processes_that_publish_at_once_exactly_one_wins_and_readers_always_read(s3):
    """In a bucket; in a folder: tests/unit/store/test_generations.py."""
    uri, root = s3, IndexRoot(s3)
    publish(root, publish_id="p-first")
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(8), context.Queue()
    processes = [context.Process(target=_race, args=(uri, n, barrier, results)) for n in range(8)]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        opened = root.open("repo")
        assert len(opened.table.documents()) == sum(
            n for by_status in opened.manifest.counts.values() for by in by_status.values() for n in by.values()
        )
        time.sleep(0.1)
    outcomes = dict(results.get(timeout=10) for _ in processes)
    (winner,) = [number for number, published in outcomes.items() if published]
    assert root.read_manifest("repo").publish_id == f"p{winner}"
    assert {each.path.split("/")[0] for each in root.open("repo").table.documents()} == {str(winner)}
    assert generations(root) == sorted(["g1.p-first", f"g{winner}.p{winner}"])
    assert read_whole(root, "repo").faults == ()


WRITER = """
import os, signal, sys
from store_parts import build_document, build_manifest, build_vectors
from summidx.store import bucket, folder
from summidx.store.generations import IndexRoot

root = IndexRoot(sys.argv[1])
documents = [build_document("a.py")]
staging = root.stage("repo", "killed")
staging.write(documents, build_vectors(1), [])
if sys.argv[2] == "staged":
    os.kill(os.getpid(), signal.SIGKILL)
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
folder.FolderIndex.swap_current = bucket.BucketIndex.swap_current = die
if sys.argv[2] == "uploading":  # its third object, and so no CURRENT
    put, left = bucket.Objects.put, [0, 0]
    bucket.Objects.put = lambda *args: put(*args) if left and left.pop() == 0 else die()
root.publish(staging, build_manifest(documents, generation="killed", publish_id="p9"), expected_publish_id="p1")
"""


@pytest.mark.parametrize("until", ["staged", "uploading", "swap"])
def test_a_writer_that_is_killed_leaves_the_old_index_and_what_it_left_is_swept(root, uri, until, monkeypatch):
    publish(root)
    command = [sys.executable, "-c", WRITER, uri, until]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    assert root.verify("repo", "key").manifest.publish_id == "p1"
    (use,) = measure_indexes(root)
    assert use.total_bytes > use.current_bytes > 0

    monkeypatch.setattr("summidx.store.bucket.ABANDONED_AFTER_S", 0.0)  # of a bucket: it is old by now
    sweep_index(root, "repo")
    assert root.place.index("repo").staging() == []
    assert root.verify("repo", "key").manifest.publish_id == "p1"
    assert publish(root, publish_id="p2", expected="p1")
    assert generations(root) == ["g1.p1", "g1.p2"]


def test_the_fleet_table_is_made_refreshed_and_searched_at_either_place(root):
    for number in range(FLEET_FROM):
        documents = [build_document("a.py", search_text=f"word{number} retry")]
        assert publish(root, documents, name=f"team/r{number}", source=f"/src/{number}")
    done = refresh_fleet(root)
    assert (done.written, done.segments) == (FLEET_FROM, 1)
    assert refresh_fleet(root).written == 0
    publish(root, [build_document("a.py", search_text="gargantuan")], name="team/r3", publish_id="p2", expected="p1")
    searcher = Searcher(root)
    for word, name in (("word7", "team/r7"), ("gargantuan", "team/r3")):
        assert [hit.repo for hit in searcher.search(word, mode=Mode.BM25)] == [name]
    assert searcher.search("word3", mode=Mode.BM25) == []
    assert searcher.slow == ""
    assert refresh_fleet(root).written == 1
    assert refresh_fleet(root, rebuild=True).segments == 1
    assert [hit.repo for hit in searcher.search("gargantuan", mode=Mode.BM25)] == ["team/r3"]
    assert root.names() == sorted(f"team/r{number}" for number in range(FLEET_FROM))
