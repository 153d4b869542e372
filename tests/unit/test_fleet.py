"""What `make chaos` compares with: it must see each way in which an index can be wrong."""

import shutil
from contextlib import closing
from pathlib import Path

import lancedb
import pytest
from fleet import find_differences, make_fleet

from summidx.engine import Engine
from summidx.pipeline import index_repo
from summidx.plan import make_plan
from summidx.records import RepoRef
from summidx.settings import load_settings
from summidx.store.generations import IndexRoot


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of one repository."""
    root = tmp_path_factory.mktemp("oracle")
    fleet = make_fleet(root / "fleet", generated=1, functions=4, real=0)
    settings = load_settings({"index_root": str(root / "index"), "embedding": {"model": "hashing"}})
    with closing(Engine(settings)) as engine:
        refs = [RepoRef(name, str(source)) for name, source in fleet.sources.items()]
        for planned in make_plan(refs, settings).repos:
            index_repo(planned.pin, engine)
    return root / "index"


@pytest.fixture
def index(oracle: Path, tmp_path: Path) -> Path:
    shutil.copytree(oracle, tmp_path / "index")
    return tmp_path / "index"


def open_table(index: Path) -> lancedb.table.Table:
    root = IndexRoot(index)
    return lancedb.connect(root.generation_folder("repo000", root.require_manifest("repo000"))).open_table("documents")


def test_equal_indexes_do_not_differ(index: Path, oracle: Path) -> None:
    assert find_differences(index, oracle, ["repo000"]) == []


def test_an_index_that_is_not_there_is_seen(index: Path, oracle: Path) -> None:
    (index / "repo000" / "CURRENT").unlink()
    assert find_differences(index, oracle, ["repo000"]) == ["repo000: not published"]


def test_a_lost_document_is_seen(index: Path, oracle: Path) -> None:
    open_table(index).delete("level = 'repo'")
    assert find_differences(index, oracle, ["repo000"]) == ["repo000: lost ."]


def test_a_document_that_is_there_twice_is_seen(index: Path, oracle: Path) -> None:
    table = open_table(index)
    table.add(table.to_arrow().slice(0, 1))
    (found,) = find_differences(index, oracle, ["repo000"])
    assert found.startswith("repo000: 2 documents ")


def test_a_changed_value_and_a_changed_vector_are_seen(index: Path, oracle: Path) -> None:
    table = open_table(index)
    vector = [0.0] * (len(table.to_arrow()["vector"][0].as_py()) - 1) + [1.0]
    table.update(where="level = 'repo'", values={"summary": "Something else.", "vector": vector})
    (found,) = find_differences(index, oracle, ["repo000"])
    assert found == "repo000: .: ['summary', 'vector']"
