"""A run is told before it begins that there will be no room, and is refused where there is next to none."""

import os
import subprocess

import pytest
from parts import require_part

from summidx import space
from summidx.errors import UsageError
from summidx.plan import Plan, make_plan
from summidx.records import RepoRef
from summidx.settings import load_settings
from summidx.space import check_space, describe_bytes, estimate_bytes, free_spaces

SIZE_MB = 8


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of 8 MB."""
    require_part("the right to mount", present=os.geteuid() == 0, how="run as root")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def settings_on(disk, tmp_path, **more):
    return load_settings({"index_root": str(disk / "index"), "log_dir": str(tmp_path / "logs")} | more)


def plan_of(tmp_path, settings, size=1000) -> Plan:
    repo = tmp_path / "repo"
    repo.mkdir(exist_ok=True)
    (repo / "a.py").write_text("x = 1\n" * (size // 6))
    return make_plan([RepoRef("repo", str(repo))], settings)


def fill(disk, leave):
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "ballast").write_bytes(bytes(free - leave))


def test_next_to_nothing_free_refuses_the_run_and_says_what_is_free_and_needed(small_disk, tmp_path):
    settings = settings_on(small_disk, tmp_path)
    with pytest.raises(UsageError) as refused:
        check_space(plan_of(tmp_path, settings), settings)
    said = str(refused.value)
    assert said.startswith("8.4 MB are free on the disk of the indexes, cache (")
    assert "likely needs" in said
    assert "min_free_mb" in said
    assert "\n" not in said


def test_less_than_likely_needed_is_a_warning(small_disk, tmp_path):
    settings = settings_on(small_disk, tmp_path, min_free_mb=1)
    plan = plan_of(tmp_path, settings)
    assert check_space(plan, settings) == []
    fill(small_disk, 300_000 + 1_100_000)
    (warning,) = check_space(plan_of(tmp_path, settings, 500_000), settings)
    assert "1.4 MB are free" in warning
    assert "likely needs" in warning


def test_where_nothing_is_to_be_built_nothing_is_asked(small_disk, tmp_path):
    assert check_space(Plan((), None), settings_on(small_disk, tmp_path)) == []


def test_a_disk_without_inodes_is_full(small_disk, tmp_path):
    subprocess.run(["mount", "-o", "remount,nr_inodes=2", str(small_disk)], check=True)
    settings = settings_on(small_disk, tmp_path, min_free_mb=0)
    (small_disk / "file").touch()
    with pytest.raises(UsageError, match="no free inode"):
        check_space(plan_of(tmp_path, settings), settings)


def test_the_disks_are_told_apart(small_disk, tmp_path):
    found = free_spaces(settings_on(small_disk, tmp_path))
    assert [each.what for each in found] == ["indexes, cache", "logs"]
    assert found[0].size_bytes == SIZE_MB * 2**20


def test_an_index_that_is_there_tells_what_the_next_one_takes(tmp_path, root, publish):
    settings = load_settings({"index_root": str(root.path)})
    publish()
    plan = plan_of(tmp_path, settings)
    assert estimate_bytes(plan, settings) == root.size_bytes("repo") > 1000
    other = RepoRef("other", plan.repos[0].pin.source)
    guessed = estimate_bytes(make_plan([other], settings), settings)
    assert guessed == pytest.approx(space.ASSUMED_FIXED_BYTES + space.ASSUMED_SHARE * 1000, rel=0.05)


def test_sizes_are_written_for_people():
    assert [describe_bytes(n) for n in (900, 2_100_000, 3_400_000_000)] == ["0.9 kB", "2.1 MB", "3.4 GB"]
