"""Summaries and vectors by key: looked up, claimed, and put once.

What is under a key was made from exactly what the key hashes, so that an index built through the cache equals a cold
build. The first writer of a key wins and everyone uses the winner: a model that answers differently twice cannot make
two truths. Two exceptions: a row whose digest does not match its content (a bad disk, an edit by hand) reads as a miss
and is replaced by the next writer, and degraded summaries are replaced where that is asked for.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy as np
import sqlalchemy as sa

from summidx.cache.claims import LEASE_S, Claims, Unclaimed
from summidx.cache.database import Database
from summidx.cache.rows import (
    SUMMARY_ROWS,
    Found,
    Rows,
    Value,
    Vector,
    batches,
    delete_old_degraded,
    encode_rows,
    put_rows,
    read_rows,
    vector_rows,
)
from summidx.cache.url import check_cache_url
from summidx.cache.uses import Uses
from summidx.errors import CacheError
from summidx.records import Status, Summary
from summidx.settings import CachePolicy


@dataclass(frozen=True, slots=True)
class LookedUp:
    """What became of some keys: those in neither are claimed by another process, which is asking for them."""

    found: Mapping[str, Summary]
    to_ask: frozenset[str]
    """Nobody has them; they are ours to ask for now, and ours to put or to release."""


class Cache:
    """Summaries and vectors by key. Usable from several threads and processes; make one in each process."""

    def __init__(self, url: str, *, policy: CachePolicy = CachePolicy.READ_WRITE, lease_s: float = LEASE_S) -> None:
        """Open the cache, and create or migrate its tables where that is needed.

        Args:
            url: `sqlite:///FILE` (its folder is made) or `postgresql+psycopg://...`.
            policy: `read-only` writes and makes nothing (what is not there reads as empty); `off` opens nothing.
            lease_s: how long the claims of a process that died are in force, in seconds.

        Raises:
            UsageError: the URL is of no database that can hold a cache, or its driver is not installed.
            CacheError: the database cannot be reached, or was made by a newer summidx.
        """
        check_cache_url(url)
        self._uses = Uses()
        self._writes = policy is CachePolicy.READ_WRITE
        self._database = None if policy is CachePolicy.OFF else Database(url, read_only=policy is CachePolicy.READ_ONLY)
        self._claims = Claims(self._database, self._uses, lease_s=lease_s) if self._database and self._writes else None

    def __repr__(self) -> str:
        return f"Cache({self._database.shown if self._database else 'off'!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def get_summaries(self, keys: Iterable[str]) -> dict[str, Summary]:
        """The summaries under `keys`; a key that has none, or a damaged one, is left out.

        Raises:
            CacheError: the database failed.
        """
        return self._get(SUMMARY_ROWS, keys)

    def look_up(self, keys: Iterable[str], *, again_before: datetime | None = None, polling: bool = False) -> LookedUp:
        """The summaries under `keys`; those that nobody has and nobody asks for are claimed, and ours to ask for.

        Args:
            keys: any number.
            again_before: degraded summaries made before this moment read as none.
            polling: they were looked up before, and another process had claimed them: one lookup is counted once.

        Raises:
            CacheError: the database failed.
        """
        database, claims = self._database, self._claims
        if database is None or not database.version:
            return LookedUp({}, frozenset(keys))
        found: dict[str, Summary] = {}
        to_ask: set[str] = set()
        for batch in batches(keys):
            there, free = database.read(partial(self._peek, keys=batch, again_before=again_before))
            found.update(there.values)
            self._count(SUMMARY_ROWS, there, 0 if polling else len(batch))
            if claims is None:
                to_ask.update(free.keys)
            elif free.keys:
                late, mine = database.write(partial(self._claim, claims, unclaimed=free, again_before=again_before))
                claims.hold(mine)
                found.update(late.values)
                self._count(SUMMARY_ROWS, late, 0)
                to_ask.update(mine)
        return LookedUp(found, frozenset(to_ask))

    def release(self, keys: Iterable[str]) -> None:
        """Give up our claims on `keys`: they will not be put, and others may ask for them.

        Raises:
            CacheError: the database failed; the claims are released as soon as it is back.
        """
        if self._claims is not None:
            self._claims.release(keys)

    def put_summaries(
        self, summaries: Mapping[str, Summary], *, again_before: datetime | None = None
    ) -> dict[str, Summary]:
        """Put each summary under its key unless there is one, and return what is there now: use that, not yours.

        Claims on the keys end with it, whoever has them.

        Args:
            summaries: by `keys.summary_key`.
            again_before: degraded summaries made before this moment count as none, and are replaced.

        Raises:
            ValueError: a summary failed or has no key; only what is ok or degraded is ever cached.
            CacheError: the database failed.
        """
        for key, summary in summaries.items():
            if not key or summary.status not in (Status.OK, Status.DEGRADED):
                raise ValueError(f"a summary of status {summary.status} under key {key!r} must not be cached")
        return self._put(SUMMARY_ROWS, summaries, again_before=again_before)

    def get_vectors(self, keys: Iterable[str]) -> dict[str, Vector]:
        """The vectors under `keys`, each of shape (dim,), float32; a key that has none is left out.

        Raises:
            CacheError: the database failed.
        """
        return self._get(vector_rows(), keys)

    def put_vectors(self, vectors: Mapping[str, Vector], *, model: str) -> dict[str, Vector]:
        """Put each vector, of shape (dim,), under its key unless there is one, and return what is there now.

        Args:
            vectors: by `keys.vector_key`.
            model: identity of the embedding model, for the record.

        Raises:
            ValueError: a vector is not one-dimensional, or not finite.
            CacheError: the database failed.
        """
        for key, vector in vectors.items():
            if not key or vector.ndim != 1 or not np.isfinite(vector).all():
                raise ValueError(f"the vector under key {key!r} must have one dimension and finite values")
        return self._put(vector_rows(model), vectors)

    def close(self) -> None:
        """Release all claims, write what was counted, and close all connections."""
        if self._database is None:
            return
        with suppress(CacheError):  # claims then end with their lease, and a count is lost
            if self._claims is not None:
                self._claims.close()
                while self._uses.waiting:
                    self._database.write(self._uses.flush)
        self._database.close()

    def _get(self, rows: Rows[Value], keys: Iterable[str]) -> dict[str, Value]:
        found: dict[str, Value] = {}
        if self._database is None or not self._database.version:
            return found
        for batch in batches(keys):
            there = self._database.read(partial(read_rows, rows=rows, keys=batch, with_use=self._writes))
            found.update(there.values)
            self._count(rows, there, len(batch))
        return found

    def _count(self, rows: Rows[Value], there: Found[Value], lookups: int) -> None:
        if self._writes:
            self._uses.add(rows.table, lookups=lookups, hits=len(there.values), unused=there.unused)

    def _peek(
        self, connection: sa.Connection, *, keys: Sequence[str], again_before: datetime | None
    ) -> tuple[Found[Summary], Unclaimed]:
        """The summaries under `keys`, and those keys that have none and no claim of another process in force."""
        there = read_rows(connection, SUMMARY_ROWS, keys, again_before=again_before, with_use=self._writes)
        missing = [key for key in keys if key not in there.values]
        return there, Unclaimed(missing, []) if self._claims is None else self._claims.look_at(connection, missing)

    @staticmethod
    def _claim(
        claims: Claims, connection: sa.Connection, *, unclaimed: Unclaimed, again_before: datetime | None
    ) -> tuple[Found[Summary], set[str]]:
        """Claim keys, except those that were put in the meantime."""
        mine = claims.take(connection, unclaimed)
        there = read_rows(connection, SUMMARY_ROWS, unclaimed.keys, again_before=again_before)
        claims.drop(connection, sorted(mine & there.values.keys()))
        return there, mine - there.values.keys()

    def _put(
        self, rows: Rows[Value], values: Mapping[str, Value], *, again_before: datetime | None = None
    ) -> dict[str, Value]:
        if self._database is None or not self._writes:
            return dict(values)
        winners: dict[str, Value] = {}
        for batch in batches(values):
            encoded = encode_rows(rows, values, batch)
            theirs = self._database.write(
                partial(self._put_batch, rows=rows, encoded=encoded, again_before=again_before)
            )
            winners.update((key, theirs.get(key, values[key])) for key in batch)
            if self._claims is not None and rows is SUMMARY_ROWS:
                self._claims.let_go(batch)
        return winners

    def _put_batch(
        self,
        connection: sa.Connection,
        *,
        rows: Rows[Value],
        encoded: Mapping[str, dict[str, Any]],
        again_before: datetime | None,
    ) -> dict[str, Value]:
        if again_before is not None:
            delete_old_degraded(connection, list(encoded), again_before)
        theirs = put_rows(connection, rows, encoded)
        if self._claims is not None and rows is SUMMARY_ROWS:
            self._claims.drop(connection, encoded, of_any_owner=True)
        if self._uses.due:
            self._uses.flush(connection)
        return theirs
