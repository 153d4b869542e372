"""At the end of a run that published something, the fleet table learns of it; nothing of the run depends on that.

In a process of its own: LanceDB's memory goes with it, and an interrupted run kills it at once. What it was writing is
swept by the next refresh.
"""

import logging
import subprocess
import sys
from collections.abc import Callable, Iterable

from flows.progress import RepoResult, tell_warning
from summidx.errors import StoreError
from summidx.escaping import escape_text
from summidx.settings import Settings
from summidx.store.fleet import FLEET_FROM
from summidx.store.generations import IndexRoot

WITHIN_S = 3600.0
"""A first refresh reads every index: about two minutes for 1,000 of 5,000 documents on two cores."""

COMMAND = (sys.executable, "-P", "-c", "from summidx.cli import app; app()", "fleet")

logger = logging.getLogger(__name__)


def refresh_after(
    results: Iterable[RepoResult],
    settings: Settings,
    *,
    begins: Callable[[], None] = lambda: None,
    within_s: float = WITHIN_S,
) -> None:
    """Refresh the fleet table, where the run published an index of one repository of many; calls `begins` then."""
    if not any(result.ending == "built" for result in results):
        return
    try:
        if len(IndexRoot(settings.index_root).place.folders()) < FLEET_FROM:
            return
        begins()
        done = subprocess.run(
            [*COMMAND, "--index-root", settings.index_root],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        why = f"it was not done in {within_s / 60:.0f} minutes"
    except (OSError, StoreError) as error:
        why = str(error)
    else:
        for line in done.stderr.splitlines() if done.returncode == 0 else ():
            logger.warning("%s", escape_text(line))
        if done.returncode == 0:
            logger.info("fleet table: %s", escape_text(done.stdout))
            return
        why = done.stderr.strip().rpartition("\n")[2].removeprefix("error: ") or f"it ended with {done.returncode}"
    tell_warning(
        f"the fleet table does not know what this run published ({escape_text(why)}): searches find it, only slower; "
        "`summidx fleet` tries again"
    )
