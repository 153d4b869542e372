"""A Dask scheduler on another machine: what keeps a run from its workers, said in one line.

TLS is set by Dask's own configuration, here by its environment variables: certificates are of a machine, not of a run.
The machines of the workers are looked at before anything is built there: one that shares no index root, say, would
publish where nobody reads.
"""

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dask.config
from distributed import Client, Security
from distributed.comm.core import FatalCommClosedError
from prefect.settings import PREFECT_API_URL

import summidx
from flows.cluster import DASK_SETTINGS
from flows.prefect_server import why_unreachable
from summidx.errors import SummidxError, UsageError
from summidx.index_uri import is_uri

TLS = {
    "distributed.comm.tls.ca-file": "DASK_DISTRIBUTED__COMM__TLS__CA_FILE",
    "distributed.comm.tls.client.cert": "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT",
    "distributed.comm.tls.client.key": "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY",
}
"""What a client needs for `tls://`, and the variables that set it."""

REQUIRED = "distributed.comm.require-encryption"
REQUIRED_VARIABLE = "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"

_OF_SCHEDULER = {name: value for name, value in DASK_SETTINGS.items() if name.startswith("distributed.scheduler.")}

HOW = "see deployments/README.md, and deployments/make-certificates"


def check_certificates(address: str) -> None:
    """Find out, before anything connects, whether this process can speak to a scheduler at `tls://...`.

    Raises:
        UsageError: certificates are not set, or cannot be used; or encryption is required, and `address` has none.
    """
    if not address.startswith("tls://"):
        if dask.config.get(REQUIRED, None):
            raise UsageError(
                f"the Dask scheduler {address} is not reached by TLS, which {REQUIRED_VARIABLE} demands, so nothing "
                "can be built: write tls://, or unset that"
            )
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


def check_machines(client: Client, address: str, run_id: str, index_root: str) -> list[str]:
    """Look at the machines of scheduler and workers: can this run be built there?

    Args:
        client: of the cluster.
        address: of its scheduler.
        run_id: of the flow run, whose plan is written.
        index_root: where, as an absolute path or a URI.

    Returns:
        Warnings, a line each.

    Raises:
        UsageError: a worker has no summidx or another one, does not reach the Prefect API, or does not see the index
            root.
    """
    api_url = str(PREFECT_API_URL.value() or "")
    try:
        looks: Any = client.run(look_around, run_id, index_root, api_url, on_error="return")
    except OSError:  # the scheduler is gone
        raise
    except Exception as error:  # what a function that is not there comes to, over Dask
        raise UsageError(
            f"the workers of the Dask scheduler {address} cannot say what they have ({_first_line(error)}), so nothing "
            f"can be built there: install summidx {summidx.__version__} there, as here"
        ) from None
    if fault := find_fault(looks, index_root):
        raise UsageError(fault)
    warnings = []
    if on_file := sorted(worker for worker, look in looks.items() if look["cache"] == "sqlite"):
        warnings.append(
            f"the Dask worker {on_file[0]} (of {len(on_file)}) keeps the cache in SQLite, which a shared folder may "
            "damage: on several machines set SUMMIDX_CACHE__URL to a PostgreSQL there"
        )
    there: Any = client.run_on_scheduler(read_settings, list(_OF_SCHEDULER))  # type: ignore[no-untyped-call]
    for name, value in _OF_SCHEDULER.items():
        if there[name] != value:
            variable = f"DASK_{name.upper().replace('-', '_').replace('.', '__')}"
            warnings.append(
                f"the Dask scheduler {address} runs with {name} {there[name]} instead of {value}, and a worker that "
                f"dies may cost more than it had in flight: start it with {variable}={value}"
            )
    return warnings


def find_fault(looks: Mapping[str, Any], index_root: str) -> str:
    """Why nothing can be built on one of the workers, or "".

    Args:
        looks: by address of the worker, what `look_around` returned there, or raised.
        index_root: of the run.
    """
    for fault_of, advice in (
        (_has_other_code, f"install summidx {summidx.__version__} there, as here"),
        (_lacks_api, "set PREFECT_API_URL there, or it would start a server of its own"),
        (_misses_api, "let PREFECT_API_URL name an address that all machines reach, here as there"),
        (_lacks_index_root, _share(index_root)),
    ):
        if faults := {worker: fault for worker, look in looks.items() if (fault := fault_of(look))}:
            worker, fault = next(iter(faults.items()))
            more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            return f"the Dask worker {worker}{more} {fault}, so nothing can be built there: {advice}"
    return ""


def look_around(run_id: str, index_root: str, api_url: str) -> dict[str, Any]:
    """What a worker process has of what a run needs; called there.

    A task reports to the API at `api_url`, which the run hands on with it, not to the one that the worker is set to.
    """
    from summidx.plan import load_plan
    from summidx.settings import load_settings

    unseen = ""
    try:
        sees_plan = load_plan(index_root, run_id) is not None
    except SummidxError as error:
        sees_plan, unseen = False, str(error)
    return {
        "version": summidx.__version__,
        "api": os.environ.get("PREFECT_API_URL", ""),
        "api_of_run": api_url,
        "api_fault": why_unreachable(api_url),
        "sees_plan": sees_plan,
        "unseen": unseen,
        "cache": load_settings({"index_root": index_root}).cache_url.split(":")[0],
    }


def read_settings(names: list[str]) -> dict[str, Any]:
    """Dask's settings of these names, in the process of the scheduler; called there."""
    return {name: dask.config.get(name, None) for name in names}


def _has_other_code(look: Any) -> str:  # noqa: ANN401 - what a worker returned or raised
    if isinstance(look, BaseException):
        return f"cannot say what it has ({_first_line(look)})"
    version = look["version"]
    return "" if version == summidx.__version__ else f"has summidx {version} instead of {summidx.__version__}"


def _lacks_api(look: Mapping[str, Any]) -> str:
    return "" if look["api"] else "knows no Prefect API"


def _misses_api(look: Mapping[str, Any]) -> str:
    fault = look["api_fault"]
    return f"does not reach the Prefect API of this run, {look['api_of_run']} ({fault})" if fault else ""


def _lacks_index_root(look: Mapping[str, Any]) -> str:
    why = f" ({look['unseen']})" if look.get("unseen") else ""
    return "" if look["sees_plan"] else f"does not see the plan of this run{why}"


def _share(index_root: str) -> str:
    if is_uri(index_root):
        return (
            "its environment needs the endpoint and the credentials as here (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...)"
        )
    return f"{index_root} must be the same shared folder on all machines"


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
