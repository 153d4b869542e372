"""Publishing: readers see the old index or the new one, whatever happens in between."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import lancedb
import pytest

from summidx.errors import Stopped, StoreError, UnknownIndex
from summidx.records import Skip, SkipReason, Status
from summidx.stop import Stop
from summidx.store.generations import IndexRoot
from summidx.store.table_reader import faults_of
from summidx.store.tables import IndexTable


def folders(root, name="repo"):
    return sorted(path.name for path in (root.index_folder(name) / "generations").iterdir())


def leftovers(root, name="repo"):
    return sorted(path.name for path in (root.index_folder(name) / "staging").iterdir())


def test_a_published_index_reads_back_as_it_was_written(root, document, vectors, manifest):
    documents = [document("a.py"), document("a.py::f", keywords=(), reason="why")]
    skips = [Skip("logo.png", SkipReason.BINARY), Skip("odd\udcff", SkipReason.BAD_NAME, "no UTF-8")]
    with root.stage("repo", "g1") as staging:
        staging.write(documents, vectors(2), skips)
        assert root.names() == []
        assert root.publish(staging, manifest(documents), expected_publish_id=None)
    opened = root.open("repo")
    assert opened.manifest == manifest(documents) == root.read_manifest("repo")
    assert opened.table.documents() == documents
    assert root.names() == ["repo"]
    assert root.read_skips("repo", opened.manifest) == (skips[0], Skip(r"odd\udcff", SkipReason.BAD_NAME, "no UTF-8"))
    assert leftovers(root) == []


@pytest.mark.parametrize("table", ["documents", "words"])
def test_changed_metadata_of_a_table_is_seen_before_lancedb_reads_it(root, publish, table):
    assert publish()
    (versions,) = root.path.rglob(f"{table}.lance/_versions")
    for path in versions.iterdir():
        path.write_bytes(path.read_bytes()[:-20] + b"\xff" * 20)
    with pytest.raises(StoreError, match=rf"{table}.lance/_versions/.* is not as it was written\): build it again"):
        root.open("repo")


def test_a_panic_of_lancedb_is_damage(root, publish):
    class RustPanic(BaseException):
        """As it is, of a type that nobody can import."""

    assert publish()
    table = root.open("repo").table
    with pytest.raises(StoreError, match="damaged"), faults_of(table.address):
        raise RustPanic("rust future panicked: unknown error")
    with pytest.raises(KeyboardInterrupt), faults_of(table.address):
        raise KeyboardInterrupt


def test_names_that_are_no_safe_folder_come_back_and_strangers_are_passed_over(root, publish):
    for name in ("pallets/flask", "..", "été"):
        assert publish(name=name)
    (root.path / ".summidx" / "plans").mkdir(parents=True)
    (root.path / "cache.sqlite").write_bytes(b"")
    (root.path / "not%2fours").mkdir()
    (root.path / "not%2fours" / "CURRENT").write_text("{}")
    assert root.names() == ["..", "pallets/flask", "été"]
    assert root.open("pallets/flask").table.count() == 2
    assert {path.parent for path in root.path.rglob("CURRENT")} == {
        root.path / "pallets%2Fflask",
        root.path / "%2E.",
        root.path / "%C3%A9t%C3%A9",
        root.path / "not%2fours",
    }


def test_an_index_root_that_does_not_exist_is_empty_and_is_not_made_by_reading(root):
    assert root.names() == []
    assert root.read_manifest("repo") is None
    assert root.verify("repo", "key").why == "new"
    with pytest.raises(UnknownIndex, match="holds no index"):
        root.open("repo")
    assert not root.path.exists()


class TestVerify:
    def test_an_index_of_this_key_without_failures_is_up_to_date(self, root, publish):
        publish()
        verified = root.verify("repo", "key")
        assert verified.manifest == root.read_manifest("repo")

    def test_another_key_means_a_change(self, root, publish):
        publish()
        verified = root.verify("repo", "other key")
        assert (verified.manifest, verified.why) == (None, "content or settings changed")

    def test_failed_documents_are_counted(self, root, publish, document):
        failed = {"status": Status.FAILED, "origin": None, "summary": ""}
        publish([document("a.py"), document("b.py", **failed), document("c.py", **failed)])
        verified = root.verify("repo", "key")
        assert (verified.manifest, verified.why) == (None, "2 failed documents")

    @pytest.mark.parametrize(
        "damage",
        [
            b"",
            b"{",
            b"[]",
            b'{"name": "repo"}',
            b"\xff\xfe",
            b"[" * 100_000,
        ],
        ids=["empty", "cut", "list", "fields missing", "no text", "nested deeply"],
    )
    def test_a_corrupt_current_is_damage_and_can_be_replaced(self, root, publish, damage):
        publish()
        (root.index_folder("repo") / "CURRENT").write_bytes(damage)
        verified = root.verify("repo", "key")
        assert verified.manifest is None
        assert verified.why.startswith("damaged: ")
        with pytest.raises(StoreError, match="build the index again"):
            root.read_manifest("repo")
        assert publish(publish_id="p2", expected=None)
        assert root.verify("repo", "key").manifest.publish_id == "p2"

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("generation", "../../other"),
            ("publish_id", "a/b"),
            ("counts", {"file": {"ok": {"llm": -1}}}),
            ("counts", {"planet": {"ok": {"llm": 1}}}),
            ("counts", {"file": {"ok": {"llm": True}}}),
            ("skips", {"binary": "3"}),
            ("dim", 0),
            ("unheard_of", 1),
            ("name", "another repository"),
        ],
    )
    def test_a_manifest_is_validated_strictly(self, root, publish, field, value):
        publish()
        path = root.index_folder("repo") / "CURRENT"
        current = json.loads(path.read_text()) | {field: value}
        del current["digest"]
        path.write_text(json.dumps(current))
        assert root.verify("repo", "key").why.startswith("damaged: ")
        with pytest.raises(StoreError):
            root.open("repo")

    def test_each_file_of_a_generation_that_is_cut_or_missing_is_damage(self, root, publish):
        publish()
        generation = root.generation_folder("repo", root.read_manifest("repo"))
        files = [path for path in generation.rglob("*") if path.is_file()]
        assert len(files) > 5
        for path in files:
            data = path.read_bytes()
            path.write_bytes(data[: len(data) // 2])
            assert root.verify("repo", "key").why.startswith("damaged: "), path
            path.unlink()
            assert root.verify("repo", "key").why == f"damaged: {path.relative_to(generation)} is missing"
            path.write_bytes(data)
        assert root.verify("repo", "key").manifest is not None

    def test_a_generation_that_was_deleted_is_damage(self, root, publish):
        publish()
        generation = root.generation_folder("repo", root.read_manifest("repo"))
        generation.rename(generation.with_name("gone"))
        assert root.verify("repo", "key").why.startswith("damaged: ")
        with pytest.raises(StoreError, match="build it again"):
            root.open("repo")
        assert not generation.exists()

    def test_a_table_is_opened_only_where_it_may_be_another_than_the_one_that_was_published(
        self, root, publish, monkeypatch
    ):
        publish()
        table = root.generation_folder("repo", root.read_manifest("repo")) / "documents.lance"
        monkeypatch.setattr(IndexTable, "__init__", lambda *args: pytest.fail("it was opened"))
        assert root.verify("repo", "key").manifest is not None
        assert root.find_damage("repo") == ""
        monkeypatch.undo()

        hint = table / "_versions" / "latest_version_hint.json"
        before = hint.read_bytes()
        lancedb.connect(table.parent).open_table("documents").delete("row = 0")
        assert "latest_version_hint.json is not as it was written" in root.verify("repo", "key").why
        hint.write_bytes(before)
        assert root.verify("repo", "key").why == "damaged: the table has 1 rows instead of 2"

    def test_a_bit_that_flipped_in_what_a_table_is_opened_by_is_damage(self, root, publish):
        publish()
        generation = root.generation_folder("repo", root.read_manifest("repo"))
        metadata = [path for path in (generation / "documents.lance" / "_versions").iterdir() if path.is_file()]
        assert len(metadata) >= 2
        for path in metadata:
            data = path.read_bytes()
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
            assert root.verify("repo", "key").why == f"damaged: {path.relative_to(generation)} is not as it was written"
            path.write_bytes(data)
        assert root.verify("repo", "key").manifest is not None

    def test_what_was_written_before_there_were_digests_is_verified_by_opening_it(self, root, publish):
        publish()
        generation = root.generation_folder("repo", root.read_manifest("repo"))
        inventory = generation / "files.json"
        sizes = {name: each["bytes"] for name, each in json.loads(inventory.read_text())["files"].items()}
        inventory.write_text(json.dumps(sizes))
        assert root.verify("repo", "key").manifest is not None
        table = next(path for path in (generation / "documents.lance" / "_versions").glob("*.manifest"))
        for path in table.parent.iterdir():
            path.write_bytes(b"x" * path.stat().st_size)
        assert root.verify("repo", "key").why.startswith("damaged: the index in ")

    def test_rows_that_are_not_those_of_the_manifest_are_damage(self, root, publish):
        publish()
        path = root.index_folder("repo") / "CURRENT"
        data = json.loads(path.read_text())
        data["counts"]["file"]["ok"]["extractive"] = 7
        del data["digest"]
        path.write_text(json.dumps(data))
        assert root.verify("repo", "key").why == "damaged: the table has 2 rows instead of 8"


class TestCompareAndSwap:
    def test_an_index_of_another_commit_that_was_first_stays(self, root, publish):
        publish(commit="old")
        assert publish(commit="newer", publish_id="p2", expected="p1")
        assert not publish(commit="mine", publish_id="p3", expected="p1")
        assert root.read_manifest("repo").commit == "newer"
        assert leftovers(root) == []

    def test_a_first_index_that_was_overtaken_is_discarded(self, root, publish):
        publish(commit="theirs")
        assert not publish(commit="mine", publish_id="p2", expected=None)

    def test_a_plain_folder_is_told_apart_by_its_tree(self, root, publish):
        publish(commit="", tree="theirs")
        assert not publish(commit="", tree="mine", publish_id="p2", expected=None)
        assert publish(commit="", tree="theirs", build_key="other", publish_id="p3", expected=None)

    def test_what_is_there_already_stays_unless_more_of_it_failed(self, root, publish, document):
        failed = document("a.py", status=Status.FAILED, origin=None, summary="")
        publish([failed, document("a.py::f")])
        assert not publish([failed, document("a.py::f")], publish_id="p2", expected=None)
        assert publish(publish_id="p3", expected=None)
        assert not publish(publish_id="p4", expected=None)
        assert root.read_manifest("repo").publish_id == "p3"
        assert leftovers(root) == []

    def test_an_index_that_was_deleted_meanwhile_is_published(self, root, publish):
        assert publish(expected="gone")

    def test_a_stop_that_comes_while_it_waits_for_the_lock_ends_it(self, root, publish, document, manifest, vectors):
        publish()
        staging = root.stage("repo", "g1")
        staging.write([document("a.py")], vectors(1), [])
        stop = Stop()
        stop.request("Ctrl-C")
        new = manifest([document("a.py")], publish_id="p2")
        with pytest.raises(Stopped, match=r"Ctrl-C"):
            root.publish(staging, new, expected_publish_id="p1", check=stop.check)
        assert root.read_manifest("repo").publish_id == "p1"
        assert leftovers(root) == []

    def test_a_manifest_of_other_rows_is_refused_and_nothing_changes(self, root, publish, document, manifest, vectors):
        publish()
        documents = [document("a.py")]
        staging = root.stage("repo", "g1")
        staging.write(documents, vectors(1), [])
        with pytest.raises(StoreError, match="is not of what was written"):
            root.publish(staging, manifest([], publish_id="p2"), expected_publish_id="p1")
        assert root.read_manifest("repo").publish_id == "p1"
        assert leftovers(root) == []

    def test_what_was_damaged_in_staging_is_not_published(self, root, publish, document, manifest, vectors):
        publish()
        documents = [document("a.py")]
        staging = root.stage("repo", "g1")
        staging.write(documents, vectors(1), [])
        next((staging.folder / "documents.lance" / "data").iterdir()).write_bytes(b"")
        with pytest.raises(StoreError, match="damaged"):
            root.publish(staging, manifest(documents, publish_id="p2"), expected_publish_id="p1")
        assert root.read_manifest("repo").publish_id == "p1"


class TestPrune:
    def test_the_current_generation_and_the_one_before_are_kept(self, root, publish):
        for n in range(1, 5):
            publish(publish_id=f"p{n}", expected=f"p{n - 1}")
        assert folders(root) == ["g1.p3", "g1.p4"]

    def test_a_search_in_the_generation_before_can_end(self, root, publish):
        publish()
        before = root.open("repo").table
        publish(publish_id="p2", expected="p1")
        assert len(before.documents()) == 2
        assert len(before.bm25([("retry", 1.0)], 5)) == 2

    def test_a_generation_that_is_being_written_in_this_process_is_not_swept(self, root, publish, document, vectors):
        staging = root.stage("repo", "g1")
        staging.write([document("a.py")], vectors(1), [])
        publish()
        assert staging.folder.is_dir()
        staging.discard()
        assert leftovers(root) == []


WRITER = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[2])
from conftest import build_document, build_manifest, build_vectors
from summidx.store import folder, generations
root = generations.IndexRoot(sys.argv[1])
documents = [build_document("a.py"), build_document("b.py")]
staging = root.stage("repo", "killed")
staging.write(documents, build_vectors(2), [])
if sys.argv[3] == "staged":
    print("ready", flush=True)
    time.sleep(60)
folder.write_current = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
root.publish(staging, build_manifest(documents, generation="killed", publish_id="p9"), expected_publish_id="p1")
"""


