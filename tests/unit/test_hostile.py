"""What a hostile repository costs, each by itself: at most 60 s of CPU time and 1 GB, whatever it holds."""

import resource
import time
import uuid

import pytest
from hostile import TRAPS, Corpus

from summidx.engine import Engine
from summidx.pipeline import index_repo
from summidx.records import Outcome, PinnedRepo, RepoRef
from summidx.settings import load_settings
from summidx.sources import resolve

MAX_CPU_S = 60
MAX_RSS_KIB = 1_000_000


@pytest.mark.parametrize("name", sorted(name for name, trap in TRAPS.items() if trap.ending == "built"))
def test_a_build_of_it_is_cheap(name, tmp_path):
    corpus = Corpus(tmp_path)
    corpus.outside.mkdir()
    (corpus.outside / "private.py").write_text("OUTSIDEWORD = 1\n")
    TRAPS[name].make(corpus, corpus.repos / name)
    settings = load_settings({"index_root": str(tmp_path / "index"), "embedding": {"model": "hashing"}})
    engine = Engine(settings)
    before, own_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.process_time()
    own_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        source = resolve(RepoRef(name, str(corpus.repos / name)), settings.sources)
        pinned = PinnedRepo(
            name, str(corpus.repos / name), source.commit, engine.build_key(source.tree), uuid.uuid4().hex
        )
        report = index_repo(pinned, engine)
    finally:
        engine.close()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert report.outcome is Outcome.BUILT
    assert report.counts["file"]
    assert not corpus.canary.exists()
    children_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert children_s + time.process_time() - own_s < MAX_CPU_S
    assert after.ru_maxrss <= max(before.ru_maxrss, MAX_RSS_KIB), "the parsing process"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - own_kib < MAX_RSS_KIB, "this one"
