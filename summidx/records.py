"""The frozen types that flow through the product, in the order in which they flow.

    RepoRef -> PinnedRepo -> SourceFile -> Unit -> SummaryRequest -> Summary | UnitFailure -> Document -> Hit

and `BuildReport` for a whole repository, `Manifest` for a published index. Standard library and numpy only.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # numpy is loaded by who makes vectors: the parsing process starts without it
    import numpy as np
    import numpy.typing as npt


class Level(StrEnum):
    """The five levels of summaries, from the innermost outwards."""

    FUNCTION = "function"
    CLASS = "class"
    FILE = "file"
    DIRECTORY = "directory"
    REPO = "repo"


class Status(StrEnum):
    """How a document ended.

    `degraded`: the model answered unusably, or a child failed; counted as up to date. `failed`: a fault of
    transport; never cached, and its repository is not up to date.
    """

    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"


class Origin(StrEnum):
    """Who wrote a summary."""

    LLM = "llm"
    TEMPLATE = "template"
    EXTRACTIVE = "extractive"
    REDUCED = "reduced"
    """By an LLM, from the summaries of its parts: it does not fit a prompt as a whole."""


class TestsPolicy(StrEnum):
    """What happens to test code: one summary per file, as any other code, or left out."""

    __test__ = False  # the name starts with "Test", but pytest has nothing to collect here

    FILE = "file"
    FULL = "full"
    SKIP = "skip"


class SkipReason(StrEnum):
    """Why something of a source was not read, or not read as code."""

    BINARY = "binary"
    TOO_LARGE = "too_large"
    MINIFIED = "minified"
    GENERATED = "generated"
    VENDORED = "vendored"
    UNPARSABLE = "unparsable"
    PARSE_BUDGET = "parse_budget"
    SYMLINK = "symlink"
    SPECIAL_FILE = "special_file"
    SUBMODULE = "submodule"
    UNREADABLE = "unreadable"
    TOO_DEEP = "too_deep"
    BAD_NAME = "bad_name"
    REDACTED = "redacted"
    """It is read, but for the secrets in it."""


class Outcome(StrEnum):
    """How the build of one repository ended, when it did not raise."""

    BUILT = "built"
    UP_TO_DATE = "up_to_date"
    SUPERSEDED = "superseded"
    """Another run published first; what was built here was discarded."""
    SUMMARIZED = "summarized"
    """`--stage summaries`: the cache was filled, nothing was published."""


@dataclass(frozen=True, slots=True)
class RepoRef:
    """A repository as the user named it. `revision` None: the HEAD of a git repository, or a plain folder."""

    name: str
    source: str
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class PinnedRepo:
    """A repository fixed to content: exactly the inputs of the task, and the key of its Prefect cache record.

    `commit` is the full hex id, "" for a plain folder, or the revision as given where it was not found. `generation`
    is that of the published index where it verifies (then there is nothing to build), else a new id.
    """

    name: str
    source: str
    commit: str
    build_key: str
    generation: str


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One readable text file of a source. `path` is relative to the repository's root, with `/`."""

    path: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Skip:
    """Something that was not read, or not read as code, and why. `path` is printable (escaped where it was not)."""

    path: str
    reason: SkipReason
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A piece of a repository that gets one summary.

    Lines are 1-based and inclusive. Each line of a file is in the `own_spans` of exactly one of its units: the
    innermost that owns it; a directory and the repository own no lines.
    """

    id: str
    level: Level
    path: str
    name: str
    qualified_name: str
    """`Class.method` within its file; the path for a file or directory; the repository's name for the repository."""
    language: str
    """Lower case, `python`, `markdown`, ...; `text` where unknown; "" for a directory and the repository."""
    start_line: int
    end_line: int
    parent_id: str | None
    """The class or file that holds a function or class; None for a file and above (see `hierarchy`)."""
    own_spans: tuple[tuple[int, int], ...] = ()
    own_source: str = ""
    """Its own text, dedented, with comments; child units elided to their signatures. A directory's: its README."""
    signature: str = ""
    """Header on one line, white space collapsed: `def f(x: int) -> str`, `class A(B)`; "" where there is none."""
    docstring: str = ""
    gloss: str = ""
    """What the language itself says it is, in words (`__repr__`: `text representation of A`), else ""."""
    imports: tuple[str, ...] = ()
    """A file's imported modules, dotted, sorted."""
    calls: tuple[str, ...] = ()
    """Ids of the repository's units that this one calls, sorted."""
    called_by: tuple[str, ...] = ()
    """Ids of the repository's units that call this one, sorted."""
    code_lines: int = 0
    """Lines of `own_source` that are neither blank, comment nor docstring; a signature counts as one."""
    trivial: bool = False
    """A template says all there is: no call is made for it."""
    is_test: bool = False
    is_secondary: bool = False
    """Documentation, examples, vendored or generated code: search weighs it down, as it does tests."""


