"""The disk is full at one point after another of a real build: old or new index whole, and the next run completes.

Index root and cache lie on a small tmpfs, of which a ballast file leaves just so many bytes. `CHAOS=long` for more
points, and for the whole command.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from parts import require_part

from summidx.cache.integrity import examine_cache
from summidx.engine import Engine
from summidx.errors import SummidxError, UsageError
from summidx.pipeline import index_repo
from summidx.plan import make_plan
from summidx.records import Document, RepoRef
from summidx.settings import Settings, load_settings
from summidx.store.generations import IndexRoot
from summidx.store.verification import read_whole

pytestmark = pytest.mark.chaos

IS_LONG = os.environ.get("CHAOS") == "long"
POINTS = 40 if IS_LONG else 10
DISK_MB = 64
BUILD = Path(__file__).parents[2] / "flows" / "build.py"


@pytest.fixture
def disk(tmp_path):
    """A file system of its own."""
    require_part("the right to mount", present=os.geteuid() == 0, how="run as root")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def repo(tmp_path) -> RepoRef:
    write_source(tmp_path / "repo", "first")
    return RepoRef("repo", str(tmp_path / "repo"))


def write_source(folder: Path, version: str) -> None:
    folder.mkdir(exist_ok=True)
    for part in range(6):
        functions = (
            f'def {version}_{part}_{i}(items):\n    """Sum what {version} {i} gives."""\n    total = {i}\n'
            "    for item in items:\n        total += item\n    return total"
            for i in range(12)
        )
        (folder / f"part{part}.py").write_text("\n\n".join(functions) + "\n")


@pytest.fixture
def settings_on(fake_llm, tmp_path):
    def settings_on(folder: Path) -> Settings:
        llm = {"provider": "openai", "base_url": fake_llm.base_url, "model": "fake"}
        values = {"index_root": str(folder / "index"), "embedding": {"model": "hashing"}, "llm": llm, "min_free_mb": 0}
        return load_settings(values | {"log_dir": str(tmp_path / "logs")})

    return settings_on


def build(ref: RepoRef, settings: Settings) -> None:
    plan = make_plan([ref], settings)
    engine = Engine(settings, served_model=plan.served_model)
    try:
        for planned in plan.to_build:
            index_repo(planned.pin, engine, expected_publish_id=planned.expected_publish_id)
    finally:
        engine.close()


def try_to_build(ref: RepoRef, settings: Settings) -> SummidxError | None:
    """What the build ended with; anything but an error of ours is raised."""
    try:
        build(ref, settings)
    except SummidxError as error:
        return error
    return None


def read_rows(settings: Settings) -> list[Document]:
    return IndexRoot(settings.index_root).open("repo").table.documents()


def used_bytes(disk: Path) -> int:
    found = os.statvfs(disk)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def leave_free(disk: Path, n: int) -> None:
    """Fill the disk but for `n` bytes."""
    ballast = disk / "ballast"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - n))


def test_a_disk_that_is_full_at_any_point_leaves_a_whole_index_and_the_next_run_completes(
    disk, repo, settings_on, tmp_path, note_figures
):
    settings = settings_on(disk)
    folder = Path(repo.source)
    build(repo, settings)
    first = read_rows(settings)
    shutil.copytree(disk / "index", tmp_path / "after-first")
    before = used_bytes(disk)
    write_source(folder, "second")
    build(repo, settings)
    second = read_rows(settings)
    assert second != first
    grown = used_bytes(disk) - before
    points = [2 * grown * point // POINTS for point in range(POINTS)]
    points.append(2 * grown + 4_000_000)  # what a build needs for a moment only comes on top
    endings = []
    for point in points:
        shutil.rmtree(disk / "index")
        shutil.copytree(tmp_path / "after-first", disk / "index")
        leave_free(disk, point)
        error = try_to_build(repo, settings)
        endings.append(type(error).__name__ if error else "built")
        assert not isinstance(error, UsageError), error
        assert "\n" not in str(error)
        root = IndexRoot(settings.index_root)
        assert read_whole(root, "repo").faults == (), (point, endings)
        assert read_rows(settings) == (second if endings[-1] == "built" else first), (point, endings)
        (disk / "ballast").unlink()
        build(repo, settings)
        assert read_rows(settings) == second, (point, endings)
        assert read_whole(root, "repo").faults == ()
        assert list((root.index_folder("repo") / "staging").iterdir()) == []
        cache = examine_cache(settings.cache_url, whole=True)
        assert (cache.faults, cache.changed_rows) == ((), 0), (point, endings)
    assert endings[-1] == "built"
    assert sum(ending != "built" for ending in endings) >= POINTS / 2
    how = {ending: endings.count(ending) for ending in sorted(set(endings))}
    note_figures("disk-full", {"points": len(points), "whole": len(endings), "endings": how})


@pytest.mark.long_form
@pytest.mark.parametrize("share", [0, 0.1, 0.4])
def test_the_command_on_a_full_disk_says_so_in_lines_and_goes_on_when_there_is_room(disk, repo, tmp_path, share):
    """Indexes, cache and logs on the full disk, with a share of the room of a first build; Prefect's are elsewhere."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "SUMMIDX_", "OPENAI_"))}
    environment = kept | {"PREFECT_HOME": str(tmp_path / "prefect"), "SUMMIDX_MIN_FREE_MB": "0"}
    options = ["--embedding-model", "hashing", "--index-root", "disk/index", "--log-dir", "disk/logs"]

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(BUILD), "--repo", repo.source, *options]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    before = used_bytes(disk)
    assert run().returncode == 0
    taken = used_bytes(disk) - before
    write_source(Path(repo.source), "second")
    leave_free(disk, int(share * taken))
    done = run()
    assert done.returncode in (1, 2), (taken, done.stderr)
    assert "Traceback" not in done.stdout + done.stderr
    assert "No space left" in done.stderr or "disk is full" in done.stderr, done.stderr
    root = IndexRoot(disk / "index")
    assert read_whole(root, "repo").faults == ()
    (disk / "ballast").unlink()
    assert run().returncode == 0
    assert any(each.name.startswith("second") for each in root.open("repo").table.documents())
