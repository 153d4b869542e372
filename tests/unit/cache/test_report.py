"""What a cache says of itself, its pruning, and the command for both."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from summidx.cache import Cache
from summidx.cache.report import prune, read_report
from summidx.cli import app
from summidx.keys import digest
from summidx.records import Origin, Status, Summary
from summidx.settings import CachePolicy


def keys(name: str, n: int) -> list[str]:
    return [digest((name, i)) for i in range(n)]


def summary(model: str, status: Status = Status.OK) -> Summary:
    return Summary(text="word " * 100, origin=Origin.LLM, model=model, status=status)


def days_ago(n: int) -> str:
    return (datetime.now(UTC).date() - timedelta(days=n)).isoformat()


def execute(url: str, statement: str, **values: object) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text(statement), values)
    engine.dispose()


@pytest.fixture
def filled(url):
    """Twenty summaries of `big`, two of them degraded, five of `small` not used for 40 days, and ten vectors."""
    with Cache(url) as cache:
        cache.put_summaries({k: summary("big") for k in keys("ok", 18)})
        cache.put_summaries({k: summary("big", Status.DEGRADED) for k in keys("bad", 2)})
        cache.put_summaries({k: summary("small") for k in keys("old", 5)})
        cache.put_vectors({k: np.ones(8, dtype=np.float32) for k in keys("v", 10)}, model="mini@sha256:00ff")
    old = {"day": days_ago(40), "at": f"{days_ago(50)}T00:00:00+00:00"}
    execute(url, "UPDATE summaries SET used_on = :day, created_at = :at WHERE model = 'small'", **old)
    return url


def entries(report):
    return {(each.kind, each.model): each for each in report.entries}


def test_the_report_counts_entries_by_model_status_and_age(filled):
    report = read_report(filled)
    found = entries(report)
    assert {name: each.entries for name, each in found.items()} == {
        ("summaries", "big"): 20,
        ("summaries", "small"): 5,
        ("vectors", "mini@sha256:00ff"): 10,
    }
    assert found["summaries", "big"].degraded == 2
    assert found["summaries", "big"].by_age == {"1 d": 20, "7 d": 0, "30 d": 0, "90 d": 0, "older": 0}
    small = found["summaries", "small"]
    assert (small.first_made, small.last_made, small.last_used) == (days_ago(50), days_ago(50), days_ago(40))
    assert small.by_age == {"1 d": 0, "7 d": 0, "30 d": 0, "90 d": 5, "older": 0}
    assert report.size_bytes > 10_000


def test_lookups_and_hits_are_counted_over_all_processes_and_polling_counts_once(url):
    with Cache(url) as cache:
        cache.look_up(keys("a", 10))
        cache.put_summaries({k: summary("m") for k in keys("a", 10)})
    with Cache(url) as cache, Cache(url) as other:
        other.look_up(keys("b", 4))
        cache.look_up([*keys("a", 6), *keys("b", 4)])
        for _ in range(3):
            cache.look_up(keys("b", 4), polling=True)
        cache.get_vectors(keys("a", 5))
    counted = {each.kind: (each.day, each.lookups, each.hits) for each in read_report(url).lookups}
    assert counted == {"summaries": (days_ago(0), 24, 6), "vectors": (days_ago(0), 5, 0)}


def test_claims_in_force_are_shown_while_they_are(url):
    with Cache(url) as cache:
        cache.look_up(keys("a", 7))
        report = read_report(url)
        assert (report.claims, report.processes) == (7, 1)
    report = read_report(url)
    assert (report.claims, report.processes) == (0, 0)


def test_looking_an_entry_up_renews_its_last_use_unless_the_cache_is_read_only(filled):
    with Cache(filled, policy=CachePolicy.READ_ONLY) as cache:
        assert len(cache.get_summaries(keys("old", 5))) == 5
    assert entries(read_report(filled))["summaries", "small"].last_used == days_ago(40)
    with Cache(filled) as cache:
        cache.look_up(keys("old", 3))
    assert entries(read_report(filled))["summaries", "small"].by_age["1 d"] == 3
    assert prune(filled, older_than_days=30).summaries == 2


@pytest.mark.parametrize(
    ("options", "summaries", "vectors"),
    [
        ({"older_than_days": 30}, 5, 0),
        ({"older_than_days": 60}, 0, 0),
        ({"model": "big"}, 20, 0),
        ({"model": "mini"}, 0, 10),
        ({"model": "mini@sha256:00ff"}, 0, 10),
        ({"model": "mi"}, 0, 0),
        ({"model": "big", "older_than_days": 30}, 0, 0),
        ({"model": "%"}, 0, 0),
    ],
)
def test_pruning_removes_exactly_what_a_dry_run_counted(filled, options, summaries, vectors):
    dry = prune(filled, **options, dry_run=True)
    before = {name: each.entries for name, each in entries(read_report(filled)).items()}
    assert sum(before.values()) == 35
    done = prune(filled, **options)
    assert (dry.summaries, dry.vectors) == (done.summaries, done.vectors) == (summaries, vectors)
    assert sum(each.entries for each in read_report(filled).entries) == 35 - summaries - vectors


def test_pruning_gives_space_back_where_nobody_is_at_work(sqlite_url):
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    many = {k: summary("m") for k in keys("many", 2500)}
    with Cache(sqlite_url) as cache:
        cache.put_summaries(many)
    full = path.stat().st_size
    with Cache(sqlite_url) as cache:
        cache.look_up(keys("claimed", 1))  # a process at work
        done = prune(sqlite_url, model="m")
        assert (done.summaries, done.space_given_back) == (2500, False)
        assert cache.put_summaries(many).keys() == many.keys()
    done = prune(sqlite_url, model="m")
    assert (done.summaries, done.space_given_back) == (2500, True)
    assert path.stat().st_size < full / 10
    assert done.bytes_freed > full / 2


def test_an_old_schema_is_reported_and_left_as_it_is(sqlite_url):
    with Cache(sqlite_url) as cache:
        cache.put_summaries({k: summary("m") for k in keys("a", 3)})
    for statement in (
        *(f"DROP TABLE {name}" for name in ("claims", "claim_owners", "lookups")),
        *(f"ALTER TABLE {name} DROP COLUMN used_on" for name in ("summaries", "vectors")),
        "UPDATE summidx_meta SET value = '1'",
    ):
        execute(sqlite_url, statement)
    report = read_report(sqlite_url)
    assert (report.schema, [each.entries for each in report.entries]) == (1, [3])
    assert prune(sqlite_url, older_than_days=1, dry_run=True).summaries == 0
    assert read_report(sqlite_url).schema == 1


@pytest.fixture
def command(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("SUMMIDX_INDEX_ROOT", "SUMMIDX_CACHE__URL", "SUMMIDX_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    return lambda *arguments: CliRunner().invoke(app, ["cache", *arguments])


def test_the_command_shows_the_cache_for_people_and_as_json(command, filled):
    shown = command("--cache-url", filled)
    assert shown.exit_code == 0
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert ["summaries", "big", "20", "2"] in [row[:4] for row in rows]
    assert "mini@sha256:00ff" in shown.stdout
    report = json.loads(command("--cache-url", filled, "--json").stdout)
    assert {each["model"]: each["entries"] for each in report["entries"]} == {
        "big": 20,
        "small": 5,
        "mini@sha256:00ff": 10,
    }
    assert "host=" not in shown.stdout  # of a URL's query, which may hold a password


def test_the_command_prunes_the_cache_under_an_index_root(command, tmp_path):
    root = tmp_path / "indexes"
    with Cache(f"sqlite:///{root / 'cache.sqlite'}") as cache:
        cache.put_summaries({k: summary("m") for k in keys("a", 3)})
    dry = command("prune", "--model", "m", "--dry-run", "--index-root", str(root))
    assert dry.stdout == "would remove 3 summaries and 0 vectors\n"
    done = command("--index-root", str(root), "prune", "--model", "m")
    assert done.stdout.startswith("removed 3 summaries and 0 vectors; ")
    shown = json.loads(command("--index-root", str(root), "--json").stdout)
    assert shown["entries"] == []


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (["prune"], "--older-than 30d or --model", 2),
        (["prune", "--older-than", "soon"], "30d or 8w", 2),
        (["prune", "--older-than", "-3d"], "30d or 8w", 2),
        (["prune", "--older-than", "30d"], "there is no cache at", 1),
        (["--cache-url", "mysql://u:hush@h/d"], "cannot lie in mysql", 2),
        (["prune", "--model", "m", "--cache-url", "nonsense"], "no database URL", 2),
    ],
)
def test_bad_input_gets_one_line(command, arguments, said, code):
    done = command(*arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "hush" not in done.stderr


def test_where_there_is_no_cache_the_command_says_so_and_makes_none(command, tmp_path):
    done = command()
    assert (done.exit_code, done.stdout) == (0, "")
    assert "no cache yet" in done.stderr
    assert command("--json").stdout == "null\n"
    assert list(tmp_path.iterdir()) == []
