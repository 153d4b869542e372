"""What is counted about the cache's use: lookups and hits by day, and when a row was last used.

Nothing is written for its own sake: counts wait in memory for a transaction that writes anyway, or for the end. Those
of the last moments are lost with a process that is killed. The last use is kept by day, so that a row is touched at
most once a day.
"""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable

import sqlalchemy as sa

from summidx.cache.rows import insert_into, locked, today_utc
from summidx.cache.schema import LOOKUPS

FLUSH_INTERVAL_S = 1.0
"""The row of today's count is written by every process: not in each of its transactions."""
MAX_TOUCHED = 500
"""Rows marked as used in one transaction, which must stay short."""


class Uses:
    """Uses of the cache by this process that are not in the database yet. Usable from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._touched: defaultdict[str, set[str]] = defaultdict(set)
        self._flushed_at = time.monotonic()

    def add(self, table: sa.Table, *, lookups: int = 0, hits: int = 0, unused: Iterable[str] = ()) -> None:
        """Count lookups in `table`, and remember which rows are used for the first time today."""
        with self._lock:
            day = today_utc()
            self._counts[(day, table.name, "lookups")] += lookups
            self._counts[(day, table.name, "hits")] += hits
            self._touched[table.name].update(unused)

    @property
    def waiting(self) -> bool:
        """True while there is something to write."""
        with self._lock:
            return any(self._counts.values()) or any(self._touched.values())

    @property
    def due(self) -> bool:
        """True when what waits should go with the next transaction."""
        return time.monotonic() - self._flushed_at >= FLUSH_INTERVAL_S and self.waiting

    def flush(self, connection: sa.Connection) -> None:
        """Write what waits; last in a transaction, since other processes write the same counts."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
            touched = {name: sorted(keys)[:MAX_TOUCHED] for name, keys in self._touched.items()}
            for name, used in touched.items():
                self._touched[name].difference_update(used)
            self._flushed_at = time.monotonic()
        today = today_utc()
        for name, used in sorted(touched.items()):
            if not used:
                continue
            table = LOOKUPS.metadata.tables[name]
            old = table.c.key.in_(used) & (sa.func.coalesce(table.c.used_on, "") < today)
            connection.execute(sa.update(table).where(locked(connection, table, old, skip=True)).values(used_on=today))
        for day, kind in sorted({(day, kind) for day, kind, _ in counts}):
            statement = insert_into(connection, LOOKUPS).values(
                day=day, kind=kind, lookups=counts[(day, kind, "lookups")], hits=counts[(day, kind, "hits")]
            )
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["day", "kind"],
                    set_={
                        "lookups": LOOKUPS.c.lookups + statement.excluded.lookups,
                        "hits": LOOKUPS.c.hits + statement.excluded.hits,
                    },
                )
            )
