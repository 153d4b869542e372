"""Claims: which process asks for what, so that equal keys in flight are asked for once over all processes.

A claim is a row of its key and its owner (a process, by a random name), and is in force as long as its owner's lease
is. The owner renews the lease by a heartbeat while it holds claims, by the database's clock: after a SIGKILL all its
claims end within one lease, and no claim needs an update of its own, as a deadline in each row would. A process that
was merely paused for so long finds its claims taken: a key is then asked for twice, and one answer wins as always.
"""

import logging
import math
import threading
import time
import uuid
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import sqlalchemy as sa

from summidx.cache.database import Database
from summidx.cache.rows import batches, insert_into, insert_new, locked
from summidx.cache.schema import CLAIM_OWNERS, CLAIMS
from summidx.cache.uses import Uses
from summidx.errors import CacheError

LEASE_S = 15.0
BEATS_PER_LEASE = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Unclaimed:
    """Keys that can be claimed, sorted; on those in `dead` lies the claim of a process whose lease is over."""

    keys: Sequence[str]
    dead: Sequence[str]


class Claims:
    """The claims of one process. Usable from several threads."""

    def __init__(self, database: Database, uses: Uses, *, lease_s: float = LEASE_S) -> None:
        """Make an owner that holds nothing yet.

        Args:
            database: where the claims lie.
            uses: what is written with the heartbeat.
            lease_s: how long the claims of a process that died are in force, in seconds.
        """
        self.owner = uuid.uuid4().hex
        self._database = database
        self._uses = uses
        self._lease_s = lease_s
        self._lock = threading.Lock()
        self._renewed = (0, -math.inf)
        """On which opening of the database, and when by our clock, the lease was last renewed."""
        self._held: set[str] = set()
        self._given_up: set[str] = set()
        """Keys whose claim could not be removed when it should have been: the heartbeat tries again."""
        self._heart: threading.Thread | None = None
        self._closed = threading.Event()

    def look_at(self, connection: sa.Connection, keys: Sequence[str]) -> Unclaimed:
        """Those of `keys` on which no other process has a claim in force."""
        if not keys:
            return Unclaimed([], [])
        values = {"keys": keys, "owner": self.owner}
        found = connection.execute(_claims_of_others(connection.dialect.name), values)
        claimed = {row[0]: bool(row[1]) for row in found}
        free = [key for key in keys if not claimed.get(key, False)]
        return Unclaimed(free, [key for key in free if key in claimed])

    def take(self, connection: sa.Connection, unclaimed: Unclaimed) -> set[str]:
        """Claim those of the keys that nobody else has claimed in the meantime."""
        if self._closed.is_set():
            return set(unclaimed.keys)  # nobody would hold them; who asks now asks for itself
        if self._lease_is_old():
            self._renew_lease(connection)
        if unclaimed.dead:
            self._drop_dead(connection, CLAIMS.c.key.in_(unclaimed.dead))
        statement = insert_new(CLAIMS, connection.dialect.name)
        rows = [{"key": key, "owner": self.owner} for key in unclaimed.keys]
        taken = set(connection.execute(statement, rows).scalars())
        with self._lock:
            return taken | (self._held | self._given_up).intersection(unclaimed.keys)

    def drop(self, connection: sa.Connection, keys: Iterable[str], *, of_any_owner: bool = False) -> None:
        """Remove the claims on `keys`, our own or, where the answer is there now, anyone's."""
        named = list(keys)
        if not named:
            return
        condition = sa.and_(CLAIMS.c.key.in_(named), sa.true() if of_any_owner else CLAIMS.c.owner == self.owner)
        connection.execute(sa.delete(CLAIMS).where(locked(connection, CLAIMS, condition)))

    def hold(self, keys: Iterable[str]) -> None:
        """Keep the lease up from now on: claims on `keys` were taken, and committed."""
        taken = set(keys)
        with self._lock:
            self._held.update(taken)
            self._given_up.difference_update(taken)
            if self._held and self._heart is None and not self._closed.is_set():
                interval_s = self._lease_s / BEATS_PER_LEASE
                self._heart = threading.Thread(
                    target=_beat, args=(weakref.ref(self), self._closed, interval_s), name="summidx-claims", daemon=True
                )
                self._heart.start()

    def let_go(self, keys: Iterable[str]) -> None:
        """Forget claims that were removed with their answers."""
        with self._lock:
            self._held.difference_update(keys)
            self._given_up.difference_update(keys)

    def release(self, keys: Iterable[str]) -> None:
        """Remove our claims on `keys`, so that others need not wait; should that fail, the heartbeat tries again.

        Raises:
            CacheError: the database failed.
        """
        named = list(keys)
        with self._lock:
            self._held.difference_update(named)
            self._given_up.update(named)
        for batch in batches(named):
            self._database.write(partial(self.drop, keys=batch))
            with self._lock:
                self._given_up.difference_update(batch)  # not of what is held: it may have been taken anew by now

    def renew(self) -> None:
        """One beat: renew the lease, clear away what dead processes left, write what waits to be counted.

        Raises:
            CacheError: the database failed.
        """
        with self._lock:
            given_up = sorted(self._given_up)
            idle = not self._held and not given_up
        if idle and not self._uses.waiting:
            return

        def beat(connection: sa.Connection) -> None:
            if not idle:
                self._renew_lease(connection)
                with self._lock:
                    again_ours = self._held.intersection(given_up)
                self.drop(connection, [key for key in given_up if key not in again_ours])
                self._drop_dead(connection, sa.true())
                old = CLAIM_OWNERS.c.expires_at < database_now(connection.dialect.name)
                connection.execute(sa.delete(CLAIM_OWNERS).where(old))
            self._uses.flush(connection)

        self._database.write(beat)
        with self._lock:
            self._given_up.difference_update(given_up)

    def close(self) -> None:
        """Remove all our claims and our lease. Nothing is claimed any more.

        Raises:
            CacheError: the database failed; the claims then end with the lease.
        """
        self._closed.set()
        with self._lock:
            heart, self._heart = self._heart, None
            self._held.clear()
            self._given_up.clear()
        if heart is None:
            return
        if heart is not threading.current_thread():
            heart.join()
        self._database.write(self._leave)

    def _leave(self, connection: sa.Connection) -> None:
        connection.execute(sa.delete(CLAIMS).where(locked(connection, CLAIMS, CLAIMS.c.owner == self.owner)))
        connection.execute(sa.delete(CLAIM_OWNERS).where(CLAIM_OWNERS.c.owner == self.owner))

    def _lease_is_old(self) -> bool:
        """True where the heartbeat will be too late, or was meant for a file that has been replaced."""
        opening, when = self._renewed
        return opening != self._database.openings or time.monotonic() - when > self._lease_s / 2

    def _renew_lease(self, connection: sa.Connection) -> None:
        renewed = (self._database.openings, time.monotonic())
        expires_at = database_now(connection.dialect.name) + self._lease_s
        connection.execute(
            insert_into(connection, CLAIM_OWNERS)
            .values(owner=self.owner, expires_at=expires_at)
            .on_conflict_do_update(index_elements=["owner"], set_={"expires_at": expires_at})
        )
        self._renewed = renewed

    def _drop_dead(self, connection: sa.Connection, among: sa.ColumnElement[bool]) -> None:
        """Remove claims whose owner's lease is over."""
        living = sa.select(CLAIM_OWNERS.c.owner).where(
            CLAIM_OWNERS.c.expires_at >= database_now(connection.dialect.name)
        )
        dead = among & CLAIMS.c.owner.not_in(living)
        connection.execute(sa.delete(CLAIMS).where(locked(connection, CLAIMS, dead, skip=True)))


