"""A failure that cannot heal fails one run, and is then listed until something changes; events tell of both."""

import json
import time
from datetime import UTC, datetime

import pygit2
import pytest


def events_of(api, run_id, wanted):
    """The events of indexes that a flow run emitted, by index: they travel in the background."""
    deadline = time.monotonic() + 60
    while True:
        of_run = {"event": {"prefix": ["summidx."]}, "related": {"id": [f"prefect.flow-run.{run_id}"]}}
        found = api.post("/events/filter", {"filter": {**of_run, "order": "ASC"}, "limit": 50})["events"]
        if len(found) >= wanted or time.monotonic() > deadline:
            return {event["resource"]["prefect.resource.id"]: event for event in found}
        time.sleep(0.3)


@pytest.fixture
def asked(make_repo, module, tmp_path):
    """A good repository, and one at a tag that is not there."""
    make_repo(tmp_path / "good", {"a.py": module("a")})
    make_repo(tmp_path / "bad", {"a.py": module("b")})
    return ("--repo", tmp_path / "good", "--repo", f"we|rd={tmp_path / 'bad'}@v2")


def test_it_fails_one_run_is_listed_by_the_next_and_built_when_mended(build, api, asked, tmp_path):
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    first = build.report(*asked, code=1)
    run = api.flow_run(first["flow_run_id"])
    assert run["state"]["message"].startswith("1 of 2 repositories failed: we|rd (UnknownRevision: ")
    events = events_of(api, run["id"], wanted=2)
    assert {index: event["event"] for index, event in events.items()} == {
        "summidx.index.good": "summidx.index.published",
        "summidx.index.we%7Crd": "summidx.index.failed",
    }
    payload = events["summidx.index.good"]["payload"]
    current = build.current("good")
    assert (payload["commit"], payload["generation"]) == (current["commit"], current["generation"])
    assert "has no revision 'v2'" in events["summidx.index.we%7Crd"]["payload"]["reason"]

    done = build(*asked)
    assert done.returncode == 0, done.stderr
    run = api.last_flow_run()
    assert run["state_name"] == "Completed"
    assert run["state"]["message"] == "2 repositories: 0 built, 1 up to date; 1 known failure: we|rd"
    assert api.task_states(run["id"]) == {"good": "Cached"}
    assert "0 to build, 1 up to date, 1 known failure, under" in done.stdout
    listed = f"we|rd: known failure since {today}, tried again on "
    assert listed in done.stdout
    assert "has no revision 'v2'" in done.stdout
    assert events_of(api, run["id"], wanted=0) == {}
    (known,) = build.plan(*asked)["known_failures"]
    assert listed == f"{known['name']}: {known['why']}"[: len(listed)]
    assert "1 known failure not tried" in build.summidx("plan", *asked).stdout

    again = build.report(*asked, "--retry-known", code=1)
    assert (again["failed"], again["known_failures"]) == (1, 0)
    run = api.flow_run(again["flow_run_id"])
    failed = "1 of 2 repositories failed: we|rd (UnknownRevision: "
    assert run["state"]["message"].startswith(f"{failed}known since {today}: ")

    repo = pygit2.Repository(tmp_path / "bad")
    repo.references.create("refs/tags/v2", repo.head.target)
    mended = build.report(*asked)
    assert mended["by_name"]["we|rd"]["ending"] == "built"
    assert not list((build.cwd / "index" / ".summidx" / "known-failures").iterdir())
    assert json.dumps(mended).count("known since") == 0


def test_events_of_a_run_are_bounded(monkeypatch, tmp_path):
    from flows import events
    from flows.progress import RepoResult
    from summidx.plan import PlannedRepo
    from summidx.records import PinnedRepo
    from summidx.settings import Settings

    emitted = []
    monkeypatch.setattr(events, "emit_event", lambda *args, **kwargs: emitted.append((args, kwargs)))
    told = events.IndexEvents(Settings(index_root=str(tmp_path)))
    planned = PlannedRepo(PinnedRepo("n", "/n", "c", "k", "g"), False, "new", 1, None)
    for ending in ("failed", "known_failure", "not_attempted", "up_to_date", "superseded"):
        for _ in range(1200):
            told.ended(planned, RepoResult("n", ending, "new", reason="x" * 100_000))
    assert len(emitted) == 1000
    assert max(len(json.dumps(kwargs)) for _, kwargs in emitted) < 2000
    monkeypatch.setattr(events, "emit_event", lambda *args, **kwargs: 1 / 0)
    events.IndexEvents(Settings(index_root=str(tmp_path))).ended(planned, RepoResult("n", "failed", "new"))
