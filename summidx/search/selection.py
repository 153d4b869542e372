"""Which indexes a search is over: by name, by pattern, or all; and of very many the few that the fleet table picks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from summidx.errors import UnknownIndex
from summidx.search.fleet import Fleet
from summidx.store.fleet_tables import FleetFrequency
from summidx.store.generations import IndexRoot

PATTERN = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Names:
    """What a search was asked to be over. `named` must be searched; `matched` are others, by patterns or since all."""

    named: tuple[str, ...]
    matched: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """The indexes to open."""

    names: tuple[str, ...]
    strict: frozenset[str] = frozenset()
    """Of those, the ones that must not be left out."""
    fleet: Fleet | None = None
    """Where it picked some of them: words are as rare as it says."""
    frequencies: Sequence[Mapping[str, FleetFrequency]] = ()
    """Of the query's words, in its segments."""
    unlikely: frozenset[str] = frozenset()
    """Those that it picked last: what vectors alone find in them is not among the best."""


def match_names(root: IndexRoot, asked: Iterable[str] | None, published: Mapping[str, str]) -> Names:
    """Find the published indexes that a search is over.

    Args:
        root: the indexes.
        asked: names, or patterns as a shell has them (`*`, `?`, `[...]`); None: all.
        published: `IndexRoot.versions`.

    Raises:
        UnknownIndex: nothing has one of the names, or fits one of the patterns; the message names what there is.
    """
    if asked is None:
        if not published:
            raise UnknownIndex(f"there is nothing to search under {root.place.where}; {root.describe_names()}")
        return Names((), tuple(published))
    named: dict[str, None] = {}
    matched: dict[str, None] = {}
    for each in asked:
        if each in published:
            named[each] = None
        elif not PATTERN.isdisjoint(each):
            fitting = [name for name in published if fnmatchcase(name, each)]
            if not fitting:
                raise UnknownIndex(f"no index under {root.place.where} is named like {each!r}; {root.describe_names()}")
            matched |= dict.fromkeys(fitting)
        else:
            root.require_manifest(each)  # raises, or it was published in this moment
            named[each] = None
    if not named and not matched:
        raise UnknownIndex(f"there is nothing to search under {root.place.where}; {root.describe_names()}")
    return Names(tuple(named), tuple(name for name in matched if name not in named))
