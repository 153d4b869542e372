"""One tree of settings. Precedence: option, environment (`SUMMIDX_LLM__MODEL=...`), `summidx.toml`, default.

Every field is documented, with its unit. A field joins `keys.build_key` by default, since it shapes the index; one that
does not is marked with `unkeyed(reason)`.
"""

import os
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from summidx.durations import read_duration
from summidx.errors import UsageError
from summidx.index_uri import is_uri, local_folder, refuse_other_roots
from summidx.instructions import check_instructions, load_instructions
from summidx.llm_hosts import read_hosts, refuse_credentials, refuse_other_hosts
from summidx.records import Level, TestsPolicy


def unkeyed(reason: str) -> dict[str, Any]:
    """Mark a field as one that does not shape the index; `reason` says why not."""
    return {"unkeyed": reason}


class Provider(StrEnum):
    """Who answers a request for a summary."""

    OPENAI = "openai"
    VLLM = "vllm"
    EXTRACTIVE = "extractive"


class CachePolicy(StrEnum):
    """What a run does with the cache of summaries and vectors."""

    READ_WRITE = "read-write"
    READ_ONLY = "read-only"
    OFF = "off"


class Stage(StrEnum):
    """How far a build goes: `summaries` fills the cache and publishes nothing."""

    SUMMARIES = "summaries"
    BOTH = "both"


Pooling = Literal["", "mean", "cls", "lasttoken", "max"]
"""How the vectors of a text's tokens make one, by the names of sentence-transformers."""


