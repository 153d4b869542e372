"""Every error that summidx raises on purpose.

    SummidxError
    ├── UsageError                  unusable arguments or settings: exit code 2
    │   └── NoGPU                   the machine has no GPU that could be asked for
    ├── SourceError                 a repository cannot be read
    │   ├── UnknownRevision         it has no commit at the revision asked for           permanent
    │   ├── UnsupportedSource       it is of a kind that is not read                      permanent
    │   └── SourceTooLarge          it holds more than the settings allow                 permanent
    ├── ParseError                  the parsing process failed for a whole repository
    │   └── Unparsable              by its content, not by the machine                    permanent
    ├── LLMError                    one call to the LLM failed
    │   ├── Overloaded              429, 503 or a timeout: back off, and lower the limit
    │   ├── ServerFault             any other 5xx, or no connection
    │   ├── ContextTooLong          the prompt does not fit the model; knows the limit
    │   ├── InvalidOutput           the model answered unusably
    │   ├── Unauthorised            the key is refused: stops the run
    │   ├── UnknownModel            the server does not serve the model: stops the run
    │   ├── Outage                  the endpoint has answered nothing for too long: stops the run
    │   └── RequestRefused          any other 4xx: the server will not take this request
    ├── EmbeddingError              the embedding model cannot be loaded or failed
    │   └── DeviceLost              the GPU answers nothing more in this process
    ├── CacheError                  the cache cannot be read or written
    ├── StoreError                  an index cannot be read, written or published
    │   ├── UnknownIndex            no index of that name under the index root
    │   ├── NewerIndex              it was built by a newer summidx: neither read nor replaced
    │   └── StorageUnavailable      object storage does not answer, or refuses: nothing is known of the indexes there
    ├── TooManyFailures             more units of a repository failed than `max_failed` allows
    ├── ServiceLost                 the run lost what it cannot do without: Prefect API, Dask scheduler, workers
    ├── RepoTimeout                 a repository took longer than `repo_timeout` allows
    ├── MachineFault                an OSError: no memory, no disk, no file or process to be had
    ├── Defect                      an error that nobody raised on purpose: a fault of summidx
    └── Stopped                     the run was told to stop
        └── NotAttempted            before this repository was begun

Every one pickles (a worker's error must arrive as itself), and its text is one line: what was wrong, why it matters,
what to do. What to do about a repository that failed by it is the type's `advice`, which its text ends with only where
nothing else says it: in the state of a task run (`explain`).

`permanent`: the same repository fails the same way, however often it is tried, until its content, a setting or
summidx itself changes; and a plan sees each of these changes. Such a failure is known (`known_failures`), and no run
repeats it every night. All others are tried again: for what is mended elsewhere (a server, a disk, a GPU, a damaged
clone that is fetched anew) no plan sees that it was mended.
"""

from typing import ClassVar


class SummidxError(Exception):
    """Base of all errors of summidx; catch it to show one line instead of a traceback."""

    permanent: ClassVar[bool] = False
    """True where trying again cannot help; argued in the docstring of each class that sets it."""
    advice: ClassVar[str] = "mend the cause, then retry the run"
    """What whoever sees a repository fail by it does next, in one line."""
    tells_advice = False

    @property
    def reason(self) -> str:
        """What was wrong, without `advice`."""
        return str(self.args[0]) if self.args else type(self).__name__

    def __str__(self) -> str:
        return f"{self.reason}. What to do: {self.advice}" if self.tells_advice else self.reason


class UsageError(SummidxError):
    """Arguments or settings cannot be used."""

    advice = "change the settings or the parameters that it names, then start a new run"


class NoGPU(UsageError):
    """There is no NVIDIA driver on this machine, or it cannot be asked."""


class SourceError(SummidxError):
    """A repository cannot be read: it is missing, damaged, or may not be read by this user.

    Not permanent: a disk that is not mounted looks like that, and a clone that was damaged has the same tree once it
    is mended.
    """


class UnknownRevision(SourceError):
    """The repository has no commit at the revision asked for, or is empty.

    Permanent: only a fetch or a commit helps, and each plan resolves the revision anew.
    """

    permanent = True


class UnsupportedSource(SourceError):
    """The repository is of a kind that is not read: SHA-256 ids, reftable, objects that lie outside of it.

    Permanent: only a repository that was converted helps, and each plan looks at it anew.
    """

    permanent = True


class SourceTooLarge(SourceError):
    """The repository holds more files, folders or text than the settings allow.

    Permanent: content and limits are what they are, and a known failure is kept with the limits that it met.
    """

    permanent = True

    advice = "mend the repository or its entry, then retry the run"


class ParseError(SummidxError):
    """The parsing process of a repository died or could not be started.

    Not permanent: it may have been killed, or the machine had no memory left for it.
    """


class Unparsable(ParseError):
    """The parser crashes on many files of a repository, or needs more memory for it than `parsing.memory_mb`.

    Permanent: the parser is given the same bytes under the same limits, in a process of its own.
    """

    permanent = True

    advice = "retry the run; if it fails again, take the named files out of the repository"


class LLMError(SummidxError):
    """One call to the LLM failed."""

    advice = "see that the LLM server is well, then retry the run: what was answered is in the cache"


