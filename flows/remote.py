"""A Dask scheduler on another machine: what keeps a run from its workers, said in one line.

TLS is set by Dask's own configuration, here by its environment variables: certificates are of a machine, not of a run.
"""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import dask.config
from distributed import Security
from distributed.comm.core import FatalCommClosedError

from summidx.errors import UsageError

TLS = {
    "distributed.comm.tls.ca-file": "DASK_DISTRIBUTED__COMM__TLS__CA_FILE",
    "distributed.comm.tls.client.cert": "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT",
    "distributed.comm.tls.client.key": "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY",
}
"""What a client needs for `tls://`, and the variables that set it."""

HOW = "see deployments/README.md, and deployments/make-certificates"


def check_certificates(address: str) -> None:
    """Find out, before anything connects, whether this process can speak to a scheduler at `tls://...`.

    Raises:
        UsageError: certificates are not set, or cannot be used.
    """
    if not address.startswith("tls://"):
        return
    if missing := [variable for name, variable in TLS.items() if not dask.config.get(name, None)]:
        raise UsageError(
            f"the Dask scheduler {address} asks for a certificate, so nothing can be built: set {', '.join(missing)} "
            f"({HOW})"
        )
    try:
        Security().get_connection_args("client")  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:  # ssl's errors are OSErrors
        files = ", ".join(str(dask.config.get(name)) for name in TLS)
        raise UsageError(
            f"the certificates for the Dask scheduler {address} cannot be used ({_first_line(error)}), so nothing can "
            f"be built: check {files} ({HOW})"
        ) from None


@contextmanager
def scheduler_wanted(address: str, within_s: float) -> Iterator[None]:
    """A block that connects to the scheduler at `address` and waits for its first worker.

    Args:
        address: such as tls://10.0.0.1:8786.
        within_s: how long the block waits for a worker, in seconds.

    Raises:
        UsageError: certificates do not fit, the scheduler cannot be reached, or it has no worker.
    """
    check_certificates(address)
    try:
        yield
    except TimeoutError:
        raise UsageError(
            f"no worker at the Dask scheduler {address} within {within_s:.0f} s, so nothing can be built: start "
            "workers, or leave --scheduler-address out"
        ) from None
    except OSError as error:
        if isinstance(error, FatalCommClosedError) or _find(error, ssl.SSLError):
            raise UsageError(
                f"the Dask scheduler {address} and this process do not accept each other's certificate, so nothing can "
                f"be built: both must be signed by the same authority ({HOW})"
            ) from None
        advice = "" if address.startswith("tls://") else "; if it speaks TLS, write tls:// instead of tcp://"
        raise UsageError(
            f"the Dask scheduler {address} cannot be reached ({type(error).__name__}), so nothing can be built: start "
            f"it, or leave --scheduler-address out{advice}"
        ) from None


def _find(error: BaseException | None, kind: type[BaseException]) -> bool:
    """True where `error`, or one that it came from, is of a kind."""
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__ or error.__context__
    return False


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
