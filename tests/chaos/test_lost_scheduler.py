"""A scheduler that others run, which dies, hangs, or dies while a run still submits to it."""

import time
from functools import partial

import pytest
from dask_cluster import Cluster
from fake_llm import Answer
from fleet import make_fleet
from runs import check_all_final, check_report

from summidx.store.generations import IndexRoot

ENDS_WITHIN_S = 60
HUNG_ENDS_WITHIN_S = 120
"""What says nothing is looked at for 40 s more than what breaks its connections."""
MANY = 300


@pytest.fixture
def start_cluster(tmp_path):
    clusters = []

    def start(site, *, workers=2, threads=4):
        cluster = Cluster(tmp_path / "cluster", site, threads=threads)
        clusters.append(cluster)
        for _ in range(workers):
            cluster.start_worker()
        return cluster

    yield start
    for cluster in clusters:
        cluster.close()


def test_a_run_whose_scheduler_is_killed_ends_and_the_next_repeats_nothing_that_was_finished(
    lost_at, site, fleet, fleet_list, oracle, llm, api, form, start_cluster, check_rows, note_figures
):
    cluster = start_cluster(site)
    run = site.start(fleet_list, "--scheduler-address", cluster.address)
    assert run.wait_until(lambda: llm.calls - llm.in_flight >= lost_at * oracle.calls), run.stderr

    cluster.scheduler.kill()
    start = time.monotonic()
    run.wait(ENDS_WITHIN_S + form.slack_s)
    seconds = time.monotonic() - start

    check_report(api, run, fleet.names)
    check_all_final(api, run.began_at)
    assert run.code == 1
    assert f"the Dask scheduler {cluster.address} was lost" in run.stderr
    finished = _published(site, fleet)
    cluster.close()
    again = site.run(fleet_list)

    check_report(api, again, fleet.names)
    check_rows(site)
    endings = again.endings()
    now = _published(site, fleet)
    repeated = [name for name in finished if endings[name] != "up_to_date" or now[name] != finished[name]]
    note_figures(
        f"scheduler-{lost_at:.0%}".replace("%", ""),
        {
            "repositories": len(fleet.names),
            "killed_at": lost_at,
            "seconds_until_exit": round(seconds, 1),
            "finished": len(finished),
            "finished_repeated": len(repeated),
            "calls_without_a_fault": oracle.calls,
            "calls": llm.calls,
        },
    )
    assert not repeated
    assert {name for name, ending in run.endings().items() if ending == "built"} == finished.keys()


@pytest.mark.long_form
def test_a_run_whose_scheduler_hangs_ends(small_site, small_list, fake_llm, api, form, start_cluster, note_figures):
    fake_llm.script = lambda body, before: Answer(hang=True)
    cluster = start_cluster(small_site)
    run = small_site.start(small_list, "--scheduler-address", cluster.address)
    assert run.wait_until(lambda: fake_llm.in_flight >= 6), run.stderr

    cluster.scheduler.suspend()
    start = time.monotonic()
    run.wait(HUNG_ENDS_WITHIN_S + form.slack_s)
    seconds = time.monotonic() - start

    note_figures("scheduler-hung", {"repositories": 6, "seconds_until_exit": round(seconds, 1)})
    assert run.code == 1
    assert f"the Dask scheduler {cluster.address} was lost while it was being built" in run.stderr
    assert set(run.endings().values()) == {"crashed"}
    check_report(api, run, run.endings())
    check_all_final(api, run.began_at)


@pytest.mark.long_form
def test_a_scheduler_that_is_lost_while_a_run_submits_is_named(
    small_site, fake_llm, api, form, start_cluster, tmp_path
):
    many = make_fleet(tmp_path / "many", generated=MANY, functions=1, real=0)
    fake_llm.script = lambda body, before: Answer(hang=True)
    cluster = start_cluster(small_site)
    run = small_site.start(many.write_list(tmp_path / "many.txt"), "--scheduler-address", cluster.address)
    logs = small_site.folder / "logs" / "summary_index"
    assert run.wait_until(partial(_any, logs, "*worker-*.log")), run.stderr  # before the first is submitted

    cluster.scheduler.kill()
    run.wait(ENDS_WITHIN_S + form.slack_s)

    assert run.code == 1
    said = (
        f"error: the Dask scheduler {cluster.address} was lost before all repositories were submitted: start it again"
    )
    assert run.stderr.splitlines()[-1] == said
    check_all_final(api, run.began_at)


def _any(folder, pattern):
    return next(folder.glob(pattern), None) is not None


def _published(site, fleet):
    """The publish id of each index that is there, by name."""
    manifests = {name: IndexRoot(site.index_root).find_manifest(name) for name in fleet.names}
    return {name: manifest.publish_id for name, manifest in manifests.items() if manifest is not None}
