"""Figures as LocAgent's evaluation counts them."""

from summidx.evaluation.metrics import module_of, normalize_entity, rank_gold, summarize_level


def test_all_gold_items_must_be_within_the_first_k():
    found = rank_gold(["a", "b"], ["x", "a", "a", "y", "b"])
    assert found.ranks == (2, 4)
    assert found.outranked_by == ("x", "y")
    assert [found.hits(k) for k in (3, 4)] == [False, True]
    assert [found.recall(k) for k in (1, 2, 4)] == [0, 0.5, 1]
    assert found.reciprocal_rank == 0.5


def test_what_is_not_found_has_no_rank():
    found = rank_gold(["a"], ["x", "y"])
    assert (found.ranks, found.reciprocal_rank, found.hits(100)) == ((None,), 0, False)
    assert found.outranked_by == ("x", "y")


def test_a_constructor_counts_as_its_class_and_a_module_is_the_first_name():
    assert normalize_entity("a/b.py:X.__init__") == "a/b.py:X"
    assert normalize_entity("a/b.py:f@12") == "a/b.py:f"
    assert normalize_entity("a/b.py:X.__init__@9") == "a/b.py:X"
    assert module_of("a/b.py:X.Y.f") == "a/b.py:X"
    assert module_of("a/b.py:f") == "a/b.py:f"


def test_figures_are_means_over_the_instances_that_have_gold():
    results = [rank_gold(["a"], ["a"]), rank_gold(["a", "b"], ["x", "a"]), rank_gold(["a"], [])]
    figures = summarize_level(results, "files")
    assert figures["n"] == 3
    assert (figures["acc@1"], figures["acc@3"]) == (0.3333, 0.3333)
    assert figures["mrr"] == 0.5
    assert figures["recall@5"] == 0.5
    assert summarize_level([], "functions")["acc@5"] == 0