@dataclass(frozen=True, slots=True)
class ParsedRepo:
    """All files, classes and functions of a repository, and what was passed over."""

    units: tuple[Unit, ...]
    skips: tuple[Skip, ...]


@dataclass(frozen=True, slots=True)
class ChildSummary:
    """What a parent reads of one child. `text` is None where the child failed: the gap is then in the parent's key."""

    level: Level
    name: str
    signature: str
    text: str | None
    last: str = ""
    """For a group of children that `text` tells of: the name of its last; `name` is that of its first."""


@dataclass(frozen=True, slots=True)
class SummaryRequest:
    """All that a summariser may read to summarise `unit`.

    `header` is the class's signature for a method. `callers` are at most 5 qualified names, the first by id, in order
    of name, so that a file that moves does not change them. `children` are sorted by name.
    """

    unit: Unit
    header: str = ""
    callers: tuple[str, ...] = ()
    children: tuple[ChildSummary, ...] = ()
    is_part: bool = False
    """It holds some of the unit's own lines, or some of its children, which together do not fit a prompt."""
    parts: tuple[ChildSummary, ...] = ()
    """Summaries of the parts in which the unit's own source was read: then only its head is shown."""
    left_out: int = 0
    """Lines of the own source that are in none of its parts (`llm.max_parts`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A summary that can be published. `key` is "" where no request was made (templates)."""

    text: str
    keywords: tuple[str, ...] = ()
    status: Status = Status.OK
    origin: Origin
    reason: str = ""
    """Why it is degraded, else ""."""
    truncated: bool = False
    """Something of the unit was left out of the request, since it did not fit."""
    key: str = ""
    model: str = ""
    prompt_version: str = ""
    tokens_in: int = 0
    tokens_out: int = 0


@dataclass(frozen=True, slots=True)
class UnitFailure:
    """No summary could be had for a unit: a fault of transport. `error` is the error's class name."""

    error: str
    message: str