def _beat(claims: "weakref.ref[Claims]", closed: threading.Event, interval_s: float) -> None:
    while not closed.wait(interval_s):
        owner = claims()
        if owner is None:  # never closed, and nobody has it any more
            return
        try:
            owner.renew()
        except CacheError as error:
            logger.warning("the lease on this process's claims was not renewed: %s", error)
        del owner


@cache
def _claims_of_others(dialect: str) -> sa.Select[Any]:
    """Claims on `keys` that are not of `owner`, and whether they are in force. Made once, run often."""
    in_force = sa.func.coalesce(CLAIM_OWNERS.c.expires_at, 0.0) >= database_now(dialect)
    claims = sa.select(CLAIMS.c.key, in_force).join(CLAIM_OWNERS, CLAIMS.c.owner == CLAIM_OWNERS.c.owner, isouter=True)
    others = CLAIMS.c.owner != sa.bindparam("owner")
    return claims.where(CLAIMS.c.key.in_(sa.bindparam("keys", expanding=True)), others)


def database_now(dialect: str) -> sa.ColumnElement[Any]:
    """Seconds since 1970 by the database's clock: hosts may disagree about the time."""
    if dialect == "postgresql":
        return sa.literal_column("extract(epoch from clock_timestamp())::double precision", sa.Double())
    return sa.literal_column("((julianday('now') - 2440587.5) * 86400.0)", sa.Double())
