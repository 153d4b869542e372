"""Where Prefect keeps the results of tasks, which are its cache records too."""

import os
import stat
from pathlib import Path

from prefect.settings import PREFECT_LOCAL_STORAGE_PATH

from summidx.errors import UsageError


def keep_results_private() -> None:
    """Make sure that only the user who runs the service can reach the results.

    A record names its own serializer: whoever may write one can have code run by whoever reads it.

    Raises:
        UsageError: the folder cannot be made, or belongs to somebody else.
    """
    path = results_folder()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o700)
        if path.stat().st_uid != os.geteuid():
            raise PermissionError(f"it belongs to user {path.stat().st_uid}")
    except OSError as error:
        raise UsageError(
            f"Prefect's folder of results {path} cannot be kept private ({error}): who writes there can run code here; "
            "set PREFECT_LOCAL_STORAGE_PATH to a folder of your own"
        ) from None


def results_folder() -> Path:
    """Where Prefect keeps them."""
    return Path(PREFECT_LOCAL_STORAGE_PATH.value())
