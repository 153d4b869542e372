"""Pure: what a person or an agent asks, as weighted terms for BM25, a text to embed, and what it names."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from summidx.errors import UsageError
from summidx.search.mentions import Mentions, find_mentions
from summidx.search.parts import Part, split_parts
from summidx.store.tokenize import tokenize_code

MAX_TERMS = 64
"""More terms cost time and add noise; the rarest are kept, since they tell documents apart."""

MAX_DENSE_CHARS = 2_000
"""Past some 500 tokens an embedding model reads nothing, and a long text has no one meaning."""

TELLING_TERMS = 12
"""Of a query over very many repositories, so many terms find what is then scored by all of them: common words cost most
of the time, and add least."""

PART_WEIGHTS: Mapping[Part, float] = {
    Part.TITLE: 2.0,
    Part.ERROR: 2.0,
    Part.PROSE: 1.0,
    Part.CODE: 0.5,
    Part.TRACEBACK: 0.5,
}
"""How much a word in a part of an issue says of where it is mended."""

STOP_WORDS = frozenset(
    """a about above after again all also am an and any are aren as at be because been before being below between both
    but by can cannot could couldn did didn do does doesn doing don down during each few for from further had hadn has
    hasn have haven having he her here hers him his how i if in into is isn it its itself just ll me more most my no nor
    not now of off on once only or other our out over own s same she should shouldn so some such t than that the
    their them then there these they this those through to too under until up ve very was wasn we were weren what when
    where which while who whom why will with won would wouldn you your""".split()  # noqa: SIM905 - 130 quoted words read worse
)
"""English words that say nothing about code. They are dropped from queries only: kept, they cost 5 to 18 points of file
accuracy on SWE-bench Lite."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query. `terms` are (word, weight), the heaviest first; `text` is embedded; `mentions` is what it names."""

    terms: tuple[tuple[str, float], ...]
    text: str
    mentions: Mentions


def build_query(text: str) -> Query:
    """Read a query of any length by its parts.

    A word of `tokenize_code` that is no stop word weighs log(1 + sum over the parts of weight x times). A query of stop
    words alone keeps them: there is nothing else to go by. What is embedded is title and prose.

    Raises:
        UsageError: there is nothing to search for in it.
    """
    parts = [(part, line) for part, line in split_parts(text) if part is not Part.NOISE] or [(Part.TITLE, text)]
    counts: dict[str, float] = defaultdict(float)
    for part, line in parts:
        for word, n in Counter(tokenize_code(line)).items():
            counts[word] += PART_WEIGHTS[part] * n
    if not counts:
        raise UsageError("there is no word in the query: nothing can be searched for")
    kept = {word: n for word, n in counts.items() if word not in STOP_WORDS} or counts
    terms = sorted(((word, math.log1p(n)) for word, n in kept.items()), key=lambda term: -term[1])
    told = [line for part, line in parts if part in (Part.TITLE, Part.PROSE)] or [line for _, line in parts]
    dense = " ".join(" ".join(told).split())[:MAX_DENSE_CHARS]
    return Query(tuple(terms), dense, find_mentions([line for part, line in parts if part is not Part.TRACEBACK]))


def limit_terms(
    terms: Sequence[tuple[str, float]], frequencies: Mapping[str, int], limit: int = MAX_TERMS
) -> list[tuple[str, float]]:
    """The terms that some document holds; of more than `limit`, those that the fewest documents hold.

    Args:
        terms: (word, weight).
        frequencies: number of documents that hold each word; a word that is missing is in none.
        limit: how many at most.
    """
    known = [(word, weight) for word, weight in terms if frequencies.get(word, 0) > 0]
    if len(known) <= limit:
        return known
    return sorted(known, key=lambda term: (frequencies[term[0]], -term[1], term[0]))[:limit]


def select_telling(
    terms: Sequence[tuple[str, float]], rarity: Mapping[str, float], limit: int = TELLING_TERMS
) -> list[tuple[str, float]]:
    """The terms that add most to a score: by them candidates are found among very many, to be scored by all.

    Args:
        terms: (word, weight).
        rarity: what each word adds to a document's score, but for how often the document has it.
        limit: how many at most.
    """
    return sorted(terms, key=lambda term: (-rarity.get(term[0], 0.0), term[0]))[:limit]
