import pytest

from summidx.records import Level
from summidx.search.mentions import Mentions
from summidx.search.ranking import (
    SECONDARY_WEIGHT,
    Candidate,
    Mode,
    add_said,
    idf,
    rank_candidates,
    rank_files,
    weigh_names,
    weigh_terms,
)


@pytest.fixture
def candidate(document):
    def candidate(name, bm25, similarity=None, *, repo="repo", row=0, named=0.0, **values):
        return Candidate(repo, row, document(name, **values), bm25, similarity, named)

    return candidate


def order(candidates, mode):
    return [each.document.id for each, _ in rank_candidates(candidates, mode)]


def test_words_go_before_vectors_when_they_disagree_by_as_much(candidate):
    candidates = [candidate("words", 10.0, 0.1), candidate("vectors", 1.0, 0.9)]
    assert order(candidates, Mode.HYBRID) == ["words", "vectors"]
    assert order(candidates, Mode.BM25) == ["words", "vectors"]
    assert order(candidates, Mode.SUMMARY) == ["vectors", "words"]


def test_vectors_decide_between_equal_words_and_find_what_has_none(candidate):
    candidates = [
        candidate("far", 5.0, 0.1),
        candidate("near", 5.0, 0.8),
        candidate("near, no word", None, 0.8),
        candidate("far, no word", None, 0.2),
    ]
    assert order(candidates, Mode.HYBRID) == ["near", "far", "near, no word", "far, no word"]


def test_the_order_does_not_depend_on_the_scale_of_a_part(candidate):
    scores = [(9.0, 0.2), (7.0, 0.9), (6.5, 0.3), (0.0, 0.95)]
    plain = [candidate(str(n), bm25, cosine) for n, (bm25, cosine) in enumerate(scores)]
    scaled = [candidate(str(n), 40 * bm25, cosine / 9 - 0.5) for n, (bm25, cosine) in enumerate(scores)]
    assert order(plain, Mode.HYBRID) == order(scaled, Mode.HYBRID)


@pytest.mark.parametrize("mode", list(Mode))
def test_tests_and_secondary_documents_are_weighed_down_not_hidden(candidate, mode):
    candidates = [
        candidate("code", 8.0, 0.8),
        candidate("test", 8.0, 0.8, is_test=True),
        candidate("guide", 8.0, 0.8, is_secondary=True),
        candidate("other", 1.0, 0.1),
    ]
    scores = {each.document.id: score for each, score in rank_candidates(candidates, mode)}
    assert scores["test"] == scores["guide"] == pytest.approx(SECONDARY_WEIGHT * scores["code"])
    assert scores["test"] > 0
    assert min(scores.values()) >= 0


def test_equal_scores_go_by_repository_and_place(candidate):
    candidates = [candidate("2", 1.0, 0.5, row=2), candidate("b", 1.0, 0.5, repo="z"), candidate("1", 1.0, 0.5, row=1)]
    assert order(candidates, Mode.HYBRID) == ["1", "2", "b"]


def test_one_candidate_or_none_can_be_ranked(candidate):
    assert rank_candidates([], Mode.HYBRID) == []
    ((_, score),) = rank_candidates([candidate("a", 3.0, -0.2)], Mode.HYBRID)
    assert score == pytest.approx(3.0)


def test_the_modes_of_one_part_show_its_own_score(candidate):
    assert rank_candidates([candidate("a", 3.5, None)], Mode.BM25)[0][1] == 3.5
    assert rank_candidates([candidate("a", None, 0.25)], Mode.SUMMARY)[0][1] == 0.25


def test_terms_weigh_their_rarity_over_all_indexes():
    terms = [("retry", 1.0), ("absent", 1.0)]
    weighed = dict(weigh_terms(terms, {"retry": 2}, 100, {"retry": 40, "absent": 3}, 1000))
    assert weighed == {"retry": pytest.approx(idf(1000, 40) / idf(100, 2))}
    assert weigh_terms(terms[:1], {"retry": 2}, 100, {"retry": 2}, 100) == [("retry", 1.0)]


def test_what_the_query_names_goes_before_what_has_as_many_words(candidate):
    candidates = [candidate("words", 8.0), candidate("named", 7.5, named=1.0), candidate("other", 1.0)]
    assert order(candidates, Mode.BM25) == ["named", "words", "other"]
    assert order([*candidates[:1], candidate("shared", 7.5, named=0.01)], Mode.BM25) == ["words", "shared"]


