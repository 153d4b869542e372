"""Which LLM servers a process may talk to: those that its own environment or settings file names. Pure.

A URL among a run's parameters is chosen by whoever may start a run. What is sent there is code, and the API key of the
process: where they go is for the operator to say.
"""

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from summidx.errors import UsageError

_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
"""A name, an IPv4 or a bracketed IPv6 address, and a port or none. No wild cards, no user, no path."""
_CREDENTIALS = re.compile(r"[^/?#]*//[^/?#]*@")
_PORTS = {"http": 80, "https": 443}


def read_hosts(names: Sequence[str]) -> tuple[str, ...]:
    """Names of hosts, `HOST` (any port of it) or `HOST:PORT`, in lower case.

    Raises:
        ValueError: one is none.
    """
    hosts = tuple(name.strip().lower() for name in names if name.strip())
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise ValueError(f"{host!r} is no host: write HOST or HOST:PORT, such as gpu-box:8000")
    return hosts


def refuse_credentials(base_url: str) -> None:
    """Refuse a URL with a user or password: it stands in parameters, plans, logs and printed commands.

    Raises:
        UsageError: it has one; the message does not repeat it.
    """
    if _CREDENTIALS.match(base_url):
        raise UsageError(
            "`llm.base_url` holds a user name or a password, which would be stored with every run: write the URL "
            "without it, and set OPENAI_API_KEY in the environment"
        )


def refuse_other_hosts(
    base_url: str, allowed_hosts: Sequence[str], own_base_url: str, *, must_be_named: bool = False
) -> None:
    """Refuse an LLM server that the process's own settings do not allow.

    Args:
        base_url: the server that a run asks for.
        allowed_hosts: `llm.allowed_hosts` of the process's own environment or file. Where there are any, nothing else
            is allowed but the server of `own_base_url`.
        own_base_url: the server that the same environment or file names, or "".
        must_be_named: also where there are no `allowed_hosts`, allow nothing but the server of `own_base_url`.

    Raises:
        UsageError: it is not allowed.
    """
    if not allowed_hosts and not must_be_named:
        return
    origin = _origin(base_url)
    if origin is not None:
        scheme, host, port = origin
        if origin == _origin(own_base_url) or host in allowed_hosts or f"{host}:{port}" in allowed_hosts:
            return
        if scheme in _PORTS:
            raise UsageError(
                f"{scheme}://{host}:{port} is not among the LLM servers that this worker may talk to, and would be "
                "sent code and the API key: name it in the worker's own environment "
                f"(SUMMIDX_LLM__ALLOWED_HOSTS={host}:{port}) or file (`llm.allowed_hosts`), or leave --llm-base-url "
                "(llm_base_url) out"
            )
    raise UsageError("`llm.base_url` must be an http:// or https:// URL, such as http://localhost:8000/v1")


def _origin(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of a URL; None where it is written so that two readers could differ on its host."""
    try:
        parts = urlsplit(url)
        host, port = parts.netloc.lower(), parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not _HOST.fullmatch(host):
        return None
    name = host if port is None else host[: host.rindex(":")]
    return parts.scheme, name, port if port is not None else _PORTS[parts.scheme]
