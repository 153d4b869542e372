"""Two runs on the same repositories at the same time."""

from collections import Counter

from runs import check_all_final, check_report

REPOSITORIES = 50


def test_each_repository_has_one_publisher_and_both_runs_are_truthful(
    site, fleet, llm, api, tmp_path, check_rows, note_figures
):
    shared = fleet.part(slice(-REPOSITORIES, None))
    names = shared.write_list(tmp_path / "shared.txt")

    runs = [site.start(names) for _ in range(2)]
    for run in runs:
        run.wait()

    for run in runs:
        check_report(api, run, shared.names)
    check_all_final(api, runs[0].began_at)
    check_rows(site, shared)
    publishers = Counter(name for run in runs for name, ending in run.endings().items() if ending == "built")
    endings = Counter(ending for run in runs for ending in run.endings().values())
    asked_twice = sum(n > 1 for n in llm.prompts.values())
    figures = {"repositories": len(shared.names), "endings": dict(endings), "publishers": sum(publishers.values())}
    note_figures("two-flows", {**figures, "calls": llm.calls, "questions_asked_twice": asked_twice})
    assert set(endings) <= {"built", "superseded", "up_to_date"}
    assert publishers == dict.fromkeys(shared.names, 1)
