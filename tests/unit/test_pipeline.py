"""One repository from source to published index, with real git repositories and a real LanceDB table."""

import shutil
import subprocess
import threading
from dataclasses import replace

import pytest

from summidx import vectors
from summidx.engine import Engine
from summidx.errors import SourceError, Stopped, TooManyFailures
from summidx.pipeline import index_repo
from summidx.plan import load_plan, make_plan, make_retry_plan, write_plan
from summidx.records import Level, Outcome, RepoRef, Status, UnitFailure, count_documents, count_where
from summidx.settings import load_settings
from summidx.store.generations import IndexRoot
from summidx.vectors import RepoVectors

SHAPES = '''"""Shapes and their areas."""

import math

PI = math.pi


class Circle:
    """A round thing."""

    def __init__(self, radius):
        self.radius = radius

    def area(self):
        """Surface of the circle."""
        if self.radius < 0:
            raise ValueError("negative radius")
        return PI * self.radius**2


def total_area(shapes):
    """Sum of all areas."""
    result = 0
    for shape in shapes:
        result += shape.area()
    return result
'''


def git(folder, *args):
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *args]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder, files, message="change"):
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", message)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def repo(tmp_path):
    folder = tmp_path / "shapes"
    folder.mkdir()
    git(folder, "init", "-q")
    commit(
        folder,
        {
            "README.md": "# Shapes\n\nShapes is a library of geometry.\n\nInstall it with pip.\n",
            "src/shapes/core.py": SHAPES,
            "src/shapes/__init__.py": "",
            "tests/test_core.py": "from shapes.core import Circle\n\n\ndef test_area():\n    assert Circle(1).area()\n",
            "logo.png": "\x00\x01",
        },
    )
    return folder


@pytest.fixture
def settings(tmp_path):
    return load_settings({"index_root": str(tmp_path / "index"), "embedding": {"model": "hashing"}})


def plan_one(repo, settings, revision=None, name="shapes"):
    (planned,) = make_plan([RepoRef(name, str(repo), revision)], settings).repos
    return planned


@pytest.fixture
def engine(settings):
    engine = Engine(settings)
    yield engine
    engine.close()


def build(repo, engine, **plan):
    planned = plan_one(repo, engine.settings, **plan)
    return index_repo(planned.pin, engine, expected_publish_id=planned.expected_publish_id)


def documents_of(settings, name="shapes"):
    return {each.id: each for each in IndexRoot(settings.index_root).open(name).table.documents()}


def test_every_unit_of_a_repository_is_published_with_a_summary(repo, settings, engine):
    report = build(repo, engine)
    documents = documents_of(settings)
    assert report.outcome is Outcome.BUILT
    assert set(documents) == {
        ".",
        "README.md",
        "src/shapes/",
        "src/shapes/__init__.py",
        "src/shapes/core.py",
        "src/shapes/core.py::Circle",
        "src/shapes/core.py::Circle.__init__",
        "src/shapes/core.py::Circle.area",
        "src/shapes/core.py::total_area",
        "tests/",
        "tests/test_core.py",
        "tests/test_core.py::test_area",
    }
    assert all(each.summary and each.status is Status.OK for each in documents.values())
    assert report.counts == count_documents(documents.values())
    assert report.skips == {"binary": 1}
    manifest = IndexRoot(settings.index_root).read_manifest("shapes")
    assert (manifest.counts, manifest.commit) == (report.counts, git(repo, "rev-parse", "HEAD"))


def test_a_second_plan_finds_it_up_to_date_and_the_task_does_nothing(repo, settings, engine):
    first = build(repo, engine)
    planned = plan_one(repo, settings)
    assert (planned.up_to_date, planned.why) == (True, "up to date")
    again = index_repo(planned.pin, engine)
    assert (again.outcome, again.generation) == (Outcome.UP_TO_DATE, first.generation)


def test_new_content_another_setting_and_damage_are_each_rebuilt_for_that_reason(repo, settings, engine):
    assert plan_one(repo, settings).why == "new"
    build(repo, engine)
    levels = settings.model_copy(update={"levels": (Level.FILE,)})
    assert not plan_one(repo, levels).up_to_date
    commit(repo, {"src/shapes/core.py": SHAPES.replace("negative radius", "no negative radius")})
    planned = plan_one(repo, settings)
    assert (planned.up_to_date, planned.why) == (False, "content changed")
    assert build(repo, engine).outcome is Outcome.BUILT
    (IndexRoot(settings.index_root).index_folder("shapes") / "CURRENT").write_text("{ torn")
    assert plan_one(repo, settings).why.startswith("damaged")
    assert build(repo, engine).outcome is Outcome.BUILT
    assert plan_one(repo, settings).up_to_date


