"""What is seen of a process while it works."""

import pytest

from summidx.activity import Activity, Figures, RepoLook


def repo(name, documents, seconds=0.0):
    return RepoLook(name, "summarise", documents, 10, seconds, Figures(documents, 1, 2, 30, 4))


def test_what_ended_is_counted_on_with_what_is_under_way():
    activity = Activity()
    with activity.following(lambda seconds: repo("a", 5, seconds)):
        with activity.following(lambda seconds: repo("b", 3, seconds)):
            look = activity.look(in_flight=2, waiting=1, cap=4)
            assert [each.name for each in look.repos] == ["a", "b"], "the oldest first"
            assert look.figures == Figures(8, 2, 4, 60, 8)
            assert (look.in_flight, look.waiting, look.cap) == (2, 1, 4)
        look = activity.look()
        assert [each.name for each in look.repos] == ["a"]
        assert look.figures == Figures(8, 2, 4, 60, 8)
    assert activity.look().figures == activity.look().ended == Figures(8, 2, 4, 60, 8)


def test_a_repository_that_fails_is_counted_with_what_it_had_come_to():
    activity = Activity()
    with pytest.raises(ZeroDivisionError), activity.following(lambda seconds: repo("a", 5)):
        1 / 0  # noqa: B018
    assert activity.look().figures.documents == 5
    assert activity.look().repos == ()


def test_the_share_of_a_repository_is_known_once_it_is_parsed():
    assert RepoLook("a", "parse", 0, 0, 1.0, Figures()).share == 0.0
    assert repo("a", 5).share == 0.5
    assert repo("a", 12).share == 1.0, "units that were tried again do not make more than all"
