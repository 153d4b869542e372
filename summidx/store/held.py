"""What search reads of a small table, held in memory, and what a search of any table gives."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from summidx.records import Level


@dataclass(frozen=True, slots=True)
class Match:
    """A row that a search found, and its raw score: of BM25, or the cosine of query and vector."""

    row: int
    score: float


@dataclass(frozen=True)
class HeldRows:
    """All rows of a table as far as search reads them, in the writer's order."""

    columns: pa.Table
    vectors: npt.NDArray[np.float32]
    """(rows, dim)."""

    @classmethod
    def of(cls, found: pa.Table, dim: int) -> "HeldRows":
        """Take over what was read, which has the columns `row` and `vector`."""
        if (np.diff(found.column("row").to_numpy()) < 0).any():
            found = found.sort_by("row")
        return cls(found.drop_columns(["vector"]).combine_chunks(), vectors_of(found, dim))

    @cached_property
    def _levels(self) -> npt.NDArray[np.object_]:
        return np.array(self.columns.column("level").to_pylist(), object)

    @property
    def nbytes(self) -> int:
        """Of memory."""
        return int(self.columns.nbytes + self.vectors.nbytes)

    def find_rows(self, column: Literal["name", "path"], values: Sequence[str], levels: Sequence[str]) -> list[int]:
        """Rows of some levels whose `column` is one of `values`, in the writer's order."""
        mask = pc.is_in(self.columns.column(column), value_set=pa.array(values, pa.string()))
        mask = pc.and_(mask, pc.is_in(self.columns.column("level"), value_set=pa.array(levels, pa.string())))
        return list(self.columns.column("row").filter(mask).to_pylist())

    def nearest(
        self, vector: npt.NDArray[np.float32], k: int, levels: Iterable[Level] | None, rows: Sequence[int] | None
    ) -> list[Match]:
        """The k rows whose vectors have the largest cosine with `vector`, best first; of some levels, or of `rows`."""
        among = np.arange(len(self.vectors)) if rows is None else np.array(sorted(rows))
        if levels is not None:
            among = among[np.isin(self._levels[among], [level.value for level in levels])]
        chosen = self.vectors if len(among) == len(self.vectors) else self.vectors[among]
        cosines = cosines_of(chosen, vector)
        best = np.argpartition(-cosines, k - 1)[:k] if k < len(cosines) else np.arange(len(cosines))
        return rank_matches(Match(int(among[at]), float(cosines[at])) for at in best)


def vectors_of(found: pa.Table, dim: int) -> npt.NDArray[np.float32]:
    """(rows, dim): the column `vector`."""
    values = found.column("vector").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vectors: npt.NDArray[np.float32] = values.reshape(-1, dim)
    return vectors


def cosines_of(values: npt.NDArray[np.float32], vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Of each row of `values`, whose rows are L2-normalised, with `vector`."""
    cosines: npt.NDArray[np.float32] = values @ vector / max(float(np.linalg.norm(vector)), 1e-9)
    return cosines


def rank_matches(matches: Iterable[Match]) -> list[Match]:
    """Best first; equal scores by row."""
    return sorted(matches, key=lambda match: (-match.score, match.row))