def test_only_the_levels_that_were_asked_for_are_published(repo, settings):
    engine = Engine(settings.model_copy(update={"levels": (Level.CLASS, Level.REPO)}))
    build(repo, engine)
    engine.close()
    assert set(documents_of(settings)) == {".", "src/shapes/core.py::Circle"}


def test_vectors_of_unchanged_text_are_not_embedded_again(repo, settings, engine):
    first = build(repo, engine)
    assert first.usage.vectors_embedded > 5
    commit(repo, {"README.md": "# Shapes\n\nShapes is a library of geometry for all of us.\n\nInstall it with pip.\n"})
    second = build(repo, engine)
    assert 1 <= second.usage.vectors_embedded <= 2
    assert second.usage.vectors_reused == first.usage.vectors_embedded + first.usage.vectors_reused - 2


def test_several_revisions_of_one_repository_stand_side_by_side(repo, settings, engine):
    old = git(repo, "rev-parse", "HEAD")
    commit(repo, {"src/shapes/extra.py": "def extra(a):\n    if a:\n        return 1\n    return 2\n"})
    build(repo, engine, revision=old, name="shapes@old")
    build(repo, engine, name="shapes@new")
    new, before = documents_of(settings, "shapes@new"), documents_of(settings, "shapes@old")
    assert set(new) - set(before) == {"src/shapes/extra.py", "src/shapes/extra.py::extra"}


def test_a_repository_that_the_plan_could_not_read_fails_in_its_task_and_heals_with_the_next_plan(
    repo, settings, engine
):
    planned = plan_one(repo, settings, revision="v9")
    assert (planned.pin.build_key, planned.needs_worker) == ("", False)
    assert "v9" in planned.why
    with pytest.raises(SourceError, match="v9"):
        index_repo(planned.pin, engine)
    git(repo, "tag", "v9")
    with pytest.raises(SourceError, match="can be now: retry the run"):
        index_repo(planned.pin, engine)
    planned = plan_one(repo, settings, revision="v9")
    assert planned.needs_worker
    assert index_repo(planned.pin, engine).outcome is Outcome.BUILT


def test_the_plan_of_a_run_is_used_again_by_its_retry(repo, settings, engine):
    plan = make_plan([RepoRef("shapes", str(repo))], settings)
    write_plan(plan, settings.index_root, "run-1")
    assert load_plan(settings.index_root, "run-1") == plan
    index_repo(plan.repos[0].pin, engine)
    commit(repo, {"README.md": "moved on\n"})
    retried = make_retry_plan(load_plan(settings.index_root, "run-1"), settings).repos[0]
    assert retried.up_to_date
    assert retried.pin == plan.repos[0].pin
    assert load_plan(settings.index_root, "run-2") is None


def test_too_many_failures_leave_the_old_index_published(repo, settings, engine, monkeypatch):
    first = build(repo, engine)
    commit(repo, {"README.md": "new\n"})
    summarize = engine.summarize

    def failing(tree, usage, stop, settled, n):
        done = summarize(tree, usage, stop, settled)
        lost = {unit_id: UnitFailure("Overloaded", "busy") for unit_id in list(tree.units)[:n]}
        return replace(done, outcomes={**done.outcomes, **lost})

    monkeypatch.setattr(engine, "summarize", lambda *args: failing(*args, 4))
    with pytest.raises(TooManyFailures, match=r"4 of 12 documents failed.*Overloaded: busy"):
        build(repo, engine)
    assert IndexRoot(settings.index_root).read_manifest("shapes").generation == first.generation
    monkeypatch.setattr(engine, "summarize", lambda *args: failing(*args, 3))
    report = build(repo, engine)
    assert count_where(report.counts, status="failed") == 3
    assert plan_one(repo, settings).why == "3 failed documents"
    lost = documents_of(settings)["."]
    assert (lost.summary, lost.origin, lost.reason) == ("", None, "Overloaded: busy")


def test_nothing_is_published_after_a_stop(repo, settings, engine):
    engine.stop.request("Ctrl-C")
    with pytest.raises(Stopped, match=r"Ctrl-C"):
        build(repo, engine)
    assert IndexRoot(settings.index_root).names() == []


