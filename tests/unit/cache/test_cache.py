import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from summidx.cache import Cache, LookedUp
from summidx.errors import CacheError, UsageError
from summidx.keys import digest
from summidx.records import Origin, Status, Summary
from summidx.settings import CachePolicy


def summary(text: str, **fields) -> Summary:
    return replace(Summary(text=text, origin=Origin.LLM, model="m", keywords=("retry", "naïve ☃")), **fields)


def keys(n: int) -> list[str]:
    return [digest(i) for i in range(n)]


def test_a_summary_comes_back_as_it_was_put_under_its_key(url):
    key = digest("a")
    put = summary("Sends a request.", status=Status.DEGRADED, reason="cut", truncated=True, tokens_in=7, tokens_out=3)
    with Cache(url) as cache:
        cache.put_summaries({key: put})
    with Cache(url) as cache:
        assert cache.get_summaries([key, digest("other")]) == {key: replace(put, key=key)}


def test_the_first_writer_of_a_key_wins_and_the_later_one_is_told(url):
    first, second, third = keys(3)
    with Cache(url) as cache:
        cache.put_summaries({first: summary("first", key=first)})
        winners = cache.put_summaries({k: summary("later", key=k) for k in (first, second, third)})
        assert {k: s.text for k, s in winners.items()} == {first: "first", second: "later", third: "later"}
        assert cache.get_summaries([first, second, third]) == winners


def test_vectors_come_back_exactly_and_the_first_writer_wins(url):
    a, b = keys(2)
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(2, 384)).astype(np.float32)
    with Cache(url) as cache:
        cache.put_vectors({a: one}, model="m")
        winners = cache.put_vectors({a: two, b: two}, model="m")
        found = cache.get_vectors([a, b, digest("none")])
    assert sorted(found) == sorted([a, b])
    for vectors in (winners, found):
        np.testing.assert_array_equal(vectors[a], one)
        np.testing.assert_array_equal(vectors[b], two)
        assert vectors[a].dtype == np.float32


def test_many_more_keys_than_a_batch_go_in_and_out(url):
    many = keys(1234)
    with Cache(url) as cache:
        assert len(cache.put_summaries({k: summary(k, key=k) for k in many})) == 1234
        assert {k: s.text for k, s in cache.get_summaries(many).items()} == {k: k for k in many}


def test_what_failed_is_never_cached(sqlite_url):
    with Cache(sqlite_url) as cache:
        with pytest.raises(ValueError, match="failed"):
            cache.put_summaries({digest("a"): summary("", status=Status.FAILED)})
        with pytest.raises(ValueError, match="must not be cached"):
            cache.put_summaries({"": summary("a template has no key")})
        with pytest.raises(ValueError, match="finite"):
            cache.put_vectors({digest("a"): np.full(3, np.nan, dtype=np.float32)}, model="m")
        assert cache.get_summaries([digest("a")]) == {}
        assert cache.get_vectors([digest("a")]) == {}


@pytest.mark.parametrize("table", ["summaries", "vectors"])
def test_a_damaged_row_is_a_miss_and_the_next_writer_replaces_it(url, table):
    good, bad = keys(2)
    vector = np.ones(4, dtype=np.float32)
    with Cache(url) as cache:
        cache.put_summaries({k: summary("old", key=k) for k in (good, bad)})
        cache.put_vectors(dict.fromkeys((good, bad), vector), model="m")
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        content = "replace(content, 'old', 'lie')" if table == "summaries" else ":blob"
        values = {"key": bad} | ({} if table == "summaries" else {"blob": bytes(16)})
        connection.execute(sa.text(f"UPDATE {table} SET content = {content} WHERE key = :key"), values)
    engine.dispose()
    with Cache(url) as cache:
        get = cache.get_summaries if table == "summaries" else cache.get_vectors
        assert list(get([good, bad])) == [good]
        if table == "summaries":
            winners = cache.put_summaries({k: summary("new", key=k) for k in (good, bad)})
            assert (winners[good].text, winners[bad].text) == ("old", "new")
            assert cache.get_summaries([bad])[bad].text == "new"
        else:
            cache.put_vectors({bad: vector * 2}, model="m")
            np.testing.assert_array_equal(cache.get_vectors([bad])[bad], vector * 2)


