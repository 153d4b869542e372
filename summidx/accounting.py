"""What calls to the LLM took: requests, tokens, retries by kind, and how long answers were in coming.

Latencies are kept as a histogram whose buckets grow by a tenth: those of repositories, processes and runs add up, and
a percentile is right within 10 %.
"""

import copy
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from summidx.records import BuildCost, Usage

GROWTH = 1.1
SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
"""The percentiles that are told of latencies."""


class CallRecord:
    """What the calls of one repository took so far. Lives on one event loop."""

    def __init__(self) -> None:
        self.requests = 0
        """Requests for completions that were sent."""
        self.answers = 0
        """Those that were answered."""
        self.retries: Counter[str] = Counter()
        """Requests beyond a question's first, by the class of the error that made them needed."""
        self.prompt_bytes = 0
        """UTF-8 bytes of the prompts whose tokens are in `tokens_in`."""
        self.tokens_in = 0
        self.tokens_out = 0
        self._buckets: Counter[int] = Counter()

    def sent(self) -> None:
        """Count a request."""
        self.requests += 1

    def retried(self, error: BaseException) -> None:
        """Count that a question is asked once more because of `error`."""
        self.retries[type(error).__name__] += 1

    def answered(self, seconds: float) -> None:
        """Count an answer that was so long in coming."""
        self.answers += 1
        self._buckets[max(0, math.ceil(math.log(max(seconds, 1e-9) * 1000, GROWTH)))] += 1

    def spent(self, messages: Iterable[Mapping[str, str]], tokens_in: int, tokens_out: int) -> None:
        """Count what an answer cost, usable or not, as the server says."""
        self.prompt_bytes += sum(len(message["content"].encode("utf-8", "replace")) for message in messages)
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out

    def latencies(self) -> dict[str, int]:
        """Answers by the upper bound of their bucket, in ms, the quickest first."""
        return {f"{GROWTH**bucket:.1f}": n for bucket, n in sorted(dict(self._buckets).items())}


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


def percentiles_ms(histogram: Mapping[str, int]) -> dict[str, float | None]:
    """`p50`, `p95` and `p99` of a histogram, in ms; None where it is empty."""
    return {name: percentile_ms(histogram, share) for name, share in SHARES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What a run cost: the sums over its repositories, those that failed included."""

    llm_calls: int
    requests: int
    cache_hits: int
    tokens_in: int
    tokens_out: int
    retries: Mapping[str, int]
    """Requests beyond a question's first, by the error that made them needed."""
    latency_ms: Mapping[str, float | None]
    """`p50`, `p95`, `p99` of all answers."""
    vectors_embedded: int
    vectors_reused: int


def build_totals(usages: Iterable[Usage]) -> Totals:
    """Add up what repositories cost."""
    all_usages = list(usages)
    retries: Counter[str] = Counter()
    for usage in all_usages:
        retries.update(usage.retries)
    return Totals(
        llm_calls=sum(usage.llm_calls for usage in all_usages),
        requests=sum(usage.requests for usage in all_usages),
        cache_hits=sum(usage.cache_hits for usage in all_usages),
        tokens_in=sum(usage.tokens_in for usage in all_usages),
        tokens_out=sum(usage.tokens_out for usage in all_usages),
        retries=dict(sorted(retries.items())),
        latency_ms=percentiles_ms(merge_histograms(usage.latencies for usage in all_usages)),
        vectors_embedded=sum(usage.vectors_embedded for usage in all_usages),
        vectors_reused=sum(usage.vectors_reused for usage in all_usages),
    )


def with_cost(error: Exception, cost: BuildCost) -> Exception:
    """The error to raise in the place of `error`: it carries what the repository had cost when it failed.

    The cost is part of the error's state, and is pickled with it. An error that several repositories met at once (they
    share calls in flight) is copied, so that each carries its own.
    """
    carrier = copy.copy(error).with_traceback(error.__traceback__) if find_cost(error) else error
    carrier.__dict__["cost"] = cost
    return carrier


def find_cost(error: object) -> BuildCost | None:
    """What the repository had cost that failed with `error`; None where that is not known."""
    cost = getattr(error, "cost", None)
    return cost if isinstance(cost, BuildCost) else None
