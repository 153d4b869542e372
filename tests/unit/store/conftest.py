"""Small real indexes to publish and read."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from summidx.records import Document, Level, Manifest, Origin, Status, Usage, Vectors, count_documents
from summidx.store.generations import IndexRoot


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
        "source": "/repos/repo",
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


@pytest.fixture
def document() -> Callable[..., Document]:
    return build_document


@pytest.fixture
def vectors() -> Callable[..., Vectors]:
    return build_vectors


@pytest.fixture
def manifest() -> Callable[..., Manifest]:
    return build_manifest


@pytest.fixture
def root(tmp_path) -> IndexRoot:
    return IndexRoot(tmp_path / "indexes")


@pytest.fixture
def publish(root) -> Callable[..., bool]:
    """Stage and publish documents (two by default); fields of the manifest and `expected` may be given."""

    def publish(documents: Sequence[Document] | None = None, *, expected: str | None = None, **values: object) -> bool:
        documents = documents if documents is not None else [build_document("a.py"), build_document("a.py::f")]
        manifest = build_manifest(documents, **values)
        staging = root.stage(manifest.name, manifest.generation)
        staging.write(documents, build_vectors(len(documents)), [])
        return root.publish(staging, manifest, expected_publish_id=expected)

    return publish
