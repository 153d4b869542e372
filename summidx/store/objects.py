"""The obstore door: objects of one bucket under one prefix, and one retry layer for all that is asked of them.

Credentials, endpoint and region are of the process's environment (AWS_*), never of a URI or a parameter.
"""

import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store

from summidx.errors import StorageUnavailable, UsageError
from summidx.index_uri import BucketURI
from summidx.store.refusals import NO_BUCKET, describe_refusal

if TYPE_CHECKING:
    from obstore.store import S3Config  # of its stubs only

TIMEOUT_S, CONNECT_TIMEOUT_S = 60, 5
"""Of one request: a store may let writers of one object wait for each other."""
PATIENCE_S, MAX_RETRIES = 120, 30
"""A restart of the store is waited for: pauses of 0.2 s that grow to 10 s."""
FIRST_RETRIES = 2
"""Of a store that has not answered this process yet, or did not the last time: its address or key is wrong, or it is
away for long, and nobody should wait for it again and again."""
PART_BYTES = 8 * 2**20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Object:
    """An object as a listing shows it."""

    name: str
    """Relative to the prefix."""
    size_bytes: int
    written_at: float
    """Seconds since the epoch, by the store's clock; request signing keeps it within minutes of ours."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the store is, as the environment says."""

    url: str
    """"" : AWS's own."""
    region: str

    is_virtual_hosted: bool = False
    """The bucket is part of the host's name; not asked for where there is no URL."""

    def lance_options(self) -> dict[str, str]:
        """What LanceDB's client has to be told."""
        options = {"region": self.region} if self.region else {}
        if self.url:
            options |= {
                "endpoint": self.url,
                "allow_http": str(self.url.startswith("http://")).lower(),
                "virtual_hosted_style_request": str(self.is_virtual_hosted).lower(),
            }
        return options


def read_endpoint() -> Endpoint:
    """The endpoint that the environment names.

    Raises:
        UsageError: it is no URL, or holds a password, which messages would show.
    """
    url = (os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "").rstrip("/")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ("us-east-1" if url else "")
    if url and (not re.match(r"https?://[^\s/]", url) or "@" in url):
        raise UsageError("AWS_ENDPOINT_URL must be an http:// or https:// URL without user and password")
    is_virtual_hosted = os.environ.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "").lower() in ("1", "true", "yes")
    return Endpoint(url, region, is_virtual_hosted)


