"""What a run will do, why, and when it asks before it does it."""

import json
import os
import subprocess
import uuid
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import pytest

from summidx.engine import Engine
from summidx.errors import NewerIndex, UsageError
from summidx.keys import INDEX_VERSION
from summidx.pipeline import index_repo
from summidx.plan import Plan, check_rebuild, find_last_run, load_plan, make_plan, make_retry_plan, write_plan
from summidx.prediction.predict import predict
from summidx.records import RepoRef, Status
from summidx.settings import load_settings
from summidx.store.generations import IndexRoot
from summidx.store.pruning import find_prunable

SOURCE = '''def add_{name}(items):
    """Sum the items."""
    total = 0
    for item in items:
        total += item
    return total
'''


def git(folder, *args):
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *args]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / ".git").exists():
        git(folder, "init", "-q")
    (folder / "core.py").write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "change")


@pytest.fixture
def refs(tmp_path):
    for name in ("one", "two", "three", "four"):
        commit(tmp_path / "repos" / name, SOURCE.format(name=name))
    return [RepoRef(name, str(tmp_path / "repos" / name)) for name in ("one", "two", "three", "four")]


def make_settings(tmp_path, **settings):
    return load_settings({"index_root": str(tmp_path / "index"), "embedding": {"model": "hashing"}} | settings)


@pytest.fixture
def settings(tmp_path):
    return make_settings(tmp_path)


@pytest.fixture
def built(refs, settings):
    build(refs, settings)
    return refs


def build(refs, settings):
    engine = Engine(settings)
    try:
        for planned in make_plan(refs, settings).repos:
            index_repo(planned.pin, engine, expected_publish_id=planned.expected_publish_id)
    finally:
        engine.close()


def whys(refs, settings):
    return {repo.pin.name: repo.why for repo in make_plan(refs, settings).repos}


def edit_current(settings, name, /, **fields):
    path = IndexRoot(settings.index_root).index_folder(name) / "CURRENT"
    current = json.loads(path.read_text())
    unsealed = {"digest": ...}  # as it was written before CURRENT had a digest of its own
    kept = {field: value for field, value in (current | fields | unsealed).items() if value is not ...}
    path.write_text(json.dumps(kept))
    return current


def test_each_repository_is_rebuilt_for_reasons_of_its_own(built, settings, tmp_path):
    commit(tmp_path / "repos" / "one", SOURCE.format(name="edited"))
    counts = edit_current(settings, "two")["counts"]
    counts["function"] = {"failed": {"none": 1}}
    edit_current(settings, "two", counts=counts)
    for lost in IndexRoot(settings.index_root).index_folder("three").glob("generations/*/skips.json"):
        lost.unlink()
    found = whys(built, make_settings(tmp_path, levels="function,file"))
    changed = "levels changed: function,class,file,directory,repo -> function,file"
    assert found == {
        "one": f"content changed; {changed}",
        "two": f"{changed}; 1 failed document",
        "three": f"{changed}; damaged: skips.json is missing",
        "four": changed,
    }
    assert whys(built, settings) == {
        "one": "content changed",
        "two": "1 failed document",
        "three": "damaged: skips.json is missing",
        "four": "up to date",
    }


def test_an_index_of_before_what_it_was_made_of_was_kept_is_read_and_up_to_date(built, settings, tmp_path):
    usage = edit_current(settings, "one")["usage"]
    older = {name: value for name, value in usage.items() if name not in ("requests", "retries", "latencies")}
    edit_current(settings, "one", settings=..., index_version=..., usage=older)
    assert whys(built[:1], settings) == {"one": "up to date"}
    assert whys(built[:1], make_settings(tmp_path, tests="full")) == {"one": "settings or version changed"}


def test_a_current_with_a_field_that_nobody_knows_is_not_trusted(built, settings):
    edit_current(settings, "one", usage=edit_current(settings, "one")["usage"] | {"gold": 1})
    assert whys(built[:1], settings)["one"].startswith("damaged")


class TestConfirmRebuild:
    """A run that would rebuild most indexes only because a setting or version changed asks first."""

    def check(self, refs, settings):
        check_rebuild(make_plan(refs, settings), settings)

    def test_a_changed_setting_is_named_with_how_many_and_what_to_do(self, built, tmp_path):
        with pytest.raises(UsageError) as refused:
            self.check(built, make_settings(tmp_path, tests="full"))
        said = str(refused.value)
        assert said.startswith("4 of 4 existing indexes would be rebuilt")
        assert "tests changed: file -> full" in said
        assert "--confirm-rebuild" in said
        assert len(said.splitlines()) == 1

    def test_llm_summaries_that_would_become_extractive_are_named_plainly(self, built, settings):
        for ref in built:
            edit_current(settings, ref.name, build_key="other", summarizer='{"model": "qwen", "provider": "openai"}')
        with pytest.raises(UsageError, match=r"llm\.provider changed: openai -> extractive"):
            self.check(built, settings)

    def test_half_of_the_indexes_is_not_yet_too_many(self, built, settings):
        for ref in built[:2]:
            edit_current(settings, ref.name, build_key="other")
        self.check(built, settings)
        edit_current(settings, built[2].name, build_key="other")
        with pytest.raises(UsageError, match=r"3 of 4 .* settings or version changed"):
            self.check(built, settings)

    def test_new_repositories_and_changed_content_do_not_count(self, built, settings, tmp_path):
        for ref in built[:2]:
            commit(tmp_path / "repos" / ref.name, SOURCE.format(name="edited"))
        commit(tmp_path / "repos" / "new", SOURCE.format(name="new"))
        other = make_settings(tmp_path, tests="full")
        self.check([*built, RepoRef("new", str(tmp_path / "repos" / "new"))], other)

    @pytest.mark.parametrize("asked", [{"confirm_rebuild": True}, {"stage": "summaries"}, {"skip_existing": False}])
    def test_what_was_asked_for_is_not_asked_again(self, built, tmp_path, asked):
        self.check(built, make_settings(tmp_path, tests="full", **asked))

    def test_retry_degraded_asks_for_what_is_degraded_and_for_nothing_else(self, built, settings, tmp_path):
        for ref in built[:2]:
            counts = edit_current(settings, ref.name)["counts"]
            counts["function"] = {Status.DEGRADED.value: {"extractive": 1}}
            edit_current(settings, ref.name, counts=counts)
        assert set(whys(built, settings).values()) == {"up to date"}
        retry = make_settings(tmp_path, retry_degraded=True)
        assert (
            sorted(whys(built, retry).values()) == ["1 degraded document (--retry-degraded)"] * 2 + ["up to date"] * 2
        )
        self.check(built, make_settings(tmp_path, tests="full", retry_degraded=True))
        with pytest.raises(UsageError, match="2 of 2"):
            self.check(built[2:], make_settings(tmp_path, tests="full", retry_degraded=True))

    def test_a_retry_of_a_confirmed_run_goes_on(self, built, tmp_path):
        confirmed = make_settings(tmp_path, tests="full", confirm_rebuild=True)
        plan = make_plan(built, confirmed)
        check_rebuild(plan, confirmed)
        write_plan(plan, confirmed.index_root, "run")
        assert load_plan(confirmed.index_root, "run") == plan
        build(built[:1], confirmed)
        retried = make_retry_plan(load_plan(confirmed.index_root, "run"), confirmed)
        check_rebuild(retried, confirmed)
        assert [repo.pin.name for repo in retried.repos if repo.up_to_date] == ["one"]