def test_an_overtaken_build_is_discarded_and_says_so(repo, settings, engine, monkeypatch):
    slow = plan_one(repo, settings)
    get = RepoVectors.get

    def get_slowly(vectors, texts):
        monkeypatch.setattr(RepoVectors, "get", get)
        commit(repo, {"README.md": "newer\n"})
        assert build(repo, engine).outcome is Outcome.BUILT
        return get(vectors, texts)

    monkeypatch.setattr(RepoVectors, "get", get_slowly)
    assert index_repo(slow.pin, engine).outcome is Outcome.SUPERSEDED
    assert IndexRoot(settings.index_root).read_manifest("shapes").commit == git(repo, "rev-parse", "HEAD")


def test_an_index_built_through_the_cache_equals_a_cold_build(repo, settings, engine, tmp_path):
    build(repo, engine)
    commit(repo, {"src/shapes/core.py": SHAPES.replace("A round thing", "A disc")})
    build(repo, engine)
    cold = Engine(settings.model_copy(update={"index_root": str(tmp_path / "cold")}))
    build(repo, cold)
    cold.close()
    assert documents_of(settings) == documents_of(cold.settings)


def test_a_retry_of_an_old_run_does_not_put_an_older_index_over_a_newer_one(repo, settings, engine):
    monday = make_plan([RepoRef("shapes", str(repo))], settings)
    commit(repo, {"README.md": "tuesday\n"})
    build(repo, engine)
    retried = make_retry_plan(monday, settings).repos[0]
    assert retried.pin.commit == monday.repos[0].pin.commit
    report = index_repo(retried.pin, engine, expected_publish_id=retried.expected_publish_id)
    assert report.outcome is Outcome.SUPERSEDED
    assert IndexRoot(settings.index_root).read_manifest("shapes").commit == git(repo, "rev-parse", "HEAD")


def test_a_retry_trusts_only_what_it_verifies(repo, settings, engine):
    plan = make_plan([RepoRef("shapes", str(repo))], settings)
    pin = plan.repos[0].pin
    index_repo(pin, engine)
    assert make_retry_plan(plan, settings).repos[0].pin == pin
    root = IndexRoot(settings.index_root)
    shutil.rmtree(root.generation_folder("shapes", root.read_manifest("shapes")))
    retried = make_retry_plan(plan, settings).repos[0]
    assert not retried.up_to_date
    assert retried.why.startswith("damaged")
    assert retried.pin.generation != pin.generation
    report = index_repo(retried.pin, engine, expected_publish_id=retried.expected_publish_id)
    assert report.outcome is Outcome.BUILT


def test_a_repository_without_documents_of_the_asked_level_has_an_empty_index(repo, settings):
    commit(repo, {"src/shapes/core.py": "PI = 3\n", "tests/test_core.py": ""})
    engine = Engine(settings.model_copy(update={"levels": (Level.FUNCTION,)}))
    report = build(repo, engine)
    assert report.counts == {}
    assert documents_of(settings) == {}
    assert plan_one(repo, engine.settings).up_to_date
    engine.close()


def test_a_plain_folder_that_holds_its_own_index_is_up_to_date_when_built_again(tmp_path):
    folder = tmp_path / "plain"
    folder.mkdir()
    (folder / "core.py").write_text(SHAPES)
    settings = load_settings({"index_root": str(folder / "index"), "embedding": {"model": "hashing"}})
    engine = Engine(settings)
    first = build(folder, engine, name="plain")
    assert first.outcome is Outcome.BUILT
    assert plan_one(folder, settings, name="plain").up_to_date
    engine.close()


def test_texts_are_embedded_while_other_summaries_are_still_being_written(repo, settings, engine, monkeypatch):
    monkeypatch.setattr(vectors, "EMBED_SLICE", 2)
    embedded = threading.Event()
    embed = engine._embed_now
    summarize = engine.summarize

    def embed_now(texts):
        embedded.set()
        return embed(texts)

    def summarize_and_wait(*args):
        done = summarize(*args)
        assert embedded.wait(30)  # nothing else embeds before this returns
        return done

    monkeypatch.setattr(engine, "_embed_now", embed_now)
    monkeypatch.setattr(engine, "summarize", summarize_and_wait)
    report = build(repo, engine)
    assert report.usage.vectors_embedded == report.usage.vectors_reused + len(documents_of(settings))
    assert report.usage.embedding_s > 0
