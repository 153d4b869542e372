"""The command `summidx doctor`: what it is asked, and what it prints. Heavy imports happen inside."""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from summidx import options

if TYPE_CHECKING:
    from rich.console import Console

    from summidx.doctor import Finding


def examine(  # noqa: PLR0913 - its options
    *,
    index_root: options.IndexRoot = None,
    llm_provider: options.LLMProvider = None,
    llm_model: options.LLMModel = None,
    llm_base_url: options.LLMBaseURL = None,
    embedding_model: options.EmbeddingModel = None,
    num_processes: options.NumProcesses = None,
    gpu_ids: options.GPUIds = None,
    force_cpu: options.ForceCPU = None,
    log_dir: options.LogDir = None,
    cache_url: options.CacheURL = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Read every index and the cache whole; the next run rebuilds what is damaged."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look whether all that a build needs is in order, and say what to do where it is not. Exit code 1: it is not."""
    from summidx.doctor import State
    from summidx.doctor import examine as examine_all
    from summidx.request import BuildRequest
    from summidx.terminal import make_console

    given = {
        "index_root": index_root,
        "llm_provider": llm_provider,
        "llm_model": llm_model,
        "llm_base_url": llm_base_url,
        "embedding_model": embedding_model,
        "num_processes": num_processes,
        "gpu_ids": options.read_gpu_ids(gpu_ids),
        "force_cpu": force_cpu,
    }
    settings = BuildRequest.from_parameters(given).settings(log_dir=log_dir, cache_url=cache_url)
    findings = examine_all(settings, whole=verify)
    failed = [each for each in findings if each.state is State.FAILED]
    if as_json:
        damaged = sorted({each.index for each in failed if each.index})
        told = {"ok": not failed, "damaged": damaged, "findings": [asdict(each) for each in findings]}
        typer.echo(json.dumps(told, indent=1))
    else:
        print_findings(make_console(sys.stdout), findings)
    if failed:
        raise typer.Exit(1)


def print_findings(console: "Console", findings: list["Finding"]) -> None:
    """A line for each finding, and below it what else there is to say and what to do."""
    from rich.text import Text

    from summidx.doctor import State
    from summidx.escaping import escape_text

    styles = {State.OK: "green", State.WARNING: "yellow", State.FAILED: "red"}
    width = max((len(each.check) for each in findings), default=0)
    for each in findings:
        name = f"{escape_text(each.index)}: " if each.index else ""
        line = Text.assemble(
            (f"{each.state.value:8}", styles[each.state]),
            (f"{each.check:{width}}  ", "bold"),
            f"{name}{escape_text(each.said)}",
        )
        console.print(line, soft_wrap=True)
        indent = " " * (8 + width + 2)
        for detail in each.details:
            console.print(Text(f"{indent}{escape_text(detail)}"), soft_wrap=True)
        if each.to_do:
            console.print(Text(f"{indent}-> {escape_text(each.to_do)}"), soft_wrap=True)
