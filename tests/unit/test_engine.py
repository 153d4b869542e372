"""The engine's end: who waits is told that it stopped, and no database holds it up."""

import logging
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from summidx import engine as engine_module
from summidx.embedding.hashing import HashingEmbedder
from summidx.engine import Engine
from summidx.errors import Stopped
from summidx.hierarchy import build_tree
from summidx.records import Level, Unit
from summidx.settings import load_settings
from summidx.summarizers import ServedModel

FILE = Unit(
    id="a.py",
    level=Level.FILE,
    path="a.py",
    name="a.py",
    qualified_name="a.py",
    language="python",
    start_line=1,
    end_line=3,
    parent_id=None,
    own_source="import os\n",
)


@pytest.fixture
def settings(tmp_path, fake_llm):
    llm = {"provider": "openai", "base_url": fake_llm.base_url, "model": "fake"}
    return load_settings({"index_root": str(tmp_path / "index"), "embedding": {"model": "hashing"}, "llm": llm})


@pytest.fixture
def engine(settings):
    engine = Engine(settings, served_model=ServedModel("fake", "/fake", 8192))
    yield engine
    engine.close()


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_who_waits_for_a_walk_is_told_that_the_engine_was_closed(engine, fake_llm):
    fake_llm.delay_s = 20
    with ThreadPoolExecutor(1) as repository:
        walking = repository.submit(engine.summarize, build_tree([FILE], "r"))
        wait_until(lambda: fake_llm.calls)
        engine.close()
        with pytest.raises(Stopped, match="the engine was closed"):
            walking.result()


def test_who_waits_for_a_vector_is_told_that_the_engine_was_closed(engine, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def embed_slowly(texts):
        begun.set()
        go_on.wait(30)
        raise AssertionError(texts)

    monkeypatch.setattr(engine, "_embed_now", embed_slowly)
    with ThreadPoolExecutor(3) as threads:
        running = threads.submit(engine.vectors().get, ["one"])
        begun.wait(30)
        waiting = threads.submit(engine.vectors().get, ["two"])
        closing = threads.submit(engine.close)
        for each in (running, waiting):
            with pytest.raises(Stopped, match="the engine was closed"):
                each.result()
        go_on.set()
        closing.result()
    with pytest.raises(Stopped, match="the engine was closed"):
        engine.vectors().get(["three"])
    with pytest.raises(Stopped, match="the engine was closed"):
        engine.summarize(build_tree([FILE], "r"))


def test_a_locked_database_does_not_hold_up_the_end_and_what_is_lost_is_said(engine, fake_llm, monkeypatch, caplog):
    monkeypatch.setattr(engine_module, "CLOSE_S", 0.5)
    monkeypatch.setattr(engine_module, "LAST_S", 0.2)
    fake_llm.delay_s = 0.5
    with ThreadPoolExecutor(1) as repository:
        walking = repository.submit(engine.summarize, build_tree([FILE], "r"))
        wait_until(lambda: fake_llm.calls)
        locker = sqlite3.connect(engine.settings.cache_url.removeprefix("sqlite:///"), isolation_level=None)
        locker.execute("BEGIN IMMEDIATE")
        try:
            wait_until(lambda: engine._answers.unwritten)
            with caplog.at_level(logging.WARNING):
                engine.close()
            with pytest.raises(Stopped):
                walking.result()
        finally:
            locker.rollback()
            locker.close()
    assert "1 answers are not in it" in caplog.text


def test_what_two_slices_take_at_the_same_time_counts_once(engine, monkeypatch):
    both = threading.Barrier(2)
    embed = engine._embedder.embed

    def embed_slowly(texts, *, input_type):
        both.wait(30)
        time.sleep(0.2)
        both.wait(30)
        return embed(texts, input_type=input_type)

    monkeypatch.setattr(engine._embedder, "embed", embed_slowly)
    start = time.perf_counter()
    with ThreadPoolExecutor(2) as threads:
        took = list(threads.map(engine._embed_now, (["one"], ["two"])))
    assert 0.2 <= sum(each.seconds for each in took) <= time.perf_counter() - start


def test_the_model_is_loaded_once_whichever_thread_comes_first(engine, monkeypatch):
    loaded = []

    def load_slowly(*_, **__):
        loaded.append(None)
        time.sleep(0.2)
        return HashingEmbedder(8)

    monkeypatch.setattr(engine_module, "load_embedder", load_slowly)
    with ThreadPoolExecutor(2) as threads:
        for each in threads.map(engine._embed_now, (["one"], ["two"])):
            assert each.vectors.dim == 8
    assert len(loaded) == 1


@pytest.mark.parametrize(
    ("cluster", "force_cpu"),
    [
        ({}, True),
        ({"num_processes": 2}, True),
        ({"gpu_ids": [3]}, False),
        ({"gpu_ids": [3], "force_cpu": True}, True),
        ({"scheduler_address": "tcp://127.0.0.1:1"}, False),
        ({"scheduler_address": "tcp://127.0.0.1:1", "force_cpu": True}, True),
    ],
)
def test_a_gpu_embeds_only_where_it_was_given_to_the_workers(cluster, force_cpu, tmp_path, monkeypatch):
    asked = []

    def load(_settings, **options):
        asked.append(options["force_cpu"])
        return HashingEmbedder(8)

    monkeypatch.setattr(engine_module, "load_embedder", load)
    with closing(Engine(load_settings({"index_root": str(tmp_path), "cluster": cluster}))) as engine:
        engine._embed_now(["one"])
    assert asked == [force_cpu]
