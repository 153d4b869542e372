"""Parts of the system that some tests need and a newcomer's machine may lack."""

import os

import pytest


def require_part(name: str, *, present: bool, how: str) -> None:
    """Skip the test where a part is missing; where `.ci/run` promised all parts, fail instead of passing over it.

    Args:
        name: what is needed, as the reader of a report knows it: `PostgreSQL`.
        present: whether it is here.
        how: how to get it: `apt-get install postgresql`.
    """
    if present:
        return
    text = f"{name} is not here: {how}"
    if os.environ.get("SUMMIDX_REQUIRE_SYSTEM_PARTS"):
        pytest.fail(text)
    pytest.skip(text)
