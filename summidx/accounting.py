"""What calls to the LLM took: requests, retries by kind, and how long answers were in coming.

Latencies are kept as a histogram whose buckets grow by a tenth: those of repositories, processes and runs add up, and
a percentile is right within 10 %.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping

GROWTH = 1.1


class CallRecord:
    """What the calls of one repository took so far. Lives on one event loop."""

    def __init__(self) -> None:
        self.requests = 0
        """Requests for completions that were sent."""
        self.retries: Counter[str] = Counter()
        """Requests beyond a question's first, by the class of the error that made them needed."""
        self._buckets: Counter[int] = Counter()

    def sent(self) -> None:
        """Count a request."""
        self.requests += 1

    def retried(self, error: BaseException) -> None:
        """Count that a question is asked once more because of `error`."""
        self.retries[type(error).__name__] += 1

    def answered(self, seconds: float) -> None:
        """Count an answer that was so long in coming."""
        self._buckets[max(0, math.ceil(math.log(max(seconds, 1e-9) * 1000, GROWTH)))] += 1

    def latencies(self) -> dict[str, int]:
        """Answers by the upper bound of their bucket, in ms, the quickest first."""
        return {f"{GROWTH**bucket:.1f}": n for bucket, n in sorted(self._buckets.items())}


def merge_histograms(histograms: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of histograms."""
    merged: Counter[str] = Counter()
    for histogram in histograms:
        merged.update(histogram)
    return dict(sorted(merged.items(), key=lambda each: float(each[0])))


def percentile_ms(histogram: Mapping[str, int], share: float) -> float | None:
    """Upper bound, in ms, of what `share` (0 to 1) of the answers took; None where there are none."""
    wanted = share * sum(histogram.values())
    seen = 0
    for bound, n in sorted(histogram.items(), key=lambda each: float(each[0])):
        seen += n
        if seen >= wanted:
            return float(bound)
    return None
