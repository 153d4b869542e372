"""A real PostgreSQL that listens on an address, set up as `deployments/compose.yaml` sets its own up."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from parts import require_part

BIN = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/usr/lib/postgresql/none"))
DEPLOYMENTS = Path(__file__).parents[1] / "deployments"


@dataclass(frozen=True)
class Postgres:
    """Where it is."""

    host: str
    port: int
    home: Path

    def query(self, sql: str, *, role: str, password: str, database: str) -> str:
        """What psql prints, connected over TCP; raises CalledProcessError where it fails."""
        command = [BIN / "psql", "-XAt", "-h", self.host, "-p", str(self.port), "-U", role, "-d", database, "-c", sql]
        environment = {**os.environ, "PGPASSWORD": password}
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def postgres(host: str, port: int, passwords: Mapping[str, str]) -> Iterator[Postgres]:
    """Run a server that asks everybody for a password, its databases made by create-databases.sh.

    Args:
        host: the address on which it listens.
        port: its TCP port.
        passwords: what env/postgres.env would say.
    """
    require_part("PostgreSQL", present=(BIN / "initdb").exists(), how="apt-get install postgresql")
    pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
    # The socket's path must stay short, and the server's user must reach it.
    home = Path(os.path.realpath(tempfile.mkdtemp(prefix="pg.", dir="/tmp")))
    if os.geteuid() == 0:  # the server refuses to run as root
        shutil.chown(home, "postgres", "postgres")
    data = home / "data"
    options = f"-c listen_addresses={host} -k {home} -p {port} -F"
    try:
        _run(
            "initdb", "-D", str(data), "--auth-local=trust", "--auth-host=scram-sha-256", "-U", "postgres", "--no-sync"
        )
        with (data / "pg_hba.conf").open("a") as file:
            file.write("host all all 0.0.0.0/0 scram-sha-256\n")
        _run("pg_ctl", "-D", str(data), "-l", str(home / "log"), "-w", "-o", options, "start")
        try:
            environment = {
                **os.environ,
                **passwords,
                "PATH": f"{BIN}:{os.environ['PATH']}",
                "PGHOST": str(home),
                "PGPORT": str(port),
            }
            made = subprocess.run(
                ["sh", DEPLOYMENTS / "create-databases.sh"],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert made.returncode == 0, made.stderr
            yield Postgres(host, port, home)
        finally:
            _run("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
    finally:
        shutil.rmtree(home)


def _run(program: str, *arguments: str) -> None:
    as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    subprocess.run([*as_user, str(BIN / program), *arguments], check=True, cwd="/tmp", stdout=subprocess.DEVNULL)
