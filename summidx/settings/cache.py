"""Settings of the cache: `SUMMIDX_CACHE__...`, `[cache]`."""

from enum import StrEnum

from pydantic import Field

from summidx.settings.group import Group, unkeyed


class CachePolicy(StrEnum):
    """What a run does with the cache of summaries and vectors."""

    READ_WRITE = "read-write"
    READ_ONLY = "read-only"
    OFF = "off"


class CacheSettings(Group):
    """The cache of summaries and vectors."""

    url: str = Field(
        "",
        description="`sqlite:///FILE` or `postgresql+psycopg://...`; default: `cache.sqlite` under the index root.",
        json_schema_extra=unkeyed("an index built through the cache equals a cold build"),
    )
    policy: CachePolicy = Field(
        CachePolicy.READ_WRITE,
        description="`read-write`, `read-only` (nothing is kept) or `off` (nothing is looked up either).",
        json_schema_extra=unkeyed("an index built through the cache equals a cold build"),
    )
