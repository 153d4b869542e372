"""Errors arrive from a worker as themselves, and say what to do where nothing else does."""

import inspect
import pickle

import pytest

from summidx import errors
from summidx.errors import CacheError, Defect, MachineFault, Overloaded, SummidxError, TooManyFailures, explain

OURS = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, SummidxError)]


@pytest.mark.parametrize("kind", OURS)
def test_every_error_pickles_with_its_text_and_says_what_to_do_in_one_line(kind):
    error = explain(kind("what was wrong"))
    error.cost = "a cost"

    arrived = pickle.loads(pickle.dumps(error))

    assert type(arrived) is kind
    assert (arrived.reason, arrived.cost) == ("what was wrong", "a cost")
    assert str(arrived) == f"what was wrong. What to do: {kind.advice}"
    assert kind.advice.isprintable()
    assert not kind.advice.endswith(".")


def test_the_text_is_the_reason_alone_where_it_is_not_explained():
    assert str(Overloaded("429", 2.0, True)) == "429"
    assert str(TooManyFailures("5 of 9 units failed")) == "5 of 9 units failed"
    assert str(SummidxError()) == "SummidxError"


@pytest.mark.parametrize(
    ("foreign", "kind"),
    [(OSError(28, "No space left on device"), MachineFault), (MemoryError(), MachineFault), (KeyError("x"), Defect)],
)
def test_what_nobody_raised_on_purpose_is_told_by_type_text_and_cost(foreign, kind):
    foreign.cost = "what it had cost"

    told = explain(foreign)

    assert type(told) is kind
    assert told.reason == f"{type(foreign).__name__}: {foreign}"
    assert told.cost == "what it had cost"


def test_an_error_of_ours_is_explained_as_the_same_object():
    error = CacheError("locked")
    assert explain(error) is error
