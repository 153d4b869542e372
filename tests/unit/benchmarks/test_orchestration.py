"""The nightly of the benchmark has nothing to do, and what is measured is judged as the targets have it."""

import pytest

from benchmarks import orchestration
from benchmarks.orchestration import EXTRACTIVE, judge, make_fleet
from summidx.plan import make_plan
from summidx.request import BuildRequest
from summidx.settings import load_settings


def test_every_repository_of_the_fleet_has_an_index_that_verifies(tmp_path, monkeypatch):
    monkeypatch.setattr(orchestration, "NAMES", 3)
    fleet = make_fleet(tmp_path / "fleet", 5)
    settings = load_settings({**EXTRACTIVE, "index_root": str(fleet.index_root)})
    refs = BuildRequest.from_parameters({"repos_root": str(fleet.folder / "repos")}).repos(settings)

    plan = make_plan(refs, settings)

    assert [repo.why for repo in plan.repos] == ["up to date"] * 5
    assert len({repo.pin.name for repo in plan.repos}) == 5
    assert len({repo.pin.commit for repo in plan.repos}) == 2, "one content for each 3"
    before = (fleet.index_root / "service-0000" / "CURRENT").stat().st_mtime_ns
    assert make_fleet(tmp_path / "fleet", 5) == fleet
    assert (fleet.index_root / "service-0000" / "CURRENT").stat().st_mtime_ns == before, "it is kept"


@pytest.mark.parametrize(("stock_s", "met"), [(200.0, True), (100.0, False)])
def test_the_median_of_our_runs_is_judged_by_the_time_and_by_stock(stock_s, met):
    ours = [{"until_shown_s": seconds} for seconds in (90.0, 30.0, 20.0)]
    judged = judge({"ours": ours, "stock": [{"until_shown_s": stock_s}]})
    assert (judged["ours_s"], judged["target_met"]) == (30.0, True)
    assert (judged["of_stock"], judged["met_of_stock"]) == (30.0 / stock_s, met)


def test_a_run_that_started_a_worker_or_loaded_torch_does_not_count():
    untouched = {"worker_processes": 0, "gpu_libraries": []}
    assert orchestration._check_untouched(untouched) == untouched
    for touched in ({"worker_processes": 1}, {"gpu_libraries": ["libtorch.so"]}):
        with pytest.raises(RuntimeError, match="nothing to do"):
            orchestration._check_untouched({**untouched, **touched})
