"""A text is embedded once in a process, whoever asks for it and whenever."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from summidx import vectors as module
from summidx.cache import Cache
from summidx.embedding.hashing import HashingEmbedder
from summidx.errors import EmbeddingError, Stopped
from summidx.keys import vector_key
from summidx.settings import CachePolicy
from summidx.stop import Stop
from summidx.vectors import TextVectors, TimedVectors, VectorUsage

MODEL = "hashing/32"


class Embedding:
    """An embedding thread that writes down what it embeds, and can be held up or made to fail."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.go = threading.Event()
        self.go.set()
        self.begun = threading.Event()
        self.fails = 0
        self._embedder = HashingEmbedder(32)
        self._executor = ThreadPoolExecutor(1)

    def submit(self, texts) -> Future[TimedVectors]:
        return self._executor.submit(self._embed, list(texts))

    def _embed(self, texts) -> TimedVectors:
        self.begun.set()
        assert self.go.wait(30)
        if self.fails:
            self.fails -= 1
            raise EmbeddingError("out of memory")
        self.texts += texts
        return TimedVectors(self._embedder.embed(texts, input_type="document"), 0.25)

    def close(self) -> None:
        self.go.set()
        self._executor.shutdown()


@pytest.fixture
def embedding():
    embedding = Embedding()
    yield embedding
    embedding.close()


@pytest.fixture
def stop():
    return Stop()


@pytest.fixture
def make(tmp_path, embedding, stop):
    def wait(future, stop):
        while not future.done():
            stop.check()
            threading.Event().wait(0.005)
        return future.result()

    caches = []

    def make(policy=CachePolicy.READ_WRITE):
        caches.append(Cache(f"sqlite:///{tmp_path / 'cache.sqlite'}", policy=policy))
        vectors = TextVectors(caches[-1], MODEL, embedding.submit, wait)

        def get(texts):
            usage = VectorUsage()
            with vectors.of_repo(usage, stop) as repo:
                return SimpleNamespace(vectors=repo.get(texts), embedded=usage.embedded, reused=usage.reused)

        return SimpleNamespace(get=get, shared=vectors, of_repo=vectors.of_repo)

    yield make
    for cache in caches:
        cache.close()


def wait_until(condition):
    for _ in range(6000):
        if condition():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it did not happen within 30 s")


def expected(texts):
    return HashingEmbedder(32).embed(texts, input_type="document").values


def test_each_text_gets_its_row_in_order_and_is_embedded_once(make, embedding, monkeypatch):
    monkeypatch.setattr(module, "EMBED_SLICE", 3)
    texts = [f"text {n % 7}" for n in range(20)]
    found = make().get(texts)
    np.testing.assert_array_equal(found.vectors.values, expected(texts))
    assert (found.embedded, found.reused) == (7, 0)
    assert sorted(embedding.texts) == sorted(set(texts))
    again = make().get([*texts, "new"])
    assert (again.embedded, again.reused) == (1, 7)


@pytest.mark.parametrize("policy", CachePolicy)
def test_two_repositories_that_embed_the_same_text_at_once_embed_it_once(make, embedding, policy):
    if policy is CachePolicy.READ_ONLY:
        make()  # there is a cache, and it is empty
    shared = make(policy)
    embedding.go.clear()
    with ThreadPoolExecutor(2) as repositories:
        first = repositories.submit(shared.get, ["a", "b", "both"])
        assert embedding.begun.wait(30)
        second = repositories.submit(shared.get, ["both", "c", "a"])
        while vector_key("c", MODEL) not in shared.shared._in_flight:  # it knows now what the first is at
            threading.Event().wait(0.005)
        embedding.go.set()
        found = first.result(30), second.result(30)
    assert sorted(embedding.texts) == ["a", "b", "both", "c"]
    np.testing.assert_array_equal(found[0].vectors.values, expected(["a", "b", "both"]))
    np.testing.assert_array_equal(found[1].vectors.values, expected(["both", "c", "a"]))
    assert [(each.embedded, each.reused) for each in found] == [(3, 0), (1, 2)]


def test_many_threads_that_want_overlapping_texts_in_any_order_neither_hang_nor_embed_twice(
    make, embedding, monkeypatch
):
    monkeypatch.setattr(module, "EMBED_SLICE", 5)
    shared = make()
    rng = np.random.default_rng(0)
    wanted = [[f"text {n}" for n in rng.permutation(60)[:40]] for _ in range(6)]
    with ThreadPoolExecutor(6) as repositories:
        found = list(repositories.map(shared.get, wanted))
    for texts, each in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(each.vectors.values, expected(texts))
    assert len(embedding.texts) == len(set(embedding.texts)) == len({text for texts in wanted for text in texts})


def test_the_vector_that_won_in_the_cache_is_what_everybody_gets(make, tmp_path, embedding):
    shared = make()
    embedding.go.clear()
    with ThreadPoolExecutor(1) as repositories:
        waiting = repositories.submit(shared.get, ["a"])
        assert embedding.begun.wait(30)
        winner = np.eye(32, dtype=np.float32)[3]
        with Cache(f"sqlite:///{tmp_path / 'cache.sqlite'}") as other:
            other.put_vectors({vector_key("a", MODEL): winner}, model=MODEL)
        embedding.go.set()
        np.testing.assert_array_equal(waiting.result(30).vectors.values, [winner])


