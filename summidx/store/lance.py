"""What the tables of an index and of the fleet have in common: names, indexes, queries by words, faults."""

import re
from collections.abc import Sequence

from lancedb.index import FTS, BTree, IvfFlat
from lancedb.query import BooleanQuery, FullTextQuery, MatchQuery, Occur
from lancedb.table import Table

from summidx.errors import StorageUnavailable, StoreError
from summidx.store.names import without_surrogates
from summidx.store.place import TableAddress
from summidx.store.refusals import describe_refusal

DOCUMENTS = "documents"
WORDS = "words"

APPROXIMATE_FROM_ROWS = 50_000
"""Below, an exact search by vectors takes less time than others of a query's steps (benchmarks/README.md)."""

WORD_GROUPS = 4
"""So many clauses at most has a query by which candidates are found: each costs some 0.4 ms."""

_PARTITIONS = IvfFlat(distance_type="cosine", max_iterations=10, sample_rate=64)


_WHOLE_WORDS = FTS(
    base_tokenizer="whitespace",
    lower_case=False,
    stem=False,
    remove_stop_words=False,
    ascii_folding=False,
    max_token_length=None,
    with_position=False,
)
"""The words are ours already (`tokenize`): LanceDB only counts them."""


_OF_STORAGE = re.compile(r"Generic S3 error|store: \"S3\"|Failed to get AWS credentials|PermissionDenied|error sending")
"""LanceDB's errors have no types of their own: what its client of object storage says is no damage of the index."""


def describe_fault(address: TableAddress, error: Exception) -> StoreError:
    """What LanceDB says of a table, as one of our errors: damage, or object storage that does not answer."""
    if address.options and _OF_STORAGE.search(str(error)):
        return StorageUnavailable(
            f"the object storage of {address.uri} does not answer or refuses, so the index cannot be read: "
            f"{describe_refusal(str(error))}"
        )
    return StoreError(f"the index in {address.uri} is damaged ({first_line(error)}): build it again")


def index_words(table: Table) -> None:
    """Build the index for BM25 over the column `search_text`."""
    table.create_index("search_text", config=_WHOLE_WORDS)


def index_values(table: Table, column: str) -> None:
    """Build an index over a column whose rows are asked for by its values."""
    table.create_index(column, config=BTree())


def add_vector_index(table: Table, rows: int) -> None:
    """Build an approximate index over the column `vector` where that pays: a table of few rows is searched exactly."""
    if rows >= APPROXIMATE_FROM_ROWS:
        table.create_index("vector", config=_PARTITIONS)


def match_words(terms: Sequence[tuple[str, float]]) -> BooleanQuery:
    """A query by BM25; the scores of the terms, times their weights, are added."""
    return BooleanQuery([(Occur.SHOULD, _match_word(word, weight)) for word, weight in terms])


def match_word_groups(terms: Sequence[tuple[str, float]]) -> BooleanQuery:
    """The same, nearly, in half the time: terms of like weight are one clause, with their mean weight."""
    ordered = sorted(terms, key=lambda term: -term[1])
    size = -(-len(ordered) // WORD_GROUPS)
    groups = [ordered[at : at + size] for at in range(0, len(ordered), size)]
    return match_words(
        [(" ".join(word for word, _ in group), sum(each for _, each in group) / len(group)) for group in groups]
    )


def first_line(error: Exception) -> str:
    """The first line of an error's text, at most 300 characters of it."""
    return str(error).strip().partition("\n")[0][:300]


def _match_word(word: str, weight: float) -> FullTextQuery:
    # mypy does not see the defaults of these fields
    return MatchQuery(without_surrogates(word), "search_text", boost=weight)  # type: ignore[call-arg]
