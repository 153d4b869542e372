"""A worker process whose GPU is lost ends, so that its nanny starts another, which has the GPU again."""

import logging
import os
import time

from distributed import get_worker

from summidx.errors import DeviceLost

TELL_S = 2.0
"""So long the last words have to reach the run: they go through Dask, in the worker's event loop."""
EXIT_CODE = 3

logger = logging.getLogger("summidx.flows.lost_device")
"""Below `summidx`, whose warnings a worker sends to the run (worker_warnings.py)."""


def leave_to_nanny(error: DeviceLost) -> None:
    """End this process at once where a nanny will start it again; return where there is none.

    All that the process has in flight is lost with it, as nothing of it could be embedded here; finished summaries are
    in the cache. What becomes of its repositories is decided where a killed worker is noticed (runner.py).
    """
    try:
        nanny = get_worker().nanny
    except ValueError:  # not a task of Dask
        return
    if not nanny:
        return
    logger.critical("%s; process %d ends, and another takes its place", error, os.getpid())
    time.sleep(TELL_S)
    logging.shutdown()
    os._exit(EXIT_CODE)
