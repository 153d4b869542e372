"""What is known to fail is listed and left alone, until something changes that could have it succeed."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from summidx import errors, sources
from summidx.known_failures import FOLDER, FailureNotes, find_known, load_known_failures
from summidx.plan import load_plan, make_plan, make_retry_plan, write_plan
from summidx.records import PinnedRepo, RepoRef
from summidx.retention import sweep_runs
from summidx.settings import SourceSettings, load_settings

ERRORS = [value for value in vars(errors).values() if isinstance(value, type)]
PIN = PinnedRepo("some/repo", "/repos/repo", "c1", "k1", "g1")
UNPARSABLE = errors.Unparsable("the parser crashed on 5 file(s)")


def make_settings(tmp_path, **settings):
    return load_settings({"index_root": str(tmp_path / "index"), "embedding": {"model": "hashing"}} | settings)


@pytest.fixture
def settings(tmp_path):
    return make_settings(tmp_path)


def note(settings, pin=PIN, error=UNPARSABLE):
    return FailureNotes(settings).failed(pin, error)


def known(settings, pin=PIN, error=None):
    return find_known(load_known_failures(settings.index_root), pin, error, settings)


def files(settings):
    return sorted(path.name for path in (Path(settings.index_root) / FOLDER).glob("*"))


def age(settings, days):
    """Have all that is known happened so long ago."""
    for path in (Path(settings.index_root) / FOLDER).glob("*.json"):
        value = json.loads(path.read_text())
        then = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")
        path.write_text(json.dumps(value | {"first_failed_at": then, "last_failed_at": then}))


def test_which_errors_are_permanent():
    """A new one is not, until somebody argues for it in its docstring."""
    permanent = {error.__name__ for error in ERRORS if error.permanent}
    assert permanent == {"UnknownRevision", "UnsupportedSource", "SourceTooLarge", "Unparsable"}
    assert all("Permanent: " in (error.__doc__ or "") for error in ERRORS if error.permanent)


def test_a_permanent_failure_is_known_and_a_success_forgets_it(settings):
    assert known(settings) is None
    note(settings)
    found = known(settings)
    assert (found.error, found.reason) == ("Unparsable", "the parser crashed on 5 file(s)")
    assert files(settings) == ["some%2Frepo.json"]
    FailureNotes(settings).succeeded(PIN.name)
    assert known(settings) is None
    assert files(settings) == []


@pytest.mark.parametrize(
    "error", [errors.TooManyFailures("x"), errors.RepoTimeout("x"), errors.SourceError("x"), OSError()]
)
def test_a_failure_that_may_heal_is_not_known(settings, error):
    note(settings, error=error)
    assert files(settings) == []


def test_a_fault_of_the_moment_does_not_make_a_known_failure_forgotten(settings):
    note(settings)
    note(settings, error=errors.StoreError("no space left"))
    assert known(settings)
    note(settings, pin=replace(PIN, build_key="k2"), error=errors.StoreError("no space left"))
    assert files(settings) == [], "of a build that nobody asks for any more"


@pytest.mark.parametrize("changed", [{"build_key": "k2"}, {"commit": "c2"}, {"source": "/elsewhere"}])
def test_what_has_changed_is_tried(settings, changed):
    note(settings)
    assert known(settings, replace(PIN, **changed)) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"parsing": {"memory_mb": 4096}},
        {"sources": {"max_files": 9}},
        {"sources": {"max_total_bytes": 9}},
        {"known_failure_days": 0},
        {"retry_known": True},
    ],
)
def test_a_setting_that_may_have_it_succeed_has_it_tried(settings, tmp_path, changed):
    """They are not in the build key."""
    note(settings)
    assert known(make_settings(tmp_path, **changed)) is None


def test_another_release_of_summidx_tries_it(settings, monkeypatch):
    note(settings)
    monkeypatch.setattr("summidx.__version__", "999")
    assert known(settings) is None


def test_after_its_time_it_is_tried_and_remembered_for_how_long_it_has_failed(settings, tmp_path):
    note(settings)
    age(settings, 6.9)
    assert known(settings)
    age(settings, 7.1)
    assert known(settings) is None
    assert known(make_settings(tmp_path, known_failure_days=8))
    before = note(settings)
    again = known(settings)
    assert again.first_failed_at == before.first_failed_at < again.last_failed_at
    assert f"known failure since {again.first_failed_at[:10]}, tried again on " in again.describe(settings)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"name": "some/repo"}', "\0"])
def test_a_note_that_cannot_be_read_counts_for_nothing(settings, content):
    note(settings)
    (path,) = (Path(settings.index_root) / FOLDER).glob("*.json")
    path.write_text(content)
    assert known(settings) is None


def test_a_disk_that_refuses_costs_the_note_and_not_the_run(settings, caplog):
    (Path(settings.index_root) / ".summidx").mkdir(parents=True)
    (Path(settings.index_root) / FOLDER).write_text("no folder")
    note(settings)
    assert "cannot be kept" in caplog.text


def test_hostile_names_and_reasons_are_kept_within_their_folder_and_bounds(settings):
    pin = replace(PIN, name="../../\x1b[2J\udcff")
    note(settings, pin=pin, error=errors.Unparsable("bad \x1b[2J\u202e\udcff " + "x" * 9999))
    found = known(settings, pin)
    assert found.reason.isprintable()
    assert len(found.reason) <= 1000
    assert len(files(settings)) == 1


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ("empty", errors.UnknownRevision),
        ("full@v9", errors.UnknownRevision),
        ("full@HEAD:a.py", errors.UnknownRevision),
        (f"full@{'a' * 64}", errors.UnsupportedSource),
        ("folder@v9", errors.UnknownRevision),
        ("reftable", errors.UnsupportedSource),
        ("leads-out", errors.UnsupportedSource),
        ("large", errors.SourceTooLarge),
        ("gone", errors.SourceError),
        ("damaged", errors.SourceError),
    ],
)
def test_what_a_repository_is_refused_for(asked, error, tmp_path):
    import pygit2

    author = pygit2.Signature("A", "a@example.org", 1_700_000_000, 0)
    for name in ("empty", "full", "reftable", "leads-out", "damaged"):
        repo = pygit2.init_repository(tmp_path / name, initial_head="main")
        if name != "empty":
            (tmp_path / name / "a.py").write_text("x = 1\n")
            repo.index.add("a.py")
            repo.create_commit("HEAD", author, author, "first", repo.index.write_tree(), [])
    (tmp_path / "reftable" / ".git" / "reftable").mkdir()
    (tmp_path / "leads-out" / ".git" / "objects" / "info" / "alternates").write_text("/somewhere/else\n")
    (tmp_path / "damaged" / ".git" / "refs" / "heads" / "main").write_text("no id\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "large" / "below").mkdir(parents=True)
    for n in range(3):
        (tmp_path / "large" / f"{n}.py").write_text("x = 1\n")
    path, _, revision = asked.partition("@")
    with pytest.raises(errors.SourceError) as raised:
        sources.resolve(RepoRef("r", str(tmp_path / path), revision or None), SourceSettings(max_files=2))
    assert type(raised.value) is error, raised.value


class TestPlan:
    """Seen from a plan of real repositories."""

    @pytest.fixture
    def refs(self, tmp_path):
        for name, size in (("big", 3000), ("small", 10), ("middle", 500)):
            (tmp_path / name).mkdir()
            (tmp_path / name / "a.py").write_text("x = 1\n" * size)
        return [RepoRef(name, str(tmp_path / name)) for name in ("big", "small", "middle")]

    def names(self, repos):
        return [repo.pin.name for repo in repos]

    def test_it_is_listed_and_not_built(self, refs, settings, tmp_path):
        note(settings, pin=make_plan(refs, settings).repos[0].pin)
        plan = make_plan(refs, settings)
        assert self.names(plan.to_build) == ["middle", "small"]
        (listed,) = plan.known_failures
        assert listed.why.startswith("known failure since 20")
        assert "(or with --retry-known): the parser crashed on 5 file(s)" in listed.why
        assert self.names(make_plan(refs, make_settings(tmp_path, retry_known=True)).to_build)[0] == "big"
        (tmp_path / "big" / "a.py").write_text("y = 1\n" * 3000)
        assert not make_plan(refs, settings).known_failures

    def test_a_retry_of_the_run_tries_what_that_run_tried(self, refs, settings):
        first = make_plan(refs, settings)
        note(settings, pin=first.repos[0].pin)
        note(settings, pin=first.repos[1].pin)
        write_plan(first, settings.index_root, "run")
        assert len(make_retry_plan(load_plan(settings.index_root, "run"), settings).to_build) == 3
        second = make_plan(refs, settings)
        write_plan(second, settings.index_root, "second")
        assert load_plan(settings.index_root, "second") == second
        retried = make_retry_plan(load_plan(settings.index_root, "second"), settings)
        assert self.names(retried.known_failures) == ["big", "middle"]

    def test_a_revision_that_is_not_there_is_known_until_it_is(self, make_git, settings):
        missing = RepoRef("git", str(make_git), "v9")
        planned = make_plan([missing], settings).repos[0]
        assert planned.known is None
        note(settings, pin=planned.pin, error=errors.UnknownRevision(planned.why))
        assert make_plan([missing], settings).known_failures
        moved = Path(missing.source).rename(make_git.with_name("moved"))
        assert not make_plan([missing], settings).known_failures, "a disk that is away is another matter"
        moved.rename(missing.source)
        import pygit2

        repo = pygit2.Repository(missing.source)
        repo.references.create("refs/tags/v9", repo.head.target)
        assert not make_plan([missing], settings).known_failures

    @pytest.fixture
    def make_git(self, tmp_path):
        import pygit2

        repo = pygit2.init_repository(tmp_path / "git", initial_head="main")
        author = pygit2.Signature("A", "a@example.org", 1_700_000_000, 0)
        repo.create_commit("HEAD", author, author, "first", repo.index.write_tree(), [])
        return tmp_path / "git"

    def test_a_canary_is_the_first_of_the_plan(self, refs, settings):
        assert self.names(make_plan(refs, settings, limit=2).repos) == ["big", "middle"]
        assert len(make_plan(refs, settings, limit=9).repos) == 3


def test_a_repository_that_nobody_asks_for_any_more_is_forgotten(settings, tmp_path):
    import os
    import time

    note(settings)
    (path,) = (Path(settings.index_root) / FOLDER).glob("*.json")
    sweep_runs(settings, tmp_path)
    assert path.exists()
    old = time.time() - 31 * 86_400
    os.utime(path, (old, old))
    sweep_runs(make_settings(tmp_path, known_failure_days=40), tmp_path)
    assert path.exists()
    sweep_runs(settings, tmp_path)
    assert not path.exists()
