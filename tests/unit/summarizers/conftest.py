from collections.abc import Callable

import pytest

from summidx.records import Level, SummaryRequest, Unit


def build_unit(**fields) -> Unit:
    """A function of a class, unless told otherwise."""
    defaults = {
        "id": "src/wire/client.py::Session.send",
        "level": Level.FUNCTION,
        "path": "src/wire/client.py",
        "name": "send",
        "qualified_name": "Session.send",
        "language": "python",
        "start_line": 10,
        "end_line": 20,
        "parent_id": "src/wire/client.py::Session",
        "signature": "def send(self, request, *, timeout=None)",
        "own_source": (
            "def send(self, request, *, timeout=None):\n"
            '    """Send a request and return its answer.\n\n'
            "    Waits for a free connection.\n\n"
            "    Args:\n        request: what is sent.\n"
            '    """\n'
            "    # The caller's deadline covers redirects as well.\n"
            "    adapter = self.getAdapter(request.url)\n"
            "    if not adapter:\n"
            '        raise InvalidSchema("No connection adapters were found for it")\n'
            "    return adapter.send_now(request, timeout)\n"
        ),
        "docstring": (
            "Send a request and return its answer.\n\nWaits for a free connection.\n\nArgs:\n    request: what is sent."
        ),
    }
    return Unit(**{**defaults, **fields})


@pytest.fixture
def make_request() -> Callable[..., SummaryRequest]:
    """Build a request: fields of the unit by name, fields of the request as given."""

    def make(*, header="class Session(Base)", callers=("api.get",), children=(), **fields) -> SummaryRequest:
        return SummaryRequest(build_unit(**fields), header=header, callers=callers, children=children)

    return make
