"""Durations as people write them: 90s, 30m, 6h, 2d."""

from datetime import timedelta

import durationpy


def read_duration(text: str) -> timedelta:
    """The duration that `text` says: numbers with units (s, m, h, d, w), such as 90s, 1h30m or 2d.

    Raises:
        ValueError: it says none, or one that is not longer than 0.
    """
    try:
        duration: timedelta = durationpy.from_str(text.strip())
    except durationpy.DurationError:
        duration = timedelta()
    if duration <= timedelta():
        raise ValueError(f"{text!r} is no duration: write a number and a unit, such as 90s, 30m, 6h or 2d")
    return duration


def format_duration(seconds: float) -> str:
    """A duration as it would be written: 6h, 1h30m, 90s is 1m30s."""
    text: str = durationpy.to_str(timedelta(seconds=seconds))
    return text
