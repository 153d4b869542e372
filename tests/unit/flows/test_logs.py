"""The log of a run, where the disk is no longer willing."""

import logging
from pathlib import Path

from parts import require_part

from flows.logs import LogFile


def test_a_disk_that_refuses_a_line_costs_that_line_and_nothing_is_said(capfd):
    require_part("/dev/full", present=Path("/dev/full").exists(), how="run on Linux")
    handler = LogFile("/dev/full")
    log = logging.getLogger("summidx.test_logs")
    log.addHandler(handler)
    try:
        log.warning("no room")
    finally:
        log.removeHandler(handler)
        handler.close()
    assert capfd.readouterr().err == ""
