"""How texts are put into batches, and how a GPU's budget is found."""

import pytest

from summidx.embedding.batches import LEAST_GPU_TOKENS, MOST_GPU_TOKENS, build_batches, find_batch_tokens


def test_batches_hold_similar_lengths_within_the_budget_and_every_text_once():
    lengths = [3, 100, 7, 256, 90, 3, 1, 8, 300]
    batches = build_batches(lengths, 200)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * max(lengths[i] for i in batch)
        assert padded <= 200 or len(batch) == 1
    assert batches[:3] == [[8], [3], [1, 4]]


def card(*, knee, memory=10**9):
    """The speed of a GPU that is busy from `knee` tokens on and holds batches of up to `memory`; what it was asked."""
    asked = []

    def measure(tokens):
        asked.append(tokens)
        return None if tokens > memory else 1e6 * min(tokens, knee)

    return measure, asked


@pytest.mark.parametrize("knee", [1, 4096, 16384, 10**9])
def test_the_probe_finds_the_smallest_budget_that_keeps_the_gpu_busy(knee):
    measure, asked = card(knee=knee)
    found = find_batch_tokens(measure)
    assert found == min(max(knee, LEAST_GPU_TOKENS), MOST_GPU_TOKENS)
    assert max(asked) <= min(2 * found, MOST_GPU_TOKENS), "nothing much larger was tried"


@pytest.mark.parametrize("memory", [0, LEAST_GPU_TOKENS, 8192, 9000])
def test_the_probe_stays_within_the_memory(memory):
    measure, _ = card(knee=10**9, memory=memory)
    assert find_batch_tokens(measure) == max(LEAST_GPU_TOKENS, 8192 if memory > 8000 else 0)