class Overloaded(LLMError):
    """The server is overloaded: 429, 503 or no answer in time.

    `retry_after_s` is how long it asks to wait, or None; `is_limited` is True where it lives, and says that it was
    asked too much (429, 529).
    """

    def __init__(self, message: str, retry_after_s: float | None = None, is_limited: bool = False) -> None:  # noqa: FBT001, FBT002 - positional, so that it pickles
        super().__init__(message, retry_after_s, is_limited)
        self.retry_after_s = retry_after_s
        self.is_limited = is_limited


class ServerFault(LLMError):
    """The server failed: a 5xx other than 503, or no connection."""


class ContextTooLong(LLMError):
    """The prompt does not fit. `limit_tokens` and `prompt_tokens` are what the server named, or None.

    `tokens_in` and `tokens_out` are what earlier answers for it cost.
    """

    tokens_in = 0
    tokens_out = 0

    def __init__(self, message: str, limit_tokens: int | None = None, prompt_tokens: int | None = None) -> None:
        super().__init__(message, limit_tokens, prompt_tokens)
        self.limit_tokens = limit_tokens
        self.prompt_tokens = prompt_tokens


class InvalidOutput(LLMError):
    """The model's answer is empty, cut or repeats itself. `tokens_in` and `tokens_out` are what that cost."""

    def __init__(self, message: str, tokens_in: int = 0, tokens_out: int = 0) -> None:
        super().__init__(message, tokens_in, tokens_out)
        self.tokens_in = tokens_in
        self.tokens_out = tokens_out


class Unauthorised(LLMError):
    """The server refuses the key; no call can succeed."""

    advice = "give the worker a key that the server takes (OPENAI_API_KEY), then retry the run"


class UnknownModel(LLMError):
    """The server does not serve the model; no call can succeed."""

    advice = "name a model that the server serves (llm.model), then start a new run"


class Outage(LLMError):
    """The endpoint has answered nothing for `llm.outage_s`; no call can succeed until it is back."""


class RequestRefused(LLMError):
    """The server refuses this request with a 4xx of another kind."""


class EmbeddingError(SummidxError):
    """The embedding model cannot be found, is not what it claims to be, or failed."""

    advice = "mend the embedding model that it names (`summidx doctor` checks it), then retry the run"


class DeviceLost(EmbeddingError):
    """The GPU answers nothing more in this process, whatever is asked of it; only a new process has it again.

    CUDA calls such an error sticky: an illegal memory access, a failed launch, a fault of the memory or of the bus.
    """

    advice = "retry the run; if the GPU is lost again, see `nvidia-smi` and the kernel's log"


class CacheError(SummidxError):
    """The cache cannot be read or written."""

    advice = "see that the cache can be read and written (`summidx doctor`), then retry the run"


class StoreError(SummidxError):
    """An index cannot be read, written or published."""

    advice = "see that the index root can be written and has room (`summidx doctor`), then retry the run"


class UnknownIndex(StoreError):
    """There is no published index of that name."""


class NewerIndex(StoreError):
    """The published index is of a newer summidx than this: it is neither read nor replaced.

    Not permanent: it goes away with an upgrade, which no build key shows.
    """


class StorageUnavailable(StoreError):
    """The object storage of the index root does not answer, or refuses. That says nothing of the indexes there."""

    advice = "see that the object storage answers (`summidx doctor`), then retry the run"


class TooManyFailures(SummidxError):
    """More units of a repository failed than are allowed; its old index stays published.

    Not permanent: a document fails by a fault of transport only (what the model cannot do well is degraded), and what
    was finished is cached, so that each try comes further.
    """

    advice = "see that the LLM server is well, then retry the run: what was answered is in the cache"


class RepoTimeout(SummidxError):
    """A repository took longer than it may, and was given up; its old index stays published.

    Not permanent: its finished summaries are cached, so that each try comes further.
    """

    advice = "raise repo_timeout, or retry the run: what was answered is in the cache"


class MachineFault(SummidxError):
    """The machine refused something: memory, disk, a file or a process."""

    advice = "give the machine what it lacks, then retry the run"


class Defect(SummidxError):
    """An error that nobody raised on purpose."""

    advice = "report it, with the traceback in the run's log; the other repositories are not touched by it"


class ServiceLost(SummidxError):
    """The run lost a service that it cannot do without; what is finished is kept."""

    advice = "see that what it names runs, then retry the run: what is finished is kept"


class Stopped(SummidxError):
    """The run was told to stop; nothing is published after it."""

    advice = "retry the run: what is finished is kept"


class NotAttempted(Stopped):
    """The run was told to stop before the repository was begun."""


def explain(error: Exception) -> SummidxError:
    """The error as the state of a task run shows it: one of ours, whose text ends with what to do.

    It is the same object where it is ours; one of somebody else's is told by its type and text.
    """
    if not isinstance(error, SummidxError):
        kind = MachineFault if isinstance(error, OSError | MemoryError) else Defect
        told: SummidxError = kind(f"{type(error).__name__}: {error}")
        vars(told).update(vars(error))  # what it had cost
        error = told
    error.tells_advice = True
    return error
