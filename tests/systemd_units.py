"""The units of `deployments/systemd` as systemd runs them, on a machine that has no systemd: command, environment, and
`Restart=always`. So what tests run is what an operator runs."""

import configparser
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

DEPLOYMENTS = Path(__file__).parents[1] / "deployments"
UNITS = DEPLOYMENTS / "systemd"
RESTART_S = 0.2
"""Instead of the units' RestartSec."""
STOP_S = 30


class _Repeated(dict):
    """Lets a key of a section come more than once: its values are joined by newlines."""

    def __setitem__(self, key, value):
        if isinstance(value, list) and key in self:
            self[key].extend(value)
        else:
            super().__setitem__(key, value)


def read_unit(name: str) -> dict[str, list[str]]:
    """The settings of a unit's [Service], each with its values in order."""
    parser = configparser.RawConfigParser(dict_type=_Repeated, strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str
    parser.read_string((UNITS / name).read_text())
    return {key: value.split("\n") for key, value in parser["Service"].items()}


def read_env_file(path: Path) -> dict[str, str]:
    """An env file as systemd and Docker read it: lines of NAME=value, comments left out."""
    lines = [line.strip() for line in path.read_text().splitlines()]
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@dataclass(frozen=True)
class Machine:
    """Where a unit's files lie on the machine that a test plays."""

    home: Path
    """Instead of /var/lib/summidx."""
    etc: Path
    """Instead of /etc/summidx."""
    env_file: Mapping[str, str]
    """What summidx.env says."""
    base: Mapping[str, str] = field(default_factory=dict)
    """What systemd itself would set."""
    prefix: Sequence[str] = ()
    """Before each command: `ip netns exec NAME`."""

    def environment(self, unit: str, instance: str = "") -> dict[str, str]:
        """What the unit's process has in its environment: `EnvironmentFile` goes before `Environment`."""
        pairs = (line.split("=", 1) for line in read_unit(unit)["Environment"])
        own = {name: self._here(value, instance) for name, value in pairs}
        return {**self.base, **own, **self.env_file}

    def command(self, unit: str, instance: str = "") -> list[str]:
        """`ExecStart`, its variables expanded."""
        environment = self.environment(unit, instance)
        (line,) = read_unit(unit)["ExecStart"]
        words = []
        for word in self._here(line, instance).split():
            if word.startswith("${"):
                words.append(environment[word.removeprefix("${").removesuffix("}")])
            else:
                words.append(word)
        return [*self.prefix, *words]

    def start(self, unit: str, instance: str = "") -> "Service":
        """Start a unit, and keep it running."""
        self.home.mkdir(parents=True, exist_ok=True)
        log = self.home / f"{unit.replace('@', f'@{instance}')}.log"
        (restart,) = read_unit(unit)["Restart"]
        return Service(self.command(unit, instance), self.environment(unit, instance), self.home, log, restart)

    def _here(self, text: str, instance: str) -> str:
        bin_folder = str(Path(sys.executable).parent)
        for there, here in (
            ("/opt/summidx/.venv/bin", bin_folder),
            ("/etc/summidx", str(self.etc)),
            ("/var/lib/summidx", str(self.home)),
            ("%i", instance),
        ):
            text = text.replace(there, here)
        return text


class Service:
    """A process that is started again when it ends, as its unit's `Restart` says, until `stop`."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path, restart: str
    ) -> None:
        assert restart in ("always", "on-failure")
        self.starts = 0
        """How often it was started."""
        self._command = list(command)
        self._environment = dict(environment)
        self._folder = folder
        self.log = log
        self._restart = restart
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep_running, daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """Its process, and the group of all of its processes."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """As `systemctl stop`: SIGTERM to all of its processes, then SIGKILL."""
        with self._lock:
            self._stopped.set()
            process = self._process
        if process is not None:
            for number, wait_s in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S)):
                try:
                    os.killpg(process.pid, number)
                except ProcessLookupError:
                    break
                try:
                    process.wait(wait_s)
                except subprocess.TimeoutExpired:
                    continue
            self._thread.join(STOP_S)

    def _keep_running(self) -> None:
        while True:
            with self._lock, self.log.open("ab") as output:
                if self._stopped.is_set():
                    return
                process = self._process = subprocess.Popen(
                    self._command,
                    env=self._environment,
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
                self.starts += 1
            if process.wait() == 0 and self._restart == "on-failure":
                return
            self._stopped.wait(RESTART_S)
