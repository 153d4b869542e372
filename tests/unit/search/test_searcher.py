"""Search over real small indexes."""

import numpy as np
import pytest

from summidx.embedding.hashing import HashingEmbedder
from summidx.errors import StoreError, UnknownIndex, UsageError
from summidx.records import Level, Status
from summidx.search.ranking import RERANKED, Mode
from summidx.search.searcher import Searcher


@pytest.fixture
def searcher(root):
    return Searcher(root, HashingEmbedder(256))


def ids(hits):
    return [hit.id for hit in hits]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("where do we retry after a 429?", "src/http/adapters.py::HTTPAdapter.handle_status"),
        ("Max retries exceeded", "src/http/adapters.py::HTTPAdapter.send"),
        ("parse the cookie header", "src/http/cookies.py::parse_cookie"),
        ("HTTPAdapter", "src/http/adapters.py::HTTPAdapter"),
    ],
)
def test_plain_questions_find_their_code_first(searcher, corpus, publish_documents, question, answer):
    publish_documents("http", corpus())
    assert ids(searcher.search(question))[0] == answer
    assert ids(searcher.search(question, mode=Mode.BM25))[0] == answer


def test_a_hit_says_where_it_is_and_why(searcher, corpus, publish_documents):
    publish_documents("http", corpus())
    hit = searcher.search("tries again 429")[0]
    assert (hit.repo, hit.path, hit.start_line, hit.end_line) == ("http", "src/http/adapters.py", 42, 60)
    assert (hit.level, hit.status, hit.qualified_name) == (Level.FUNCTION, Status.OK, "HTTPAdapter.handle_status")
    assert hit.summary.startswith("Waits")
    assert hit.bm25 > 0
    assert 0 < hit.similarity <= 1


def test_tests_and_documentation_are_found_after_the_code(searcher, corpus, publish_documents):
    publish_documents("http", corpus())
    found = ids(searcher.search("handle status 429"))
    code, test = "src/http/adapters.py::HTTPAdapter.handle_status", "tests/test_adapters.py::test_handle_status"
    assert found.index(code) < found.index(test)


def test_levels_and_k_limit_the_hits(searcher, corpus, publish_documents):
    publish_documents("http", corpus())
    found = searcher.search("cookie header", levels=[Level.FILE, Level.CLASS])
    assert sorted(hit.level for hit in found) == [Level.CLASS, Level.FILE, Level.FILE, Level.FILE]
    assert len(searcher.search("cookie", k=1)) == 1
    assert len(searcher.search("cookie", k=500)) == len(corpus())
    with pytest.raises(UsageError, match="ask for 1 or more"):
        searcher.search("cookie", k=0)


def test_vectors_find_what_shares_no_word_with_the_source(searcher, corpus, publish_documents):
    publish_documents("http", corpus())
    by_words = searcher.search("jar", mode=Mode.BM25)
    assert all(hit.similarity is None and hit.bm25 for hit in by_words)
    by_vectors = searcher.search("cookie jar", mode=Mode.SUMMARY)
    assert by_vectors[0].id == "src/http/cookies.py::parse_cookie"
    assert all(hit.bm25 is None for hit in by_vectors)
    assert {hit.id for hit in by_words} < set(ids(searcher.search("jar")))


def test_words_that_are_nowhere_find_nothing_by_words(searcher, corpus, publish_documents):
    publish_documents("http", corpus())
    assert searcher.search("xylophone", mode=Mode.BM25) == []
    assert len(searcher.search("xylophone")) == 10


def test_words_need_no_embedding_model(root, corpus, publish_documents):
    publish_documents("http", corpus())
    assert Searcher(root).search("cookie", mode=Mode.BM25)
    with pytest.raises(UsageError, match="mode bm25"):
        Searcher(root).search("cookie")


def test_an_index_of_another_model_is_refused_where_vectors_count(root, corpus, publish_documents):
    publish_documents("http", corpus())
    other = Searcher(root, HashingEmbedder(32))
    with pytest.raises(StoreError, match="was embedded by hashing/256, the query by hashing/32"):
        other.search("cookie")
    assert other.search("cookie", mode=Mode.BM25)


def test_an_unknown_index_is_refused_with_what_there_is(searcher, corpus, publish_documents):
    with pytest.raises(UnknownIndex, match="holds no index"):
        searcher.search("cookie")
    publish_documents("http", corpus())
    with pytest.raises(UnknownIndex, match=r"there is no index 'htp' .*there are: http"):
        searcher.search("cookie", repos=["htp"])


def test_a_new_generation_is_seen_by_an_open_searcher(searcher, corpus, corpus_document, publish_documents):
    publish_documents("http", corpus())
    assert searcher.search("xylophone", mode=Mode.BM25) == []
    document = corpus_document("x.py::play", "Plays the xylophone.")
    publish_documents("http", [document], publish_id="p2")
    publish_documents("http", [document, corpus_document("y.py", "")], publish_id="p3")
    assert ids(searcher.search("xylophone", mode=Mode.BM25)) == ["x.py::play"]


def test_an_index_without_documents_is_searched_in_vain(searcher, publish_documents):
    publish_documents("empty", [])
    assert searcher.search("anything") == []


def test_a_file_is_found_by_what_its_functions_say(searcher, publish_documents, corpus_document):
    documents = [
        corpus_document("a.py", "Clocks.", "import time"),
        corpus_document("a.py::tick", "Ticks.", "def tick(): raise Overflow('day exceeds range')"),
        corpus_document("b.py", "Ranges.", "range range exceeds nothing"),
        *(corpus_document(f"c.py::other_{n}", "Other.", "def other(): ...") for n in range(30)),
    ]
    publish_documents("clocks", documents)
    found = ids(searcher.search("day exceeds range", levels=[Level.FILE]))
    assert found[0] == "a.py"
    assert {hit.level for hit in searcher.search("day exceeds range", levels=[Level.FILE])} == {Level.FILE}


