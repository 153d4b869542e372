"""Several hosts on one machine: network namespaces, joined by a bridge that is this machine's own address."""

import asyncio
import ipaddress
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from parts import require_part

NETWORK = ipaddress.ip_network("198.18.0.0/15")
"""For tests of networks (RFC 2544): no real host is in it."""


@dataclass(frozen=True)
class Host:
    """One of them."""

    namespace: str
    address: str
    _port: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """Before a command that runs on this host; its process is the command's."""
        return ("ip", "netns", "exec", self.namespace)

    def cut_off(self) -> None:
        """Pull its cable: nothing goes in or out, and nobody is told."""
        _run("ip", "link", "set", self._port, "down")

    def bring_back(self) -> None:
        """Plug the cable in again."""
        _run("ip", "link", "set", self._port, "up")


@dataclass(frozen=True)
class Network:
    """The bridge's address, which all hosts reach, and the hosts."""

    address: str
    hosts: Sequence[Host]


@contextmanager
def network(n: int) -> Iterator[Network]:
    """So many hosts; whatever still runs on them at the end is killed."""
    able = os.geteuid() == 0 and shutil.which("ip") is not None
    require_part("network namespaces", present=able, how="run as root, and apt-get install iproute2")
    tag = f"sx{os.getpid() % 100_000}"
    subnet = _free_subnet()
    own, *addresses = [str(address) for _, address in zip(range(n + 1), subnet.hosts(), strict=False)]
    hosts = [Host(f"{tag}-{i}", address, f"{tag}v{i}") for i, address in enumerate(addresses)]
    try:
        _run("ip", "link", "add", tag, "type", "bridge")
        _run("ip", "address", "add", f"{own}/{subnet.prefixlen}", "dev", tag)
        _run("ip", "link", "set", tag, "up")
        for host in hosts:
            _run("ip", "netns", "add", host.namespace)
            inside = ("ip", "-n", host.namespace)
            _run("ip", "link", "add", host._port, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
            _run("ip", "link", "set", host._port, "master", tag, "up")
            _run(*inside, "address", "add", f"{host.address}/{subnet.prefixlen}", "dev", "eth0")
            _run(*inside, "link", "set", "lo", "up")
            _run(*inside, "link", "set", "eth0", "up")
        yield Network(own, hosts)
    finally:
        for host in hosts:
            _kill_all(host.namespace)  # they would live on without it
            subprocess.run(["ip", "netns", "delete", host.namespace], check=False, stderr=subprocess.DEVNULL)
            subprocess.run(["ip", "link", "delete", host._port], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["ip", "link", "delete", tag], check=False, stderr=subprocess.DEVNULL)


@contextmanager
def forwarded(address: str, port: int) -> Iterator[None]:
    """What listens on this machine's loopback at a port is reached at an address too, as long as the block runs."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(2**16):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # one side is gone, and soon the other one
        finally:
            writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    async def serve() -> None:
        ended = asyncio.Event()
        until.extend((asyncio.get_running_loop(), ended))
        server = await asyncio.start_server(connect, address, port)
        listens.set()
        await ended.wait()
        server.close()  # connections end with the loop

    until: list[Any] = []
    listens = threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="forwarder", daemon=True)
    thread.start()
    assert listens.wait(10)
    try:
        yield
    finally:
        loop, ended = until
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)


def _free_subnet() -> ipaddress.IPv4Network:
    taken = subprocess.run(["ip", "-4", "-o", "address"], capture_output=True, text=True, check=True).stdout
    subnets = list(NETWORK.subnets(new_prefix=27))
    start = os.getpid() % len(subnets)
    return next(each for each in subnets[start:] + subnets if f" {each.network_address + 1}/" not in taken)


def _kill_all(namespace: str) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        listed = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
        pids = [int(pid) for pid in listed.stdout.split()]
        if not pids:
            return
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.1)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
