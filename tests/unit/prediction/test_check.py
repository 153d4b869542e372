"""What is told of how far off a prediction was."""

import pytest

from summidx.prediction import Prediction, RepoPrediction, check_prediction
from summidx.records import Usage


@pytest.fixture
def told():
    """What is told of 121 predicted calls where the run made so many, and found so many summaries in the cache."""

    def tell(calls, cache_hits):
        repo = RepoPrediction(name="a", build_key="k", why="new", units=130, cache_hits=9, calls=121)
        prediction = Prediction(
            made_at="2026-01-01T00:00:00+00:00",
            repositories=(repo,),
            up_to_date=0,
            units=130,
            cache_hits=9,
            calls=121,
            tokens_in=0,
            tokens_out=0,
            vectors=0,
            seconds=60,
            llm_s=1,
            embedding_s=1,
            basis=(),
        )
        usage = Usage(requests=calls, cache_hits=cache_hits, durations_s={})
        return check_prediction(prediction, [("a", "k", usage)], 30.0).describe()

    return tell


def test_a_prediction_is_compared_with_what_was_counted(told):
    assert told(110, 9).startswith("calls 110 (predicted 121, +10 %)")


def test_a_prediction_is_not_blamed_for_what_came_into_the_cache_after_it(told):
    assert told(30, 100) == ("30 calls, 30 seconds (predicted 121 calls, before 91 summaries came into the cache)")
