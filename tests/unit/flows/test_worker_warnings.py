"""What is told of the warnings of worker processes."""

import pytest

from flows import worker_warnings
from flows.worker_warnings import WarningReceiver


@pytest.fixture
def heard():
    """A receiver, what it noted in the log, and what it showed."""
    noted, told = [], []
    return WarningReceiver(noted.append, told.append), noted, told


def say(receiver, line, server=""):
    receiver.take((0.0, {"line": line, "server": server}))


def test_news_of_the_server_is_told_once_whichever_workers_bring_it(heard):
    receiver, noted, told = heard
    for line, server in [("a: gone", "away"), ("b: gone", "away"), ("a: back", "back"), ("b: back", "back")] * 2:
        say(receiver, line, server)
    assert told == ["a: gone", "a: back"] * 2
    assert noted == []


def test_pauses_are_told_rarely(heard, monkeypatch):
    receiver, _, told = heard
    for n in range(5):
        say(receiver, f"pause {n}", "busy")
    assert told == ["pause 0"]
    monkeypatch.setattr(worker_warnings, "BUSY_EVERY_S", 0.0)
    say(receiver, "pause 5", "busy")
    assert told == ["pause 0", "pause 5"]


def test_other_warnings_go_to_the_log_alone_and_are_bounded(heard, monkeypatch):
    monkeypatch.setattr(worker_warnings, "MOST_TOLD", 2)
    receiver, noted, told = heard
    for n in range(5):
        say(receiver, f"w{n}")
    assert noted == ["w0", "w1", "more warnings are in the log files of the workers"]
    assert told == []