def test_where_the_thread_that_embeds_a_text_fails_another_embeds_it(make, embedding):
    shared = make()
    embedding.go.clear()
    embedding.fails = 1
    with ThreadPoolExecutor(2) as repositories:
        first = repositories.submit(shared.get, ["a"])
        assert embedding.begun.wait(30)
        second = repositories.submit(shared.get, ["a"])
        embedding.go.set()
        with pytest.raises(EmbeddingError, match="out of memory"):
            first.result(30)
        assert second.result(30).embedded == 1


def test_a_stop_ends_the_wait_for_another_thread_and_harms_it_not(make, embedding, stop):
    shared = make()
    embedding.go.clear()
    with ThreadPoolExecutor(2) as repositories:
        both = [repositories.submit(shared.get, ["a"]) for _ in range(2)]
        assert embedding.begun.wait(30)
        stop.request("enough")
        for each in both:
            with pytest.raises(Stopped, match="enough"):
                each.result(30)


@pytest.mark.parametrize("policy", CachePolicy)
def test_what_is_added_is_embedded_a_slice_at_a_time_and_not_again(make, embedding, stop, monkeypatch, policy):
    monkeypatch.setattr(module, "EMBED_SLICE", 4)
    if policy is CachePolicy.READ_ONLY:
        make()
    usage = VectorUsage()
    texts = [f"text {n}" for n in range(10)]
    with make(policy).of_repo(usage, stop) as repo:
        for text in texts:
            repo.add(text)
        wait_until(lambda: len(embedding.texts) == 8)
        np.testing.assert_array_equal(repo.get([*texts[::-1], "new"]).values, expected([*texts[::-1], "new"]))
    assert sorted(embedding.texts) == sorted([*texts, "new"])
    assert (usage.embedded, usage.reused, usage.seconds) == (11, 0, 0.75)


def test_fewer_texts_are_embedded_at_once_where_nothing_else_is(make, embedding, stop, monkeypatch):
    monkeypatch.setattr(module, "EMBED_SLICE", 4)
    monkeypatch.setattr(module, "IDLE_SLICE", 2)
    shared = make().shared
    embedding.go.clear()
    with shared.of_repo(VectorUsage(), stop) as repo:
        repo.add("a")
        assert not embedding.begun.wait(0.1)
        repo.add("b")
        assert embedding.begun.wait(30)
        for text in ("c", "d", "e"):
            repo.add(text)
        embedding.go.set()
        wait_until(lambda: shared.is_idle)
        assert sorted(embedding.texts) == ["a", "b"]  # while they were embedded, three were no slice
        repo.add("f")
        wait_until(lambda: len(embedding.texts) == 6)


def test_a_text_that_was_replaced_at_the_end_is_not_in_the_rows(make, embedding, stop, monkeypatch):
    monkeypatch.setattr(module, "EMBED_SLICE", 2)
    usage = VectorUsage()
    with make().of_repo(usage, stop) as repo:
        for text in ("a", "made without a child"):
            repo.add(text)
        wait_until(lambda: len(embedding.texts) == 2)
        np.testing.assert_array_equal(repo.get(["a", "made with it"]).values, expected(["a", "made with it"]))
    assert (usage.embedded, usage.reused) == (3, 0)


def test_an_embedding_that_fails_is_told_to_who_adds_more(make, embedding, stop, monkeypatch):
    monkeypatch.setattr(module, "EMBED_SLICE", 1)
    embedding.fails = 1
    with make().of_repo(VectorUsage(), stop) as repo:
        repo.add("a")
        wait_until(repo._ahead.done)
        with pytest.raises(EmbeddingError, match="out of memory"):
            repo.add("b")
        with pytest.raises(EmbeddingError, match="out of memory"):
            repo.get(["a", "b"])


def test_what_is_not_begun_is_dropped_at_the_end_and_the_thread_ends(make, embedding, stop, monkeypatch):
    monkeypatch.setattr(module, "EMBED_SLICE", 1)
    embedding.go.clear()
    with make().of_repo(VectorUsage(), stop) as repo:
        for text in ("a", "b", "c"):
            repo.add(text)
        assert embedding.begun.wait(30)
    embedding.go.set()
    wait_until(repo._ahead.done)
    assert embedding.texts == ["a"]


def test_a_stop_ends_the_thread_that_embeds_ahead(make, embedding, stop, monkeypatch):
    monkeypatch.setattr(module, "EMBED_SLICE", 1)
    embedding.go.clear()
    with make().of_repo(VectorUsage(), stop) as repo:
        repo.add("a")
        assert embedding.begun.wait(30)
        stop.request("enough")
        wait_until(repo._ahead.done)
        with pytest.raises(Stopped, match="enough"):
            repo.get(["a"])
