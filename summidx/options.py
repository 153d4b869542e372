"""Options that `python flows/build.py` and `summidx plan` have in common, declared once. None: not given."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from summidx.errors import UsageError
from summidx.records import Level, TestsPolicy
from summidx.settings import CachePolicy, Provider, Stage, load_settings, parse_gpu_ids

ReposRoot = Annotated[str | None, typer.Option(metavar="DIR", help="Build each sub-folder that is a repository.")]
Repo = Annotated[
    list[str] | None, typer.Option(metavar="[NAME=]PATH[@REVISION]", help="Build this repository; repeatable.")
]
ReposFile = Annotated[str | None, typer.Option(metavar="FILE", help="File of repositories, one a line.")]
IndexRoot = Annotated[
    str | None,
    typer.Option(
        metavar="DIR_OR_URI",
        help="Where the indexes lie: a folder, or s3://BUCKET/PREFIX (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
        "AWS_ENDPOINT_URL in the environment). [default: summary-index]",
    ),
]
ReadFrom = Annotated[
    str | None,
    typer.Option(
        "--index-root",
        metavar="DIR_OR_URI",
        help="Folder of the indexes, or s3://BUCKET/PREFIX; default: SUMMIDX_INDEX_ROOT, else summary-index.",
    ),
]
OnlyLevels = Annotated[
    list[str] | None,
    typer.Option("--level", metavar="LEVEL", help=f"Only {', '.join(Level)}; repeatable, or with commas."),
]
Rerank = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="Have a cross-encoder (sentence-transformers; id or folder) read the best 50 hits with the query, and add "
        "what it says to their scores. [default: none]",
    ),
]
Levels = Annotated[
    str | None, typer.Option(metavar="NAMES", help="Levels to publish. [default: function,class,file,directory,repo]")
]
Tests = Annotated[TestsPolicy | None, typer.Option(help="What happens to test code. [default: file]")]
LLMProvider = Annotated[
    Provider | None, typer.Option(help="Who writes the summaries. [default: extractive, which needs no LLM]")
]
LLMModel = Annotated[str | None, typer.Option(help="Name under which the server serves the model.")]
LLMBaseURL = Annotated[
    str | None, typer.Option(help="URL of the OpenAI-compatible API, with /v1. [default: $OPENAI_BASE_URL]")
]
LLMTimeout = Annotated[float | None, typer.Option(metavar="SECONDS", help="Total time for one call. [default: 300]")]
MaxRetries = Annotated[int | None, typer.Option(metavar="N", help="Tries after a fault of transport. [default: 3]")]
LLMConcurrency = Annotated[
    int | None, typer.Option(metavar="N", help="Calls in flight, all workers together. [default: 256]")
]
SummaryLanguage = Annotated[str | None, typer.Option(help="Language of the summaries. [default: English]")]
PromptFile = Annotated[
    str | None, typer.Option(metavar="FILE", help="TOML file of your own instructions for each level.")
]
EmbeddingModel = Annotated[
    str | None, typer.Option(help="sentence-transformers model: id or folder. [default: all-MiniLM-L6-v2]")
]
NumProcesses = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Worker processes; 1 runs in this process. [default: 1, or one for each of --gpu-ids]"
    ),
]
ThreadsPerWorker = Annotated[
    int | None,
    typer.Option(metavar="N", help="Repositories in flight per worker process, and so per GPU. [default: 2]"),
]
GPUIds = Annotated[
    str | None,
    typer.Option(metavar="IDS", help="GPUs that embed, one worker process each, as nvidia-smi numbers them: 0,1,2,3"),
]
ForceCPU = Annotated[
    bool | None,
    typer.Option("--force-cpu", help="Embed on the CPU even where there is a GPU; --gpu-ids counts for nothing."),
]
SchedulerAddress = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Use the workers of this Dask scheduler; certificates are as Dask is set."),
]
SkipExisting = Annotated[
    bool | None, typer.Option("--skip-existing/--no-skip-existing", help="Skip what is up to date. [default: on]")
]
ResumeFailed = Annotated[
    bool | None,
    typer.Option(
        "--resume-failed",
        help="Build what the last run under the index root did not finish, at its commits and with its options.",
    ),
]
RetryDegraded = Annotated[
    bool | None, typer.Option("--retry-degraded", help="Ask again for documents that are degraded.")
]
RetryKnown = Annotated[
    bool | None, typer.Option("--retry-known", help="Try at once what is known to fail (else after 7 days).")
]
Limit = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Build the first N repositories of the plan only: the largest.")
]
ConfirmRebuild = Annotated[
    bool | None,
    typer.Option("--confirm-rebuild", help="Rebuild most indexes only because a setting or version changed."),
]
StopAfter = Annotated[
    str | None,
    typer.Option(metavar="DURATION", help="Begin no repository after so long (6h, 30m); finish what is in flight."),
]
RepoTimeout = Annotated[
    str | None, typer.Option(metavar="DURATION", help="Give a repository up that takes longer than this (2h, 30m).")
]
StageOption = Annotated[
    Stage | None, typer.Option(help="`summaries` fills the cache and publishes nothing. [default: both]")
]
LogDir = Annotated[str | None, typer.Option(metavar="DIR", help="Folder of the logs. [default: logs/summary_index]")]
CacheURL = Annotated[str | None, typer.Option(metavar="URL", help="sqlite:///FILE or postgresql+psycopg://...")]
CachePolicyOption = Annotated[
    CachePolicy | None, typer.Option(help="Whether the cache is read and written. [default: read-write]")
]


NO_PARAMETERS = frozenset({"log_dir", "cache_url", "as_json"})
"""Options that are no parameters of a run: those are shown to everybody who may see it, and a database's URL holds its
password."""


def read_parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a run, from the options of a command by name: paths made absolute, lists read.

    Raises:
        UsageError: a list cannot be read.
    """
    parameters = {name: value for name, value in given.items() if name not in NO_PARAMETERS}
    for name in ("repos_root", "repos_file", "prompt_file"):
        parameters[name] = given[name] and str(Path(given[name]).absolute())
    parameters["repos"] = parameters.pop("repo") or None
    parameters["levels"] = read_levels(given["levels"])
    parameters["gpu_ids"] = read_gpu_ids(given["gpu_ids"])
    return parameters


def read_levels(names: str | None) -> list[str] | None:
    """The levels that are named, in their order.

    Raises:
        UsageError: one is no level.
    """
    if names is None:
        return None
    return [level.value for level in load_settings({"levels": names}).levels]


def parse_levels(values: Iterable[str] | None) -> list[Level] | None:
    """The levels that `--level` names, each value one or several with commas; None: all.

    Raises:
        UsageError: one is no level.
    """
    names = [name.strip() for value in values or () for name in value.split(",")]
    try:
        return [Level.DIRECTORY if name == "module" else Level(name) for name in names] or None
    except ValueError:
        raise UsageError(f"--level {','.join(names)}: the levels are {', '.join(Level)}") from None


def read_gpu_ids(ids: str | None) -> list[int] | None:
    """Numbers of GPUs; none for "", which goes before a setting that names some.

    Raises:
        UsageError: they are none.
    """
    if ids is None:
        return None
    try:
        return list(parse_gpu_ids(ids.split(",")))
    except ValueError as error:
        raise UsageError(f"--gpu-ids {ids!r} cannot be used: {error}") from None
