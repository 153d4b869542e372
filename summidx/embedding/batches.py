"""Batches of texts, and how large they should be. No torch here."""

from collections.abc import Callable, Sequence

CPU_BATCH_TOKENS = 1024
"""On a CPU small batches stay in its caches: MiniLM, one thread: 3,300 tokens/s at 1,024 a batch, 2,600 at 4,096."""

LEAST_GPU_TOKENS, MOST_GPU_TOKENS = 2048, 65536
"""Between these the probe looks for a GPU's budget. Less leaves any GPU waiting for its next batch; more than a slice
of texts (`vectors.EMBED_SLICE`) holds is never filled."""
WORTH = 1.05
"""A batch twice as large must be faster by this much, else the smaller one is kept: it needs half the memory."""


def build_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Indices of texts in batches of similar length: longest first, each at most `batch_tokens` with its padding.

    A text that is longer than the budget is a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    for index in order:
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def find_batch_tokens(measure: Callable[[int], float | None]) -> int:
    """The smallest budget, in tokens, past which a larger one gains nothing or does not fit.

    Args:
        measure: tokens per second with batches of so many tokens, or None where these do not fit the memory.
    """
    best, speed = LEAST_GPU_TOKENS, measure(LEAST_GPU_TOKENS)
    while speed is not None and best < MOST_GPU_TOKENS:
        larger = measure(2 * best)
        if larger is None or larger < WORTH * speed:
            break
        best, speed = 2 * best, larger
    return best