def test_a_plan_that_was_written_before_reasons_were_kept_is_read(built, settings):
    plan = make_plan(built, settings)
    write_plan(plan, settings.index_root, "run")
    path = Path(settings.index_root) / ".summidx" / "plans" / "run.json"
    older = asdict(plan)
    for repo in older["repos"]:
        del repo["has_index"], repo["only_changed"]
    path.write_text(json.dumps(older))
    assert [repo.pin for repo in load_plan(settings.index_root, "run").repos] == [repo.pin for repo in plan.repos]


class TestNewerIndex:
    """An index of a newer summidx: two releases build into one root, or one was rolled back."""

    @pytest.mark.parametrize("fields", [{}, {"reranker": "of the future"}], ids=["as ours", "with a field of its own"])
    def test_it_is_neither_read_nor_replaced(self, built, settings, fields):
        root = IndexRoot(settings.index_root)
        edit_current(settings, "one", index_version=INDEX_VERSION + 1, **fields)
        before = (root.index_folder("one") / "CURRENT").read_bytes()
        with pytest.raises(NewerIndex, match=f"index version {INDEX_VERSION + 1}, and this one reads up to"):
            root.open("one")
        plan = make_plan(built, settings)
        assert [repo.pin.name for repo in plan.to_build] == ["one"]
        assert "upgrade summidx" in plan.to_build[0].why
        engine = Engine(settings)
        try:
            with pytest.raises(NewerIndex, match="upgrade summidx"):
                index_repo(plan.to_build[0].pin, engine)
        finally:
            engine.close()
        assert (root.index_folder("one") / "CURRENT").read_bytes() == before
        assert "upgrade summidx" in predict(built, settings).repositories[0].problem
        prunable = find_prunable(root, missing=False, older_than=timedelta(days=-1))
        assert {each.name for each in prunable} == {"two", "three", "four"}

    def test_an_older_one_is_read_and_built_again_by_the_next_run(self, built, settings):
        edit_current(settings, "one", index_version=INDEX_VERSION - 1, build_key="other")
        assert IndexRoot(settings.index_root).open("one").manifest.index_version == INDEX_VERSION - 1
        version = f"index version {INDEX_VERSION - 1} -> {INDEX_VERSION}"
        assert version in whys(built, settings)["one"]


def test_only_what_is_built_is_measured_and_looked_at_file_by_file(built, settings):
    """A tree id says that nothing has changed; with thousands of repositories, to look at each file would cost most."""
    one, two = (ref.source for ref in built[:2])
    blob = git(one, "rev-parse", "HEAD:core.py")
    changed = SOURCE.format(name="changed")
    commit(Path(two), changed)
    (Path(one) / ".git" / "objects" / blob[:2] / blob[2:]).unlink()

    plan = make_plan(built, settings)

    sizes = {repo.pin.name: (repo.up_to_date, repo.size_bytes) for repo in plan.repos}
    assert sizes == {"one": (True, 0), "three": (True, 0), "four": (True, 0), "two": (False, len(changed))}
    assert plan.repos[0].pin.name == "two"
    lacking = make_plan(built[:1], make_settings(Path(settings.index_root).parent, skip_existing=False)).repos[0]
    assert (lacking.up_to_date, lacking.pin.build_key) == (False, "")
    assert "lacks the content of core.py" in lacking.why


def test_the_last_run_is_the_one_whose_plan_was_written_last_and_its_parameters_are_kept(tmp_path):
    first, last, retried = (str(uuid.UUID(int=n)) for n in (3, 2, 1))
    assert find_last_run(str(tmp_path)) is None
    for age, run in enumerate((retried, last, first)):
        write_plan(Plan((), None, parameters={"levels": ["file"], "number": age}), str(tmp_path), run)
        path = tmp_path / ".summidx" / "plans" / f"{run}.json"
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    (path.parent / "notes.json").write_text("{}")

    assert find_last_run(str(tmp_path)) == retried
    assert load_plan(str(tmp_path), retried).parameters == {"levels": ["file"], "number": 0}