class Objects:
    """The objects under `s3://BUCKET/PREFIX/`. Names are relative to it. Threads may share it."""

    def __init__(self, uri: BucketURI, endpoint: Endpoint) -> None:
        self.uri = uri
        self.endpoint = endpoint
        self._has_answered = threading.Event()
        self._honours_conditions = threading.Event()
        self._first, self._patient = (self._make_client(retries) for retries in (FIRST_RETRIES, MAX_RETRIES))

    def get(self, name: str) -> tuple[bytes, str]:
        """Content and version of an object.

        Raises:
            FileNotFoundError: there is none.
            StorageUnavailable: as all methods.
        """

        def call(client: S3Store) -> tuple[bytes, str]:
            found = obstore.get(client, name)
            return bytes(found.bytes()), found.meta["e_tag"] or ""

        return self._ask(call, name)

    def digest(self, name: str) -> str:
        """SHA-256 of the content of an object, in hex; it is read in parts.

        Raises:
            FileNotFoundError: there is none.
        """

        def call(client: S3Store) -> str:
            digest = hashlib.sha256()
            for part in obstore.get(client, name).stream(min_chunk_size=PART_BYTES):
                digest.update(part)
            return digest.hexdigest()

        return self._ask(call, name)

    def put(self, name: str, content: bytes | Path) -> None:
        """Write an object, whatever was there; large ones in parts. A `Path` is read from the disk."""
        self._ask(lambda client: obstore.put(client, name, content, chunk_size=PART_BYTES), name)

    def put_if(self, name: str, data: bytes, expected: str | None) -> bool:
        """Write an object if it has the version `expected` (None: if there is none); False where it has not.

        False may also be said to our own write, whose answer was lost and which was sent again.
        """

        def call(client: S3Store) -> bool:
            try:
                obstore.put(client, name, data, mode="create" if expected is None else {"e_tag": expected})
            except (AlreadyExistsError, PreconditionError, FileNotFoundError) as error:
                if NO_BUCKET in str(error):
                    raise
                return False
            return True

        return self._ask(call, name)

    def find(self, prefix: str) -> list[Object]:
        """All objects whose names begin with `prefix/`; "": all."""

        def call(client: S3Store) -> list[Object]:
            pages = obstore.list(client, prefix or None, chunk_size=1000)
            return [
                Object(each["path"], each["size"], each["last_modified"].timestamp()) for page in pages for each in page
            ]

        return self._ask(call, prefix)

    def list_folders(self) -> list[str]:
        """The first parts of all names that have more than one part."""
        found = self._ask(obstore.list_with_delimiter, "")
        return [path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"]]

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; one that is not there is no error."""
        if doomed := list(names):
            self._ask(lambda client: obstore.delete(client, doomed), doomed[0])

    def check_conditions(self) -> None:
        """Make sure, once, that it can be written to and that it honours a condition, by a write that must be refused.

        Raises:
            UsageError: it ignores conditions, and two writers would both believe that they were first.
        """
        if self._honours_conditions.is_set():
            return
        name = ".summidx/condition-probe"
        if self.put_if(name, b"", '"00000000000000000000000000000000"'):
            self.delete([name])
            raise UsageError(
                f"the object storage of {self.uri} ignores the conditions of a write (If-Match), so two runs would "
                "overwrite each other's index: use a store that honours them (S3, MinIO, SeaweedFS, Ceph, R2)"
            )
        self._honours_conditions.set()

    def _ask(self, call: Callable[[S3Store], T], name: str) -> T:
        try:
            result = call(self._patient if self._has_answered.is_set() else self._first)
        except FileNotFoundError as error:
            if NO_BUCKET not in str(error):
                self._has_answered.set()
                raise FileNotFoundError(2, "there is no such object", f"{self.uri}/{name}") from None
            raise self._unavailable(error) from None
        except (BaseError, OSError) as error:
            self._has_answered.clear()
            raise self._unavailable(error) from None
        self._has_answered.set()
        return result

    def _unavailable(self, error: Exception) -> StorageUnavailable:
        where = f" at {urlsplit(self.endpoint.url).netloc}" if self.endpoint.url else ""
        return StorageUnavailable(
            f"the object storage of {self.uri}{where} does not answer or refuses, so no index can be read or written "
            f"there: {describe_refusal(str(error))}"
        )

    def _make_client(self, retries: int) -> S3Store:
        endpoint = self.endpoint
        config: S3Config = {"checksum_algorithm": "SHA256"}
        if endpoint.region:
            config["region"] = endpoint.region
        if endpoint.url:
            config |= {"endpoint": endpoint.url, "virtual_hosted_style_request": endpoint.is_virtual_hosted}
        try:
            return S3Store(
                self.uri.bucket,
                prefix=self.uri.prefix or None,
                config=config,
                client_options={
                    "allow_http": endpoint.url.startswith("http://"),
                    "timeout": timedelta(seconds=TIMEOUT_S),
                    "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
                },
                retry_config={
                    "max_retries": retries,
                    "retry_timeout": timedelta(seconds=PATIENCE_S),
                    "backoff": {
                        "init_backoff": timedelta(seconds=0.2),
                        "max_backoff": timedelta(seconds=10),
                        "base": 2,
                    },
                },
            )
        except (BaseError, ValueError) as error:
            raise self._unavailable(error) from None


@lru_cache(maxsize=16)
def _open(uri: BucketURI, endpoint: Endpoint, _pid: int) -> Objects:
    return Objects(uri, endpoint)


def open_objects(uri: BucketURI) -> Objects:
    """The objects under a URI; one client for a process.

    Raises:
        UsageError: the endpoint in the environment cannot be used.
    """
    return _open(uri, read_endpoint(), os.getpid())
