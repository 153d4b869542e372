"""The fleet table at the end of a run: refreshed where something was published, and never a reason to fail."""

import sys

import pytest

from flows import fleet
from flows.progress import RepoResult
from summidx.settings import Settings
from summidx.store.fleet import FLEET_FROM, read_fleet

BUILT = [RepoResult("r0", "built", "new"), RepoResult("r1", "up_to_date", "up to date")]


@pytest.fixture
def told(monkeypatch):
    lines = []
    monkeypatch.setattr(fleet, "tell_warning", lines.append)
    return lines


@pytest.fixture
def settings(root, publish):
    for number in range(FLEET_FROM):
        publish(name=f"r{number}", source=f"/src/{number}")
    return Settings(index_root=str(root.path))


def test_a_run_that_published_something_refreshes_it(root, settings, told):
    fleet.refresh_after(BUILT, settings)
    assert len(read_fleet(root).entries) == FLEET_FROM
    assert told == []


def test_a_night_with_nothing_new_and_a_small_root_do_not_pay_for_it(root, settings, told, monkeypatch, tmp_path):
    monkeypatch.setattr(fleet.subprocess, "run", None)
    fleet.refresh_after(BUILT[1:], settings)
    fleet.refresh_after(BUILT, Settings(index_root=str(tmp_path / "other")))
    assert read_fleet(root) is None
    assert told == []


def test_a_refresh_that_fails_or_hangs_is_told_and_nothing_more(root, settings, told, monkeypatch):
    (root.path / ".summidx").mkdir()
    (root.path / ".summidx" / "fleet").write_text("in the way")
    fleet.refresh_after(BUILT, settings)
    monkeypatch.setattr(fleet, "COMMAND", (sys.executable, "-c", "import time; time.sleep(60)"))
    fleet.refresh_after(BUILT, settings, within_s=0.5)
    monkeypatch.setattr(fleet, "COMMAND", (sys.executable, "-c", "import os; os.abort()"))
    fleet.refresh_after(BUILT, settings)
    assert len(told) == 3
    assert all("searches find it, only slower" in line for line in told)
    assert "cannot be written" in told[0]
    assert "it was not done in" in told[1]
    assert "it ended with -6" in told[2]