@dataclass(frozen=True, slots=True)
class Vectors:
    """Embeddings: `values` has shape (n, dim), dtype float32, each row of L2 norm 1 (within 1e-3).

    Raises:
        ValueError: at construction, when it is not so.
    """

    values: "npt.NDArray[np.float32]"

    def __post_init__(self) -> None:
        import numpy as np

        if self.values.ndim != 2 or self.values.dtype != np.float32:
            raise ValueError(f"vectors must be (n, dim) float32, not {self.values.shape} {self.values.dtype}")
        norms = np.linalg.norm(self.values, axis=1)
        if not np.allclose(norms, 1.0, atol=1e-3):
            raise ValueError("vectors must be L2-normalised, row by row")

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self.values.shape[1])

    def __len__(self) -> int:
        return int(self.values.shape[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One row of an index, without its vector."""

    id: str
    level: Level
    path: str
    name: str
    qualified_name: str
    language: str
    start_line: int
    end_line: int
    signature: str
    summary: str
    """"" exactly when `status` is failed."""
    keywords: tuple[str, ...]
    imports: tuple[str, ...]
    calls: tuple[str, ...]
    called_by: tuple[str, ...]
    status: Status
    origin: Origin | None
    """None exactly when `status` is failed."""
    reason: str
    truncated: bool
    is_test: bool
    is_secondary: bool
    content_hash: str
    """SHA-256 of the unit's own source, hex."""
    summary_key: str
    model: str
    prompt_version: str
    tokens_in: int
    tokens_out: int
    search_text: str
    """Words for BM25, separated by spaces (`store.tokenize`)."""


Counts = Mapping[str, Mapping[str, Mapping[str, int]]]
"""Number of documents by level, then status, then origin (`none` for a failed one)."""


def count_documents(documents: Iterable[Document]) -> Counts:
    """Count documents by level, status and origin; levels that have none are left out."""
    counter = Counter((d.level.value, d.status.value, d.origin.value if d.origin else "none") for d in documents)
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for (level, status, origin), n in sorted(counter.items()):
        counts.setdefault(level, {}).setdefault(status, {})[origin] = n
    return counts


@dataclass(frozen=True, slots=True)
class Fault:
    """A document that is not ok, and why."""

    id: str
    status: Status
    reason: str


FAULTS_KEPT = 20
"""So many are told of one repository; all of them stand in its index."""


def list_faults(documents: Iterable[Document]) -> tuple[Fault, ...]:
    """The first documents that are not ok, those that failed before those that are degraded."""
    faults = [Fault(each.id, each.status, each.reason) for each in documents if each.status is not Status.OK]
    return tuple(sorted(faults, key=lambda each: each.status is not Status.FAILED)[:FAULTS_KEPT])


def count_where(
    counts: Counts, *, level: str | None = None, status: str | None = None, origin: str | None = None
) -> int:
    """Sum of `counts` over all that is not given."""
    return sum(
        n
        for a_level, by_status in counts.items()
        for a_status, by_origin in by_status.items()
        for an_origin, n in by_origin.items()
        if level in (None, a_level) and status in (None, a_status) and origin in (None, an_origin)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one repository's build cost. Durations are wall seconds by step."""

    llm_calls: int = 0
    """Documents answered by a call of this build; its retries are not counted."""
    requests: int = 0
    """Requests for completions that were sent: retries, second asks and calls for parts included."""
    retries: Mapping[str, int] = field(default_factory=dict)
    """Requests beyond a question's first, by the error that made them needed (`Overloaded`, `InvalidOutput`, ...)."""
    latencies: Mapping[str, int] = field(default_factory=dict)
    """Requests that were answered, by time taken: a histogram (`accounting`)."""
    cache_hits: int = 0
    """Documents answered by the cache, or by a call in flight for another one."""
    prompt_bytes: int = 0
    """UTF-8 bytes of the prompts whose tokens are in `tokens_in`."""
    tokens_in: int = 0
    """As the server counts, for all answers: unusable ones, second asks and parts included."""
    tokens_out: int = 0
    vectors_embedded: int = 0
    vectors_reused: int = 0
    embedding_s: float = 0.0
    """Seconds that the embedding itself took, most of them while summaries were still being written."""
    durations_s: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What CURRENT holds: the only truth about a published index."""

    name: str
    publish_id: str
    generation: str
    build_key: str
    source: str
    commit: str
    tree: str
    counts: Counts
    skips: Mapping[str, int]
    """Number of skipped paths by reason; the paths themselves are in the generation's `skips.json`."""
    usage: Usage
    summarizer: str
    """Identity of the summariser (provider and model)."""
    embedding_model: str
    """Identity of the embedding model."""
    dim: int
    prompt_version: str
    tool_version: str
    built_at: str
    """ISO 8601, UTC."""
    index_version: int | None = None
    """What else the build key was made of; None in an index that was built before this was kept."""
    settings: Mapping[str, object] | None = None
    """The settings that the build key was made of, by dotted name, as JSON values (`keys.recorded_settings`)."""
    faults: tuple[Fault, ...] = ()
    """The first documents that are not ok (`list_faults`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """The result of the build of one repository: what the task returns, as JSON."""

    name: str
    outcome: Outcome
    commit: str
    generation: str
    counts: Counts
    skips: Mapping[str, int]
    usage: Usage
    faults: tuple[Fault, ...] = ()
    """The first documents that are not ok (`list_faults`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildCost:
    """What the build of a repository that failed had come to. Its error carries it (`accounting.with_cost`)."""

    commit: str
    counts: Counts
    """Its documents, where it came so far."""
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One search result. `score` orders hits of one query; scores of different queries do not compare."""

    repo: str
    id: str
    level: Level
    path: str
    name: str
    qualified_name: str
    start_line: int
    end_line: int
    signature: str
    summary: str
    status: Status
    score: float
    bm25: float | None
    """Raw BM25 score, or None where no word matched."""
    similarity: float | None
    """Cosine of query and summary vector, or None where it was not among the nearest."""
