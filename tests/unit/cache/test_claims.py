"""Equal questions of several processes are asked once: real processes, over SQLite and a real PostgreSQL."""

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from summidx.cache import Cache
from summidx.errors import CacheError
from summidx.keys import digest
from summidx.records import Origin, Summary

LEASE_S = 1.5

ASK = """
import asyncio, json, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from summidx.answers import Answers
from summidx.cache import Cache
from summidx.records import Origin, Summary

job = json.loads(sys.argv[1])

async def main():
    with ThreadPoolExecutor(2) as executor, Cache(job["url"], lease_s=job["lease_s"]) as cache:
        answers = Answers(cache, executor)

        async def get(key):
            async def ask():
                with open(job["asked"], "a") as log:
                    log.write(f"{job['name']} {key}\\n")
                await asyncio.sleep(job["call_s"])
                if job["fails"]:
                    raise ValueError("the server is away")
                return Summary(text=f"by {job['name']}", origin=Origin.LLM, key=key)

            return (await answers.get(key, ask)).summary.text

        print("ready", flush=True)
        sys.stdin.readline()
        found = await asyncio.gather(*map(get, job["keys"]), return_exceptions=job["fails"])
        print(json.dumps([str(each) for each in found]), flush=True)
        await answers.cancel()

asyncio.run(main())
"""


def keys(n: int) -> list[str]:
    return [digest(i) for i in range(n)]


def summary(text: str) -> Summary:
    return Summary(text=text, origin=Origin.LLM, model="m")


class Asker:
    """A process that asks for keys when told to."""

    def __init__(self, **job) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", ASK, json.dumps(job)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ready(self) -> None:
        assert self._process.stdout.readline() == "ready\n"

    def start(self) -> None:
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def answers(self) -> list[str]:
        found = json.loads(self._process.stdout.readline())
        assert self._process.wait(60) == 0
        return found

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


@pytest.fixture
def asked(tmp_path):
    """One line for each call that any process made: who, and for which key."""
    path = tmp_path / "asked"
    path.touch()
    return path


@pytest.fixture
def asker(url, asked):
    started = []

    def start(name, wanted, *, call_s=0.2, fails=False, lease_s=LEASE_S):
        job = {"name": name, "keys": wanted, "call_s": call_s, "fails": fails, "lease_s": lease_s}
        started.append(Asker(**job, url=url, asked=str(asked)))
        return started[-1]

    yield start
    for process in started:
        process.end()


def read_calls(asked: Path) -> list[tuple[str, str]]:
    return [tuple(line.split()) for line in asked.read_text().splitlines()]


def wait_for_calls(asked: Path, n: int) -> None:
    deadline = time.monotonic() + 60
    while len(read_calls(asked)) < n:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_processes_that_ask_for_the_same_keys_at_once_make_one_call_for_each(asker, asked):
    processes = [asker(f"p{i}", keys(200), lease_s=30) for i in range(3)]
    for process in processes:
        process.ready()
    for process in processes:
        process.start()
    found = [process.answers() for process in processes]
    assert found[0] == found[1] == found[2]
    calls = read_calls(asked)
    assert sorted(key for _, key in calls) == sorted(keys(200))


def test_the_calls_of_a_killed_process_are_made_by_another_once_its_lease_is_over(asker, asked):
    victim, heir = asker("victim", keys(40), call_s=600), asker("heir", keys(50))
    victim.ready()
    heir.ready()
    victim.start()
    wait_for_calls(asked, 40)
    victim.send(signal.SIGKILL)
    heir.start()
    assert heir.answers() == ["by heir"] * 50
    assert sorted(key for name, key in read_calls(asked) if name == "heir") == sorted(keys(50))


def test_a_claim_outlives_its_lease_while_its_process_lives(asker, asked):
    slow, other = asker("slow", keys(5), call_s=5, lease_s=2.5), asker("other", keys(5))
    slow.ready()
    other.ready()
    slow.start()
    wait_for_calls(asked, 5)
    other.start()
    assert other.answers() == slow.answers() == ["by slow"] * 5
    assert {name for name, _ in read_calls(asked)} == {"slow"}


def test_where_a_holders_call_fails_another_process_asks(asker, asked):
    holder, other = asker("holder", keys(20), call_s=1, fails=True, lease_s=60), asker("other", keys(20), lease_s=60)
    holder.ready()
    other.ready()
    holder.start()
    wait_for_calls(asked, 20)
    other.start()
    assert holder.answers() == ["the server is away"] * 20
    assert other.answers() == ["by other"] * 20


