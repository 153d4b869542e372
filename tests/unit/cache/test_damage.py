"""A cache whose file is damaged goes on: set aside, loudly, with all that can still be read carried over."""

import json
import logging
import os
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from summidx.cache import Cache
from summidx.errors import CacheError
from summidx.keys import digest
from summidx.records import Origin, Summary
from summidx.settings import CachePolicy

N = 400


def keys(n: int = N) -> list[str]:
    return [digest(i) for i in range(n)]


def summary(text: str) -> Summary:
    return Summary(text=text, origin=Origin.LLM, model="m", keywords=("naïve ☃",))


@pytest.fixture
def path(sqlite_url) -> Path:
    """A cache of `N` summaries and vectors, in one file."""
    with Cache(sqlite_url) as cache:
        cache.put_summaries({k: summary(k * 10) for k in keys()})
        cache.put_vectors({k: np.full(64, i, dtype=np.float32) for i, k in enumerate(keys())}, model="e")
    return Path(sqlite_url.removeprefix("sqlite:///"))


def set_aside(path: Path) -> list[Path]:
    return sorted(each for each in path.parent.iterdir() if ".damaged-" in each.name and each.name.endswith("Z"))


def overwrite(path: Path, start: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(data)


def page_of(path: Path, needle: bytes) -> int:
    """Where the page begins that holds `needle`."""
    return path.read_bytes().index(needle) // 4096 * 4096


def garble_schema(path: Path) -> None:
    """Put what is no UTF-8 into the schema: SQLite quotes it in its message."""
    at = path.read_bytes().index(b"CREATE TABLE summaries")
    overwrite(path, at + len(b"CREATE"), b"\xa0")


def damage_leaf(path: Path) -> None:
    """Overwrite the head of one page in the middle of the summaries."""
    overwrite(path, page_of(path, (keys()[N // 2] * 10).encode()), b"\xff" * 200)


DAMAGE = {
    "header": lambda path: overwrite(path, 0, b"\xff" * 100),
    "no database": lambda path: path.write_text("no database at all\n" * 1000),
    "all but the first page": lambda path: overwrite(path, 4096, b"\xff" * (path.stat().st_size - 4096)),
    "a page in the middle": damage_leaf,
    "no text in the schema": garble_schema,
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "truncated within a page": lambda path: os.truncate(path, path.stat().st_size // 2 + 100),
    "truncated to one page": lambda path: os.truncate(path, 4096),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_set_aside_loudly_and_work_goes_on(sqlite_url, path, damage, caplog):
    damage(path)
    damaged = path.read_bytes()
    with caplog.at_level(logging.WARNING), Cache(sqlite_url) as cache:
        found = cache.get_summaries(keys())
        vectors = cache.get_vectors(keys())
        winners = cache.put_summaries({k: summary("new") for k in keys()})
    assert all(each.text == key * 10 for key, each in found.items())
    assert all(vector[0] == keys().index(key) for key, vector in vectors.items())
    assert {k: s.text for k, s in winners.items()} == {k: k * 10 if k in found else "new" for k in keys()}
    (aside,) = set_aside(path)
    assert aside.read_bytes() == damaged
    (said,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert str(aside) in said
    assert "paid for again" in said
    assert "\n" not in said
    with Cache(sqlite_url) as cache:
        assert len(cache.get_summaries(keys())) == N


def test_all_but_what_lies_in_the_damaged_pages_is_carried_over(sqlite_url, path):
    damage_leaf(path)
    with Cache(sqlite_url) as cache:
        found, vectors = cache.get_summaries(keys()), cache.get_vectors(keys())
    assert N - 20 <= len(found) < N
    assert len(vectors) == N


def test_nothing_is_lost_with_a_header_alone(sqlite_url, path):
    DAMAGE["header"](path)
    with Cache(sqlite_url) as cache:
        assert len(cache.get_summaries(keys())) == len(cache.get_vectors(keys())) == N
    assert not list(path.parent.glob("*.new*"))


def test_half_a_file_gives_back_what_its_half_holds(sqlite_url, tmp_path):
    with Cache(sqlite_url) as cache:
        cache.put_summaries({k: summary(k * 10) for k in keys(2000)})
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    os.truncate(path, path.stat().st_size // 2)
    with Cache(sqlite_url) as cache:
        assert len(cache.get_summaries(keys(2000))) > 500


def test_a_file_that_is_damaged_while_it_is_in_use_is_replaced_in_the_middle_of_work(sqlite_url, path, caplog):
    with Cache(sqlite_url) as cache:
        assert len(cache.get_summaries(keys(10))) == 10
        overwrite(path, 4096, b"\xff" * (path.stat().st_size - 4096))
        cache.put_summaries({digest("new"): summary("new")})
        assert cache.get_summaries([digest("new")])[digest("new")].text == "new"
    assert len(set_aside(path)) == 1


def test_rows_of_invalid_text_are_misses(sqlite_url, path):
    place = path.read_bytes().index((keys()[7] * 10).encode())
    overwrite(path, place, b"\xff\xfe\xfd")
    with Cache(sqlite_url) as cache:
        assert cache.get_summaries(keys()).keys() == set(keys()) - {keys()[7]}
    assert set_aside(path) == []


def test_a_file_that_was_removed_while_it_was_in_use_is_made_anew(sqlite_url, path, caplog):
    with Cache(sqlite_url) as cache:
        cache.get_summaries(keys(1))
        path.unlink()
        with caplog.at_level(logging.WARNING):
            cache.put_summaries({digest("new"): summary("new")})
        assert "was replaced" in caplog.text
    with Cache(sqlite_url) as cache:
        assert cache.get_summaries([*keys(), digest("new")]).keys() == {digest("new")}


def test_a_read_only_cache_leaves_a_damaged_file_alone_and_says_what_to_do(sqlite_url, path):
    overwrite(path, 0, b"\xff" * 100)
    with pytest.raises(CacheError, match="move the file away") as caught:
        Cache(sqlite_url, policy=CachePolicy.READ_ONLY)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert set_aside(path) == []


WORK = """
import json, logging, sys
from summidx.cache import Cache
from summidx.keys import digest
from summidx.records import Origin, Summary

logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="WARNING %(message)s")
job = json.loads(sys.argv[1])
with Cache(job["url"]) as cache:
    print("ready", flush=True)
    n = 0
    for line in sys.stdin:
        part = [digest((job["name"], n, i)) for i in range(20)]
        n += 1
        cache.look_up(part)
        cache.get_summaries([digest(i) for i in range(400)])
        cache.put_summaries({k: Summary(text=job["name"], origin=Origin.LLM) for k in part})
        print("done", n, flush=True)
"""


class Worker:
    def __init__(self, url: str, name: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORK, json.dumps({"url": url, "name": name})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.name = name
        self.warnings: list[str] = []

    def read(self, expected: str) -> None:
        while (line := self._process.stdout.readline().strip()).startswith("WARNING"):
            self.warnings.append(line)
        assert line == expected

    def tell(self) -> None:
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def end(self) -> int:
        self._process.stdin.close()
        self.warnings += self._process.stdout.read().splitlines()
        self._process.stdout.close()
        return self._process.wait(60)


@pytest.mark.parametrize("damage", ["header", "all but the first page", "a page in the middle"])
def test_processes_at_work_on_a_file_that_is_damaged_all_go_on_with_one_new_file(sqlite_url, path, damage):
    workers = [Worker(sqlite_url, f"w{i}") for i in range(3)]
    for worker in workers:
        worker.read("ready")
    for turn in range(1, 6):
        if turn == 3:
            DAMAGE[damage](path)
        for worker in workers:
            worker.tell()
        for worker in workers:
            worker.read(f"done {turn}")
    assert [worker.end() for worker in workers] == [0, 0, 0]
    if set_aside(path):  # with SQLite's pages in memory, a damaged header may go unseen until the file is opened again
        said = [line for worker in workers for line in worker.warnings if "was set aside" in line]
        assert len(said) == len(set_aside(path)) == 1
    with Cache(sqlite_url) as cache:
        after = [digest((f"w{i}", n, each)) for i in range(3) for n in (3, 4) for each in range(20)]
        assert cache.get_summaries(after).keys() == set(after)
    check = sqlite3.connect(path)
    assert check.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    check.close()


def test_threads_that_meet_the_damage_at_once_replace_the_file_once(sqlite_url, path):
    overwrite(path, 4096, b"\xff" * (path.stat().st_size - 4096))
    with Cache(sqlite_url) as cache, ThreadPoolExecutor(6) as pool:
        barrier = threading.Barrier(6)

        def work(i: int) -> None:
            barrier.wait()
            cache.put_summaries({digest((i, n)): summary("x") for n in range(50)})

        list(pool.map(work, range(6)))
        assert len(cache.get_summaries([digest((i, n)) for i in range(6) for n in range(50)])) == 300
    assert len(set_aside(path)) == 1


def test_what_a_killed_repair_left_is_no_hindrance(sqlite_url, path):
    Path(f"{path}.new").write_text("half of a new file")
    overwrite(path, 0, b"\xff" * 100)
    with Cache(sqlite_url) as cache:
        cache.put_summaries({digest("new"): summary("new")})
    assert len(set_aside(path)) == 1
    assert not Path(f"{path}.new").exists()
