"""The fleet table is refreshed by as little as possible, and left as it was by whatever goes wrong."""

import multiprocessing
import os
import shutil
import signal
import time

import pytest

from summidx.errors import NewerIndex, StoreError
from summidx.store import fleet
from summidx.store.fleet import FLEET_FROM, read_fleet, refresh_fleet
from summidx.store.fleet_manifest import (
    MOST_SEGMENTS,
    Entry,
    FleetManifest,
    Segment,
    count_once,
    parse_fleet,
    plan_segments,
    render_fleet,
)
from summidx.store.generations import IndexRoot


def entry(name, publish_id="p1", **values):
    defaults = {
        "version": "1.2.3",
        "source": f"/src/{name}",
        "built_at": "2026-11-24",
        "embedding_model": "m",
        "dim": 4,
    }
    return Entry(name=name, publish_id=publish_id, **(defaults | values))


def segment(generation, members, **values):
    defaults = {"embedding_model": "m", "dim": 4, "rows": 10, "documents": 50, "code_documents": 40}
    return Segment(generation=generation, members=members, **(defaults | values))


def numbered(numbers, publish_id="p1"):
    return {f"r{number:04d}": publish_id for number in numbers}


class TestPlan:
    def test_what_is_as_it_was_is_left_alone(self):
        kept = segment("a", numbered(range(50)))
        plan = plan_segments([entry(name) for name in kept.members], [kept])
        assert (plan.kept, plan.written) == ((kept,), {})

    def test_a_few_new_ones_are_written_beside_the_large_segment(self):
        large = segment("a", numbered(range(1000)))
        wanted = [entry(name, "p2" if name < "r0030" else "p1") for name in numbered(range(1000))]
        plan = plan_segments(wanted, [large])
        assert plan.kept == (large,)
        assert plan.written == {"m": numbered(range(30), "p2")}

    def test_segments_of_like_size_become_one(self):
        segments = [segment("a", numbered(range(1000))), segment("b", numbered(range(1000, 1030)))]
        plan = plan_segments([entry(name) for name in numbered(range(1060))], segments)
        assert plan.kept == (segments[0],)
        assert plan.written == {"m": numbered(range(1000, 1060))}

    def test_a_segment_of_which_too_much_is_dead_is_written_anew(self):
        dying = segment("a", numbered(range(100)))
        plan = plan_segments([entry(name) for name in numbered(range(69))], [dying])
        assert plan == plan_segments([entry(name) for name in numbered(range(69))], [])
        assert plan_segments([entry(name) for name in numbered(range(71))], [dying]).kept == (dying,)

    def test_night_after_night_there_are_few_segments_and_little_is_written(self):
        segments, written = [], 0
        publish = dict.fromkeys(numbered(range(1000)), "p0")
        for night in range(60):
            changed = list(numbered(n % 1000 for n in range(night * 30, night * 30 + 30)))
            publish |= dict.fromkeys(changed, f"p{night}")
            plan = plan_segments([entry(name, each) for name, each in publish.items()], segments)
            segments = [*plan.kept, *(segment(f"s{night}", members) for members in plan.written.values())]
            written += sum(map(len, plan.written.values()))
            live = [name for each in segments for name, p in each.members.items() if publish[name] == p]
            assert sorted(live) == sorted(publish)
            assert len(segments) <= MOST_SEGMENTS
        assert written < 60 * 30 * 8

    def test_each_embedding_model_has_segments_of_its_own(self):
        plan = plan_segments([entry("a"), entry("b", embedding_model="other", dim=8)], [])
        assert plan.written == {"m": {"a": "p1"}, "other": {"b": "p1"}}

    def test_of_commits_of_one_repository_the_one_built_last_counts(self):
        commits = [entry(f"flask@{n}", source="/src/flask", built_at=f"2026-11-2{n}") for n in (1, 3, 2)]
        assert list(count_once([*commits, entry("a")])) == ["a", "flask@3"]


def test_a_manifest_comes_back_with_any_name_and_refuses_what_is_not_one():
    names = ["team/web", "été", "a\udcff", "..", "%2F"]
    manifest = FleetManifest(
        publish_id="p",
        built_at="now",
        entries=tuple(map(entry, names)),
        segments=(segment("s1", dict.fromkeys(names, "p1")),),
    )
    back = parse_fleet(render_fleet(manifest))
    assert [each.name for each in back.entries] == names
    assert list(back.segments[0].members) == names
    for bad in (b"", b"[]", b"{}", render_fleet(manifest).replace(b"web", b"bew")):
        with pytest.raises(ValueError):
            parse_fleet(bad)
    evil = FleetManifest(publish_id="p", built_at="now", segments=(segment("../../x", {}),))
    with pytest.raises(ValueError, match="not an id"):
        parse_fleet(render_fleet(evil))


