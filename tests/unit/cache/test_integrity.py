"""Damage of a cache is found without changing it, and repaired when that is asked for."""

import sqlite3
from pathlib import Path

import pytest

from summidx.cache import Cache
from summidx.cache.integrity import examine_cache, repair_cache
from summidx.keys import digest
from summidx.records import Origin, Summary

N = 300


def summary(text: str) -> Summary:
    return Summary(text=text, origin=Origin.LLM, model="m")


def fill(url: str) -> None:
    with Cache(url) as cache:
        cache.put_summaries({digest(i): summary(digest(i) * 10) for i in range(N)})


@pytest.fixture
def path(sqlite_url) -> Path:
    fill(sqlite_url)
    return Path(sqlite_url.removeprefix("sqlite:///"))


def test_a_whole_cache_is_whole_on_either_database(url):
    assert examine_cache(url, whole=True).schema == 0
    fill(url)
    found = examine_cache(url, whole=True)
    assert (found.faults, found.rows, found.changed_rows, found.is_older) == ((), N, 0, False)


def test_entries_that_are_not_what_was_put_are_counted(sqlite_url, path):
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE summaries SET content = content || 'x' WHERE rowid IN (3, 5)")
        connection.execute("UPDATE summaries SET content = CAST(x'ff' AS TEXT) WHERE rowid = 7")
    connection.close()
    found = examine_cache(sqlite_url, whole=True)
    assert (found.faults, found.changed_rows) == ((), 3)


@pytest.mark.parametrize("damage", ["header", "page"])
def test_a_damaged_file_is_found_left_alone_and_then_repaired(sqlite_url, path, damage):
    data = bytearray(path.read_bytes())
    at = 0 if damage == "header" else data.index((digest(N // 2) * 10).encode()) // 4096 * 4096
    data[at : at + 100] = b"\xff" * 100
    path.write_bytes(data)
    for whole in (False, True):
        assert examine_cache(sqlite_url, whole=whole).faults
    assert path.read_bytes() == data
    assert repair_cache(sqlite_url)
    found = examine_cache(sqlite_url, whole=True)
    assert found.faults == ()
    assert found.rows >= N - 20
    assert len(list(path.parent.glob("*.damaged-*Z"))) == 1
    assert not repair_cache(sqlite_url)