def start_writer(root, until):
    here = Path(__file__).parents[1]
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(root.path), str(here), until],
        env=os.environ | {"PYTHONPATH": str(here.parent)},  # what the conftest there imports
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_writer_killed_before_it_published_leaves_the_old_index_and_is_swept(root, publish):
    publish()
    with start_writer(root, "staged") as writer:
        assert writer.stdout.readline() == "ready\n"
        root.stage("repo", "g2").discard()
        assert len(leftovers(root)) == 2, "the living writer's folder and lock stay"
        writer.send_signal(signal.SIGKILL)
    assert root.verify("repo", "key").manifest.publish_id == "p1"
    root.stage("repo", "g2").discard()
    assert leftovers(root) == []


def test_a_writer_killed_in_the_middle_of_a_publish_leaves_the_old_index_and_is_swept(root, publish):
    publish()
    with start_writer(root, "publish") as writer:
        assert writer.wait() == -signal.SIGKILL
    assert folders(root) == ["g1.p1", "killed.p9"]
    assert root.verify("repo", "key").manifest.publish_id == "p1"
    assert publish(publish_id="p2", expected="p1")
    assert folders(root) == ["g1.p1", "g1.p2"]


def _race(path, here, number, barrier, results):
    sys.path.insert(0, here)
    from conftest import build_document, build_manifest, build_vectors

    root = IndexRoot(path)
    documents = [build_document(f"{number}/{n}.py") for n in range(number + 1)]
    with root.stage("repo", f"g{number}") as staging:
        staging.write(documents, build_vectors(len(documents)), [])
        manifest = build_manifest(documents, commit=f"c{number}", generation=f"g{number}", publish_id=f"p{number}")
        barrier.wait(timeout=60)
        published = root.publish(staging, manifest, expected_publish_id="p-first")
    results.put((number, published))


def test_of_several_processes_that_publish_at_once_exactly_one_wins_and_readers_always_read(root, publish):
    publish(publish_id="p-first")
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(4), context.Queue()
    here = str(Path(__file__).parents[1])
    processes = [context.Process(target=_race, args=(root.path, here, n, barrier, results)) for n in range(4)]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        opened = root.open("repo")
        assert len(opened.table.documents()) == sum(
            n for by_status in opened.manifest.counts.values() for by in by_status.values() for n in by.values()
        )
    outcomes = dict(results.get(timeout=10) for _ in processes)
    winners = [number for number, published in outcomes.items() if published]
    assert len(winners) == 1
    assert root.read_manifest("repo").publish_id == f"p{winners[0]}"
    assert {each.path.split("/")[0] for each in root.open("repo").table.documents()} == {str(winners[0])}
    assert folders(root) == sorted(["g1.p-first", f"g{winners[0]}.p{winners[0]}"])
    assert leftovers(root) == []
