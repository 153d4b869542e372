"""Documents, vectors and manifests of small real indexes."""

from collections.abc import Sequence

import numpy as np

from summidx.records import Document, Level, Manifest, Origin, Status, Usage, Vectors, count_documents


def build_document(document_id: str, **values: object) -> Document:
    path, _, qualified_name = document_id.partition("::")
    defaults = {
        "id": document_id,
        "level": Level.FUNCTION if qualified_name else Level.FILE,
        "path": path,
        "name": qualified_name.rpartition(".")[2] or path,
        "qualified_name": qualified_name or path,
        "language": "python",
        "start_line": 1,
        "end_line": 9,
        "signature": "def f()",
        "summary": f"Summary of {document_id}.",
        "keywords": ("retry", "adapter"),
        "imports": (),
        "calls": ("b.py::g",),
        "called_by": (),
        "status": Status.OK,
        "origin": Origin.EXTRACTIVE,
        "reason": "",
        "truncated": False,
        "is_test": False,
        "is_secondary": False,
        "content_hash": "00",
        "summary_key": "",
        "model": "",
        "prompt_version": "1",
        "tokens_in": 0,
        "tokens_out": 0,
        "search_text": "retry adapter",
    }
    return Document(**(defaults | values))


def build_vectors(n: int, dim: int = 4) -> Vectors:
    values = np.random.default_rng(n).normal(size=(n, dim)).astype(np.float32)
    return Vectors(values / np.linalg.norm(values, axis=1, keepdims=True))


def build_manifest(documents: Sequence[Document], **values: object) -> Manifest:
    defaults = {
        "name": "repo",
        "publish_id": "p1",
        "generation": "g1",
        "build_key": "key",
        "source": f"/repos/{values.get('name', 'repo')}",
        "commit": "c1",
        "tree": "t1",
        "counts": count_documents(documents),
        "skips": {},
        "usage": Usage(durations_s={"write": 0.5}),
        "summarizer": "extractive",
        "embedding_model": "hashing",
        "dim": 4,
        "prompt_version": "1",
        "tool_version": "0.1.0",
        "built_at": "2026-11-24T10:00:00+00:00",
    }
    return Manifest(**(defaults | values))
