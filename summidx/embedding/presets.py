"""Pure: what the makers of well-known models say of their use, where the models' own files do not.

A model's own files come first: the prompts of its `config_sentence_transformers.json`, the pooling of its modules. A
preset names the prompts that these files keep under names of their own, gives those that they leave to the caller, and
the pooling for a copy that has lost its modules. Precision is nobody's to say (`sentence_transformers`), and a text's
length is the tokenizer's. A folder is known by its name, a copy on a hub by the last part of its id.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

QUERY_NAMES = ("query",)
DOCUMENT_NAMES = ("document", "passage", "corpus")
"""Names of prompts that sentence-transformers itself looks for (`encode_query`, `encode_document`)."""


@dataclass(frozen=True, slots=True)
class Preset:
    """How a family of models is to be used."""

    names: re.Pattern[str]
    """Of the last part of an id, as a whole, whatever its case."""
    source: str
    """Where its makers say so."""
    query_prompt: str = ""
    document_prompt: str = ""
    query_name: str = "query"
    """The name under which its own files keep the query's prompt."""
    document_name: str = "document"
    pooling: str = ""
    """As `embedding.pooling`, for a copy without `modules.json`."""
    refused: str = ""
    """Why its vectors cannot be had here, else ""."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """What stands before a text."""

    query: str = ""
    document: str = ""


def _names(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_WEB_SEARCH = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"

PRESETS = (
    Preset(_names(r"all-MiniLM-L\d+-v\d"), "huggingface.co/sentence-transformers/all-MiniLM-L6-v2", pooling="mean"),
    Preset(
        _names(r"(multilingual-)?e5-(small|base|large)(-v2|-unsupervised)?"),
        "huggingface.co/intfloat/e5-base-v2, FAQ 1: each text starts with one of them, or retrieval suffers",
        query_prompt="query: ",
        document_prompt="passage: ",
        pooling="mean",
    ),
    Preset(
        _names(r"multilingual-e5-large-instruct"),
        "huggingface.co/intfloat/multilingual-e5-large-instruct: a task before queries, nothing before documents",
        query_prompt=f"{_WEB_SEARCH} ",
        pooling="mean",
    ),
    Preset(
        _names(r"bge-(small|base|large)-en(-v1\.5)?"),
        "huggingface.co/BAAI/bge-base-en-v1.5: an instruction before queries for passages, none before those",
        query_prompt="Represent this sentence for searching relevant passages: ",
        pooling="cls",
    ),
    Preset(_names(r"bge-m3"), "huggingface.co/BAAI/bge-m3: no instruction", pooling="cls"),
    Preset(
        _names(r"Qwen3-Embedding-(0\.6B|4B|8B)"),
        "huggingface.co/Qwen/Qwen3-Embedding-0.6B: `prompts` of its config_sentence_transformers.json",
        query_prompt=_WEB_SEARCH,
        pooling="lasttoken",
    ),
    Preset(
        _names(r"CodeRankEmbed|nomic-embed-code"),
        "huggingface.co/nomic-ai/CodeRankEmbed: queries must have this prefix, code has none",
        query_prompt="Represent this query for searching relevant code: ",
    ),
    Preset(
        _names(r"nomic-embed-text-v1(\.5)?"),
        "huggingface.co/nomic-ai/nomic-embed-text-v1: a text must have the prefix of its task",
        query_prompt="search_query: ",
        document_prompt="search_document: ",
        pooling="mean",
    ),
    Preset(
        _names(r"jina-embeddings-v2-(small-en|base-(en|de|es|zh|code))"),
        "huggingface.co/jinaai/jina-embeddings-v2-base-code: mean pooling, no prefix; its layers are its makers' code",
        pooling="mean",
    ),
    Preset(
        _names(r"jina-code-embeddings-(0\.5b|1\.5b)"),
        "huggingface.co/jinaai/jina-code-embeddings-1.5b: its files keep the prompts of each of its tasks",
        query_prompt="Find the most relevant code snippet given the following query:\n",
        document_prompt="Candidate code snippet:\n",
        query_name="nl2code_query",
        document_name="nl2code_document",
        pooling="lasttoken",
    ),
    Preset(
        _names(r"jina-embeddings-v[34].*"),
        "huggingface.co/jinaai/jina-embeddings-v3: an adapter is chosen for each task",
        refused="it embeds queries and documents by different adapters, which summidx does not switch",
    ),
)


def find_preset(names: Iterable[str]) -> Preset | None:
    """The preset of a model that goes by one of these names: ids, folders, paths in a hub's cache."""
    for name in names:
        last = re.split(r"[/\\]|--", name.rstrip("/\\"))[-1]
        for preset in PRESETS:
            if preset.names.fullmatch(last):
                return preset
    return None


def choose_prompts(
    own: Mapping[str, str], preset: Preset | None, *, query: str | None = None, document: str | None = None
) -> Prompts:
    """What stands before texts: what was set, else what the model's own files say, else its preset.

    sentence-transformers 6.2 gives every model an empty prompt `document`, and so never finds one named `passage`; an
    empty prompt of the model's own counts here as none.

    Args:
        own: prompts of the model's own files, by name.
        preset: of its family.
        query: as set; None: not set.
        document: as set; None: not set.
    """
    preset = preset or Preset(_names(""), "")
    if query is None:
        query = _first(own, (*QUERY_NAMES, preset.query_name)) or preset.query_prompt
    if document is None:
        document = _first(own, (*DOCUMENT_NAMES, preset.document_name)) or preset.document_prompt
    return Prompts(query, document)


def _first(own: Mapping[str, str], names: Iterable[str]) -> str:
    return next((own[name] for name in names if own.get(name)), "")
