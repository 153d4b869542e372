"""Who answers a request for a summary. One file per summariser."""

from dataclasses import dataclass
from typing import Any, Protocol

from summidx.accounting import CallRecord
from summidx.records import Summary, SummaryRequest
from summidx.reduction import Reduction


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request as it will be sent. `key` is `keys.summary_key` of all that reaches the model."""

    key: str
    request: SummaryRequest
    payload: dict[str, Any]
    truncated: bool = False
    """Something of the unit was left out, since it did not fit the context."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as its server describes it (`GET /v1/models`): part of the identity of what it writes.

    `root` is what it was loaded from ("" where the server does not say); `max_model_len` is its context in tokens.
    """

    id: str
    root: str = ""
    max_model_len: int | None = None


class Summarizer(Protocol):
    """Writes summaries. Used from one event loop; many `answer` calls are in flight at once."""

    @property
    def identity(self) -> str:
        """What the build key and the manifest record: provider, model (id, root, revision), prompt version."""
        ...

    @property
    def makes_calls(self) -> bool:
        """True where an answer costs a call: it is then cached, and waits for a place among the calls in flight."""
        ...

    def split(self, request: SummaryRequest) -> Reduction | None:
        """The next step towards a request that fits, or None where this one does: pure, the same for the same request.

        Its parts are asked for first, and what `Reduction.merge` makes of their summaries is split again.
        """
        ...

    def prepare(self, request: SummaryRequest) -> PreparedRequest:
        """Build what will be sent: pure, the same for the same request. What `split` left too long is cut visibly."""
        ...

    async def answer(self, prepared: PreparedRequest, record: CallRecord) -> Summary:
        """Ask for the summary; what that took is added to `record`. Faults of transport are raised, not tried again.

        Raises:
            LLMError: InvalidOutput when the model answered unusably twice; the other kinds when the call failed.
        """
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...
