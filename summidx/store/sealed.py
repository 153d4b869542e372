"""JSON that carries the digest of its own bytes: whoever reads it sees that the disk, or somebody, changed it.

A field is appended, `"digest"`: the SHA-256 of all bytes of the file with this value left empty. What was written
before there was a seal is read as it is.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pydantic_core

SEAL = "digest"


def seal(value: Mapping[str, object]) -> bytes:
    """The JSON of `value`, which has no field `digest`, with its seal as the last field."""
    head, empty, tail = json.dumps({**value, SEAL: ""}, indent=1).encode().rpartition(b'""')
    tail += b"\n"
    digest = hashlib.sha256(head + empty + tail).hexdigest()
    return head + f'"{digest}"'.encode() + tail


def is_sealed(data: bytes) -> bool:
    """Whether JSON that can be unsealed had a seal."""
    return SEAL in pydantic_core.from_json(data)


def unseal(data: bytes) -> dict[str, Any]:
    """What was sealed, without its seal.

    Raises:
        ValueError: it is no JSON object, or other bytes than were sealed.
    """
    value = pydantic_core.from_json(data)
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - of a file, not of an argument
    if (digest := value.pop(SEAL, None)) is not None:
        head, _, tail = data.rpartition(f'"{digest}"'.encode())
        if hashlib.sha256(head + b'""' + tail).hexdigest() != digest:
            raise ValueError("its bytes are not those that were written")
    return value