def test_a_process_that_was_stopped_for_longer_than_its_lease_uses_the_answer_that_won(asker, asked):
    paused, other = asker("paused", keys(5), call_s=1), asker("other", keys(5), call_s=0)
    paused.ready()
    other.ready()
    paused.start()
    wait_for_calls(asked, 5)
    paused.send(signal.SIGSTOP)
    other.start()
    assert other.answers() == ["by other"] * 5
    paused.send(signal.SIGCONT)
    assert paused.answers() == ["by other"] * 5


def test_a_claim_is_ours_until_it_is_put_or_released(url):
    one, two, three = keys(3)
    with Cache(url) as ours, Cache(url) as theirs:
        assert ours.look_up([one, two, three]).to_ask == {one, two, three}
        assert theirs.look_up([one, two, three]).to_ask == frozenset()
        ours.put_summaries({one: summary("one")})
        ours.release([two])
        looked_up = theirs.look_up([one, two, three])
        assert {key: found.text for key, found in looked_up.found.items()} == {one: "one"}
        assert looked_up.to_ask == {two}
        assert ours.look_up([two, three]).to_ask == {three}  # ours still, also when asked for again


def test_closing_releases_everything_at_once(url):
    with Cache(url, lease_s=600) as theirs:
        with Cache(url, lease_s=600) as ours:
            ours.look_up(keys(250))
            assert theirs.look_up(keys(250)).to_ask == frozenset()
        assert theirs.look_up(keys(250)).to_ask == set(keys(250))


def test_what_dead_processes_left_is_cleared_away(url):
    with Cache(url, lease_s=600) as cache:
        cache.look_up(keys(1))
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            connection.execute(sa.text("INSERT INTO claim_owners VALUES ('dead', 1)"))
            connection.execute(sa.text("INSERT INTO claims VALUES ('k1', 'dead'), ('k2', 'long gone')"))
        cache._claims.renew()
        with engine.begin() as connection:
            assert connection.execute(sa.text("SELECT count(*) FROM claims")).scalar() == 1
            assert connection.execute(sa.text("SELECT count(*) FROM claim_owners")).scalar() == 1
        engine.dispose()


def test_a_claim_that_could_not_be_released_is_released_by_the_heartbeat(url, monkeypatch):
    with Cache(url) as ours, Cache(url) as theirs:
        ours.look_up(keys(2))
        with monkeypatch.context() as broken:
            broken.setattr(ours._database, "write", lambda work: (_ for _ in ()).throw(CacheError("disk full")))
            with pytest.raises(CacheError):
                ours.release(keys(2))
        assert theirs.look_up(keys(2)).to_ask == frozenset()
        ours._claims.renew()
        assert theirs.look_up(keys(2)).to_ask == set(keys(2))


def give_up_without_success(cache, key):
    """Release a claim while the database is away."""

    def write(_):
        raise CacheError("disk full")

    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(cache._database, "write", write)
        with pytest.raises(CacheError):
            cache.release([key])


def test_a_claim_that_is_taken_again_is_not_released_by_the_heartbeat(url):
    (key,) = keys(1)
    with Cache(url) as ours, Cache(url) as theirs:
        ours.look_up([key])
        give_up_without_success(ours, key)
        assert ours.look_up([key]).to_ask == {key}
        ours._claims.renew()
        assert theirs.look_up([key]).to_ask == frozenset()


def test_a_claim_that_is_taken_again_during_a_heartbeat_stays(url, monkeypatch):
    (key,) = keys(1)
    with Cache(url) as ours, Cache(url) as theirs:
        ours.look_up([key])
        give_up_without_success(ours, key)
        write = ours._database.write

        def write_after_a_look_up(work):
            monkeypatch.setattr(ours._database, "write", write)
            assert ours.look_up([key]).to_ask == {key}
            return write(work)

        monkeypatch.setattr(ours._database, "write", write_after_a_look_up)
        ours._claims.renew()
        assert theirs.look_up([key]).to_ask == frozenset()


def test_a_restart_of_the_server_costs_neither_answers_nor_claims(postgres_url, restart_postgres):
    with Cache(postgres_url, lease_s=600) as ours, Cache(postgres_url, lease_s=600) as theirs:
        ours.look_up(keys(20))
        with ThreadPoolExecutor(1) as thread:
            restarting = thread.submit(restart_postgres)
            for key in keys(10):
                ours.put_summaries({key: summary("paid for")})
                time.sleep(0.05)
            restarting.result(60)
        looked_up = theirs.look_up(keys(20))
        assert looked_up.found.keys() == set(keys(10))
        assert looked_up.to_ask == frozenset()
