"""The command `python flows/build.py`: its options, what a person sees, and how it ends.

Exit codes: 0 all built or up to date; 1 some repositories failed; 2 unusable arguments or settings, or no usable LLM;
130 and 143 after a signal.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO

import typer

from flows.signals import watch_signals
from summidx import options
from summidx.errors import ServiceLost, SummidxError
from summidx.escaping import escape_line, escape_text
from summidx.settings import Settings, load_settings

FAILED, UNUSABLE = 1, 2
INTERRUPTED = (128 + signal.SIGINT, 128 + signal.SIGTERM)

QUIET = {
    # What Prefect logs of a run goes to its API and to the log file; the terminal shows our lines.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    # Must be set before distributed is imported: it alone cut 72 log lines to 4.
    "DASK_LOGGING__DISTRIBUTED": "critical",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(context_settings={"token_normalize_func": lambda token: token.replace("_", "-")})
def build(  # noqa: PLR0913 - its options
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
    resume_failed: options.ResumeFailed = None,
    retry_degraded: options.RetryDegraded = None,
    retry_known: options.RetryKnown = None,
    confirm_rebuild: options.ConfirmRebuild = None,
    stop_after: options.StopAfter = None,
    repo_timeout: options.RepoTimeout = None,
    stage: options.StageOption = None,
    log_dir: options.LogDir = None,
    cache_url: options.CacheURL = None,
    cache_policy: options.CachePolicyOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the run's report as JSON, and nothing else, on standard output.")
    ] = False,
) -> int:
    """Build a summary index of each repository. What is up to date is skipped; what failed is tried again."""
    parameters = options.read_parameters(locals())
    for variable, value in (("SUMMIDX_LOG_DIR", log_dir), ("SUMMIDX_CACHE__URL", cache_url)):
        if value:
            os.environ[variable] = value
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    # A retry of the flow run may be started in another folder.
    parameters["index_root"] = _refuse_unusable(parameters).index_root
    given = {"SUMMIDX_LOG_DIR": log_dir and str(Path(log_dir).absolute()), "SUMMIDX_CACHE__URL": _show_url(cache_url)}
    return _run(parameters, {name: value for name, value in given.items() if value}, as_json=as_json)


def main() -> NoReturn:
    """Run the command, and exit."""
    _leave_own_folder()
    watch = watch_signals()
    try:
        code = app(standalone_mode=False)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except ServiceLost as error:
        _say(f"error: {error}")
        code = FAILED
    except SummidxError as error:
        code = _refuse(error)
    except typer.TyperException as error:
        code = _refuse(f"{error.format_message()} (see --help)")
    except SystemExit as ended:
        code = int(ended.code or 0)
    except Exception as error:  # the last resort: one line, where a traceback would say less
        if watch.raised:  # outside of the flow, in whose records nobody has said so
            watch.say_last_words()
            code = 128 + watch.raised
        else:
            _say(f"error: the run failed: {type(error).__name__}: {error}; please report it")
            code = FAILED
    watch.absorb()
    if code in INTERRUPTED:  # Typer makes 130 of a KeyboardInterrupt
        _say("interrupted: what is finished is kept, and the same command goes on from here")
    sys.exit(code)


def _run(parameters: dict[str, Any], given: dict[str, str], *, as_json: bool) -> int:
    stream = sys.stderr if as_json else sys.stdout
    _say_starting(stream)
    from flows.build import RUN_REPORT, summary_index
    from flows.progress import listening
    from flows.resume import render_retries
    from flows.terminal import Terminal

    terminal = Terminal(stream)
    untold: Exception | None = None
    try:
        with terminal.showing(), listening(terminal):
            state = summary_index(
                **{name: value for name, value in parameters.items() if value is not None}, return_state=True
            )
    except Exception as cause:
        if terminal.report is None:
            raise
        untold = cause
    report = terminal.report
    if report is None:
        error = state.result(raise_on_failure=False)
        if isinstance(error, SummidxError):
            raise error
        log_dir = load_settings().log_dir
        _say(f"error: the run failed: {type(error).__name__}: {error}; its log is in {log_dir}, please report it")
        return FAILED
    if as_json:
        json.dump(RUN_REPORT.dump_python(report, mode="json"), sys.stdout, indent=2)
        sys.stdout.write("\n")
    for failure in report.failures():
        sys.stderr.write(f"{escape_line(failure.line())}\n")
    if report.not_attempted:
        sys.stderr.write(f"{report.not_attempted} not attempted, the next run has them: {report.why_not_attempted}\n")
    if report.failed or report.not_attempted:
        sys.stderr.write(f"{render_retries(report.flow_run_id, report.index_root, parameters, given)}\n")
    if untold is not None:
        _say(f"error: Prefect's API was not told how the run ended ({type(untold).__name__}); what is built is kept")
        sys.stdout.flush()
        os._exit(FAILED)  # at its exit Prefect waits two minutes for an API that is gone; all else is closed by now
    return FAILED if report.failed or report.not_attempted else 0


def _say_starting(stream: TextIO) -> None:
    """The imports take seconds; the display begins on this line."""
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        stream.write("starting …\r")
        stream.flush()


def _refuse_unusable(parameters: dict[str, Any]) -> Settings:
    """Find what is wrong with arguments and settings now, before a server and a flow run are started for them."""
    from summidx.request import BuildRequest

    request = BuildRequest.from_parameters(parameters)
    if request.resume_failed:
        from flows.resume import find_resumed

        request = request.resuming(find_resumed(request).plan.parameters)
    settings = request.settings()
    if request.names_repositories or not request.resume_failed:
        request.repos(settings)
    if settings.cluster.gpu_ids or settings.cluster.scheduler_address:
        from flows.preflight import check_cluster

        check_cluster(settings)
    return settings


def _show_url(cache_url: str | None) -> str:
    """The URL of the cache as it may be printed: one that may hold a password is left for the reader to set."""
    return "..." if cache_url and not cache_url.startswith("sqlite:") else cache_url or ""


def _refuse(why: object) -> int:
    _say(f"error: {why}")
    return UNUSABLE


def _say(what: str) -> None:
    sys.stderr.write(f"{escape_text(what)}\n")


def _leave_own_folder() -> None:
    """Python puts a script's folder first in the search path: there, `tasks` or `logs` would be modules of ours."""
    folder = str(Path(__file__).resolve().parent)
    sys.path[:] = [entry for entry in sys.path if str(Path(entry).resolve()) != folder]