def test_only_old_degraded_summaries_are_asked_again_and_replaced(url):
    ok, degraded, other = keys(3)
    with Cache(url) as cache:
        cache.put_summaries(
            {
                ok: summary("ok"),
                degraded: summary("degraded", status=Status.DEGRADED),
                other: summary("not named", status=Status.DEGRADED),
            }
        )
        before = datetime.now(UTC)
        looked_up = cache.look_up([ok, degraded], again_before=before)
        assert (set(looked_up.found), looked_up.to_ask) == ({ok}, {degraded})
        new = {k: summary("again", status=Status.DEGRADED) for k in (ok, degraded)}
        winners = cache.put_summaries(new, again_before=before)
        assert {k: s.text for k, s in winners.items()} == {ok: "ok", degraded: "again"}
        # What degraded again is the answer: for whoever asks later in the same run, and whoever was slower.
        assert cache.look_up([degraded], again_before=before).found[degraded].text == "again"
        late = cache.put_summaries({degraded: summary("late", status=Status.DEGRADED)}, again_before=before)
        assert late[degraded].text == "again"
        assert cache.get_summaries([other])[other].text == "not named"


RACE = """
import json, sys
from summidx.cache import Cache
from summidx.keys import digest
from summidx.records import Origin, Summary
url, name = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
with Cache(url) as cache:
    winners = cache.put_summaries({digest(n): Summary(text=name, origin=Origin.LLM) for n in range(400)})
print(json.dumps({key: summary.text for key, summary in winners.items()}))
"""


def test_processes_that_open_and_fill_one_new_cache_at_once_agree_on_every_winner(url):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", RACE, url, f"p{i}"], **pipes) for i in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    winners = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert all(w == winners[0] for w in winners)
    with Cache(url) as cache:
        assert {k: s.text for k, s in cache.get_summaries(keys(400)).items()} == winners[0]


def test_threads_share_one_cache(url):
    with Cache(url) as cache, ThreadPoolExecutor(8) as pool:
        many = keys(300)
        barrier = threading.Barrier(8)

        def work(i: int) -> dict[str, str]:
            barrier.wait()
            return {k: s.text for k, s in cache.put_summaries({k: summary(f"t{i}", key=k) for k in many}).items()}

        results = list(pool.map(work, range(8)))
    assert all(r == results[0] for r in results)


def test_closing_folds_the_log_into_the_file_so_that_it_can_be_copied(sqlite_url, tmp_path):
    cache = Cache(sqlite_url)
    cache.put_summaries({k: summary(k, key=k) for k in keys(200)})
    cache.close()
    copy = shutil.copy(sqlite_url.removeprefix("sqlite:///"), tmp_path / "copy.sqlite")
    connection = sqlite3.connect(copy)
    assert connection.execute("SELECT count(*) FROM summaries").fetchone() == (200,)
    connection.close()


def test_the_write_ahead_log_is_folded_in_before_it_outgrows_the_file(sqlite_url, monkeypatch):
    monkeypatch.setattr("summidx.cache.sqlite_file.JOURNAL_SIZE_LIMIT", 100_000)
    longest = 0
    with Cache(sqlite_url) as cache:
        log = Path(f"{sqlite_url.removeprefix('sqlite:///')}-wal")
        for part in range(20):
            cache.put_summaries({digest((part, n)): summary("word " * 50) for n in range(100)})
            longest = max(longest, log.stat().st_size)
    assert longest < 1_000_000


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite://", "name a file"),
        ("sqlite:///:memory:", "name a file"),
        ("cache.sqlite", "sqlite:///FILE"),
        ("mysql://u:hush@h/d", "cannot lie in mysql"),
        ("postgresql+nodriver://u:hush@h/d", "postgresql[+]psycopg"),
    ],
)
def test_a_url_of_no_use_is_refused_in_one_line_without_its_password(url, said):
    with pytest.raises(UsageError, match=said) as caught:
        Cache(url)
    assert "hush" not in str(caught.value)