def test_a_name_that_several_definitions_have_tells_less(document):
    clock = document("a.py::Clock.tick", name="tick", qualified_name="Clock.tick")
    other = document("b.py::Watch.tick", name="tick", qualified_name="Watch.tick")
    test = document("tests/c.py::tick", name="tick", qualified_name="tick", is_test=True)
    file = document("src/a.py", name="a.py")
    found = list(enumerate([clock, other, test, file]))
    shared = weigh_names(found, Mentions(frozenset({"tick"}), frozenset({"other/a.py"})))
    assert shared == {0: 0.5, 1: 0.5, 2: 0.5}
    exact = weigh_names(found, Mentions(frozenset({"tick", "Clock.tick"}), frozenset({"src/a.py"})))
    assert (exact[0], exact[1], exact[3]) == (1.0, 0.5, 1.0)
    many = list(enumerate(document(f"{n}.py::run", name="run", qualified_name="run") for n in range(6)))
    assert weigh_names(many, Mentions(frozenset({"run"}))) == {}


def rank_of_files(candidates):
    return [each.document.id for each, _ in rank_files(rank_candidates(candidates, Mode.BM25))]


def test_a_file_comes_from_its_best_functions_not_from_their_number(candidate):
    files = [candidate("deep.py", 0.0, level=Level.FILE), candidate("wide.py", 0.0, level=Level.FILE)]
    deep = [candidate("deep.py::f", 9.0), candidate("deep.py::g", 5.0)]
    wide = [candidate(f"wide.py::f{n}", 4.0) for n in range(20)]
    assert rank_of_files([*files, *wide, *deep]) == ["deep.py", "wide.py"]


def test_a_file_that_the_best_file_imports_goes_before_its_equal(candidate):
    importer = candidate("src/app/main.py", 9.0, level=Level.FILE, imports=("app.errors", "os"))
    equal = [candidate(f"src/app/{name}.py", 1.0, level=Level.FILE) for name in ("alarms", "errors")]
    assert rank_of_files([importer, *equal]) == ["src/app/main.py", "src/app/errors.py", "src/app/alarms.py"]
    importing_test = candidate("tests/t.py", 9.0, level=Level.FILE, imports=("app.alarms",), is_test=True)
    assert rank_of_files([importing_test, *equal])[1:] == ["src/app/alarms.py", "src/app/errors.py"]
    assert rank_of_files([importing_test, *reversed(equal)])[1:] == ["src/app/errors.py", "src/app/alarms.py"]


def test_no_import_lifts_a_file_past_the_one_that_imports_it(candidate):
    importer = candidate("app.py", 5.0, level=Level.FILE, imports=("errors",))
    assert rank_of_files([importer, candidate("errors.py", 4.9, level=Level.FILE)]) == ["app.py", "errors.py"]
    assert rank_of_files([importer, candidate("errors.py", 5.1, level=Level.FILE)]) == ["errors.py", "app.py"]


class TestSaid:
    """What a cross-encoder says of the first candidates."""

    def test_it_moves_what_it_likes_and_the_scale_of_its_scores_does_not_matter(self, candidate):
        ranked = [(candidate("a", 1.0), 9.0), (candidate("b", 1.0), 8.0), (candidate("c", 1.0), 1.0)]
        scores = add_said(ranked, [0.1, 0.9, 0.8])
        assert scores[1] > scores[0] > scores[2]
        assert add_said(ranked, [-5.0, 3.0, 2.0]) == pytest.approx(scores)

    def test_the_scale_of_the_scores_before_does_not_matter(self, candidate):
        before = [(candidate("a", 1.0), 9.0), (candidate("b", 1.0), 8.0), (candidate("c", 1.0), 1.0)]
        scaled = [(each, 100 * score) for each, score in before]
        assert add_said(scaled, [0.1, 0.9, 0.8]) == pytest.approx(add_said(before, [0.1, 0.9, 0.8]))

    def test_saying_the_same_of_all_keeps_their_order(self, candidate):
        ranked = [(candidate("a", 1.0), 3.0), (candidate("b", 1.0), 2.0), (candidate("c", 1.0), 0.5)]
        scores = add_said(ranked, [0.7, 0.7, 0.7])
        assert scores == sorted(scores, reverse=True)
        assert add_said([], []) == []

    def test_a_test_that_it_likes_as_much_is_weighed_down(self, candidate):
        ranked = [
            (candidate("test", 1.0, is_test=True), 5.0),
            (candidate("code", 1.0), 5.0),
            (candidate("c", 1.0), 4.0),
        ]
        test, code, _ = add_said(ranked, [1.0, 1.0, 0.0])
        assert test < code

    def test_what_it_has_not_read_stays_behind(self, candidate):
        ranked = [(candidate(str(n), 1.0), 10.0 - n) for n in range(6)]
        scores = add_said(ranked, [0.0, 0.5, 9.0])
        assert scores[2] > scores[1]
        assert min(scores[:3]) > scores[3] > scores[4] > scores[5]
        assert add_said(ranked[:4], [0.0, 0.5, 9.0]) == scores[:4]
