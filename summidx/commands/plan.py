"""The command `summidx plan`: the options of a build, and what it prints. Heavy imports happen inside."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from summidx import options

PROGRESS_LINES = 10
"""So many lines tell of a long work where there is no terminal."""


def plan_build(  # noqa: PLR0913 - its options
    *,
    repos_root: options.ReposRoot = None,
    repo: options.Repo = None,
    repos_file: options.ReposFile = None,
    limit: options.Limit = None,
    index_root: options.IndexRoot = None,
    levels: options.Levels = None,
    tests: options.Tests = None,
    llm_provider: options.LLMProvider = None,
    llm_model: options.LLMModel = None,
    llm_base_url: options.LLMBaseURL = None,
    llm_timeout: options.LLMTimeout = None,
    max_retries: options.MaxRetries = None,
    llm_concurrency: options.LLMConcurrency = None,
    summary_language: options.SummaryLanguage = None,
    prompt_file: options.PromptFile = None,
    embedding_model: options.EmbeddingModel = None,
    num_processes: options.NumProcesses = None,
    threads_per_worker: options.ThreadsPerWorker = None,
    gpu_ids: options.GPUIds = None,
    force_cpu: options.ForceCPU = None,
    scheduler_address: options.SchedulerAddress = None,
    skip_existing: options.SkipExisting = None,
    retry_degraded: options.RetryDegraded = None,
    retry_known: options.RetryKnown = None,
    confirm_rebuild: options.ConfirmRebuild = None,
    stop_after: options.StopAfter = None,
    repo_timeout: options.RepoTimeout = None,
    stage: options.StageOption = None,
    log_dir: options.LogDir = None,
    cache_url: options.CacheURL = None,
    cache_policy: options.CachePolicyOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Predict what a build with the same options would cost: calls, tokens, time. No LLM is asked to write anything.

    All options of a build are taken but --resume-failed; --llm-timeout, --max-retries, --scheduler-address,
    --stop-after and --repo-timeout change nothing here.
    """
    parameters = options.read_parameters(locals())
    from summidx.escaping import escape_line
    from summidx.prediction import load_check, write_prediction
    from summidx.prediction.predict import predict
    from summidx.request import BuildRequest
    from summidx.terminal import make_console, print_prediction

    request = BuildRequest.from_parameters(parameters)
    settings = request.settings(log_dir=log_dir, cache_url=cache_url)
    for warning in request.warnings():
        typer.echo(f"warning: {escape_line(warning)}", err=True)
    prediction = predict(request.repos(settings), settings, _tell_progress, limit=request.limit)
    write_prediction(prediction, settings.index_root)
    check = load_check(settings.index_root)
    if as_json:
        busy = {"llm_busy": round(prediction.llm_busy, 3), "embedding_busy": round(prediction.embedding_busy, 3)}
        told = asdict(prediction) | busy | {"last_prediction": asdict(check) if check else None}
        typer.echo(json.dumps(told, indent=1))
    else:
        print_prediction(make_console(sys.stdout), prediction, check)


def _tell_progress(number: int, total: int, name: str) -> None:
    """On a terminal one line that is written over; elsewhere a line now and then."""
    from summidx.escaping import escape_text

    if sys.stderr.isatty():
        end = "\n" if number == total else ""
        typer.echo(f"\r\x1b[K{number}/{total} {escape_text(name)[:60]}{end}", err=True, nl=False)
    elif total >= PROGRESS_LINES and number % (total // PROGRESS_LINES) == 0:
        typer.echo(f"{number}/{total} {escape_text(name)}", err=True)
