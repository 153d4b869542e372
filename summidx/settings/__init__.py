"""One tree of settings. Precedence: option, environment (`SUMMIDX_LLM__MODEL=...`), `summidx.toml`, default.

Every field is documented, with its unit. A field joins `keys.build_key` by default, since it shapes the index; one that
does not is marked with `unkeyed(reason)`.
"""

from summidx.settings.cache import CachePolicy, CacheSettings
from summidx.settings.cluster import ClusterSettings, parse_gpu_ids
from summidx.settings.embedding import EmbeddingSettings, Pooling
from summidx.settings.group import Group, unkeyed
from summidx.settings.llm import LLMSettings, Provider
from summidx.settings.loading import load_settings
from summidx.settings.reading import ParseSettings, SourceSettings
from summidx.settings.tree import Settings, Stage, settings_file

__all__ = [
    "CachePolicy",
    "CacheSettings",
    "ClusterSettings",
    "EmbeddingSettings",
    "Group",
    "LLMSettings",
    "ParseSettings",
    "Pooling",
    "Provider",
    "Settings",
    "SourceSettings",
    "Stage",
    "load_settings",
    "parse_gpu_ids",
    "settings_file",
    "unkeyed",
]
