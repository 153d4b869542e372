"""A repository's stop is the run's, and its own when its time is over."""

import time

import pytest

from summidx.errors import RepoTimeout, Stopped
from summidx.stop import RepoStop, Stop


def test_what_stops_the_run_stops_each_repository():
    run = Stop()
    repository = RepoStop(run, timeout_s=3600)
    assert (repository.is_requested, repository.reason) == (False, "")
    repository.check()
    run.request("Ctrl-C")
    assert (repository.is_requested, repository.reason) == (True, "Ctrl-C")
    with pytest.raises(Stopped, match="Ctrl-C"):
        repository.check()


def test_a_repository_whose_time_is_over_ends_alone_and_says_what_to_do():
    run = Stop()
    over, other = RepoStop(run, timeout_s=0.01), RepoStop(run, timeout_s=None)
    time.sleep(0.02)
    assert over.is_requested
    with pytest.raises(RepoTimeout, match=r"--repo-timeout.*give it more time"):
        over.check()
    assert not isinstance(RepoTimeout("x"), Stopped), "a run ends where a repository was stopped"
    assert not run.is_requested
    assert not other.is_requested
    other.check()


def test_a_run_that_was_stopped_comes_before_a_time_that_is_over():
    run = Stop()
    repository = RepoStop(run, timeout_s=0.001)
    time.sleep(0.01)
    run.request("Ctrl-C")
    assert repository.reason == "Ctrl-C"
    with pytest.raises(Stopped):
        repository.check()


def test_a_stop_through_a_repository_is_one_of_the_run():
    run = Stop()
    RepoStop(run, timeout_s=None).request("the disk is full")
    assert run.reason == "the disk is full"
