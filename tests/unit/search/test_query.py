import math

import pytest

from summidx.errors import UsageError
from summidx.search.query import MAX_DENSE_CHARS, STOP_WORDS, build_query, limit_terms


def test_stop_words_are_dropped_and_repeated_words_weigh_by_their_logarithm():
    query = build_query("Where do we retry after a 429?\n Retry, retry!")
    assert query.terms == (("retry", math.log(4)), ("429", math.log(2)))
    assert query.text == "Where do we retry after a 429? Retry, retry!"


def test_identifiers_give_their_parts():
    assert [word for word, _ in build_query("HTTPAdapter").terms] == ["httpadapter", "http", "adapter"]


def test_a_query_of_stop_words_alone_keeps_them():
    assert [word for word, _ in build_query("not in").terms] == ["not", "in"]


@pytest.mark.parametrize("text", ["", "  \n", "?!", "\x00"])
def test_nothing_to_search_for_is_refused(text):
    with pytest.raises(UsageError, match="no word in the query"):
        build_query(text)


def test_what_is_embedded_is_bounded():
    assert len(build_query("word " * 10_000).text) == MAX_DENSE_CHARS


def test_stop_words_are_words_of_the_tokenizer_and_none_of_code():
    assert all(word.isalpha() and word.islower() for word in STOP_WORDS)
    assert not STOP_WORDS & {"re", "self", "none", "true", "get", "set", "class", "import", "return"}


def test_of_too_many_terms_the_rarest_that_occur_are_kept():
    terms = [("common", 3.0), ("rare", 1.0), ("absent", 9.0), ("some", 1.0)]
    frequencies = {"common": 90, "rare": 1, "some": 5}
    assert limit_terms(terms, frequencies, 2) == [("rare", 1.0), ("some", 1.0)]
    assert limit_terms(terms, frequencies) == [("common", 3.0), ("rare", 1.0), ("some", 1.0)]
