"""Closes the cluster of a run, which has ended by then: neither a close that fails nor one that hangs changes how."""

import logging
import multiprocessing
import threading
from contextlib import ExitStack

CLOSE_S = 30.0
"""A close takes a few seconds. That of Dask's nanny waits without limit for a worker that was killed as it started, and
raises where one does not end in time."""
INTERRUPTED_S = 5.0
"""The same for a run that a signal ended: it has to be gone in 15 s, and nothing of the cluster is wanted any more."""
KILL_S = 5.0
WORKER = "Dask Worker"
"""How the name of a process begins that one of Dask's nannies has started."""

logger = logging.getLogger(__name__)


def close_cluster(resources: ExitStack, within_s: float = CLOSE_S) -> None:
    """Close the cluster and its client; what is left of its worker processes after that is killed.

    Args:
        resources: they, if they were made, and what is to be done before. It is empty afterwards.
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
    if closing.is_alive() or faults:
        what = f"{type(faults[0]).__name__}: {faults[0]}" if faults else f"not within {within_s:.0f} s"
        logger.warning("the Dask cluster did not close (%s); what is left of it is killed", what)
        kill_workers()


def kill_workers() -> None:
    """Kill the worker processes that this process has started; Dask has no other way to one that is just starting."""
    left = [child for child in multiprocessing.active_children() if child.name.startswith(WORKER)]
    for child in left:
        child.kill()
    for child in left:
        child.join(KILL_S)
