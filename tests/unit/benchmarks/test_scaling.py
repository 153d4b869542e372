"""Scaling: what is generated, what is simulated, and how the loss is told apart by cause."""

import json
import time
from pathlib import Path

import pytest

from benchmarks import simulated_embedding
from benchmarks.dry_run import dry_run
from benchmarks.scaling import EMBEDDER, Case, build_jobs, find_losses, list_sizes, make_repositories
from benchmarks.schedule import Served, list_schedule, measure_busy
from summidx.records import Level


def test_sizes_have_a_heavy_tail_and_the_mean_that_is_asked_for() -> None:
    sizes = list_sizes(200)
    assert sizes == sorted(sizes)
    assert sum(sizes) / 200 == pytest.approx(30, rel=0.02)
    assert 0.05 < sizes[-1] / sum(sizes) < 0.1
    assert sum(sizes[:100]) / sum(sizes) < 0.15


def test_every_generated_unit_is_a_call_of_its_own(tmp_path: Path) -> None:
    refs = make_repositories(tmp_path, [3, 30])
    small, large = (dry_run(ref) for ref in refs)
    assert {unit.level for unit in large.tree.units.values()} == set(Level)
    assert len(small.keys) == len(small.tree.units) == 3 + 2
    assert len(large.keys) == len(large.tree.units) == 30 + 2 + 3 + 1 + 1
    assert not small.keys & large.keys


def test_the_bound_embeds_each_document_after_its_summary(tmp_path: Path) -> None:
    (ref,) = make_repositories(tmp_path, [3])
    case = Case(2)
    jobs = build_jobs([dry_run(ref)], case)
    schedule = list_schedule(jobs, {"slot": case.slots, EMBEDDER: case.workers})
    assert sum(job.kind == EMBEDDER for job in jobs.values()) == 5
    # functions, file, repository, one after the other, and the embedding of the last
    assert schedule.makespan_s == pytest.approx(3 * 0.72 + 0.025)


def test_what_is_lost_by_cause_adds_up_to_all_that_is_lost() -> None:
    """The second of two slots begins late, an answer is late, the end is slow, and the last index is later."""
    bound = measure_busy([Served(start, start, start + 1.0) for start in range(40) for _ in range(2)], 2)
    spans = [(0.0, 1.0), (2.0, 3.0), *[(5.0 + i, 6.0 + i) for i in range(38) for _ in range(2)], (43.0, 44.0)]
    spans.append((44.0, 45.5))
    measured = measure_busy([Served(start, start, end) for start, end in spans], 2)
    lost = find_losses(measured, 47.0, bound, bound.makespan_s)
    assert sum(lost.values()) == pytest.approx(47.0 - bound.makespan_s)
    assert lost["start_up"] == pytest.approx(4.0)
    assert lost["service"] == pytest.approx(0.25)
    assert lost["tail"] > 1.5


def test_the_embedder_takes_its_time_and_keeps_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(simulated_embedding.SECONDS_VARIABLE, "0.05")
    monkeypatch.setenv(simulated_embedding.FOLDER_VARIABLE, str(tmp_path))
    embedder = simulated_embedding.load_simulated()
    start_s = time.monotonic()
    assert embedder.embed(["one", "two", "three"], input_type="document").values.shape == (3, embedder.dim)
    (file,) = tmp_path.iterdir()
    began_s, ended_s, texts = json.loads(file.read_text())
    assert texts == 3
    assert start_s <= began_s
    assert 0.15 <= ended_s - began_s <= time.monotonic() - start_s
