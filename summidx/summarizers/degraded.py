"""What stands in the place of a summary that a model will not write, and whose fault a refusal is."""

from collections import deque
from dataclasses import replace

from summidx.errors import LLMError
from summidx.records import Level, Status, Summary, SummaryRequest
from summidx.summarizers import PreparedRequest
from summidx.summarizers.extractive import extract_summary

RECENT = 20
"""Calls by which it is judged whether the server takes requests: few, so that one that begins to refuse all is noticed
before many units are given up for good."""


class Refusals:
    """Tells a request that the server refuses from a server that refuses all. One per process, for all walks."""

    def __init__(self) -> None:
        self._recent: deque[tuple[str, bool]] = deque(maxlen=RECENT)

    def note(self, key: str, *, refused: bool) -> None:
        """Note how the server met the request of `key` when it was first asked."""
        self._recent.append((key, refused))

    def is_of_request(self, key: str) -> bool:
        """True where a refusal is the model's no to this request: of the others lately, most were answered."""
        others = [refused for noted, refused in self._recent if noted != key]
        return 2 * sum(others) < len(others)


def degrade(prepared: PreparedRequest, error: LLMError, tokens_in: int = 0, tokens_out: int = 0) -> Summary:
    """What stands in the place of an answer that is not to be had from this model."""
    return replace(
        extract_summary(_as_sent(prepared.request)),
        status=Status.DEGRADED,
        reason=str(error),
        key=prepared.key,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
    )


def _as_sent(request: SummaryRequest) -> SummaryRequest:
    """The request without what no prompt shows: a text in the cache must follow from its key alone.

    Else a fork would get the name of the repository that was read first.
    """
    unit = replace(request.unit, is_test=False)
    if unit.level is Level.REPO:
        unit = replace(unit, name="", qualified_name="")
    if request.is_part:
        unit = replace(unit, gloss="")
    return replace(request, unit=unit)
