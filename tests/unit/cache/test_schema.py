"""A database of an older summidx is brought up to date where it lies, by several processes at once, losing nothing."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import sqlalchemy as sa

from summidx.cache import Cache
from summidx.cache.schema import SCHEMA_VERSION
from summidx.errors import CacheError
from summidx.keys import digest
from summidx.records import Origin, Summary
from summidx.settings import CachePolicy

N = 300

SCHEMA_1 = """
CREATE TABLE summidx_meta (name VARCHAR(64) NOT NULL, value TEXT, PRIMARY KEY (name));
CREATE TABLE summaries (
    key VARCHAR(64) NOT NULL, content TEXT NOT NULL, digest VARCHAR(64) NOT NULL, status VARCHAR(16) NOT NULL,
    model TEXT NOT NULL, created_at VARCHAR(32) NOT NULL, PRIMARY KEY (key));
CREATE TABLE vectors (
    key VARCHAR(64) NOT NULL, content {bytes} NOT NULL, digest VARCHAR(64) NOT NULL, dim INTEGER NOT NULL,
    model TEXT NOT NULL, created_at VARCHAR(32) NOT NULL, PRIMARY KEY (key));
INSERT INTO summidx_meta VALUES ('schema', '1')
"""
"""As summidx 0.1 made it; a copy on purpose."""


def write_schema_1(url: str) -> None:
    engine = sa.create_engine(url)
    kind = "BYTEA" if engine.dialect.name == "postgresql" else "BLOB"
    with engine.begin() as connection:
        for statement in SCHEMA_1.format(bytes=kind).split(";"):
            connection.execute(sa.text(statement))
        for n in range(N):
            fields = {"text": f"old {n}", "keywords": ["naïve ☃"], "status": "ok", "origin": "llm", "reason": ""}
            content = json.dumps(fields | {"model": "m", "tokens_in": n}, sort_keys=True, ensure_ascii=False)
            vector = np.full(8, n, dtype="<f4").tobytes()
            row = {"key": digest(n), "at": "2025-01-02T03:04:05+00:00"}
            connection.execute(
                sa.text("INSERT INTO summaries VALUES (:key, :content, :digest, 'ok', 'm', :at)"),
                row | {"content": content, "digest": hashlib.sha256(content.encode()).hexdigest()},
            )
            connection.execute(
                sa.text("INSERT INTO vectors VALUES (:key, :content, :digest, 8, 'e', :at)"),
                row | {"content": vector, "digest": hashlib.sha256(vector).hexdigest()},
            )
    engine.dispose()


@pytest.fixture
def old_url(url, tmp_path):
    (tmp_path / "deep").mkdir()
    write_schema_1(url)
    return url


def check_old_entries(cache: Cache) -> None:
    found = cache.get_summaries(digest(n) for n in range(N))
    assert [found[digest(n)].text for n in range(N)] == [f"old {n}" for n in range(N)]
    assert found[digest(7)] == Summary(
        text="old 7", keywords=("naïve ☃",), origin=Origin.LLM, key=digest(7), model="m", tokens_in=7
    )
    vectors = cache.get_vectors(digest(n) for n in range(N))
    assert [vectors[digest(n)][0] for n in range(N)] == list(range(N))


def test_an_old_cache_keeps_its_entries_and_can_be_claimed_and_put(old_url):
    with Cache(old_url) as cache:
        check_old_entries(cache)
        assert cache.look_up([digest(0), digest("new")]).to_ask == {digest("new")}
        put = {k: Summary(text="new", origin=Origin.LLM) for k in (digest(0), digest("new"))}
        assert {s.text for s in cache.put_summaries(put).values()} == {"old 0", "new"}
    with Cache(old_url) as cache:
        check_old_entries(cache)


OPEN = """
import sys
from summidx.cache import Cache
from summidx.keys import digest
from summidx.records import Origin, Summary
print("ready", flush=True)
sys.stdin.readline()
with Cache(sys.argv[1]) as cache:
    cache.put_summaries({digest((sys.argv[2], n)): Summary(text="x", origin=Origin.LLM) for n in range(10)})
    print(len(cache.get_summaries(digest(n) for n in range(300))), flush=True)
"""


def test_several_processes_that_open_an_old_cache_at_once_migrate_it_once(old_url):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, old_url, str(i)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for i in range(4)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60)[0] for process in processes] == [f"{N}\n"] * 4
    assert [process.returncode for process in processes] == [0] * 4
    with Cache(old_url) as cache:
        check_old_entries(cache)
        assert len(cache.get_summaries(digest((str(i), n)) for i in range(4) for n in range(10))) == 40


def test_a_read_only_cache_reads_an_old_schema_and_leaves_it(old_url):
    with Cache(old_url, policy=CachePolicy.READ_ONLY) as cache:
        check_old_entries(cache)
    engine = sa.create_engine(old_url)
    with engine.begin() as connection:
        assert connection.execute(sa.text("SELECT value FROM summidx_meta")).scalar() == "1"
        assert not sa.inspect(connection).has_table("claims")
    engine.dispose()


def test_a_new_cache_has_the_newest_schema(url):
    Cache(url).close()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        assert connection.execute(sa.text("SELECT value FROM summidx_meta")).scalar() == str(SCHEMA_VERSION)
    engine.dispose()


@pytest.mark.parametrize("policy", [CachePolicy.READ_WRITE, CachePolicy.READ_ONLY])
def test_a_cache_of_a_newer_schema_is_refused(url, policy):
    Cache(url).close()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE summidx_meta SET value = '99' WHERE name = 'schema'"))
    engine.dispose()
    with pytest.raises(CacheError, match=r"schema 99.*install a newer"):
        Cache(url, policy=policy)
