import numpy as np
import pytest

from summidx.embedding.hashing import HashingEmbedder


def embed(*texts, dim=256):
    return HashingEmbedder(dim).embed(texts, input_type="document").values


def test_texts_that_share_words_are_nearer_than_those_that_do_not():
    query, near, far = embed(
        "retry the request after a 429",
        "Waits and retries a request: retry after 429 or 503.",
        "Renders a table of contents as Markdown.",
    )
    assert query @ near > 0.3 > abs(query @ far)


def test_an_identifier_is_near_its_words():
    identifier, words, other = embed("getUserName", "get user name", "parse header line")
    assert identifier @ words > 0.99
    assert abs(identifier @ other) < 0.2


def test_it_is_the_same_on_every_machine():
    expected = [0, 0.5**0.5, 0, 0, -(0.5**0.5), 0, 0, 0]
    np.testing.assert_allclose(embed("retry after", dim=8)[0], expected, rtol=1e-6)


def test_texts_without_a_word_have_a_vector_too():
    assert np.allclose(np.linalg.norm(embed("", "!?", "☃"), axis=1), 1.0)


def test_too_few_dimensions_are_refused():
    with pytest.raises(ValueError, match="at least 8"):
        HashingEmbedder(4)
