"""What a vLLM server says of its queue: `GET /metrics`, in Prometheus's text format.

Other servers have no such page, or none that everybody may read: then nothing is known, and nothing is said about it.
"""

import http.client
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

TIMEOUT_S = 1.0
MAX_BYTES = 2_000_000
PATIENCE_S = 60.0
"""A server that does not show its queue is asked again, at the latest, after this time."""

_SAMPLE = re.compile(r"^vllm:num_requests_(running|waiting)(?:\{([^}\n]*)\})? +([0-9.eE+]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ServerLoad:
    """Requests that a server works on, and requests that wait in its queue; of all its clients."""

    running: int
    waiting: int


class LoadReader:
    """Reads the load of one server again and again; blocks for about `TIMEOUT_S` at most. One thread at a time."""

    def __init__(self, base_url: str, model: str = "") -> None:
        """Read what the server at `base_url` (with `/v1`) says of `model`; of all models, where it does not name it."""
        parts = urlsplit(base_url)
        path = parts.path.rstrip("/").removesuffix("/v1")
        self._url = urlunsplit((parts.scheme, parts.netloc, f"{path}/metrics", "", ""))
        self._model = model
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._delay_s = 0.0
        self._not_before = 0.0

    def read(self) -> ServerLoad | None:
        """The load now; None where the server does not show it."""
        if time.monotonic() < self._not_before:
            return None
        load = parse_load(self._fetch(), self._model)
        self._delay_s = 0.0 if load is not None else min(PATIENCE_S, 2 * self._delay_s or 1.0)
        self._not_before = time.monotonic() + self._delay_s
        return load

    def _fetch(self) -> str:
        """The page, or "". No key is sent: the page is outside of what a key guards."""
        deadline = time.monotonic() + TIMEOUT_S
        page = b""
        try:
            with self._opener.open(self._url, timeout=TIMEOUT_S) as response:
                while chunk := response.read1(2**16):
                    page += chunk
                    if len(page) > MAX_BYTES or time.monotonic() > deadline:
                        return ""
        except (OSError, ValueError, http.client.HTTPException):
            return ""
        return page.decode(errors="replace")


def parse_load(page: str, model: str) -> ServerLoad | None:
    """What a page of metrics says of `model`, all engines together; None where it lacks either number."""
    samples = [(kind, labels or "", float(value)) for kind, labels, value in _SAMPLE.findall(page) if _is_number(value)]
    ours = [each for each in samples if f'model_name="{model}"' in each[1]] or samples
    if {kind for kind, _, _ in ours} != {"running", "waiting"}:
        return None
    running, waiting = (sum(value for kind, _, value in ours if kind == wanted) for wanted in ("running", "waiting"))
    return ServerLoad(round(running), round(waiting)) if max(running, waiting) < 10**9 else None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: object, **kwargs: object) -> None:
        """Follow nothing: what a redirect leads to is not the server that was named."""
