"""Closes the cluster of a run, which has ended by then: neither a close that fails nor one that hangs changes how."""

import logging
import multiprocessing
import threading
from contextlib import ExitStack

CLOSE_S = 30.0
"""A close takes a few seconds. That of Dask's nanny waits without limit for a worker that was killed as it started, and
raises where one does not end in time."""
KILL_S = 5.0

logger = logging.getLogger(__name__)


def close_cluster(resources: ExitStack, within_s: float = CLOSE_S) -> None:
    """Close the cluster and its client; what is left of its worker processes after that is killed.

    Args:
        resources: they, if they were made. It is empty afterwards.
        within_s: how long that may take.
    """
    faults: list[Exception] = []

    def close() -> None:
        try:
            resources.close()
        except Exception as error:  # whatever it is: the run has ended
            faults.append(error)

    closing = threading.Thread(target=close, name="summidx-close", daemon=True)
    closing.start()
    closing.join(within_s)
    if not closing.is_alive() and not faults:
        return
    what = f"{type(faults[0]).__name__}: {faults[0]}" if faults else f"not within {within_s:.0f} s"
    logger.warning("the Dask cluster did not close (%s); what is left of it is killed", what)
    left = multiprocessing.active_children()
    for child in left:
        child.kill()
    for child in left:
        child.join(KILL_S)
