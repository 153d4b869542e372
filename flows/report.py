"""The report of a run that has ended: its page and JSON beside its log, and Markdown for the Prefect UI."""

import logging
from dataclasses import dataclass
from pathlib import Path

from summidx.errors import UsageError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """Where the page lies, and the same in Markdown."""

    page: Path
    markdown: str


def write_run_report(lines: Path) -> WrittenReport | None:
    """Write the report of the run whose lines of accounting are in the file `lines`.

    None where it could not be written: that changes nothing about how the run ended.
    """
    from summidx.report.files import write_report
    from summidx.report.markdown import render_markdown
    from summidx.report.records import load_record

    try:
        record = load_record(lines)
        return WrittenReport(write_report(record, lines), render_markdown(record))
    except Exception as error:  # the disk is full, or a line of an earlier run holds what no run writes
        said = str(error) if isinstance(error, UsageError) else f"{type(error).__name__}: {error}"
        logger.warning("this run has no report: %s", said)
        return None
