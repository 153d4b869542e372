"""Durations as people write them."""

import pytest

from summidx.durations import format_duration, read_duration
from summidx.errors import UsageError
from summidx.settings import Settings, load_settings


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("6h", 21600), (" 1h30m ", 5400), ("2d", 172800), ("0.5s", 0.5)]
)
def test_numbers_with_units_are_read(text, seconds):
    assert read_duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["6", "soon", "", "0s", "-6h", "6 hours", "6h later", "1e99y", "six h"])
def test_anything_else_is_refused_with_examples(text):
    with pytest.raises(ValueError, match=r"is no duration: write .* such as 90s, 30m, 6h or 2d"):
        read_duration(text)


def test_they_are_shown_as_they_are_written():
    assert [format_duration(s) for s in (90, 21600, 5400, 0.5)] == ["1m30s", "6h", "1h30m", "500ms"]


def test_a_setting_reaches_a_worker_as_it_was_given():
    settings = load_settings({"stop_after": "6h", "repo_timeout": "0.5s"})
    again = Settings.model_validate_json(settings.model_dump_json(exclude={"cache": {"url"}}))
    assert (again.stop_after, again.repo_timeout) == (settings.stop_after, settings.repo_timeout)
    assert again.stop_after.total_seconds() == 21600
    assert load_settings({"stop_after": ""}).stop_after is None


def test_a_setting_that_cannot_be_read_is_named():
    with pytest.raises(UsageError, match=r"stop_after: 'tomorrow' is no duration"):
        load_settings({"stop_after": "tomorrow"})
