"""Worker processes that are killed and paused, and a supervisor that starts them again."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.parts.server import free_port, spawn

TURN_SECONDS: Final = 0.2
STOP_SECONDS: Final = 20.0


class Worker:
    """One `leadpulse worker` over all its lives; its log holds what every life printed."""

    def __init__(self, number: int, environment: Mapping[str, str], directory: Path) -> None:
        self.number = number
        self.log = directory / f"worker-{number}.log"
        port = free_port()
        self.metrics_url = f"http://127.0.0.1:{port}/metrics"
        self._environment = {**environment, "LEADPULSE_METRICS": f"127.0.0.1:{port}"}
        self._process: subprocess.Popen[bytes] | None = None
        self._resume: asyncio.TimerHandle | None = None
        self.was_killed = False

    def start(self) -> None:
        """Start a life."""
        self.was_killed = False
        program = str(Path(sys.executable).with_name("leadpulse"))
        with self.log.open("ab") as log:
            self._process = spawn([program, "worker"], log, environment=self._environment)

    def exit_status(self) -> int | None:
        """Return how the present life ended, None while it lasts."""
        return None if self._process is None else self._process.poll()

    def kill(self) -> None:
        """End the present life with SIGKILL."""
        if self._process is not None:
            self.was_killed = True
            self._process.kill()
            self._process.wait()

    def pause(self, seconds: float) -> None:
        """Freeze the process with SIGSTOP, and let it go on after `seconds`."""
        self._signal(signal.SIGSTOP)
        if self._resume is not None:
            self._resume.cancel()
        self._resume = asyncio.get_running_loop().call_later(seconds, self.resume)

    def resume(self) -> None:
        """Let a paused process go on."""
        self._signal(signal.SIGCONT)

    def stop(self) -> int | None:
        """Ask the process to end in its own way, and return its exit status, None if it did not."""
        if self._process is None:
            return None
        self.resume()
        self._process.terminate()
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def tracebacks(self) -> int:
        """Return how many tracebacks the log has."""
        return self.log.read_text(errors="replace").count("Traceback (most recent call last)")

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)


class Workers:
    """Some workers under a supervisor: one that ends is started again.

    `exits` counts by exit status how often a worker ended by itself.
    """

    def __init__(self, count: int, environment: Mapping[str, str], directory: Path) -> None:
        whole = {**os.environ, **environment}
        self.all = [Worker(number, whole, directory) for number in range(count)]
        self.exits: Counter[int] = Counter()
        self._supervision: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start all and watch over them."""
        for worker in self.all:
            worker.start()
        self._supervision = asyncio.create_task(self._supervise())

    def close(self) -> None:
        """Kill all."""
        if self._supervision is not None:
            self._supervision.cancel()
        for worker in self.all:
            worker.kill()

    def stop(self) -> list[int | None]:
        """Ask each in turn to end in its own way, and return their exit statuses."""
        if self._supervision is not None:
            self._supervision.cancel()
        return [worker.stop() for worker in self.all]

    def resume(self) -> None:
        """Let all go on."""
        for worker in self.all:
            worker.resume()

    async def _supervise(self) -> None:
        while True:
            for worker in self.all:
                status = worker.exit_status()
                if status is not None:
                    if not worker.was_killed:
                        self.exits[status] += 1
                        print(f"worker {worker.number} ended with status {status}", flush=True)
                    worker.start()
            await asyncio.sleep(TURN_SECONDS)
