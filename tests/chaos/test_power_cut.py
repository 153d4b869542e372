"""The power goes in the middle of publishing: after the restart there is the old index or the new one, whole.

The disk is an ext4 image on a file system that can clone a file in a moment (XFS): a clone is what the disk held at
that moment, with all that was only in memory lost. A writer publishes on it and fills a cache without a pause; clones
are mounted (ext4 replays its journal), and all of it is read. `CHAOS=long` for more cuts.
"""

import importlib.util
import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from parts import require_part

from summidx.cache.integrity import examine_cache
from summidx.store.generations import IndexRoot
from summidx.store.verification import read_whole

pytestmark = pytest.mark.chaos

CUTS = 100 if os.environ.get("CHAOS") == "long" else 20
SEED = 20261128
UNIT = Path(__file__).parents[1] / "unit"

WRITER = """
import random, sys
sys.path.insert(0, sys.argv[2])
from conftest import build_document, build_manifest, build_vectors
from summidx.cache import Cache
from summidx.keys import digest
from summidx.records import Origin, Summary
from summidx.store.generations import IndexRoot

root, chosen = IndexRoot(sys.argv[1]), random.Random(int(sys.argv[3]))
with Cache(f"sqlite:///{sys.argv[1]}/cache.sqlite") as cache:
    expected, n = None, 0
    while True:
        n += 1
        cache.put_summaries({digest((n, i)): Summary(text="x" * 500, origin=Origin.LLM) for i in range(20)})
        documents = [build_document(f"{n}/{i}.py") for i in range(chosen.randrange(1, 60))]
        manifest = build_manifest(documents, generation=f"g{n}", publish_id=f"p{n}", commit=f"c{n}")
        with root.stage("repo", f"g{n}") as staging:
            staging.write(documents, build_vectors(len(documents)), [])
            assert root.publish(staging, manifest, expected_publish_id=expected)
        expected = f"p{n}"
        print(n, flush=True)
"""


def mount(image: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)


@contextmanager
def mounted(image: Path, folder: Path):
    mount(image, folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def disk(tmp_path):
    """A mounted ext4 image, and the folder in which it can be cloned."""
    require_part("the right to mount", present=os.geteuid() == 0, how="run as root")
    require_part("mkfs.xfs", present=bool(shutil.which("mkfs.xfs")), how="apt-get install xfsprogs")
    require_part("mkfs.ext4", present=bool(shutil.which("mkfs.ext4")), how="apt-get install e2fsprogs")
    outer = tmp_path / "outer.img"
    with outer.open("wb") as file:
        file.truncate(1_200 * 2**20)  # sparse
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", str(outer)], check=True)
    with mounted(outer, tmp_path / "outer") as clones:
        image = clones / "disk.img"
        with image.open("wb") as file:
            file.truncate(128 * 2**20)
        subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
        with mounted(image, tmp_path / "disk") as folder:
            yield folder, clones


@contextmanager
def publishing(folder: Path):
    """A process that publishes on and on; yields what tells the last publish that it has reported."""
    command = [sys.executable, "-c", WRITER, str(folder / "index"), str(UNIT), str(SEED)]
    log = folder.parent / "published"
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, env=os.environ | {"PYTHONPATH": os.pathsep.join(PATHS)})

    def last() -> int:
        assert process.poll() is None, "the writer ended"
        whole_lines = log.read_text().rpartition("\n")[0]
        return int(whole_lines.splitlines()[-1]) if whole_lines else 0

    try:
        yield last
    finally:
        process.kill()
        process.wait()


PATHS = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]


def wait_for(last, n: int) -> None:
    deadline = time.monotonic() + 120
    while last() < n:
        assert time.monotonic() < deadline, "nothing is published any more"
        time.sleep(0.01)


def publish_again(root: IndexRoot) -> None:
    """As the next run does."""
    spec = importlib.util.spec_from_file_location("unit_conftest", UNIT / "conftest.py")
    unit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(unit)
    documents = [unit.build_document("next.py")]
    manifest = unit.build_manifest(documents, generation="next", publish_id="next", commit="next")
    current = root.read_manifest("repo")
    with root.stage("repo", "next") as staging:
        staging.write(documents, unit.build_vectors(1), [])
        assert root.publish(staging, manifest, expected_publish_id=current.publish_id)


def test_after_every_power_cut_there_is_the_old_index_or_the_new_one_whole(disk, tmp_path, note_figures):
    folder, clones = disk
    chosen = random.Random(SEED)
    reported = []
    with publishing(folder) as last:
        for n in range(CUTS):
            wait_for(last, (reported[-1] if reported else 0) + 2)  # the last one may be published, and not reported yet
            time.sleep(chosen.random() * 0.15)  # anywhere within a publish
            reported.append(last())
            image, clone = clones / "disk.img", clones / f"cut{n}.img"
            subprocess.run(["cp", "--reflink=always", str(image), str(clone)], check=True)
    generations = []
    for n, before in enumerate(reported):
        with mounted(clones / f"cut{n}.img", tmp_path / "after") as after:
            root = IndexRoot(after / "index")
            found = read_whole(root, "repo")
            assert found.faults == (), (n, found)
            published = int(root.read_manifest("repo").generation.removeprefix("g"))
            assert published >= before, "what was reported as published was lost"
            assert {each.path.split("/")[0] for each in root.open("repo").table.documents()} == {str(published)}
            cache = examine_cache(f"sqlite:///{after}/index/cache.sqlite", whole=True)
            assert (cache.faults, cache.changed_rows) == ((), 0)
            generations.append(published)
            publish_again(root)
            assert read_whole(root, "repo").faults == ()
            assert list((after / "index" / "repo" / "staging").iterdir()) == []
        (clones / f"cut{n}.img").unlink()
    assert len(set(generations)) == CUTS, "each cut met another publish"
    note_figures("power-cuts", {"cuts": CUTS, "whole": len(generations)})