def test_what_the_query_names_is_found_even_where_its_words_are_everywhere(
    searcher, publish_documents, corpus_document
):
    noise = [corpus_document(f"n{n}.py::load_{n}", "Reads settings.", "read settings file fails") for n in range(400)]
    named = corpus_document("a.py::Loader.read_all", "Reads.", "pass", name="read_all")
    publish_documents("settings", [*noise, named])
    hits = searcher.search("reading the settings file fails in `Loader.read_all`", mode=Mode.BM25)
    assert hits[0].id == "a.py::Loader.read_all"


class TestManyIndexes:
    """`retry` is everyday in one index and a single stray mention in the other."""

    @pytest.fixture(autouse=True)
    def indexes(self, publish_documents, corpus_document):
        retrying = [
            corpus_document(f"retry{n}.py::retry_{n}", "Tries again.", "retry retry backoff " * (3 if n == 7 else 1))
            for n in range(30)
        ]
        retrying += [corpus_document(f"other{n}.py::other_{n}", "Other.", "other things") for n in range(30)]
        stray = [corpus_document(f"math{n}.py::sum_{n}", "Adds numbers.", "add numbers plus") for n in range(60)]
        stray[5] = corpus_document("math5.py::sum_5", "Adds numbers.", "add numbers retry")
        publish_documents("retrying", retrying)
        publish_documents("stray", stray)

    def test_scores_of_different_indexes_compare(self, root, searcher):
        raw = {name: root.open(name).table.bm25([("retry", 1.0)], 1)[0].score for name in ("retrying", "stray")}
        assert raw["stray"] > raw["retrying"], "raw scores favour the index that has least to do with it"
        hits = searcher.search("retry backoff", mode=Mode.BM25, k=40)
        assert hits[0].id == "retry7.py::retry_7"
        assert [hit.repo for hit in hits[:30]] == ["retrying"] * 30
        assert hits[30].id == "math5.py::sum_5"

    def test_one_index_can_be_chosen(self, searcher):
        hits = searcher.search("retry", repos=["stray", "stray"])
        assert {hit.repo for hit in hits} == {"stray"}
        assert hits[0].id == "math5.py::sum_5"

    def test_a_query_of_many_terms_is_answered(self, searcher):
        text = " ".join(f"word{n}" for n in range(500)) + " retry " * 20
        assert searcher.search(text, mode=Mode.BM25)[0].repo == "retrying"


class _Saying:
    """A reranker that likes some texts, and keeps what it was asked."""

    def __init__(self, liked, *, much=9.0):
        self.liked, self.much, self.asked = liked, much, []

    def score(self, query, texts):
        self.asked.append((query, list(texts)))
        return np.array([self.much if self.liked in text else -1.0 for text in texts], np.float32)


def test_a_reranker_reads_summaries_with_the_query_and_has_its_say_in_the_order(root, corpus, publish_documents):
    publish_documents("http", corpus())
    question = "parse the cookie header"
    before = Searcher(root, HashingEmbedder(256)).search(question, k=500)
    reranker = _Saying("HTTPAdapter.send:")
    after = Searcher(root, HashingEmbedder(256), reranker).search(question, k=500)
    ((query, texts),) = reranker.asked
    assert query == question
    assert len(texts) == len(before) == len(corpus())
    assert f"HTTPAdapter.send: {before[0].summary}" not in texts
    assert f"{before[0].qualified_name}: {before[0].summary}" in texts
    sent = "src/http/adapters.py::HTTPAdapter.send"
    assert ids(after).index(sent) < ids(before).index(sent)
    assert [hit.score for hit in after] == sorted((hit.score for hit in after), reverse=True)
    others = [each for each in ids(before) if each != sent]
    assert [each for each in ids(after) if each != sent] == others  # of which it says the same


def test_a_reranker_reads_more_hits_than_are_asked_for_and_need_not_be_there(root, corpus, publish_documents):
    publish_documents("http", corpus())
    reranker = _Saying("HTTPAdapter.send:", much=99.0)
    found = Searcher(root, None, reranker).search("cookie header send", k=1, mode=Mode.BM25)
    assert ids(found) == ["src/http/adapters.py::HTTPAdapter.send"]
    assert Searcher(root, None, reranker).search("xylophone", mode=Mode.BM25) == []


def test_a_reranker_reads_the_same_hits_however_many_are_asked_for(root, corpus, publish_documents):
    for name in ("a", "b", "c", "d", "e", "f"):
        publish_documents(name, corpus(), source=f"/src/{name}")
    reranker = _Saying("cookie")
    searcher = Searcher(root, HashingEmbedder(256), reranker)
    few, many = searcher.search("parse the cookie header", k=5), searcher.search("parse the cookie header", k=500)
    assert [len(texts) for _, texts in reranker.asked] == [RERANKED, RERANKED]
    assert len(many) == 6 * len(corpus()) > RERANKED
    assert [(hit.repo, hit.id, hit.score) for hit in many[:5]] == [(hit.repo, hit.id, hit.score) for hit in few]
    assert [hit.score for hit in many] == sorted((hit.score for hit in many), reverse=True)


def test_what_a_reranker_likes_in_tests_stays_weighed_down(root, corpus, publish_documents):
    publish_documents("http", corpus())
    code, test = "src/http/adapters.py::HTTPAdapter.handle_status", "tests/test_adapters.py::test_handle_status"
    found = ids(Searcher(root, HashingEmbedder(256), _Saying("handle_status")).search("handle status 429"))
    assert found.index(code) < found.index(test)
