"""What Prefect remembers of a repository, and what it tries again."""

from itertools import pairwise

import pytest
from prefect.states import Failed

from flows.tasks import is_local_fault, summarize_and_embed_repo
from summidx.errors import (
    CacheError,
    Defect,
    MachineFault,
    Outage,
    SourceError,
    StoreError,
    TooManyFailures,
    UnknownIndex,
)

PIN = {"name": "r", "source": "/r", "commit": "c", "build_key": "k", "generation": "g"}


def _key(inputs, **beside):
    return summarize_and_embed_repo.cache_policy.compute_key(
        task_ctx=beside.get("task_ctx"), inputs=inputs, flow_parameters=beside.get("flow_parameters", {})
    )


def test_the_key_is_the_pin_and_neither_order_nor_run_nor_code():
    key = _key(PIN)
    assert key == _key(dict(reversed(PIN.items())))
    assert key == _key(PIN, flow_parameters={"repos": ["other"], "llm_model": "other"})
    assert key == _key(PIN, task_ctx=object()), "nothing of the task, its run or its source is read"


@pytest.mark.parametrize("name", PIN)
def test_each_part_of_the_pin_is_in_the_key(name):
    assert _key({**PIN, name: "other"}) != _key(PIN)


@pytest.mark.parametrize(
    ("error", "tried_again"),
    [
        (MachineFault("OSError: no space"), True),
        (CacheError("locked"), True),
        (StoreError("cannot be written"), True),
        (UnknownIndex("none"), False),
        (SourceError("missing"), False),
        (TooManyFailures("9 of 9"), False),
        (Outage("away"), False),
        (Defect("KeyError"), False),
    ],
)
def test_only_a_fault_of_this_machine_is_tried_again(error, tried_again):
    assert is_local_fault(summarize_and_embed_repo, None, Failed(data=error)) is tried_again


def test_each_wait_is_twice_the_one_before():
    delays = summarize_and_embed_repo.retry_delay_seconds
    assert len(delays) == summarize_and_embed_repo.retries == 3
    assert [later / earlier for earlier, later in pairwise(delays)] == [2, 2]
