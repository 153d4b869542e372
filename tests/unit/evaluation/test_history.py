"""A development set from a real git history."""

import os
import subprocess

import pytest

from summidx.evaluation.gold import Gold
from summidx.evaluation.history import clean_message, iterate_fixes, strip_gold_names, tells_of_fix
from summidx.stop import Stop

BEFORE = {
    "src/clock.py": "class Clock:\n    def tick(self):\n        return 1\n\n    def stop(self):\n        return 2\n",
    "tests/test_clock.py": "def test_tick():\n    pass\n",
    "README.md": "Clocks.\n",
}


@pytest.fixture
def history(tmp_path):
    """Make a repository of commits, each (message, files); return its path and ids."""
    environment = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ["PATH"]}

    def git(*arguments):
        options = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        done = subprocess.run(
            ["git", *options, "-C", str(tmp_path), *arguments],
            check=True,
            capture_output=True,
            text=True,
            env=environment,
        )
        return done.stdout.strip()

    def make(*commits):
        git("init", "-q")
        ids = []
        for message, files in commits:
            for path, text in files.items():
                (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / path).write_text(text)
            git("add", "-A")
            git("commit", "-q", "--allow-empty", "-m", message)
            ids.append(git("rev-parse", "HEAD"))
        return str(tmp_path), ids

    return make


def test_a_fix_of_one_function_is_an_instance_and_nothing_else_is(history):
    fixed = BEFORE["src/clock.py"].replace("return 1", "return 0")
    source, ids = history(
        ("Start", BEFORE),
        (
            "Fix a tick that comes one second too late (#12)\n\nSigned-off-by: A <a@b>",
            {"src/clock.py": fixed, "README.md": "!\n"},
        ),
        ("Add a feature that nobody has ever asked for", {"src/clock.py": fixed + "\n\nX = 1\n"}),
        ("Fix typo in the documentation of the whole thing", {"src/clock.py": fixed}),
        (
            "Fix the test that fails on slow machines for us",
            {"tests/test_clock.py": "def test_tick():\n    assert 1\n"},
        ),
        ("Fix a crash by a function that is all new here", {"src/clock.py": fixed + "\n\ndef new():\n    return 3\n"}),
    )
    (instance,) = iterate_fixes("o/clock", source, "HEAD", Stop(), limit=10)
    assert instance.base_commit == ids[0]
    assert instance.problem_statement == "Fix a tick that comes one second too late"
    assert (instance.files, instance.entities) == (("src/clock.py",), ("src/clock.py:Clock.tick",))
    assert instance.instance_id == f"o__clock-{ids[1][:10]}"


def test_more_than_two_functions_are_too_many(history):
    before = "".join(f"def f{n}():\n    return {n}\n\n\n" for n in range(3))
    after = before.replace("return", "yield")
    source, _ = history(("Start", {"a.py": before}), ("Fix what all of these functions give back", {"a.py": after}))
    assert list(iterate_fixes("o/a", source, "HEAD", Stop(), limit=10)) == []


def test_messages_lose_what_is_no_description():
    message = (
        "[PR #9/ab backport][3.1] Fix x (#12)\n\nFixes #3\n* Add tests\n* Wait for it\n\nCo-authored-by: B <b@c>\n"
    )
    assert clean_message(message) == "Fix x\n\n* Wait for it"
    assert not tells_of_fix("Fix it (#12)")
    assert not tells_of_fix("Revert the fix of the clock that was wrong")
    assert tells_of_fix("Clocks stop at midnight for no reason\n\nCloses #12")


def test_names_of_the_gold_can_be_taken_out():
    gold = Gold(("src/clock.py",), ("src/clock.py:Clock.tick",))
    text = "Clock.tick() of src/clock.py, tick_all and the Clock are late"
    assert strip_gold_names(text, gold) == "() of , tick_all and the  are late"
