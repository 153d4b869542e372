"""The cache of summaries and vectors: content-addressed and write-once, in SQLite or PostgreSQL."""

from summidx.cache.entries import Cache, LookedUp
from summidx.cache.url import check_cache_url

__all__ = ["Cache", "LookedUp", "check_cache_url"]
