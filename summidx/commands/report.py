"""`summidx report`: the report of a run, made again from the lines that it left."""

import json
from pathlib import Path
from typing import Annotated

import typer


def show_report(
    run: Annotated[
        Path | None,
        typer.Argument(help="The run's .jsonl file, in the folder of the logs. [default: that of the last run]"),
    ] = None,
    log_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder of the logs. [default: logs/summary_index]")
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, and write nothing.")] = False,
) -> None:
    """Write the report of a run, a page and JSON, beside its log again."""
    from summidx.report.files import write_report
    from summidx.report.records import find_last_run, load_record, render_record
    from summidx.settings import load_settings

    lines = run or find_last_run(Path(load_settings({} if log_dir is None else {"log_dir": log_dir}).log_dir))
    record = load_record(lines)
    if as_json:
        typer.echo(json.dumps(render_record(record), indent=1))
    else:
        typer.echo(str(write_report(record, lines)))
