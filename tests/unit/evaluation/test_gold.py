"""What a patch changes, in terms of the definitions that were there before it."""

import pytest

from summidx.errors import UsageError
from summidx.evaluation.gold import Gold, Span, find_gold, parse_patch

SPANS = [
    Span("Clock", 3, 12, True),
    Span("Clock.tick", 4, 6, False),
    Span("Clock.stop", 8, 12, False),
    Span("main", 15, 18, False),
]


def gold(*hunks, path="clock.py"):
    patch = f"--- a/{path}\n+++ b/{path}\n" + "".join(hunks)
    return find_gold(parse_patch(patch), lambda asked: SPANS if asked == "clock.py" else ())


def test_a_changed_line_belongs_to_the_innermost_definition():
    assert gold("@@ -5,1 +5,1 @@\n-a\n+b\n") == Gold(("clock.py",), ("clock.py:Clock.tick",))


def test_a_line_between_methods_belongs_to_the_class():
    assert gold("@@ -7,1 +7,1 @@\n-x = 1\n+x = 2\n").entities == ("clock.py:Clock",)


def test_module_code_is_a_file_without_entity():
    assert gold("@@ -1,1 +1,1 @@\n-import a\n+import b\n") == Gold(("clock.py",), ())


def test_an_added_line_belongs_to_the_definition_around_it():
    assert gold("@@ -4,3 +4,4 @@\n def tick(self):\n+        x = 1\n     a\n     b\n").entities == (
        "clock.py:Clock.tick",
    )


@pytest.mark.parametrize(
    ("line", "entities"),
    [
        ("        more()", ("clock.py:Clock.stop",)),
        ("    zone = 1", ("clock.py:Clock",)),
        ("    def reset(self):", ()),
        ("END = 1", ()),
        ("def other():", ()),
    ],
)
def test_behind_the_last_line_of_a_definition_its_indentation_decides(line, entities):
    assert gold(f"@@ -12,1 +12,2 @@\n last\n+{line}\n").entities == entities


def test_files_that_the_patch_adds_are_no_gold():
    patch = "--- /dev/null\n+++ b/new.py\n@@ -0,0 +1,1 @@\n+a\n"
    assert find_gold(parse_patch(patch), lambda _: ()) == Gold((), ())


def test_a_form_feed_in_a_line_ends_no_line():
    assert gold("@@ -5,2 +5,2 @@\n-a\x0cb\n+b\n c\n").entities == ("clock.py:Clock.tick",)


def test_what_is_no_patch_is_refused():
    with pytest.raises(UsageError, match="no unified diff"):
        parse_patch("--- a/x.py\n+++ b/x.py\n@@ -1,5 +1,1 @@\n-a\n")
