"""Where an index root is: a folder, or `s3://BUCKET/PREFIX` on an S3-compatible store.

A URI holds no credentials, endpoint or option: they are of the process (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_ENDPOINT_URL, AWS_REGION), and which buckets they are good for is for who runs it to say.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from summidx.errors import UsageError

SCHEME = "s3"
MAX_PREFIX_CHARS = 300
"""Keys end at 1,024 bytes; the rest is for what lies under the prefix."""

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_SEGMENT = re.compile(r"[A-Za-z0-9_@+=-][A-Za-z0-9._@+=-]*")
"""What no client between here and the store writes in another way: no `%`, which some decode."""


@dataclass(frozen=True, slots=True)
class BucketURI:
    """`s3://BUCKET/PREFIX`; the prefix may be empty."""

    bucket: str
    prefix: str = ""

    def __str__(self) -> str:
        return f"{SCHEME}://{self.bucket}{f'/{self.prefix}' if self.prefix else ''}"


def is_uri(index_root: str | Path) -> bool:
    """True where it is no folder's path."""
    return bool(_URI.match(str(index_root)))


def parse_bucket_uri(text: str) -> BucketURI:
    """Read `s3://BUCKET/PREFIX`.

    Raises:
        UsageError: it is another kind of URI, or holds what is no bucket or prefix. What was given is not repeated
            where it may hold a password.
    """
    found = _URI.match(text)
    scheme, rest = (found[1].lower(), found[2]) if found else ("", "")
    if scheme != SCHEME:
        raise UsageError(f"an index root on {scheme}:// is not supported: give a folder, or s3://BUCKET/PREFIX")
    if "@" in rest.partition("/")[0] or re.search(r"[?#]", rest):
        raise UsageError(
            "the index root's URI holds more than s3://BUCKET/PREFIX, and is shown to everybody: leave user, password "
            "and options out, and set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL in the environment"
        )
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.rstrip("/")
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(f"{bucket[:80]!r} is no name of a bucket: write the index root as s3://BUCKET/PREFIX")
    if len(prefix) > MAX_PREFIX_CHARS or not all(map(_SEGMENT.fullmatch, prefix.split("/") if prefix else ())):
        raise UsageError(
            f"the prefix {prefix[:80]!r} of the index root cannot be used: at most {MAX_PREFIX_CHARS} letters, digits "
            "and . _ @ + = - , in parts divided by / that do not begin with a dot"
        )
    return BucketURI(bucket, prefix)


def normal_index_root(index_root: str) -> str:
    """An index root so that it means the same in every process: an absolute path, or a URI in its one spelling.

    Raises:
        UsageError: it is a URI that cannot be used.
    """
    return str(parse_bucket_uri(index_root) if is_uri(index_root) else Path(index_root).expanduser().absolute())


def local_folder() -> Path:
    """Where this machine keeps what cannot lie on object storage: `summidx` in XDG_CACHE_HOME, else in ~/.cache.

    The cache of summaries, where no URL of one is set, and each index until it is uploaded.
    """
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home.startswith("/") else Path.home() / ".cache") / "summidx"


def refuse_other_roots(index_root: str, allowed_roots: Sequence[str], own_root: str) -> None:
    """Refuse an index root that the process's own settings do not allow.

    What is not a folder is reached by the credentials of the process, and old generations are deleted there: it must be
    named. Folders are the business of the operating system's permissions, unless `allowed_roots` names any root.

    Args:
        index_root: what a run asks for.
        allowed_roots: `allowed_index_roots` of the process's own environment or file: these, and what is under them.
        own_root: the index root that the same environment or file names.

    Raises:
        UsageError: it is not allowed, or cannot be used.
    """
    if not is_uri(index_root) and not allowed_roots:
        return
    asked = _real(index_root)
    for allowed in (own_root, *allowed_roots):
        if asked == (root := _real(allowed)) or asked.startswith(f"{root.rstrip('/')}/"):
            return
    raise UsageError(
        f"{normal_index_root(index_root)} is not among the index roots that this worker may write to, and its "
        "credentials and old generations are at stake: name it in the worker's own environment "
        "(SUMMIDX_ALLOWED_INDEX_ROOTS) or file (`allowed_index_roots`), or leave --index-root (index_root) out"
    )


def _real(index_root: str) -> str:
    return normal_index_root(index_root) if is_uri(index_root) else os.path.realpath(Path(index_root).expanduser())