class Group(BaseModel):
    """A group of settings: closed, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LLMSettings(Group):
    """The LLM and how it is called."""

    provider: Provider = Field(
        Provider.EXTRACTIVE,
        description="Who writes the summaries: `openai` (an OpenAI-compatible server), `vllm` (vLLM inside the worker) "
        "or `extractive` (no LLM).",
    )
    model: str = Field(
        "",
        description='Name under which the server serves the model; "": the only one that it serves. For `vllm`: the '
        "model to load, an id or a folder.",
        json_schema_extra=unkeyed("the model's identity, as its server says it, is in the key"),
    )
    base_url: str = Field(
        "",
        description="URL of the OpenAI-compatible API, with `/v1`; default: OPENAI_BASE_URL.",
        json_schema_extra=unkeyed("where a model is served does not change what it is; its identity is in the key"),
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="LLM servers, HOST or HOST:PORT, that a run may name in the place of `base_url`; no parameter of a "
        "run. Empty: whoever types a command may name any, a run of a deployment none.",
        json_schema_extra=unkeyed("where a model is served does not change what it is; its identity is in the key"),
    )
    api_key: SecretStr = Field(
        SecretStr(""),
        description="Key for the API; set it in the environment (OPENAI_API_KEY), never as a parameter.",
        json_schema_extra=unkeyed("a secret; it does not change the answer"),
        exclude=True,
        repr=False,
    )
    timeout_s: float = Field(
        300.0,
        gt=0,
        description="Total time for one call, its retries not included, in seconds.",
        json_schema_extra=unkeyed("when a call is given up does not change what it answers"),
    )
    max_retries: int = Field(
        3,
        ge=0,
        description="How often a call that met a fault of transport is tried again.",
        json_schema_extra=unkeyed("tries do not change what is answered"),
    )
    outage_s: float = Field(
        900.0,
        gt=0,
        description="How long the endpoint may answer nothing before the run stops, in seconds.",
        json_schema_extra=unkeyed("when a run is given up does not change what is answered"),
    )
    concurrency: int = Field(
        256,
        ge=1,
        description="Calls in flight at the endpoint, all workers together.",
        json_schema_extra=unkeyed("the load on the server does not change what is asked"),
    )
    temperature: float = Field(0.0, ge=0, le=2, description="Sampling temperature.")
    seed: int = Field(0, description="Sampling seed.")
    max_tokens_function: int = Field(200, ge=16, description="Limit on the answer for a function, in tokens.")
    max_tokens: int = Field(350, ge=16, description="Limit on the answer for all other levels, in tokens.")
    context_tokens: int = Field(
        0, ge=0, description="Context of the model, in tokens; 0: as the server says (`max_model_len`), else 8192."
    )
    prompt_tokens: int = Field(
        8000,
        ge=500,
        description="A prompt is at most so long, in tokens, however long the model's context is: what is longer is "
        "summarised part by part.",
    )
    max_parts: int = Field(
        32,
        ge=1,
        description="Parts in which one unit's own text is read; what is beyond is left out, and recorded.",
    )
    engine_args: dict[str, Any] = Field(
        default_factory=dict,
        description="For `vllm`: further arguments of its engine, as vLLM names them.",
        json_schema_extra=unkeyed("those that may change an answer are in the model's identity"),
    )
    extra_body: dict[str, Any] = Field(
        default_factory=lambda: {"chat_template_kwargs": {"enable_thinking": False}},
        description="Further fields of the request; the default turns thinking off, and is dropped once if refused.",
    )
    summary_language: str = Field("English", min_length=1, max_length=40, description="Language of the summaries.")
    prompt_file: str = Field(
        "",
        description="A TOML file of your own instructions (`function`, `class`, `file`, `directory`, `repo`, "
        "`system`); they are read into `instructions`, and this is then empty.",
        json_schema_extra=unkeyed("what it says is in `instructions`"),
    )
    instructions: dict[str, str] = Field(
        default_factory=dict,
        description="Your own instructions by level (or `system`), in the place of the built-in ones.",
    )
    max_response_bytes: int = Field(
        1_000_000,
        ge=10_000,
        description="An answer larger than this is cut off and counts as a fault of the server, in bytes.",
        json_schema_extra=unkeyed("a guard; no usable answer reaches it"),
    )

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _read_allowed_hosts(cls, value: object) -> object:
        names = value.split(",") if isinstance(value, str) else value
        return read_hosts([str(name) for name in names]) if isinstance(names, list | tuple) else value

    @field_validator("summary_language")
    @classmethod
    def _check_summary_language(cls, value: str) -> str:
        if not value.strip() or not value.isprintable():  # it stands in every prompt
            raise ValueError(f"{value!r} is no name of a language: write one, such as English")
        return value

    @field_validator("instructions")
    @classmethod
    def _check_instructions(cls, value: dict[str, str]) -> dict[str, str]:
        return check_instructions(value)


class EmbeddingSettings(Group):
    """The embedding model."""

    model: str = Field(
        "sentence-transformers/all-MiniLM-L6-v2",
        description="A sentence-transformers model: id or folder; MiniLM comes from its package, if installed. "
        "`hashing`: bags of words without a model, for tests.",
        json_schema_extra=unkeyed("the model's identity, its weights included, is in the key"),
    )
    trust_remote_code: bool = Field(
        False, description="Run Python code that comes with the model. Off unless you know the model's authors."
    )
    query_prompt: str | None = Field(
        None,
        description="What stands before a query, such as `query: `; default: as the model's own files say, else as its "
        "makers do, for well-known ones.",
        json_schema_extra=unkeyed("it changes no vector of an index"),
    )
    document_prompt: str | None = Field(
        None,
        description="What stands before a document, such as `passage: `; default: as for a query.",
        json_schema_extra=unkeyed("it is in the model's identity"),
    )
    pooling: Pooling = Field(
        "",
        description="How the vectors of a text's tokens make one: `mean`, `cls`, `lasttoken`, `max`; default: as the "
        "model's own modules say.",
        json_schema_extra=unkeyed("it is in the model's identity"),
    )
    max_tokens: int = Field(
        0,
        ge=0,
        description="Texts are cut to so many tokens; 0: to what the model takes.",
        json_schema_extra=unkeyed("it is in the model's identity"),
    )
    dim: int = Field(
        0,
        ge=0,
        description="Dimensions that are kept, the first ones, of a model made for that (Matryoshka); 0: all.",
        json_schema_extra=unkeyed("it is in the model's identity"),
    )
    batch_tokens: int = Field(
        0,
        ge=0,
        description="Token budget of a batch, padding included; 0: 1,024 on a CPU, what a short probe finds on a GPU.",
        json_schema_extra=unkeyed("batches change vectors by rounding only"),
    )
    cpu_bfloat16: bool = Field(
        False,
        description="Embed in bfloat16 on CPUs that multiply it (AVX512-BF16, AMX), if its vectors agree to a cosine "
        "of 0.999: 1.7 times as fast; a component of a vector then varies by some thousandths with its batch.",
        json_schema_extra=unkeyed("precision changes vectors by rounding only"),
    )


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


class ClusterSettings(Group):
    """Where the work runs."""

    num_processes: int = Field(
        1,
        ge=1,
        description="Worker processes; 1 runs in this process. With `gpu_ids` it need not be said: one for each; fewer "
        "use the first of them only, and more are cut to one each.",
        json_schema_extra=unkeyed("where work runs"),
    )
    threads_per_worker: int = Field(
        2,
        ge=1,
        description="Repositories in flight per worker process, and so per GPU; they share its one model.",
        json_schema_extra=unkeyed("where work runs"),
    )
    gpu_ids: Annotated[tuple[int, ...], NoDecode] = Field(
        (),
        description="GPUs that embed, one worker process each, by the numbers that nvidia-smi shows; without any, the "
        "CPU embeds.",
        json_schema_extra=unkeyed("where work runs"),
    )
    force_cpu: bool = Field(
        False,
        description="Embed on the CPU even where there is a GPU; `gpu_ids` then counts for nothing.",
        json_schema_extra=unkeyed("where work runs"),
    )
    scheduler_address: str = Field(
        "",
        description="Address of a running Dask scheduler, such as tls://10.0.0.1:8786; its workers are used as they "
        "are.",
        json_schema_extra=unkeyed("where work runs"),
    )

    allowed_schedulers: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Addresses that a run of a deployment may name in the place of `scheduler_address`; no parameter "
        "of a run. Whoever types a command may name any.",
        json_schema_extra=unkeyed("where work runs"),
    )

    @property
    def local_gpus(self) -> tuple[int, ...]:
        """The GPUs of this machine that embed: none where the CPU is asked for, or a scheduler has its own workers."""
        return () if self.force_cpu or self.scheduler_address else self.gpu_ids

    @property
    def embeds_on_gpu(self) -> bool:
        """Whether a worker uses the GPU that it sees first. One that nobody gave it may be full of somebody's LLM."""
        return bool(self.local_gpus or (self.scheduler_address and not self.force_cpu))

    @field_validator("allowed_schedulers", mode="before")
    @classmethod
    def _split_allowed_schedulers(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("scheduler_address")
    @classmethod
    def _check_scheduler_address(cls, value: str) -> str:
        if value and not re.fullmatch(r"[a-z]+://\S+:\d+", value):
            raise ValueError(f"{value!r} is no address of a Dask scheduler: write tls://HOST:PORT or tcp://HOST:PORT")
        return value

    @field_validator("gpu_ids", mode="before")
    @classmethod
    def _parse_gpu_ids(cls, value: object) -> object:
        return parse_gpu_ids(value.split(",")) if isinstance(value, str) else value

    @field_validator("gpu_ids")
    @classmethod
    def _check_gpu_ids(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return parse_gpu_ids(value)


def parse_gpu_ids(parts: Iterable[object]) -> tuple[int, ...]:
    """Numbers of GPUs, each once; blank parts are passed over.

    Raises:
        ValueError: a part is no number of a GPU, or one is named twice.
    """
    written = [str(part).strip() for part in parts]
    for part in written:
        if part and not re.fullmatch(r"[0-9]{1,4}", part):
            raise ValueError(f"{part!r} is no number of a GPU: write them as nvidia-smi shows them, 0,1,2,3")
    ids = tuple(int(part) for part in written if part)
    if twice := sorted({number for number in ids if ids.count(number) > 1}):
        raise ValueError(f"GPU {twice[0]} is named twice: a worker process has a GPU for itself, so name each once")
    return ids


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


def load_settings(overrides: Mapping[str, Any] | None = None, *, from_api: bool = False) -> Settings:
    """Read the settings, `overrides` (nested, as the tree is) going before environment and file.

    OPENAI_BASE_URL and OPENAI_API_KEY are read where our own variables are not set. A prompt file is read here, once:
    what it says goes on in `llm.instructions`, and no other process needs the file.

    Args:
        overrides: what goes before. An LLM server among them must be one that environment and file allow.
        from_api: they are of a run that came over Prefect's API, from whoever may start a run there: environment and
            file allow the LLM server, the Dask scheduler and the bucket that they name, and no other. Else they allow
            all, unless they name `llm.allowed_hosts`.

    Raises:
        UsageError: one line that names each field that cannot be used, or says why the prompt file cannot; or that the
            LLM server, the scheduler or the index root is not allowed.
    """
    if os.environ.get("SUMMIDX_CONFIG") and not settings_file().is_file():
        raise UsageError(f"SUMMIDX_CONFIG names {settings_file()}, which is no file: name one, or unset it")
    try:
        settings = Settings(**(dict(overrides or {})))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors(include_input=False)
        )
        raise UsageError(f"unusable settings: {problems}") from None
    except SettingsError as error:  # a variable that is no JSON where JSON is needed
        raise UsageError(f"unusable settings in the environment: {error}") from None
    except (OSError, ValueError) as error:  # a settings file that is no TOML
        raise UsageError(f"{settings_file()} cannot be read: {error}") from None
    default_url = os.environ.get("OPENAI_BASE_URL", "")
    refuse_credentials(settings.llm.base_url or default_url)
    asked = dict((overrides or {}).get("llm") or {})
    if base_url := asked.pop("base_url", ""):
        ours = Settings(**{**(overrides or {}), "llm": asked}).llm
        refuse_other_hosts(base_url, ours.allowed_hosts, ours.base_url or default_url, must_be_named=from_api)
    if from_api:
        _refuse_other_schedulers(settings.cluster.scheduler_address, overrides or {})
        if "index_root" in (overrides or {}):
            mine = Settings(**{key: value for key, value in (overrides or {}).items() if key != "index_root"})
            refuse_other_roots(settings.index_root, mine.allowed_index_roots, mine.index_root)
    llm: dict[str, Any] = {
        "base_url": settings.llm.base_url or default_url,
        "api_key": SecretStr(settings.llm.api_key.get_secret_value() or os.environ.get("OPENAI_API_KEY", "")),
    }
    if settings.llm.prompt_file:
        own = {**settings.llm.instructions, **load_instructions(settings.llm.prompt_file)}
        llm |= {"instructions": own, "prompt_file": ""}
    return settings.model_copy(update={"llm": settings.llm.model_copy(update=llm)})


def _refuse_other_schedulers(address: str, overrides: Mapping[str, Any]) -> None:
    """Refuse a scheduler that environment and file do not name: what it sends is unpickled, which runs code."""
    asked = {key: value for key, value in (overrides.get("cluster") or {}).items() if key != "scheduler_address"}
    ours = Settings(**{**overrides, "cluster": asked}).cluster
    if address not in ("", ours.scheduler_address, *ours.allowed_schedulers):
        raise UsageError(
            f"{address} is not among the Dask schedulers that this worker may connect to, and could run code here: "
            "name it in the worker's own environment (SUMMIDX_CLUSTER__ALLOWED_SCHEDULERS) or file "
            "(`cluster.allowed_schedulers`), or leave scheduler_address out"
        )
