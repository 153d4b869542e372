"""An index root on an S3-compatible store.

    PREFIX/NAME/CURRENT                                      replaced by a conditional write (If-Match, If-None-Match)
               /generations/GENERATION.PUBLISH_ID/...        uploaded before CURRENT names it
               /generations/GENERATION.PUBLISH_ID/RETIRED    it was published, and is not any more

A generation is staged and verified on this machine's disk, uploaded, and published by the write of CURRENT: nobody
holds a lock. A `%` in a folder's name is a `=` here, since some clients decode the one.

Nobody sees whether a writer on another machine lives. What was uploaded and never published is taken for left by a dead
writer after `ABANDONED_AFTER_S`; a writer gives up long before (`PUBLISH_WITHIN_S`).
"""

import json
import logging
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext

from summidx.errors import StorageUnavailable, StoreError, UsageError
from summidx.index_uri import BucketURI, local_folder
from summidx.store.current import CURRENT
from summidx.store.disk_files import allocated_under
from summidx.store.inventory import RETIRED
from summidx.store.names import escape_name, unescape_name
from summidx.store.objects import Object, Objects, open_objects
from summidx.store.place import FLEET, Stored, StoredFile, StoredGeneration, TableAddress
from summidx.store.staging import Staging, begin_staging, list_staging, lock_index, sweep_staging

logger = logging.getLogger(__name__)

GENERATIONS = "generations"
PUBLISH_WITHIN_S = 3600.0
"""From the begin of an upload; whoever is slower (or was asleep) does not publish."""
ABANDONED_AFTER_S = 6 * 3600.0
UPLOADS_AT_ONCE = 8


class BucketFiles:
    """The objects of one generation."""

    def __init__(self, objects: Objects, prefix: str) -> None:
        self._objects = objects
        self._prefix = prefix
        self.where = f"{objects.uri}/{prefix}"
        self.table = TableAddress(self.where, objects.endpoint.lance_options())

    def sizes(self) -> dict[str, int]:
        """Bytes of each file, by one listing."""
        skipped = len(self._prefix) + 1
        return {each.name[skipped:]: each.size_bytes for each in self._objects.find(self._prefix)}

    def read(self, name: str) -> bytes:
        """The content of a file."""
        return self._objects.get(f"{self._prefix}/{name}")[0]

    def digest(self, name: str) -> str:
        """SHA-256 of the content of a file, in hex."""
        return self._objects.digest(f"{self._prefix}/{name}")

    def write(self, name: str, data: bytes) -> None:
        """Put a file there."""
        self._objects.put(f"{self._prefix}/{name}", data)


class BucketIndex:
    """The objects of one index, and the folder on this machine's disk in which it is staged."""

    def __init__(self, objects: Objects, folder: str) -> None:
        self._objects = objects
        self._folder = folder
        self.where = f"{objects.uri}/{folder}"
        self._scratch = (
            local_folder() / "staging" / objects.uri.bucket / objects.uri.prefix.replace("/", "%2F") / folder
        )
        self._begun: float | None = None

    def read_current(self) -> Stored:
        """CURRENT, as it is now."""
        try:
            data, version = self._objects.get(f"{self._folder}/{CURRENT}")
        except FileNotFoundError:
            return Stored()
        return Stored(None if _parse(data).keys() == {"removed"} else data, version)

    def is_published(self) -> bool:
        """There is a CURRENT, and it does not say that the index was removed."""
        return self.read_current().data is not None

    def exclusive(self) -> AbstractContextManager[None]:
        """Nothing: the conditional write decides."""
        return nullcontext()

    def swap_current(self, data: bytes, publish_id: str, expected: Stored) -> bool:
        """Replace CURRENT if it is still as `expected`."""
        if self._begun is not None and _now() - self._begun > PUBLISH_WITHIN_S:
            raise StoreError(
                f"the upload of {self.where} took longer than {PUBLISH_WITHIN_S / 60:.0f} minutes, and others may take "
                "what it has uploaded for left by a dead writer: nothing was published; the next run builds it"
            )
        return self._put_current(data, publish_id, expected)

    def remove_current(self, expected: Stored) -> bool:
        """Let CURRENT say that nothing is published: a delete knows no condition, and might meet a publish."""
        removal = uuid.uuid4().hex
        return self._put_current(json.dumps({"removed": removal}).encode(), removal, expected)

    def _put_current(self, data: bytes, ours: str, expected: Stored) -> bool:
        """A conditional write. Its answer may be lost, and it is sent again and refused: then CURRENT itself tells."""
        name = f"{self._folder}/{CURRENT}"
        try:
            if self._objects.put_if(name, data, expected.version):
                return True
        except StorageUnavailable:
            if self._read_id(name)[0] == ours:
                return True
            raise
        found, version = self._read_id(name)
        if found != ours and version == expected.version:  # else the next try would be refused as well, for ever
            raise StoreError(f"{self.where}/{CURRENT} cannot be replaced: the object storage refuses it as it is")
        return found == ours

    def _read_id(self, name: str) -> tuple[str, str | None]:
        """Whose CURRENT is, and its version."""
        try:
            data, version = self._objects.get(name)
        except FileNotFoundError:
            return "", None
        value = _parse(data)
        return str(value.get("publish_id") or value.get("removed") or ""), version

    def begin(self, name: str, generation: str) -> Staging:
        """A new staging folder on this machine; what dead writers left here is swept."""
        return begin_staging(self._scratch, name, generation)

    def deliver(self, staging: Staging, generation: str) -> None:
        """Upload what was staged, and see that all of it is there."""
        self._begun = _now()
        try:
            sizes = self._upload(staging, generation)
        except BaseException:
            self.withdraw(generation)
            raise
        if self.files(generation).sizes() != sizes:
            self.withdraw(generation)
            raise StoreError(f"what was uploaded to {self.where} is not what is there now: nothing was published")

    def _upload(self, staging: Staging, generation: str) -> dict[str, int]:
        """Sizes of the files that were uploaded, by name."""
        sources = {str(each.relative_to(staging.folder)): each for each in staging.folder.rglob("*") if each.is_file()}
        prefix = f"{self._folder}/{GENERATIONS}/{generation}"
        with ThreadPoolExecutor(UPLOADS_AT_ONCE) as threads:
            uploads = [threads.submit(self._objects.put, f"{prefix}/{name}", path) for name, path in sources.items()]
            try:
                for upload in uploads:
                    upload.result()
            finally:
                for upload in uploads:
                    upload.cancel()
        return {name: path.stat().st_size for name, path in sources.items()}

    def settle(self, staging: Staging, generation: str) -> None:
        """Nothing: it was uploaded to where it stays."""

    def withdraw(self, generation: str) -> None:
        """Delete what was uploaded, as far as it can be; else it is swept when it is old."""
        self.delete_generations([generation])

    def files(self, generation: str) -> BucketFiles:
        """The files of a generation."""
        return BucketFiles(self._objects, f"{self._folder}/{GENERATIONS}/{generation}")

    def generations(self) -> list[StoredGeneration]:
        """All that lie there."""
        by_generation: dict[str, list[Object]] = defaultdict(list)
        prefix = f"{self._folder}/{GENERATIONS}"
        for each in self._objects.find(prefix):
            by_generation[each.name[len(prefix) + 1 :].partition("/")[0]].append(each)
        return [_describe(name, files) for name, files in by_generation.items()]

    def retire(self, generation: str) -> None:
        """Note that a generation has been published, and is not any more."""
        self.files(generation).write(RETIRED, b"")

    def delete_generations(self, generations: Iterable[str]) -> None:
        """Delete generations, as far as it can be."""
        for generation in generations:
            prefix = f"{self._folder}/{GENERATIONS}/{generation}"
            try:
                self._objects.delete(each.name for each in self._objects.find(prefix))
            except StoreError as error:
                logger.warning("%s/%s stays until it is swept: %s", self.where, generation, error)

    def sweep_staging(self) -> None:
        """Delete what dead writers left on this machine."""
        if self._scratch.is_dir():
            with lock_index(self._scratch):
                sweep_staging(self._scratch)

    def staging(self) -> list[tuple[int, bool]]:
        """What is being written on this machine: bytes on the disk, and whether its writer lives."""
        return [(allocated_under(each.path), each.lives) for each in list_staging(self._scratch)]


