"""A server in a process of its own that tests start, stop, kill, pause and start again."""

import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

# Below Linux's range for outgoing connections: a client that tries a port of that range while
# nobody listens can be given the very same port and connect to itself.
PORTS = range(20_000, 32_000)
PR_SET_PDEATHSIG = 1


class ServerError(Exception):
    """A server did not come up; the text ends with what it said."""


def free_port() -> int:
    """Return a port on 127.0.0.1 where nobody listens."""
    for port in random.sample(PORTS, 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    msg = f"no free port among 200 tried in {PORTS.start}..{PORTS.stop}"
    raise ServerError(msg)


class Server(ABC):
    """Base of the real parts: a child that dies with us, on the same port over its lives.

    As a context manager it is started on entry; on exit it is gone with all its files.
    `directory` lives as long as the object, so a restarted server finds its data.
    """

    name: str
    start_seconds = 60.0
    stop_seconds = 20.0

    def __init__(self, cpus: Collection[int] | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"leadpulse-{self.name}-"))
        self.host = "127.0.0.1"
        self.port = free_port()
        self.cpus = cpus
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Return the command line of the server."""

    @abstractmethod
    def answers(self) -> bool:
        """Ask the server whether it can work; OSError counts as no."""

    @property
    def log(self) -> Path:
        """The file with all that the server printed."""
        return self.directory / "server.log"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return self._running().pid

    @property
    def is_running(self) -> bool:
        """Whether the process lives; a paused one does."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the server and return when it answers.

        Raises:
            ServerError: if it ends, or does not answer in `start_seconds`.
        """
        if self.is_running:
            return
        with self.log.open("ab") as log:
            process = self._process = spawn(self.command(), log, cpus=self.cpus)
        deadline = time.monotonic() + self.start_seconds
        while not self._answers():
            ended = process.poll()
            if ended is not None or time.monotonic() > deadline:
                self.kill()
                how = "did not answer" if ended is None else f"ended with status {ended}"
                said = self.log.read_text(errors="replace")[-3000:]
                msg = f"{self.name} on port {self.port} {how}; it said:\n{said}"
                raise ServerError(msg)
            time.sleep(0.05)

    def stop(self) -> None:
        """Let the server end in its own way; kill it when that takes too long."""
        if not self.is_running:
            return
        process = self._running()
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(self.stop_seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the server with SIGKILL: it has no chance to tidy up."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        """Stop and start again: same port, same directory."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the server (SIGSTOP); its connections stay open and silent."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._running().send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill the server and remove its files."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _answers(self) -> bool:
        try:
            return self.answers()
        except OSError:
            return False

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            msg = f"{self.name} was not started"
            raise ServerError(msg)
        return self._process


def spawn(
    command: Sequence[str],
    output: IO[bytes],
    *,
    cpus: Collection[int] | None = None,
    environment: dict[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` as a child that ends with us, on the given processors only.

    Everything it prints goes to `output`. To be called on the main thread: Linux ends the child
    together with the thread that made it.
    """
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def prepare() -> None:
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if cpus is not None and sys.platform == "linux":
            os.sched_setaffinity(0, cpus)

    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        preexec_fn=prepare,  # noqa: PLW1509 - it only makes two system calls, takes no lock
    )


def is_alive(pid: int) -> bool:
    """Return whether the process runs; one that ended and nobody waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until_gone(pid: int, seconds: float = 10.0) -> None:
    """Return when the process has ended.

    Raises:
        ServerError: if it still runs after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while is_alive(pid):
        if time.monotonic() > deadline:
            msg = f"process {pid}: expected to end within {seconds} s, it still runs"
            raise ServerError(msg)
        time.sleep(0.02)


def resident_mb(pid: int) -> float:
    """Return the memory that the process holds now (VmRSS) in MB."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) / 1024
