"""Options that `python flows/build.py` and `summidx plan` have in common, declared once. None: not given."""

from typing import Annotated

import typer

from summidx.records import TestsPolicy
from summidx.settings import CachePolicy, Provider, Stage

ReposRoot = Annotated[str | None, typer.Option(metavar="DIR", help="Build each sub-folder that is a repository.")]
Repo = Annotated[
    list[str] | None, typer.Option(metavar="[NAME=]PATH[@REVISION]", help="Build this repository; repeatable.")
]
ReposFile = Annotated[str | None, typer.Option(metavar="FILE", help="File of repositories, one a line.")]
IndexRoot = Annotated[
    str | None, typer.Option(metavar="DIR", help="Folder under which the indexes lie. [default: summary-index]")
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
    int | None, typer.Option(metavar="N", help="Worker processes; 1 runs in this process. [default: 1]")
]
GPUIds = Annotated[str | None, typer.Option(metavar="IDS", help="GPUs that embed, one worker process each: 0,1,2,3")]
ForceCPU = Annotated[bool | None, typer.Option("--force-cpu", help="Embed on the CPU even where there is a GPU.")]
SkipExisting = Annotated[
    bool | None, typer.Option("--skip-existing/--no-skip-existing", help="Skip what is up to date. [default: on]")
]
RetryDegraded = Annotated[
    bool | None, typer.Option("--retry-degraded", help="Ask again for documents that are degraded.")
]
StageOption = Annotated[
    Stage | None, typer.Option(help="`summaries` fills the cache and publishes nothing. [default: both]")
]
LogDir = Annotated[str | None, typer.Option(metavar="DIR", help="Folder of the logs. [default: logs/summary_index]")]
CacheURL = Annotated[str | None, typer.Option(metavar="URL", help="sqlite:///FILE or postgresql+psycopg://...")]
CachePolicyOption = Annotated[
    CachePolicy | None, typer.Option(help="Whether the cache is read and written. [default: read-write]")
]
