"""The tree of all settings, and where their values come from."""

import os
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from summidx.durations import read_duration
from summidx.index_uri import is_uri, local_folder
from summidx.records import Level, TestsPolicy
from summidx.settings.cache import CacheSettings
from summidx.settings.cluster import ClusterSettings
from summidx.settings.embedding import EmbeddingSettings
from summidx.settings.group import unkeyed
from summidx.settings.llm import LLMSettings
from summidx.settings.reading import ParseSettings, SourceSettings


class Stage(StrEnum):
    """How far a build goes: `summaries` fills the cache and publishes nothing."""

    SUMMARIES = "summaries"
    BOTH = "both"


class Settings(BaseSettings):
    """All settings. Build it with `load_settings`."""

    model_config = SettingsConfigDict(
        env_prefix="SUMMIDX_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    index_root: str = Field(
        "summary-index",
        description="Where the indexes lie, one folder per repository: a folder, or s3://BUCKET/PREFIX (credentials "
        "and endpoint from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_REGION).",
        json_schema_extra=unkeyed("where an index lies does not change it"),
    )
    allowed_index_roots: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Index roots, and all under them, that a run of a deployment may name in the place of "
        "`index_root`; no parameter of a run. Where there are none: any folder, but nothing on object storage.",
        json_schema_extra=unkeyed("where an index lies does not change it"),
    )
    repos_root: str = Field(
        "",
        description="Folder whose sub-folders that are repositories are built where a run names none.",
        json_schema_extra=unkeyed("which repositories are built, not what is built of each"),
    )
    levels: Annotated[tuple[Level, ...], NoDecode] = Field(
        tuple(Level), description="Levels that are summarised and published; `module` is accepted for `directory`."
    )
    tests: TestsPolicy = Field(TestsPolicy.FILE, description="Test code: one summary per file, `full`, or `skip`.")
    max_failed: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of a repository's documents that may fail before it fails as a whole (3 may always).",
        json_schema_extra=unkeyed("an index with a failed document is never up to date"),
    )
    skip_existing: bool = Field(
        True,
        description="Do not build what is verified to be up to date.",
        json_schema_extra=unkeyed("whether to build, not what"),
    )
    retry_degraded: bool = Field(
        False,
        description="Ask again for documents that are degraded.",
        json_schema_extra=unkeyed("whether to build, not what"),
    )
    stop_after: timedelta | None = Field(
        None,
        description="Begin no repository after so long (6h, 30m); what is in flight is finished.",
        json_schema_extra=unkeyed("whether to build, not what"),
    )
    repo_timeout: timedelta | None = Field(
        None,
        description="Give a repository up that takes longer than this (2h, 30m).",
        json_schema_extra=unkeyed("whether to build, not what"),
    )
    confirm_rebuild: bool = Field(
        False,
        description="Go on where more than half of the existing indexes are rebuilt only because a setting, a prompt "
        "or the version of a tool changed.",
        json_schema_extra=unkeyed("whether to build, not what"),
    )
    stage: Stage = Field(
        Stage.BOTH,
        description="`summaries` fills the cache and publishes nothing.",
        json_schema_extra=unkeyed("how far to go; nothing is published by `summaries`"),
    )
    keep_days: int = Field(
        30,
        ge=1,
        description="What runs leave behind (plans, logs, results, damaged caches set aside) is deleted by a later run "
        "when it is older than this, in days.",
        json_schema_extra=unkeyed("housekeeping only"),
    )
    known_failure_days: int = Field(
        7,
        ge=0,
        description="A repository that failed for a permanent reason is not tried again for so long while its content "
        "and the settings stay the same, in days; 0: every run tries it.",
        json_schema_extra=unkeyed("whether to build, not what"),
    )
    retry_known: bool = Field(
        False,
        description="Try at once what is known to fail.",
        json_schema_extra=unkeyed("whether to build, not what"),
    )
    min_free_mb: int = Field(
        100,
        ge=0,
        description="A run that has something to build is not begun with less free space than this, in MiB.",
        json_schema_extra=unkeyed("whether to build, not what"),
    )
    log_dir: str = Field(
        "logs/summary_index", description="Folder of the logs.", json_schema_extra=unkeyed("logs only")
    )
    llm: LLMSettings = Field(default_factory=LLMSettings, description="The LLM.")
    embedding: EmbeddingSettings = Field(default_factory=EmbeddingSettings, description="The embedding model.")
    sources: SourceSettings = Field(default_factory=SourceSettings, description="What is read.")
    parsing: ParseSettings = Field(default_factory=ParseSettings, description="Limits of parsing.")
    cache: CacheSettings = Field(default_factory=CacheSettings, description="The cache.")
    cluster: ClusterSettings = Field(default_factory=ClusterSettings, description="Where the work runs.")

    @field_validator("allowed_index_roots", mode="before")
    @classmethod
    def _split_allowed_index_roots(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("stop_after", "repo_timeout", mode="before")
    @classmethod
    def _parse_duration(cls, value: object) -> object:
        if not isinstance(value, str) or value.startswith("P"):  # as these are written to be read by a worker
            return value
        return read_duration(value) if value else None

    @field_validator("levels", mode="before")
    @classmethod
    def _parse_levels(cls, value: object) -> object:
        names = value.split(",") if isinstance(value, str) else value
        if not isinstance(names, list | tuple | set):
            return value
        asked = {"directory" if str(name).strip() == "module" else str(name).strip() for name in names}
        if unknown := asked - set(Level):
            raise ValueError(f"{', '.join(sorted(unknown))!r} is none of {', '.join(Level)}")
        if not asked:
            raise ValueError("at least one level is needed")
        return tuple(level for level in Level if level in asked)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Option, environment, file, default."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=settings_file())

    @property
    def cache_url(self) -> str:
        """SQLAlchemy URL of the cache, its default resolved."""
        folder = local_folder() if is_uri(self.index_root) else Path(self.index_root).absolute()
        return self.cache.url or f"sqlite:///{folder / 'cache.sqlite'}"


def settings_file() -> Path:
    """Where the settings file is looked for: SUMMIDX_CONFIG, else `summidx.toml` in the working directory."""
    return Path(os.environ.get("SUMMIDX_CONFIG") or "summidx.toml")
