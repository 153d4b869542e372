"""Pure: units and what became of them, as the rows of an index."""

import hashlib
from collections.abc import Mapping

from summidx.hierarchy import Tree
from summidx.records import Document, Hit, Level, Origin, Status, Summary, Unit, UnitFailure
from summidx.store.tokenize import build_search_text

_WRITTEN = frozenset({Origin.LLM, Origin.REDUCED})
"""By a language model."""


def build_documents(
    tree: Tree, outcomes: Mapping[str, Summary | UnitFailure], levels: frozenset[Level], *, searchable: bool = True
) -> tuple[Document, ...]:
    """One document for each unit of `levels`, in printing order of the tree.

    Without `searchable` they have no words for BM25, which are much of the work: enough for who only counts them.
    """
    return tuple(
        build_document(unit, outcomes[unit.id], searchable=searchable)
        for unit in tree.units.values()
        if unit.level in levels
    )


def build_document(unit: Unit, outcome: Summary | UnitFailure, *, searchable: bool = True) -> Document:
    """The row of one unit. A failed one has no summary and no origin, and its reason names the error."""
    summary = outcome if isinstance(outcome, Summary) else None
    failure = outcome if isinstance(outcome, UnitFailure) else None
    text = summary.text if summary else ""
    keywords = summary.keywords if summary else ()
    return Document(
        id=unit.id,
        level=unit.level,
        path=unit.path,
        name=unit.name,
        qualified_name=unit.qualified_name,
        language=unit.language,
        start_line=unit.start_line,
        end_line=unit.end_line,
        signature=unit.signature,
        summary=text,
        keywords=keywords,
        imports=unit.imports,
        calls=unit.calls,
        called_by=unit.called_by,
        status=summary.status if summary else Status.FAILED,
        origin=summary.origin if summary else None,
        reason=f"{failure.error}: {failure.message}" if failure else summary.reason if summary else "",
        truncated=summary.truncated if summary else False,
        is_test=unit.is_test,
        is_secondary=unit.is_secondary,
        content_hash=hashlib.sha256(unit.own_source.encode("utf-8", "surrogatepass")).hexdigest(),
        summary_key=summary.key if summary else "",
        model=summary.model if summary else "",
        prompt_version=summary.prompt_version if summary else "",
        tokens_in=summary.tokens_in if summary else 0,
        tokens_out=summary.tokens_out if summary else 0,
        search_text=_search_text(unit, summary) if searchable else "",
    )


def _search_text(unit: Unit, summary: Summary | None) -> str:
    """Words for BM25. What no model wrote of a function has only words of its source: they would count twice."""
    if summary is None or (unit.level is Level.FUNCTION and summary.origin not in _WRITTEN):
        return build_search_text(unit)
    return build_search_text(unit, summary.text, summary.keywords)


def embedding_text(document: Document | Hit) -> str:
    """What a document's vector stands for: `qualified name: summary`; its signature where it has no summary."""
    return _embedding_text(document.qualified_name, document.summary, document.signature)


def embedding_text_of(unit: Unit, summary: Summary) -> str:
    """The same, before there is a document."""
    return _embedding_text(unit.qualified_name, summary.text, unit.signature)


def _embedding_text(qualified_name: str, summary: str, signature: str) -> str:
    return f"{qualified_name}: {summary or signature}"
