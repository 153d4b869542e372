"""What a hostile repository costs, each by itself: at most 60 s of CPU time and 1 GB, whatever it holds."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest
from hostile import TRAPS, Corpus
from hostile_build import build

from summidx.records import Outcome

MAX_CPU_S = 60
MAX_RSS_KIB = 1_000_000


@pytest.fixture(scope="module")
def builder():
    """A process to build in, as lean as a worker's: one that is forked counts what the tests before have in memory."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize("name", sorted(name for name, trap in TRAPS.items() if trap.ending == "built"))
def test_a_build_of_it_is_cheap(name, builder, tmp_path):
    corpus = Corpus(tmp_path)
    corpus.outside.mkdir()
    (corpus.outside / "private.py").write_text("OUTSIDEWORD = 1\n")
    TRAPS[name].make(corpus, corpus.repos / name)

    cost = builder.submit(build, name, corpus.repos / name, tmp_path / "index").result()

    assert cost.report.outcome is Outcome.BUILT
    assert cost.report.counts["file"]
    assert not corpus.canary.exists()
    assert cost.cpu_s < MAX_CPU_S
    assert cost.children_kib <= MAX_RSS_KIB, "the parsing process"
    assert cost.grown_kib < MAX_RSS_KIB, "this one"
