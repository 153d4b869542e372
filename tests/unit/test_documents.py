"""What of a unit and its summary becomes a row."""

import pytest

from summidx.documents import build_document
from summidx.records import Level, Origin, Status, Summary, Unit


@pytest.mark.parametrize(
    ("level", "origin", "is_searched"),
    [
        (Level.FUNCTION, Origin.EXTRACTIVE, False),
        (Level.FUNCTION, Origin.TEMPLATE, False),
        (Level.FUNCTION, Origin.LLM, True),
        (Level.FUNCTION, Origin.REDUCED, True),
        (Level.CLASS, Origin.EXTRACTIVE, True),
        (Level.FILE, Origin.EXTRACTIVE, True),
        (Level.REPO, Origin.EXTRACTIVE, True),
    ],
)
def test_a_functions_summary_is_among_its_words_where_a_model_wrote_it(level, origin, is_searched):
    unit = Unit(
        id="a.py::f",
        level=level,
        path="a.py",
        name="f",
        qualified_name="f",
        language="python",
        start_line=1,
        end_line=1,
        parent_id=None,
        own_source="def f(): return tide",
        signature="def f()",
    )
    summary = Summary(text="Tells the moonrise.", keywords=("lunar",), status=Status.OK, origin=origin, key="k")
    words = build_document(unit, summary).search_text.split()
    assert "tide" in words
    assert ("moonrise" in words) is is_searched
    assert ("lunar" in words) is is_searched
