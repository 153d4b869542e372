"""The systemd units: valid, confined, and with what Dask and Prefect need; how they run: tests/flows/test_remote.py."""

import shutil
import subprocess
import sys
from pathlib import Path

import dask.config
import pytest
from parts import require_part
from systemd_units import UNITS, Machine, read_unit

from flows.cluster import DASK_SETTINGS

NAMES = sorted(path.name for path in UNITS.iterdir())
SCHEDULER, WORKER, PREFECT = (
    "summidx-dask-scheduler.service",
    "summidx-dask-worker@.service",
    "summidx-prefect-worker.service",
)
EXPOSURE = 4.0
"""Of 10, as `systemd-analyze security` counts it; a unit that confines nothing has 9.6."""


@pytest.fixture
def analyze():
    tool = shutil.which("systemd-analyze")
    require_part("systemd-analyze", present=tool is not None, how="apt-get install systemd")
    return lambda *arguments: subprocess.run([tool, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def installed(tmp_path):
    """The units, their commands where `systemd-analyze` finds them; the instance of a template is 7."""

    def install(name: str, more: str = "") -> Path:
        text = (UNITS / name).read_text().replace("/opt/summidx/.venv/bin", str(Path(sys.executable).parent))
        path = tmp_path / name.replace("@", "@7")
        path.write_text(text + more)
        return path

    return install


def test_there_are_three():
    assert NAMES == [SCHEDULER, WORKER, PREFECT]


@pytest.mark.parametrize("name", NAMES)
def test_systemd_accepts_it(name, analyze, installed):
    done = analyze("verify", "--man=no", str(installed(name)))

    assert (done.returncode, done.stderr) == (0, ""), "it returns 0 for keys that it does not know"


def test_a_misspelt_key_would_be_seen(analyze, installed):
    done = analyze("verify", "--man=no", str(installed(WORKER, "\n[Service]\nRestrat=always\n")))

    assert "Restrat" in done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_it_is_confined(name, analyze, installed):
    done = analyze("security", "--offline=yes", f"--threshold={EXPOSURE * 10:.0f}", "--no-pager", str(installed(name)))

    assert done.returncode == 0, done.stdout
    assert read_unit(name)["User"] == ["summidx"]


@pytest.mark.parametrize("name", NAMES)
def test_it_comes_back_however_it_ended(name):
    """`dask worker` ends with 0 when it was cut off."""
    unit = read_unit(name)

    assert unit["Restart"] == ["always"]
    assert "StartLimitIntervalSec=0" in (UNITS / name).read_text()


def test_the_scheduler_has_the_settings_of_a_local_one(tmp_path):
    address = {"SUMMIDX_CLUSTER__SCHEDULER_ADDRESS": "tls://10.0.0.1:8786"}
    machine = Machine(tmp_path, tmp_path, address)
    read = dask.config.collect(paths=[], env=machine.environment(SCHEDULER))
    worker = dask.config.collect(paths=[], env=machine.environment(WORKER, "7"))

    for name, value in DASK_SETTINGS.items():
        if name.startswith("distributed.scheduler."):
            assert dask.config.get(name, config=read) == value
        elif name.startswith("distributed.worker."):
            assert dask.config.get(name, config=worker) == value
    for config in (read, worker):
        assert dask.config.get("distributed.comm.require-encryption", config=config) is True
        assert dask.config.get("distributed.comm.tls.ca-file", config=config) == str(tmp_path / "tls" / "ca.pem")


@pytest.mark.parametrize("name", NAMES)
def test_a_variable_of_its_command_comes_from_the_example_of_the_env_file_or_the_unit(name, tmp_path):
    example = UNITS.parent / "env" / "summidx.env.example"
    lines = [line.lstrip("#") for line in example.read_text().splitlines() if "=" in line]
    machine = Machine(tmp_path, tmp_path, dict(line.split("=", 1) for line in lines))

    assert "${" not in " ".join(machine.command(name, "7"))
