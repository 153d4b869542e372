"""The compose file: valid, closed to the network, free of secrets, and its settings are ones that exist."""

import importlib
import re
import shutil
import socket
import subprocess
import tomllib
from datetime import timedelta
from pathlib import Path

import prefect
import prefect.settings
import pytest
import yaml
from parts import require_part
from postgres_server import postgres
from prefect.server.concurrency.lease_storage import memory
from systemd_units import read_env_file

CHECKOUT = Path(__file__).parents[2]
DEPLOYMENTS = CHECKOUT / "deployments"
COMPOSE = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
EXAMPLES = sorted(DEPLOYMENTS.glob("env/*.env.example"))
SECRET = re.compile(r"PASSWORD|TOKEN|API_KEY|AUTH_STRING|CONNECTION_URL|SECRET")


@pytest.fixture
def configured(tmp_path):
    """The folder as an operator has it, with env files."""
    shutil.copytree(DEPLOYMENTS, tmp_path / "deployments")
    for example in (tmp_path / "deployments" / "env").glob("*.env.example"):
        example.rename(example.with_suffix(""))
    return tmp_path / "deployments"


def test_docker_compose_accepts_it(configured):
    compose = shutil.which("docker-compose")
    require_part("docker-compose", present=compose is not None, how="apt-get install docker-compose")

    done = subprocess.run(
        [compose, "-f", "compose.yaml", "config", "-q"], cwd=configured, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_comes_back_tells_its_health_and_keeps_its_logs_bounded(name):
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"]
    assert service["logging"]["options"]["max-size"]
    assert re.search(r":v?\d+[\d.]*", service["image"]), "a release, not what is the latest today"


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_bound_to_the_loopback_interface(name):
    for port in SERVICES[name]["ports"]:
        assert port.startswith("${BIND_ADDRESS:-127.0.0.1}:")


def test_no_secret_stands_in_a_file_that_is_kept_in_git():
    for name, service in SERVICES.items():
        for variable in service.get("environment", {}):
            assert not SECRET.search(variable), f"{variable} of {name} belongs in env/{name}.env"
    for example in EXAMPLES:
        for variable, value in read_env_file(example).items():
            assert not SECRET.search(variable) or not value, f"{variable} of {example.name} has a value"
    tracked = subprocess.run(
        ["git", "ls-files", "deployments"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert not [path for path in tracked.stdout.split() if path.endswith((".env", ".pem"))]


def test_every_env_file_has_an_example():
    wanted = {f"{SERVICES[name]['env_file']}.example" for name in SERVICES}
    assert wanted | {"env/summidx.env.example"} == {str(path.relative_to(DEPLOYMENTS)) for path in EXAMPLES}


def test_prefect_server_is_the_release_that_is_installed():
    assert SERVICES["prefect"]["image"].startswith(f"prefecthq/prefect:{prefect.__version__}-")


def test_prefect_knows_every_variable_of_its_server_and_reads_it_as_it_is_meant(monkeypatch):
    """It passes over a variable that it does not know without a word."""
    environment = SERVICES["prefect"]["environment"]
    for variable, value in environment.items():
        assert hasattr(prefect.settings, variable), f"there is no setting {variable}"
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_PASSWORD", "hush")
    server = prefect.settings.Settings().server

    assert server.services.db_vacuum.enabled_vacuum_types >= {"events", "flow_runs"}
    assert server.services.db_vacuum.retention_period == timedelta(days=30)
    assert server.services.task_run_recorder.flush_interval >= 1
    assert not server.analytics_enabled
    assert (server.database.driver, server.database.host, server.database.name) == (
        "postgresql+asyncpg",
        "postgres",
        "prefect",
    )
    storage = importlib.import_module(server.concurrency.lease_storage).ConcurrencyLeaseStorage()
    assert not isinstance(storage, memory.ConcurrencyLeaseStorage)


def test_prefect_knows_every_variable_of_its_worker():
    variables = [name for name in read_env_file(DEPLOYMENTS / "env" / "summidx.env.example") if "PREFECT" in name]
    assert "PREFECT_FLOWS_HEARTBEAT_FREQUENCY" in variables
    assert all(hasattr(prefect.settings, name) for name in variables)


def test_leases_lie_on_a_volume():
    service = SERVICES["prefect"]
    folders = {mount.split(":")[1] for mount in service["volumes"]}
    assert service["environment"]["PREFECT_HOME"] in folders
    assert set(COMPOSE["volumes"]) == {"postgres", "prefect", "models"}


def test_gpus_are_divided_as_the_settings_say():
    settings = tomllib.loads((DEPLOYMENTS / "summidx.toml").read_text())
    vllm = SERVICES["vllm"]
    (devices,) = vllm["deploy"]["resources"]["reservations"]["devices"]
    command = vllm["command"]
    replicas = int(next(word for word in command if word.startswith("--data-parallel-size=")).split("=")[1])
    sequences = int(next(word for word in command if word.startswith("--max-num-seqs=")).split("=")[1])

    assert len(devices["device_ids"]) == replicas == 7
    assert {*map(int, devices["device_ids"]), *settings["cluster"]["gpu_ids"]} == set(range(8))
    assert command[0] == settings["llm"]["model"]
    assert settings["llm"]["concurrency"] == replicas * sequences
    assert settings["llm"]["base_url"] == "http://127.0.0.1:8000/v1"


def test_a_role_of_one_database_does_not_reach_the_other():
    passwords = {"PREFECT_DATABASE_PASSWORD": "p'r\"efect", "SUMMIDX_DATABASE_PASSWORD": "summidx$1"}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with postgres("127.0.0.1", port, passwords) as server:
        for role, password in zip(("prefect", "summidx"), passwords.values(), strict=True):
            made = "CREATE TABLE t (i int); SELECT current_user"
            assert server.query(made, role=role, password=password, database=role).endswith(role)
            other = {"prefect": "summidx", "summidx": "prefect"}[role]
            with pytest.raises(subprocess.CalledProcessError) as refused:
                server.query("SELECT 1", role=role, password=password, database=other)
            assert "permission denied" in refused.value.stderr
        with pytest.raises(subprocess.CalledProcessError) as refused:
            server.query("SELECT 1", role="summidx", password="wrong", database="summidx")
        assert "password authentication failed" in refused.value.stderr