def test_a_database_that_cannot_be_reached_is_a_cache_error_without_the_password(caplog):
    pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
    with caplog.at_level(logging.DEBUG), pytest.raises(CacheError, match="check that it can be reached") as caught:
        Cache("postgresql+psycopg://user:hush@127.0.0.1:1/none?connect_timeout=2")
    assert "hush" not in str(caught.value) + caplog.text


def test_a_folder_that_cannot_be_made_is_a_cache_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"cache\.url"):
        Cache(f"sqlite:///{tmp_path / 'file' / 'cache.sqlite'}")


def test_a_read_only_cache_is_looked_up_and_left_as_it_is(url):
    old, new = keys(2)
    with Cache(url) as cache:
        cache.put_summaries({old: summary("old", status=Status.DEGRADED)})
        cache.put_vectors({old: np.ones(4, dtype=np.float32)}, model="m")
    before = dump(url)
    with Cache(url, policy=CachePolicy.READ_ONLY) as cache:
        looked_up = cache.look_up([old, new])
        assert ({k: s.text for k, s in looked_up.found.items()}, looked_up.to_ask) == ({old: "old"}, {new})
        put = {k: summary("mine") for k in (old, new)}
        assert {s.text for s in cache.put_summaries(put, again_before=datetime.now(UTC)).values()} == {"mine"}
        assert list(cache.put_vectors({new: np.zeros(4, dtype=np.float32)}, model="m")) == [new]
        assert list(cache.get_vectors([old, new])) == [old]
        cache.release([new])
    assert dump(url) == before


def dump(url: str) -> dict[str, list[tuple[object, ...]]]:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        names = sa.inspect(connection).get_table_names()
        found = {name: sorted(map(tuple, connection.execute(sa.text(f"SELECT * FROM {name}")))) for name in names}
    engine.dispose()
    return found


def test_a_read_only_cache_that_is_not_there_reads_as_empty_and_is_not_made(sqlite_url, postgres_url):
    for url in (sqlite_url, postgres_url):
        with Cache(url, policy=CachePolicy.READ_ONLY) as cache:
            assert cache.look_up(keys(2)).to_ask == set(keys(2))
            assert cache.get_vectors(keys(2)) == {}
    assert not Path(sqlite_url.removeprefix("sqlite:///")).parent.exists()
    assert dump(postgres_url) == {}


def test_a_read_only_cache_can_lie_in_a_folder_that_cannot_be_written():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "shared")
        url = f"sqlite:///{folder / 'cache.sqlite'}"
        with Cache(url) as cache:
            cache.put_summaries({k: summary(k) for k in keys(300)})
        for path in (*folder.iterdir(), folder, Path(name)):
            path.chmod(0o555 if path.is_dir() else 0o444)
        root = os.geteuid() == 0
        try:
            if root:  # who may write anything shall be somebody who may not
                os.seteuid(65534)
            before = sorted(folder.iterdir())
            with Cache(url, policy=CachePolicy.READ_ONLY) as cache:
                assert len(cache.look_up(keys(300)).found) == 300
            with pytest.raises(CacheError, match=r"cache\.url"):
                Cache(url)
            assert sorted(folder.iterdir()) == before
        finally:
            if root:
                os.seteuid(0)
            for path in (Path(name), folder):
                path.chmod(0o755)


def test_a_cache_that_is_off_opens_and_keeps_nothing(sqlite_url):
    with Cache(sqlite_url, policy=CachePolicy.OFF) as cache:
        assert cache.put_summaries({keys(1)[0]: summary("mine")})[keys(1)[0]].text == "mine"
        assert cache.look_up(keys(1)) == LookedUp({}, frozenset(keys(1)))
        assert cache.get_vectors(keys(1)) == {}
    assert not Path(sqlite_url.removeprefix("sqlite:///")).parent.exists()
