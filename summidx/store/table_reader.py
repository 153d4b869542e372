"""A table of LanceDB, opened for reading; what is asked of it comes as an Arrow table.

It is asked by LanceDB's asynchronous client. The other one asks the table six times for one query (its schema, what
kind of index it has, ...), which takes two to three times the CPU and is most of what a small table costs.
"""

from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import lancedb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from lancedb.background_loop import LOOP
from lancedb.expr import Expr
from lancedb.query import AsyncQueryBase, AsyncStandardQuery

from summidx.errors import StoreError
from summidx.store.lance import DOCUMENTS, describe_fault, match_word_groups, match_words
from summidx.store.place import TableAddress

PROBES = 20
"""So many partitions of an approximate index are looked through."""

_PANICS = frozenset({"RustPanic", "PanicException"})
"""Some damage ends in one. Their types cannot be imported."""

T = TypeVar("T")
Q = TypeVar("Q", bound=AsyncStandardQuery)


class TableReader:
    """One table.

    Args:
        address: of the database.
        name: of the table.

    Raises:
        StoreError: at construction and from every method, when the table is missing or damaged.
    """

    def __init__(self, address: TableAddress, name: str = DOCUMENTS) -> None:
        self.address = address
        uri = address.uri
        if isinstance(uri, Path) and not (uri / f"{name}.lance").is_dir():  # connecting would make the folder
            raise StoreError(f"{uri} holds no table {name!r}: the index is damaged, build it again")
        self._table = self._wait(_open(address, name))

    @cached_property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        return self._wait(self._table.schema())

    def count(self, condition: str | None = None) -> int:
        """Number of rows; `condition` is SQL without any text of others in it."""
        return int(self._wait(self._table.count_rows(condition)))

    def read_all(self) -> pa.Table:
        """Every column of every row."""
        return self._wait(self._table.to_arrow())

    def read(self, columns: Sequence[str], *, where: Expr | None = None, limit: int | None = None) -> pa.Table:
        """Rows, in no order; all of them without `where` and `limit`."""
        query = _among(self._table.query(), where)
        return self._ask(query if limit is None else query.limit(limit), columns)

    def take(self, offsets: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """The rows at these places, in no order."""
        return self._ask(self._table.take_offsets(list(offsets)), columns)

    def search_words(
        self,
        terms: Sequence[tuple[str, float]],
        k: int,
        columns: Sequence[str],
        *,
        where: Expr | None = None,
        exact: bool = True,
        row_ids: bool = False,
    ) -> pa.Table:
        """The k best rows by BM25: the scores of the terms, times their weights, are added.

        Args:
            terms: words and weights; at least one.
            k: how many.
            columns: of the table, and `_score`.
            where: only these rows.
            exact: each word with its own weight; else terms of like weight get their mean, which takes half the time.
            row_ids: a column `_rowid`, too.
        """
        wanted = match_words(terms) if exact else match_word_groups(terms)
        query = _among(self._table.query().nearest_to_text(wanted).limit(k), where)
        return self._ask(query.with_row_id() if row_ids else query, columns)

    def search_vectors(
        self,
        vector: npt.NDArray[np.float32],
        k: int,
        columns: Sequence[str],
        *,
        where: Expr | None = None,
        exact: bool = False,
        row_ids: bool = False,
    ) -> pa.Table:
        """The k nearest rows by cosine, by the approximate index where there is one, unless it must be `exact`.

        Args:
            vector: (dim,).
            k: how many.
            columns: of the table, and `_distance`, which is 1 - cosine.
            where: only these rows.
            exact: of all rows.
            row_ids: a column `_rowid`, too.
        """
        query = self._table.query().nearest_to(vector).column("vector").distance_type("cosine").limit(k)
        query = _among(query.bypass_vector_index() if exact else query.nprobes(PROBES), where)
        return self._ask(query.with_row_id() if row_ids else query, columns)

    def _ask(self, query: AsyncQueryBase, columns: Sequence[str]) -> pa.Table:
        return self._wait(query.select(list(columns)).to_arrow())

    def _wait(self, asked: Coroutine[Any, Any, T]) -> T:
        with faults_of(self.address):
            answer: T = LOOP.run(asked)  # type: ignore[no-untyped-call]
        return answer


def _among(query: Q, where: Expr | None) -> Q:
    return query if where is None else query.where(where)


async def _open(address: TableAddress, name: str) -> lancedb.AsyncTable:
    uri = str(address.uri.absolute() if isinstance(address.uri, Path) else address.uri)  # `a:b` would be a scheme
    database = await lancedb.connect_async(uri, storage_options=dict(address.options) or None)
    return await database.open_table(name)


@contextmanager
def faults_of(address: TableAddress) -> Iterator[None]:
    """What LanceDB raises in this block, as one of our errors (`describe_fault`)."""
    try:
        yield
    except (RuntimeError, OSError, ValueError) as error:
        raise describe_fault(address, error) from error
    except BaseException as error:
        if type(error).__name__ not in _PANICS:
            raise
        raise describe_fault(address, RuntimeError("it makes LanceDB panic")) from None
