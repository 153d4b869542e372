"""An index is read whole, and what is damaged is known to every plan from then on."""

import json
import random

import pytest

from summidx.errors import StoreError
from summidx.store.inventory import FILES, MARK
from summidx.store.sealed import seal, unseal
from summidx.store.verification import read_whole


def generation_of(root, name="repo"):
    return root.generation_folder(name, root.read_manifest(name))


def flip(path, at, bit=0):
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


class TestSeal:
    def test_what_was_sealed_comes_back_and_every_flipped_bit_is_seen(self):
        value = {"name": "été \udcff", "empty": "", "n": 3, "nested": {"digest": "not ours", "list": [1.5, None]}}
        value["name"] = "été"
        data = seal(value)
        assert unseal(data) == value
        assert json.loads(data)["digest"]
        for at in range(len(data)):
            for bit in range(8):
                changed = bytearray(data)
                changed[at] ^= 1 << bit
                try:
                    assert unseal(bytes(changed)).keys() != value.keys(), (at, bit)  # the seal's own name changed
                except ValueError:
                    continue

    def test_what_was_written_before_there_was_a_seal_is_read(self):
        assert unseal(b'{"a": 1}') == {"a": 1}


class TestReadWhole:
    def test_a_whole_index_is_whole(self, root, publish):
        publish()
        found = read_whole(root, "repo")
        assert (found.faults, found.documents, found.has_digests) == ((), 2, True)
        assert not (generation_of(root) / MARK).exists()

    def test_a_bit_that_flipped_in_any_file_is_found_and_makes_the_index_damaged_for_the_plan(self, root, publish):
        publish()
        chosen = random.Random(7)
        generation = generation_of(root)
        for path in sorted(path for path in generation.rglob("*") if path.is_file()):
            before = path.read_bytes()
            flip(path, chosen.randrange(len(before)), chosen.randrange(8))
            found = read_whole(root, "repo")
            assert len(found.faults) == 1, path
            assert str(path.relative_to(generation)) in found.faults[0]
            assert not found.not_marked
            path.write_bytes(before)
            verified = root.verify("repo", "key")  # sizes alone would say that it is up to date
            assert verified.manifest is None, path
            assert verified.why.startswith("damaged: "), path
            (generation / MARK).unlink()
        assert root.verify("repo", "key").manifest is not None

    def test_a_bit_that_flipped_in_current_is_seen_by_every_reader(self, root, publish):
        publish()
        path = root.index_folder("repo") / "CURRENT"
        before = path.read_bytes()
        for at in range(len(before)):
            flip(path, at, at % 8)
            with pytest.raises(StoreError):
                root.read_manifest("repo")
            assert len(read_whole(root, "repo").faults) == 1
            path.write_bytes(before)
        assert read_whole(root, "repo").faults == ()

    def test_all_damaged_files_are_named(self, root, publish):
        publish()
        generation = generation_of(root)
        (generation / "skips.json").unlink()
        data = next((generation / "documents.lance" / "data").iterdir())
        flip(data, 100)
        data.with_name("stray.lance").write_bytes(b"x")
        found = read_whole(root, "repo")
        assert sorted(found.faults) == [
            f"{data.relative_to(generation)} is not as it was written",
            "documents.lance/data/stray.lance was not there when it was built",
            "skips.json is missing",
        ]
        assert "and 2 more" in root.verify("repo", "key").why

    def test_a_build_replaces_the_damaged_generation_and_its_mark(self, root, publish):
        publish()
        flip(generation_of(root) / "skips.json", 0)
        assert read_whole(root, "repo").faults
        assert publish(publish_id="p2", expected="p1")
        assert root.verify("repo", "key").manifest.publish_id == "p2"
        assert read_whole(root, "repo").faults == ()

    def test_a_generation_without_digests_is_read_and_its_rows_are_checked(self, root, publish):
        publish()
        inventory = generation_of(root) / FILES
        files = unseal(inventory.read_bytes())["files"]
        inventory.write_text(json.dumps({name: each["bytes"] for name, each in files.items()}))
        assert root.verify("repo", "key").manifest is not None
        found = read_whole(root, "repo")
        assert (found.faults, found.has_digests) == ((), False)
        current = root.index_folder("repo") / "CURRENT"
        data = json.loads(current.read_text())
        data["counts"] = {"function": {"ok": {"extractive": 2}}}
        del data["digest"]
        current.write_text(json.dumps(data))
        assert read_whole(root, "repo").faults == ("its 2 rows are not those that its manifest counts",)

    def test_an_index_that_is_published_anew_while_it_is_read_is_read_again_and_not_marked(
        self, root, publish, monkeypatch
    ):
        from summidx.store import verification

        publish()
        flip(generation_of(root) / "skips.json", 0)
        look = verification.find_changed_files

        def look_then_publish(folder):
            monkeypatch.setattr(verification, "find_changed_files", look)
            found = list(look(folder))
            publish(publish_id="p2", expected="p1")
            return found

        monkeypatch.setattr(verification, "find_changed_files", look_then_publish)
        assert read_whole(root, "repo").faults == ()
        assert not (generation_of(root) / MARK).exists()
        assert root.verify("repo", "key").manifest is not None

    def test_a_finding_that_cannot_be_left_is_told(self, root, publish, monkeypatch):
        from summidx.store import verification

        publish()
        flip(generation_of(root) / "skips.json", 0)

        def refuse(folder, found):
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(verification, "mark_damaged", refuse)
        found = read_whole(root, "repo")
        assert found.faults
        assert "Read-only" in found.not_marked

    def test_an_index_that_is_gone_is_no_damage(self, root, publish):
        assert read_whole(root, "repo").faults == ()
