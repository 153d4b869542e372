"""Settings of the embedding model: `SUMMIDX_EMBEDDING__...`, `[embedding]`."""

from typing import Literal

from pydantic import Field

from summidx.settings.group import Group, unkeyed

Pooling = Literal["", "mean", "cls", "lasttoken", "max"]
"""How the vectors of a text's tokens make one, by the names of sentence-transformers."""


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
