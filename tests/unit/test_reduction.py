"""Cuts follow the content: everything is in exactly one part, parts fit, and a change moves its own part."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from summidx.records import ChildSummary, Level, SummaryRequest, Unit
from summidx.reduction import Part, Reduction, cut_children, cut_lines

WORDS = "load read parse write send token index user order price mail cache queue route view form model report".split()  # noqa: SIM905


def make_names(n: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    names: set[str] = set()
    while len(names) < n:
        names.add(f"{rng.choice(WORDS)}_{rng.choice(WORDS)}_{rng.choice(WORDS)}_{rng.randrange(100)}.py")
    return sorted(names)


def child(name: str, last: str = "") -> ChildSummary:
    return ChildSummary(Level.FILE, name, "", f"Text of {name}.", last)


def groups(names: list[str], room: int, weight: int = 10) -> list[tuple[str, ...]]:
    runs = cut_children([child(name) for name in names], [weight] * len(names), room)
    return [tuple(names[run.start : run.stop]) for run in runs]


@given(st.lists(st.integers(1, 50), max_size=200), st.integers(1, 120))
def test_every_item_is_in_one_run_in_order_and_runs_fit(weights, room):
    runs = cut_children([child(f"f{n}") for n in range(len(weights))], weights, room)
    assert [n for run in runs for n in run] == list(range(len(weights)))
    assert all(len(run) == 1 or sum(weights[run.start : run.stop]) <= room for run in runs)


@given(st.lists(st.sampled_from(["", "a = 1", "    b = 2", "def f():", "}", "\tx", "日本"]), max_size=200))
def test_every_line_is_in_one_run_in_order_and_runs_fit(lines):
    weights = [len(line) + 1 for line in lines]
    runs = cut_lines(lines, weights, 40)
    assert [n for run in runs for n in run] == list(range(len(lines)))
    assert all(len(run) == 1 or sum(weights[run.start : run.stop]) <= 40 for run in runs)


def test_what_fits_is_not_cut():
    assert groups(make_names(9), room=90) == [tuple(make_names(9))]
    assert groups([], room=90) == []


def test_a_change_of_one_child_moves_its_own_group_and_at_most_its_neighbour():
    names = make_names(3000)
    before = set(groups(names, room=600))
    assert 50 < len(before) < 250
    rng = random.Random(1)
    moved = []
    for number in range(100):
        changed = sorted(
            {*names, f"{rng.choice(WORDS)}_{number}_new.py"} if number % 2 else {*names} - {rng.choice(names)}
        )
        moved.append(len(set(groups(changed, room=600)) - before))
    assert max(moved) <= 3
    assert sum(moved) / len(moved) < 1.4


def test_the_first_child_moves_the_first_group_only():
    names = make_names(5000)
    before, after = groups(names, room=900), groups(["_first.py", *names], room=900)
    assert [g for g in after if g not in before] == [("_first.py", *before[0])]


def test_groups_of_groups_are_cut_where_their_last_children_were():
    names = make_names(2000)
    first = groups(names, room=300)
    of_groups = [child(group[0], group[-1]) for group in first]
    runs = cut_children(of_groups, [10] * len(first), 200)
    again = cut_children([child(g[-1]) for g in first], [10] * len(first), 200)
    assert runs == again


def test_children_of_one_name_are_spread_over_the_groups_as_others_are():
    sizes = [len(group) for group in groups(["f"] * 4000, room=300)]
    assert 5 < sum(sizes) / len(sizes) <= 30


def test_lines_are_cut_where_code_stands_furthest_out():
    block = ["def f{0}(a):", "    if a:", "", "        return {0}", "    return 0", "", ""]
    lines = [line.format(n) for n in range(300) for line in block]
    runs = cut_lines(lines, [len(line) + 1 for line in lines], 2000)
    assert len(runs) > 5
    assert all(lines[run.start].startswith("def ") for run in runs)


def test_an_edit_in_the_middle_moves_few_pieces():
    lines = [f"{'    ' * (n % 4)}call_{n * 7919 % 1000}({n % 13})" for n in range(4000)]

    def pieces(text):
        return {tuple(text[r.start : r.stop]) for r in cut_lines(text, [len(x) + 1 for x in text], 3000)}

    before = pieces(lines)
    for at in range(100, 4000, 390):
        assert len(pieces([*lines[:at], "inserted()", *lines[at:]]) - before) <= 3
        assert len(pieces([*lines[:at], *lines[at + 1 :]]) - before) <= 3


@pytest.mark.timeout(30)
def test_time_and_depth_do_not_grow_with_hostile_or_huge_input():
    """Equal lines, sorted priorities: a recursion would be as deep as there are lines, a scan quadratic."""
    lines = ["x = 1"] * 200_000
    runs = cut_lines(lines, [6] * len(lines), 20_000)
    assert 60 <= len(runs) <= 400
    assert len(groups(make_names(30_000), room=900)) > 300


def test_summaries_of_the_parts_take_their_place():
    unit = Unit(
        id="d/", level=Level.DIRECTORY, path="d/", name="d", qualified_name="d/", language="", start_line=0, end_line=0,
        parent_id=".",
    )  # fmt: skip
    request = SummaryRequest(unit, children=(child("a"), child("b"), child("c")))
    part = Part(replace(request, children=request.children[:2], is_part=True), "a", "b")
    reduction = Reduction(request, "children", (part, child("c")))
    assert reduction.parts == (part.request,)
    assert reduction.merge(["Both."]).children == (
        ChildSummary(Level.DIRECTORY, "a", "", "Both.", "b"),
        child("c"),
    )
    pieces = Reduction(request, "parts", (Part(part.request, "import x"),)).merge(["Imports."])
    assert pieces.children == request.children
    assert pieces.parts == (ChildSummary(Level.DIRECTORY, "import x", "", "Imports."),)
