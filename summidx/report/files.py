"""Writes the report of a run beside its lines, and its log.

LOG_DIR/<timestamp>-run-<id>.jsonl         what the run and its repositories cost (`journal`)
LOG_DIR/<timestamp>-run-<id>-report.html   the page
LOG_DIR/<timestamp>-run-<id>-report.json   the same in figures
"""

import json
from pathlib import Path

from summidx.errors import UsageError
from summidx.report.page import render_page
from summidx.report.records import RunRecord, render_record


def write_report(record: RunRecord, lines: Path) -> Path:
    """Write page and JSON of the run whose lines are in the file `lines`; the page's path.

    Raises:
        UsageError: they cannot be written.
    """
    page = lines.with_name(f"{lines.stem}-report.html")
    try:
        page.write_text(render_page(record), encoding="utf-8", errors="backslashreplace")
        page.with_suffix(".json").write_text(json.dumps(render_record(record), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"the report cannot be written to {page.parent} ({error.strerror}): name a folder with --log-dir"
        ) from None
    return page
