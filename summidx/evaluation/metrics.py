"""Pure: how good rankings are, as LocAgent's evaluation counts: all gold items of an instance within the first k."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

ACC_AT: Mapping[str, tuple[int, ...]] = {"files": (1, 3, 5, 10), "modules": (5, 10), "functions": (5, 10)}
RECALL_AT = (5, 10, 20, 50)
LEVELS = tuple(ACC_AT)


@dataclass(frozen=True, slots=True)
class LevelResult:
    """One instance at one level: gold items, the rank of each (1-based; None: not found), what stood before them."""

    gold: tuple[str, ...]
    ranks: tuple[int | None, ...]
    outranked_by: tuple[str, ...]
    """The first items that stand before the last gold item and are none."""

    def hits(self, k: int) -> bool:
        """Whether all gold items are within the first k."""
        return all(rank is not None and rank <= k for rank in self.ranks)

    def recall(self, k: int) -> float:
        """Share of the gold items within the first k."""
        return sum(rank is not None and rank <= k for rank in self.ranks) / len(self.ranks)

    @property
    def reciprocal_rank(self) -> float:
        """1 / rank of the first gold item; 0 where none is found."""
        found = [rank for rank in self.ranks if rank is not None]
        return 1 / min(found) if found else 0.0


OUTRANKED_KEPT = 5


def normalize_entity(entity: str) -> str:
    """`path:Class.method` as it is compared: a constructor counts as its class, `@line` of an id is dropped."""
    path, _, name = entity.partition(":")
    name = name.partition("@")[0].removesuffix(".__init__")
    return f"{path}:{name}"


def module_of(entity: str) -> str:
    """The module of an entity: the first name after the path, a class or a free function."""
    path, _, name = entity.partition(":")
    return f"{path}:{name.partition('.')[0]}"


def rank_gold(gold: Iterable[str], ranking: Iterable[str]) -> LevelResult:
    """Where the gold items stand in a ranking, best first; what comes twice in it counts where it comes first."""
    wanted = tuple(dict.fromkeys(gold))
    order = list(dict.fromkeys(ranking))
    places = {item: place for place, item in enumerate(order, 1)}
    ranks = tuple(places.get(item) for item in wanted)
    last = max((rank if rank is not None else len(order) + 1 for rank in ranks), default=0)
    before = [item for item in order[: last - 1] if item not in wanted] if last else []
    return LevelResult(wanted, ranks, tuple(before[:OUTRANKED_KEPT]))


def summarize_level(results: Sequence[LevelResult], level: str) -> dict[str, float]:
    """Figures over all instances that have gold at a level: fractions from 0 to 1, and `n`."""
    n = len(results)

    def mean(values: Iterable[float]) -> float:
        return round(sum(values) / n, 4) if n else 0.0

    figures = {f"acc@{k}": mean(float(each.hits(k)) for each in results) for k in ACC_AT[level]}
    figures["mrr"] = mean(each.reciprocal_rank for each in results)
    figures |= {f"recall@{k}": mean(each.recall(k) for each in results) for k in RECALL_AT}
    return figures | {"n": n}
