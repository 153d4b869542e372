"""What an index can be exported as. Imports nothing heavy."""

from enum import StrEnum


class Format(StrEnum):
    """What an index can be exported as."""

    JSONL = "jsonl"
    PARQUET = "parquet"
    MARKDOWN = "markdown"
