"""A Dask scheduler and a worker as their systemd units start them, over TLS: builds there, and what is refused."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import dask.config
import psutil
import pytest
from distributed import Client
from parts import require_part
from systemd_units import DEPLOYMENTS, Machine

from flows.remote import scheduler_wanted
from summidx.errors import UsageError
from summidx.records import Level
from summidx.store.generations import IndexRoot

WAIT_S = 60
CLIENT = "summidx-prefect-worker.service"
"""The unit in which flows run: clients of the scheduler."""


def make_certificates(folder):
    require_part("openssl", present=Path("/usr/bin/openssl").exists(), how="apt-get install openssl")
    subprocess.run([DEPLOYMENTS / "make-certificates", folder], check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="module")
def machine(api, prefect_env, _s3_server, tmp_path_factory):
    """This machine, with certificates, and an address for its scheduler."""
    folder = tmp_path_factory.mktemp("machine")
    make_certificates(folder / "etc" / "tls")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tls://127.0.0.1:{probe.getsockname()[1]}"
    env_file = {"PREFECT_API_URL": api.url, "SUMMIDX_CLUSTER__SCHEDULER_ADDRESS": address}
    env_file |= _s3_server.environment
    return Machine(folder / "home", folder / "etc", env_file, base=prefect_env)


@pytest.fixture(scope="module")
def scheduler(machine):
    service = machine.start("summidx-dask-scheduler.service")
    yield machine.env_file["SUMMIDX_CLUSTER__SCHEDULER_ADDRESS"]
    service.stop()


@pytest.fixture(scope="module")
def worker(machine, scheduler):
    service = machine.start("summidx-dask-worker@.service", instance="0")
    yield service
    service.stop()


@pytest.fixture
def remote(build, machine, worker):
    """The command, which finds scheduler and certificate in its environment."""
    build.extra_env |= {name: value for name, value in machine.environment(CLIENT).items() if name.startswith("DASK_")}
    build.extra_env["SUMMIDX_CLUSTER__SCHEDULER_ADDRESS"] = machine.env_file["SUMMIDX_CLUSTER__SCHEDULER_ADDRESS"]
    return build


def read_tls(machine):
    """What the unit of a client says of TLS, as Dask's configuration."""
    config = dask.config.collect(paths=[], env=machine.environment(CLIENT))
    return {
        f"distributed.comm.tls.{name}": dask.config.get(f"distributed.comm.tls.{name}", config=config)
        for name in (
            "ca-file",
            "client.cert",
            "client.key",
        )
    }


def connect(address):
    with scheduler_wanted(address, WAIT_S), Client(address, timeout=WAIT_S) as client:
        client.wait_for_workers(1, timeout=WAIT_S)


@pytest.fixture
def other(machine, tmp_path):
    """A machine that is as ours, with certificates of another authority."""
    make_certificates(tmp_path / "etc" / "tls")
    return Machine(tmp_path / "home", tmp_path / "etc", machine.env_file, base=machine.base)


def test_a_run_without_certificate_says_so_in_one_line(build, scheduler, repos):
    done = build("--repos-root", repos, "--scheduler-address", scheduler)

    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "asks for a certificate" in line
    assert "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT" in line


@pytest.mark.parametrize("trusts_ours", [False, True], ids=["no-trust", "our-trust"])
def test_a_certificate_of_another_authority_is_refused(trusts_ours, machine, other, scheduler):
    settings = read_tls(other)
    if trusts_ours:  # then it is the scheduler that refuses
        settings["distributed.comm.tls.ca-file"] = read_tls(machine)["distributed.comm.tls.ca-file"]
    with dask.config.set(settings), pytest.raises(UsageError, match="do not accept each other's certificate"):
        connect(scheduler)


def test_a_key_of_another_certificate_is_named(machine, other, scheduler):
    settings = read_tls(machine) | {"distributed.comm.tls.client.key": str(other.etc / "tls" / "client-key.pem")}
    with dask.config.set(settings), pytest.raises(UsageError, match=rf"cannot be used .*{other.etc}"):
        connect(scheduler)


def test_an_address_without_tls_is_refused_where_encryption_is_required():
    with (
        dask.config.set({"distributed.comm.require-encryption": True}),
        pytest.raises(UsageError, match="DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION demands"),
    ):
        connect("tcp://127.0.0.1:9")


def test_without_tls_nobody_gets_in_and_is_told_what_to_write(scheduler):
    with pytest.raises(UsageError, match="write tls://"):
        connect(scheduler.replace("tls:", "tcp:"))


def test_stop_reaches_the_remote_worker_which_then_builds_the_next_run(
    remote, api, llm, make_repo, module, worker, tmp_path
):
    make_repo(tmp_path / "held", {"held.py": module("held") + "\n# HOLDME\n"})
    arguments = ("--repo", tmp_path / "held", *llm.options)
    process = remote.start(*arguments)
    port = llm.held.get(timeout=WAIT_S)
    (caller,) = callers(port)
    assert caller != process.pid
    assert os.getpgid(caller) == worker.pid

    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 128 + signal.SIGTERM, err
    run = api.last_flow_run()
    assert run["state_name"] == "Crashed"
    assert set(api.task_states(run["id"]).values()) <= {"Failed", "Crashed"}
    deadline = time.monotonic() + WAIT_S
    while callers(port):  # the server holds the call: it is the worker that gives it up
        assert time.monotonic() < deadline, worker.log.read_text()
        time.sleep(0.1)
    assert psutil.pid_exists(caller)
    assert not (remote.cwd / "index" / "held" / "CURRENT").exists()

    llm.release.set()
    report = remote.report(*arguments)
    assert report["by_name"]["held"]["ending"] == "built", worker.log.read_text()
    assert remote.current("held")["counts"]
    assert worker.starts == 1, "it goes on over both runs"


def test_a_remote_worker_publishes_to_object_storage(remote, machine, worker, s3, make_repo, module, tmp_path):
    names = ["a", "b"]
    for name in names:
        make_repo(tmp_path / "repos" / name, {f"{name}.py": module(name)})
    remote.extra_env |= {name: value for name, value in machine.env_file.items() if name.startswith("AWS_")}
    remote.extra_env |= {"XDG_CACHE_HOME": str(tmp_path / "local")}
    remote.options = ("--embedding-model", "hashing", "--index-root", s3)

    first = remote.report("--repos-root", tmp_path / "repos")
    assert {name: each["ending"] for name, each in first["by_name"].items()} == dict.fromkeys(names, "built")
    for name in names:
        paths = [each.path for each in IndexRoot(s3).open(name).table.documents([Level.FILE])]
        assert paths == [f"{name}.py"]
    assert worker.starts == 1
    assert not (remote.cwd / "index").exists()

    again = remote.report("--repos-root", tmp_path / "repos")
    assert {each["ending"] for each in again["repositories"]} == {"up_to_date"}


def callers(port):
    """Processes with an open connection from a port."""
    found = psutil.net_connections("tcp")
    return {each.pid for each in found if each.laddr and each.laddr.port == port and each.status == "ESTABLISHED"}