class BucketPlace:
    """A prefix of a bucket under which indexes lie."""

    at_once = 16

    def __init__(self, uri: BucketURI) -> None:
        self.where = str(uri)
        self._objects = open_objects(uri)

    def create(self) -> None:
        """Make sure that it can be written to, and that it honours the conditions of a write."""
        self._objects.check_conditions()

    def examine(self) -> str:
        """The same: what it tries is refused."""
        self._objects.list_folders()  # tells a bucket that is missing, where a write might make it
        self._objects.check_conditions()
        return ""

    def folders(self) -> list[str]:
        """Names of folders in which an index may lie."""
        return [name for name in self._objects.list_folders() if not name.startswith(".")]

    def versions(self) -> dict[str, str]:
        """The ETag of each CURRENT: a request for each."""
        folders = self.folders()
        with ThreadPoolExecutor(self.at_once) as threads:
            found = list(threads.map(lambda folder: BucketIndex(self._objects, folder).read_current(), folders))
        return {
            folder: stored.version or ""
            for folder, stored in zip(folders, found, strict=True)
            if stored.data is not None
        }

    def fleet(self) -> BucketIndex:
        """PREFIX/.summidx/fleet."""
        return BucketIndex(self._objects, FLEET)

    def index(self, name: str) -> BucketIndex:
        """PREFIX/NAME, the name escaped."""
        return BucketIndex(self._objects, escape_name(name).replace("%", "="))

    def unescape(self, folder: str) -> str:
        """The repository's name for a folder."""
        if "%" in folder:
            raise UsageError(f"the folder name {folder!r} is not that of an index")
        return unescape_name(folder.replace("=", "%"))

    def read_file(self, name: str) -> bytes | None:
        """A file of runs; None where there is none."""
        try:
            return self._objects.get(name)[0]
        except FileNotFoundError:
            return None

    def write_file(self, name: str, data: bytes) -> None:
        """Replace a file of runs as a whole."""
        self._objects.put(name, data)

    def list_files(self, folder: str) -> list[StoredFile]:
        """The files of runs in a folder, by name; none where it cannot be read."""
        try:
            found = self._objects.find(folder)
        except StoreError as error:
            logger.warning("%s", error)
            return []
        return sorted((StoredFile(each.name, each.size_bytes, each.written_at) for each in found), key=_name_of)

    def delete_file(self, name: str) -> None:
        """Delete a file of runs."""
        self._objects.delete([name])


def _describe(name: str, files: list[Object]) -> StoredGeneration:
    was_published = any(each.name.endswith(f"/{RETIRED}") for each in files)
    written_at = max(each.written_at for each in files)
    may_be_published = not was_published and time.time() - written_at < ABANDONED_AFTER_S
    return StoredGeneration(name, sum(each.size_bytes for each in files), written_at, was_published, may_be_published)


def _parse(data: bytes) -> dict[str, object]:
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _name_of(file: StoredFile) -> str:
    return file.name


def _now() -> float:
    """Seconds, also those in which this machine slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
