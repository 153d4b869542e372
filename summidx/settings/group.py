"""What groups of settings have in common."""

from typing import Any

from pydantic import BaseModel, ConfigDict


def unkeyed(reason: str) -> dict[str, Any]:
    """Mark a field as one that does not shape the index; `reason` says why not."""
    return {"unkeyed": reason}


class Group(BaseModel):
    """A group of settings: closed, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)
