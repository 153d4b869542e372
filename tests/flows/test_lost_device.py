"""A GPU that answers nothing more: its worker process ends, and what it had in flight is built by the next one.

The fault is injected where the embedder would raise it; workers, nannies and runs are real.
"""

import os

import pytest

FAULT = """
import os
from summidx.embedding.hashing import HashingEmbedder
from summidx.errors import DeviceLost

embed = HashingEmbedder.embed

def fail(self, texts, *, input_type):
    if any("unlucky" in text for text in texts):
        try:
            os.close(os.open(os.environ["LOST_ONCE"], os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        else:
            raise DeviceLost(f"the GPU failed in process {os.getpid()}")
    return embed(self, texts, input_type=input_type)

HashingEmbedder.embed = fail
"""


@pytest.fixture
def repos(build, make_repo, module, tmp_path):
    """Three repositories; the first time that `unlucky` is embedded the GPU is lost."""
    (tmp_path / "fault").mkdir()
    (tmp_path / "fault" / "sitecustomize.py").write_text(FAULT)
    path = os.pathsep.join(filter(None, [str(tmp_path / "fault"), build.env.get("PYTHONPATH", "")]))
    build.extra_env |= {"PYTHONPATH": path, "LOST_ONCE": str(tmp_path / "lost")}
    for name in ("unlucky", "one", "two"):
        make_repo(tmp_path / name, {"a.py": module(name)})
    return [arg for name in ("unlucky", "one", "two") for arg in ("--repo", tmp_path / name)]


def test_a_worker_whose_gpu_is_lost_ends_and_the_next_one_builds_what_it_had(build, api, repos, tmp_path):
    report = build.report(*repos, "--num-processes", 2)
    assert (tmp_path / "lost").exists()
    assert report["built"] == 3
    assert report["lost_tries"] >= 1
    assert api.tries(api.last_flow_run()["id"])["unlucky"] == ["Crashed", "Completed"]
    run_log = next(log.read_text() for log in build.logs if "-run-" in log.name)
    told = [line for line in run_log.splitlines() if "the GPU failed in process" in line]
    assert len(told) == 1
    assert "ends, and another takes its place" in told[0]


def test_without_a_nanny_the_repository_fails_and_says_why(build, repos):
    report = build.report(*repos, "--num-processes", 1, code=1)
    assert (report["built"], report["failed"]) == (2, 1)
    assert report["by_name"]["unlucky"]["ending"] == "failed"
    assert "the GPU failed in process" in report["by_name"]["unlucky"]["reason"]
    assert build.report(*repos, "--num-processes", 1)["built"] == 1
