"""Settings of what is read of a repository: `SUMMIDX_SOURCES__...`, `SUMMIDX_PARSING__...`."""

from pydantic import Field

from summidx.settings.group import Group, unkeyed


class SourceSettings(Group):
    """What is read of a repository."""

    max_file_bytes: int = Field(1_000_000, ge=1, description="Larger files are skipped, in bytes.")
    max_files: int = Field(
        200_000,
        ge=1,
        description="A source with more files than this is refused.",
        json_schema_extra=unkeyed("past it the source is refused; it never changes rows"),
    )
    max_depth: int = Field(60, ge=1, description="Folders deeper than this are skipped.")
    max_total_bytes: int = Field(
        2_000_000_000,
        ge=1,
        description="A source with more text than this is refused (it is held in memory), in bytes.",
        json_schema_extra=unkeyed("past it the source is refused; it never changes rows"),
    )


class ParseSettings(Group):
    """Limits of the parsing process of a repository. CPU time and work, never wall clock."""

    cpu_s_per_file: float = Field(
        20.0, gt=0, description="CPU time for one file, in seconds; past it, it is not read as code."
    )
    redact: bool = Field(
        True, description="Take credentials (keys, tokens, passwords in URLs) out of every text before it is used."
    )
    memory_mb: int = Field(
        2048,
        ge=256,
        description="Address space of the parsing process, in MiB.",
        json_schema_extra=unkeyed("past it the repository fails; it never changes rows"),
    )
