"""What runs leave behind stays bounded, and what is not ours, or still needed, stays."""

import json
import os
import time

import pytest
from typer.testing import CliRunner

from summidx.cli import app
from summidx.disk import measure_disk
from summidx.retention import sweep_runs
from summidx.settings import load_settings

OURS = {"name": "repo", "outcome": "built", "commit": "", "generation": "g", "counts": {}}


def record(result, kind="json"):
    return json.dumps({"metadata": {"serializer": {"type": kind}}, "result": json.dumps(result)})


def write(path, text="x", *, days=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, times=(time.time() - days * 86_400,) * 2)
    return path


@pytest.fixture
def settings(tmp_path):
    return load_settings({"index_root": str(tmp_path / "index"), "log_dir": str(tmp_path / "logs")})


def test_what_is_old_is_deleted_and_all_else_stays(settings, tmp_path):
    plans, logs, results = tmp_path / "index" / ".summidx" / "plans", tmp_path / "logs", tmp_path / "results"
    old = [
        write(plans / "1.json", days=31),
        write(plans / "1.abc.tmp", days=31),
        write(logs / "20260101T000000Z-run-0a1b2c3d.log", days=31),
        write(logs / "20260101T000000Z-worker-17.log", days=31),
        write(results / "aa", record(OURS), days=31),
        write(tmp_path / "index" / "cache.sqlite.damaged-20260101T000000Z", days=31),
    ]
    kept = [
        write(plans / "2.json", days=29),
        write(logs / "20260201T000000Z-run-0a1b2c3d.log", days=29),
        write(logs / "notes.log", days=90),
        write(logs / ".gitignore", days=90),
        write(results / "bb", record(OURS), days=29),
        write(results / "cc", record({"of": "another flow"}), days=90),
        write(results / "dd", "no JSON", days=90),
        write(results / "ee", record(OURS, kind="pickle"), days=90),
        write(tmp_path / "index" / "cache.sqlite", days=90),
    ]
    would = sweep_runs(settings, results, dry_run=True)
    assert sorted(tmp_path / "index" / each.path for each in would) == sorted(old)
    assert all(path.exists() for path in old)
    assert sweep_runs(settings, results) == would
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in kept)


def test_what_the_last_runs_cost_is_kept_for_the_next_plan(settings, tmp_path):
    paths = [write(tmp_path / "logs" / f"2026010{n % 10}T0000{n:02}Z-run-0a.jsonl", days=400) for n in range(25)]
    sweep_runs(settings, tmp_path / "results")
    assert sorted(path for path in paths if path.exists()) == sorted(paths)[-20:]


def test_keep_days_is_a_setting(settings, tmp_path):
    path = write(tmp_path / "index" / ".summidx" / "plans" / "1.json", days=5)
    sweep_runs(settings.model_copy(update={"keep_days": 4}), tmp_path)
    assert not path.exists()


class TestDisk:
    def test_all_that_lies_there_is_told_by_kind(self, root, publish, tmp_path, settings):
        settings = settings.model_copy(update={"index_root": str(root.path)})
        publish()
        publish(publish_id="p2", expected="p1")
        staging = root.stage("repo", "g3")
        (staging.folder / "half").write_bytes(bytes(50_000))
        write(root.index_folder("repo") / "staging" / "dead" / "half", "x" * 100_000)
        write(tmp_path / "logs" / "20260101T000000Z-run-0a1b2c3d.log", "x" * 10_000, days=31)
        use = measure_disk(settings, tmp_path / "results")
        staging.discard()
        (index,) = use.indexes
        assert index.current_bytes > 10_000 < index.previous_bytes
        assert index.building_bytes >= 50_000
        assert index.left_bytes >= 100_000
        places = {each.what: each for each in use.places}
        assert places["indexes"].size_bytes == index.current_bytes
        assert places["left by dead writers"].old_bytes == index.left_bytes
        assert places["logs"].old_bytes >= 10_000
        assert use.free[0].free_bytes > 0

    def test_it_is_one_command(self, root, publish, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
        publish()
        done = CliRunner().invoke(app, ["disk", "--index-root", str(root.path)])
        assert done.exit_code == 0
        for what in ("indexes", "left by dead writers", "logs", "results", "Prefect's database", "free of"):
            assert what in done.stdout
        told = json.loads(CliRunner().invoke(app, ["disk", "--index-root", str(root.path), "--json"]).stdout)
        assert told["indexes"][0]["name"] == "repo"


class TestPruneCommand:
    @pytest.fixture
    def prune(self, root, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
        return lambda *args: CliRunner().invoke(app, ["prune", "--index-root", str(root.path), *args])

    def test_indexes_without_a_source_are_removed_after_a_look(self, prune, root, publish, tmp_path):
        for name in ("one", "two", "three"):
            publish(name=name, source=str(tmp_path if name != "three" else tmp_path / "gone"))
        assert "three: would be removed" in prune("--missing", "--dry-run").stdout
        assert len(root.names()) == 3
        done = json.loads(prune("--missing", "--json").stdout)
        assert [each["name"] for each in done["indexes"]] == ["three"]
        assert root.names() == ["one", "two"]

    def test_most_of_all_indexes_are_only_removed_when_that_is_confirmed(self, prune, root, publish):
        publish(source="/not/mounted/repo")
        done = prune("--missing")
        assert done.exit_code == 2
        assert "1 of 1 indexes would be removed" in done.stderr
        assert root.names() == ["repo"]
        assert prune("--missing", "--confirm").exit_code == 0
        assert root.names() == []

    def test_without_a_condition_no_index_is_removed(self, prune, root, publish):
        publish(source="/not/mounted/repo", built_at="2020-01-01T00:00:00+00:00")
        write(root.index_folder("repo") / "staging" / "dead" / "half")
        assert prune().exit_code == 0
        assert root.names() == ["repo"]
        assert not (root.index_folder("repo") / "staging" / "dead").exists()

    def test_what_is_being_built_is_named_and_is_an_error(self, prune, root, publish):
        publish(source="/not/mounted/repo")
        with root.stage("repo", "g2"):
            done = prune("--missing", "--confirm")
        assert done.exit_code == 1
        assert "repo" in done.stderr
        assert root.names() == ["repo"]

    def test_an_age_that_is_none_is_refused(self, prune):
        assert prune("--older-than", "soon").exit_code == 2