@pytest.fixture
def many(publish):
    for number in range(FLEET_FROM):
        publish(name=f"r{number:04d}", source=f"/src/{number}")


def folder(root):
    return root.path / ".summidx" / "fleet"


def generations(root):
    return sorted(path.name for path in (folder(root) / "generations").iterdir())


def test_few_repositories_need_no_table(root, publish):
    publish(name="a")
    assert refresh_fleet(root).segments == 0
    assert refresh_fleet(root, rebuild=True).segments == 0
    assert not folder(root).exists()


def test_a_second_refresh_writes_nothing(root, many):
    done = refresh_fleet(root)
    assert (done.repositories, done.written, done.rows, done.segments) == (FLEET_FROM, FLEET_FROM, FLEET_FROM, 1)
    before = {path: path.stat().st_mtime_ns for path in folder(root).rglob("*")}
    assert refresh_fleet(root).written == 0
    assert {path: path.stat().st_mtime_ns for path in folder(root).rglob("*")} == before
    assert root.names() == sorted(f"r{number:04d}" for number in range(FLEET_FROM))


def test_segments_that_nobody_can_be_reading_are_deleted(root, many):
    for _ in range(4):
        refresh_fleet(root, rebuild=True)
    assert len(generations(root)) == 1 + 1


def test_an_index_whose_current_is_copied_back_is_read_again(root, many):
    refresh_fleet(root)
    for name in root.names():
        shutil.copytree(root.path / name, root.path / "copy", symlinks=True)
        shutil.rmtree(root.path / name)
        (root.path / "copy").rename(root.path / name)
    assert refresh_fleet(root).written == 0


def test_a_disk_that_is_full_leaves_the_table_as_it_was(root, many, publish, monkeypatch):
    refresh_fleet(root)
    before = read_fleet(root)
    publish(name="new", source="/src/new")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fleet, "write_inventory", refuse)
    with pytest.raises(StoreError, match=r"cannot be written: .*No space left on device"):
        refresh_fleet(root)
    assert read_fleet(root) == before
    assert list((folder(root) / "staging").iterdir()) == []
    monkeypatch.undo()
    assert refresh_fleet(root).written == 1


def _refresh_slowly(path, reached):
    def tell(done, of):
        if done == of - 1:
            reached.set()
            time.sleep(60)

    refresh_fleet(IndexRoot(path), tell=tell)


def test_a_refresh_that_is_killed_leaves_the_table_as_it_was_and_the_next_sweeps(root, many, publish):
    refresh_fleet(root)
    before = read_fleet(root)
    for number in range(100, 105):
        publish(name=f"r{number:04d}", source=f"/src/{number}")
    context = multiprocessing.get_context("spawn")
    reached = context.Event()
    process = context.Process(target=_refresh_slowly, args=(root.path, reached))
    process.start()
    assert reached.wait(60)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert read_fleet(root) == before
    assert list((folder(root) / "staging").iterdir())
    assert refresh_fleet(root).written >= 5
    assert list((folder(root) / "staging").iterdir()) == []


def test_a_refresh_that_was_overtaken_goes_on_with_what_is_left(root, many, publish, monkeypatch):
    refresh_fleet(root)
    publish(name="first", source="/src/first")
    render = fleet.render_fleet
    overtaken = []

    def render_late(manifest):
        if not overtaken:
            overtaken.append(True)
            publish(name="second", source="/src/second")
            refresh_fleet(root)
        return render(manifest)

    monkeypatch.setattr(fleet, "render_fleet", render_late)
    refresh_fleet(root)
    names = {name for each in read_fleet(root).segments for name in each.members}
    assert {"first", "second"} < names
    assert len(generations(root)) <= 4


def test_a_table_of_a_newer_summidx_is_left_alone(root, many):
    refresh_fleet(root)
    newer = b'{"format": 99}'
    (folder(root) / "CURRENT").write_bytes(newer)
    with pytest.raises(NewerIndex, match="newer summidx"):
        refresh_fleet(root, rebuild=True)
    assert (folder(root) / "CURRENT").read_bytes() == newer
