import pytest

from summidx.search.ranking import Candidate, Mode, idf, rank_candidates, weigh_terms


@pytest.fixture
def candidate(document):
    def candidate(name, bm25, similarity, *, repo="repo", row=0, **values):
        return Candidate(repo, row, document(name, **values), bm25, similarity)

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
def test_tests_and_secondary_documents_score_half(candidate, mode):
    candidates = [
        candidate("code", 8.0, 0.8),
        candidate("test", 8.0, 0.8, is_test=True),
        candidate("guide", 8.0, 0.8, is_secondary=True),
        candidate("other", 1.0, 0.1),
    ]
    scores = {each.document.id: score for each, score in rank_candidates(candidates, mode)}
    assert scores["code"] == pytest.approx(2 * scores["test"]) == pytest.approx(2 * scores["guide"])
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
