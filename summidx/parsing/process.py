"""The parent's side of a parsing process: start it, feed it, listen to it, end it."""

import importlib.util
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import summidx
from summidx.parsing.links import Links
from summidx.parsing.units import FileFacts
from summidx.parsing.wire import OUT_OF_MEMORY, READY, FileResult, decode_links, decode_result, encode_file
from summidx.settings import ParseSettings
from summidx.stop import Stop

_POLL_S = 0.1
_READ_BYTES = 262_144
_STDERR_BYTES = 4_000
_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""All that the child gets of the environment: no key, no token, nothing that steers Python."""

_CRASHES = (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT)

_BOOT = """
import importlib.util, os, sys
sys.path += sys.argv[3:]
package = os.path.join(sys.argv[3], "summidx")
spec = importlib.util.spec_from_file_location(
    "summidx", os.path.join(package, "__init__.py"), submodule_search_locations=[package]
)
sys.modules["summidx"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["summidx"])
from summidx.parsing.child import main
main(float(sys.argv[1]), int(sys.argv[2]))
"""
"""The package is the parent's own, by its place: another one may be installed beside a checkout on PYTHONPATH."""


@dataclass(frozen=True, slots=True)
class Job:
    """A file to parse."""

    facts: FileFacts
    data: bytes


@dataclass(slots=True)
class Run:
    """What a parsing process said before it ended. `links` None: it ended before it was done."""

    results: list[FileResult] = field(default_factory=list)
    links: Links | None = None
    was_ready: bool = False
    exit_code: int = 0
    """As `subprocess` has it: minus the signal's number for a process that was killed."""
    stderr: str = ""
    peak_bytes: int = 0
    """Largest address space that it was seen with; 0 where the system does not say."""
    memory_bytes: int = 0
    """Its limit."""

    @property
    def ran_out_of_memory(self) -> bool:
        """Whether it met its memory limit.

        Python says so. C code crashes: tree-sitter's binding does with SIGSEGV. What had grown to a third of its limit
        when it was last looked at, and then crashed, is taken for that: no parser grows by the rest within `_POLL_S`.
        """
        if self.exit_code == OUT_OF_MEMORY or "failed to allocate" in self.stderr or "MemoryError" in self.stderr:
            return True
        return self.exit_code in _CRASHES and self.peak_bytes > self.memory_bytes / 3

    @property
    def cause(self) -> str:
        """Why it ended, in a few words."""
        if self.exit_code < 0:
            try:
                return signal.Signals(-self.exit_code).name
            except ValueError:
                return f"signal {-self.exit_code}"
        lines = self.stderr.strip().splitlines()
        return f"exit code {self.exit_code}" + (f", {lines[-1][:200]}" if lines else "")


def run_child(jobs: Sequence[Job], settings: ParseSettings, stop: Stop) -> Run:
    """Parse `jobs` in a process of their own, to its end. It is gone when this returns or raises.

    `subprocess`, not `multiprocessing`: Dask's workers are daemonic, and may have no children of the latter kind.

    Raises:
        Stopped: the run was told to stop.
        OSError: no process can be started.
    """
    # -I: neither the working directory, nor the user's site, nor PYTHON* variables have a say in what is imported.
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", _BOOT, str(settings.cpu_s_per_file), str(settings.memory_mb), *_import_folders()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env={name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ},
        bufsize=0,
        process_group=0,  # a Ctrl-C at the terminal is for the parent, which then stops this process
    )
    try:
        return _Exchange(process, jobs, settings.memory_mb * 1024 * 1024).finish(stop)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                pipe.close()


def _import_folders() -> list[str]:
    """Folders of the packages that the child needs; they come last on its path, so that they shadow nothing."""
    folders = [Path(summidx.__file__).resolve().parent.parent]
    spec = importlib.util.find_spec("tree_sitter")
    if spec and spec.origin:
        folders.append(Path(spec.origin).resolve().parent.parent)
    return list(dict.fromkeys(map(str, folders)))


class _Exchange:
    """Writing and reading at once, in one thread: a full pipe on either side never holds up the other."""

    def __init__(self, process: "subprocess.Popen[bytes]", jobs: Sequence[Job], memory_bytes: int) -> None:
        self._process = process
        self._run = Run(memory_bytes=memory_bytes)
        self._outgoing = _chunks(jobs)
        self._pending = memoryview(b"")
        self._line: list[bytes] = []
        """Pieces of a line that has not ended."""
        self._n_jobs = len(jobs)
        self._stderr = b""
        self._looked_at_s = 0.0

    def finish(self, stop: Stop) -> Run:
        process = self._process
        assert process.stdin and process.stdout and process.stderr  # noqa: S101, PT018 - all three are pipes
        with selectors.DefaultSelector() as selector:
            handlers = {process.stdin: self._write, process.stdout: self._read, process.stderr: self._read_stderr}
            for pipe, handler in handlers.items():
                os.set_blocking(pipe.fileno(), False)
                event = selectors.EVENT_WRITE if pipe is process.stdin else selectors.EVENT_READ
                selector.register(pipe, event, handler)
            while selector.get_map():
                stop.check()
                self._look_at_memory()
                for key, _ in selector.select(_POLL_S):
                    if not key.data(key.fd):
                        selector.unregister(key.fileobj)
                        key.fileobj.close()  # type: ignore[union-attr]  # a pipe, as registered above
        self._run.exit_code = process.wait()
        self._run.stderr = self._stderr.decode("utf-8", "replace")
        return self._run

    def _look_at_memory(self) -> None:
        if time.monotonic() - self._looked_at_s < _POLL_S:
            return
        self._looked_at_s = time.monotonic()
        try:
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[0])
        except (OSError, ValueError, IndexError):  # no Linux, or just gone
            return
        self._run.peak_bytes = max(self._run.peak_bytes, pages * resource.getpagesize())

    def _write(self, fd: int) -> bool:
        """Write what the pipe takes; False when all is written, or nobody reads."""
        if not self._pending:
            self._pending = memoryview(next(self._outgoing, b""))
            if not self._pending:
                return False
        try:
            self._pending = self._pending[os.write(fd, self._pending) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False
        return True

    def _read(self, fd: int) -> bool:
        data = os.read(fd, _READ_BYTES)
        *ended, rest = data.split(b"\n")
        for end in ended:
            self._take(b"".join((*self._line, end)))
            self._line = []
        if rest:
            self._line.append(rest)
        return bool(data)

    def _take(self, line: bytes) -> None:
        if not self._run.was_ready:
            self._run.was_ready = line + b"\n" == READY
        elif len(self._run.results) < self._n_jobs:
            self._run.results.append(decode_result(line))
        else:
            self._run.links = decode_links(line)

    def _read_stderr(self, fd: int) -> bool:
        data = os.read(fd, _READ_BYTES)
        self._stderr = (self._stderr + data)[-_STDERR_BYTES:]
        return bool(data)


def _chunks(jobs: Sequence[Job]) -> Iterator[bytes]:
    for job in jobs:
        yield encode_file(job.facts, len(job.data))
        if job.data:
            yield job.data
