"""Settings of the LLM: `SUMMIDX_LLM__...`, `[llm]`."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from summidx.instructions import check_instructions
from summidx.llm_hosts import read_hosts
from summidx.settings.group import Group, unkeyed


class Provider(StrEnum):
    """Who answers a request for a summary."""

    OPENAI = "openai"
    VLLM = "vllm"
    EXTRACTIVE = "extractive"


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
