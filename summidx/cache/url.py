"""Which databases can hold a cache."""

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from summidx.errors import UsageError


def check_cache_url(url: str) -> None:
    """Refuse what is no URL of a cache; nothing is opened.

    Raises:
        UsageError: as `Cache`.
    """
    parse_url(url)


def parse_url(url: str) -> sa.URL:
    """The URL of a database that can hold a cache.

    Raises:
        UsageError: it is none.
    """
    try:
        parsed = sa.make_url(url)
    except ArgumentError:
        raise UsageError(
            "the cache's URL is no database URL; write sqlite:///FILE or postgresql+psycopg://..."
        ) from None
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise UsageError(f"a cache cannot lie in {parsed.drivername}; use sqlite:/// or postgresql+psycopg://")
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise UsageError("a cache in memory is seen by one connection only; name a file: sqlite:///FILE")
    return parsed
