"""The cache of summaries and vectors: content-addressed and write-once, in SQLite or PostgreSQL."""

from summidx.cache.database import check_cache_url
from summidx.cache.entries import Cache, LookedUp

__all__ = ["Cache", "LookedUp", "check_cache_url"]
