import math

import pytest

from summidx.errors import UsageError
from summidx.search.query import MAX_DENSE_CHARS, STOP_WORDS, build_query, limit_terms


def test_stop_words_are_dropped_and_repeated_words_weigh_by_their_logarithm():
    query = build_query("Where do we retry, retry after a 429?")
    assert query.terms == (("retry", math.log1p(4)), ("429", math.log1p(2)))
    assert query.text == "Where do we retry, retry after a 429?"


ISSUE = """Clock stops at midnight

<!-- describe the bug -->
### Describe the bug
The ticker is late.

```
>>> run(clock)
Traceback (most recent call last):
  File "clock.py", line 12, in tick
    self.advance(hours)
OverflowError: day exceeds range
```

Python version: 3.11.2
- [x] I searched the issues
"""


def test_an_issue_is_read_by_its_parts():
    query = build_query(ISSUE)
    weights = dict(query.terms)
    assert weights["midnight"] == weights["overflowerror"] == math.log1p(2)
    assert weights["ticker"] == math.log1p(1)
    assert weights["run"] == weights["advance"] == math.log1p(0.5)
    assert not {"describe", "bug", "version", "3", "searched", "traceback"} & weights.keys()
    assert query.text == "Clock stops at midnight The ticker is late."


def test_noise_alone_is_searched_for_as_it_is():
    assert next(word for word, _ in build_query("python 3.11.2").terms) == "python"


def test_what_looks_like_code_is_named_and_plain_words_are_not():
    mentions = build_query(
        "Call `tick` or Clock.stop, parse_cookie and run() of http/clock.py; Fix the Ticker"
    ).mentions
    assert mentions.names >= {"tick", "Clock.stop", "Clock", "stop", "parse_cookie", "run"}
    assert not mentions.names & {"Call", "Fix", "Ticker", "the"}
    assert mentions.paths == {"http/clock.py"}
    assert mentions.has_path("src/http/clock.py")
    assert not mentions.has_path("src/shttp/clock.py")


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
