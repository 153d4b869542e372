"""What an index root needs of the place where it lies: a folder (`folder`), or a prefix in a bucket (`bucket`).

    NAME/CURRENT                              replaced by compare-and-swap: under a lock, or by a conditional write
    NAME/generations/GENERATION.PUBLISH_ID/   the files of one generation, written once
    .summidx/...                              files of runs: plans, predictions
    .summidx/fleet/...                        the fleet table, as an index: CURRENT, generations

A version is what a place says of CURRENT when it is read, and asks back when it is replaced. Methods raise `OSError`
(folders) or `StoreError` (buckets); `StorageUnavailable` says that nothing is known of what lies there.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from summidx.store.staging import Staging


FLEET = ".summidx/fleet"


@dataclass(frozen=True, slots=True)
class Stored:
    """CURRENT as it was read."""

    data: bytes | None = None
    """None: nothing is published."""
    version: str | None = None


@dataclass(frozen=True, slots=True)
class TableAddress:
    """Where LanceDB finds the tables of a generation."""

    uri: str | Path
    options: Mapping[str, str] = field(default_factory=dict)
    """Of its client; none of them is a secret."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that lies there."""

    name: str
    size_bytes: int
    """As it takes room there."""
    written_at: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class StoredGeneration:
    """A generation that lies there, whatever CURRENT says."""

    name: str
    size_bytes: int
    """As it takes room there."""
    written_at: float
    """Of its newest file, seconds since the epoch."""
    was_published: bool = True
    """Readers may have opened it."""
    may_be_published: bool = False
    """Its writer may live, on another machine, and be about to publish it."""


class Files(Protocol):
    """The files of one generation, by name relative to it."""

    where: str
    """As people read it."""
    table: TableAddress

    def sizes(self) -> dict[str, int]:
        """Bytes of each file; {} where there is no such generation."""

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            FileNotFoundError: there is none.
        """

    def digest(self, name: str) -> str:
        """SHA-256 of the content of a file, in hex.

        Raises:
            FileNotFoundError: there is none.
        """

    def write(self, name: str, data: bytes) -> None:
        """Put a file there, durably and as a whole."""


class IndexPlace(Protocol):
    """Where one index lies."""

    where: str
    """As people read it."""

    def read_current(self) -> Stored:
        """CURRENT, as it is now."""

    def is_published(self) -> bool:
        """There is a CURRENT, whatever it holds."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold off others who publish or remove, as far as the place can; the swap of CURRENT decides in the end."""

    def swap_current(self, data: bytes, publish_id: str, expected: Stored) -> bool:
        """Replace CURRENT, durably, if it is still as `expected`; False where it is not. Within `exclusive`.

        `publish_id` is that of `data`, which tells our own write from another's where the place answers unclearly.
        """

    def remove_current(self, expected: Stored) -> bool:
        """Publish nothing any more, if CURRENT is still as `expected`. Within `exclusive`."""

    def begin(self, name: str, generation: str) -> "Staging":
        """A new staging folder on this machine; what dead writers left here is swept."""

    def deliver(self, staging: "Staging", generation: str) -> None:
        """Bring what was staged to where no power cut or death of this machine takes it."""

    def settle(self, staging: "Staging", generation: str) -> None:
        """Let what was delivered be that generation. Within `exclusive`."""

    def withdraw(self, generation: str) -> None:
        """Delete what was delivered and will not be published, as far as it can be."""

    def files(self, generation: str) -> Files:
        """The files of a generation."""

    def generations(self) -> list[StoredGeneration]:
        """All that lie there."""

    def retire(self, generation: str) -> None:
        """Note that a generation has been published, and is not any more."""

    def delete_generations(self, generations: Iterable[str]) -> None:
        """Delete generations, as far as it can be."""

    def sweep_staging(self) -> None:
        """Delete what dead writers left in the staging of this machine. Within `exclusive`."""

    def staging(self) -> list[tuple[int, bool]]:
        """What is in the staging of this machine: bytes on the disk, and whether its writer lives."""


class Place(Protocol):
    """Where an index root lies."""

    where: str
    """As people read it: a path or a URI."""
    at_once: int
    """So many questions at once are answered sooner than one after the other."""

    def create(self) -> None:
        """Make it fit to be written to.

        Raises:
            StoreError: it cannot be.
        """

    def examine(self) -> str:
        """Find out whether it can be written to, and change nothing; what is to be said of it: "", or that it is new.

        Raises:
            StoreError: it cannot be.
        """

    def folders(self) -> list[str]:
        """Names of folders in which an index may lie, escaped; those of others may be among them.

        Raises:
            StoreError: it cannot be read. One that does not exist has none.
        """

    def versions(self) -> dict[str, str]:
        """What changes with each publish, of each of `folders` in which an index is published now.

        Raises:
            StoreError: it cannot be read. One that does not exist has none.
        """

    def fleet(self) -> IndexPlace:
        """Where the fleet table lies (`fleet`): its segments are the generations there."""

    def index(self, name: str) -> IndexPlace:
        """Where the index of a repository lies.

        Raises:
            UsageError: the name cannot be a folder's.
        """

    def unescape(self, folder: str) -> str:
        """The repository's name for one of `folders`.

        Raises:
            UsageError: it is none of ours.
        """

    def read_file(self, name: str) -> bytes | None:
        """A file of runs, `.summidx/...`; None where there is none."""

    def write_file(self, name: str, data: bytes) -> None:
        """Replace a file of runs as a whole."""

    def list_files(self, folder: str) -> Sequence[StoredFile]:
        """The files of runs in a folder, by name; none where it cannot be read."""

    def delete_file(self, name: str) -> None:
        """Delete a file of runs; nothing happens where there is none."""
