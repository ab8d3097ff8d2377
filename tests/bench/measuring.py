"""What is measured of an engine, and how: from outside by its process id, or in its own process."""

import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple, NoReturn, Self

import msgspec

from tests.bench.data_sets import Totals

MEBIBYTE = 1 << 20


class BenchError(Exception):
    """A run gave no result, or a wrong one; the text says which."""


class Mark(NamedTuple):
    """How far an engine was at an instant: `cpu_seconds` of the process, on a monotonic clock."""

    seconds: float
    events: int
    cpu_seconds: float


class Job(msgspec.Struct, frozen=True):
    """What an engine in a process of its own is told.

    `name` is new in every run, for groups and changelogs; `topics` are the full names by short name.
    """

    name: str
    servers: str
    topics: dict[str, str]
    events: int
    directory: str

    @classmethod
    def from_arguments(cls) -> Self:
        """Return the job that `command` put on the command line of this process."""
        return msgspec.json.decode(sys.argv[1], type=cls)

    @property
    def result(self) -> Path:
        """Where the measured run is written to."""
        return Path(self.directory) / "result.json"

    def command(self, module: str) -> list[str]:
        """Return the command line that runs this job in `module`."""
        return [sys.executable, "-m", module, msgspec.json.encode(self).decode()]


class Run(msgspec.Struct, frozen=True):
    """One run of one engine between its first and its last mark; `totals` are [campaign, topic, n]."""

    events: int
    seconds: float
    cpu_seconds: float
    peak_mb: float
    totals: list[tuple[str, str, int]]

    @classmethod
    def between(cls, first: Mark, last: Mark, peak_mb: float, totals: Totals) -> Self:
        """Return the run from `first` to `last`.

        Raises:
            BenchError: if no event lies between them.
        """
        events = last.events - first.events
        if events <= 0 or last.seconds <= first.seconds:
            msg = f"marks: expected events between first and last, got {first} and {last}"
            raise BenchError(msg)
        return cls(
            events=events,
            seconds=last.seconds - first.seconds,
            cpu_seconds=last.cpu_seconds - first.cpu_seconds,
            peak_mb=peak_mb,
            totals=[(*key, count) for key, count in sorted(totals.items())],
        )

    @property
    def events_per_second(self) -> float:
        """Events per second of the wall clock."""
        return self.events / self.seconds

    @property
    def cpu_seconds_per_million(self) -> float:
        """Seconds of processor time for a million events."""
        return self.cpu_seconds / self.events * 1e6

    def check(self, expected: Totals) -> None:
        """Compare the totals.

        Raises:
            BenchError: at the first that differs.
        """
        compare(Counter({(campaign, topic): n for campaign, topic, n in self.totals}), expected)


def compare(got: Totals, expected: Totals) -> None:
    """Compare totals; absent and 0 are the same.

    Raises:
        BenchError: at the first that differs.
    """
    wrong = sorted(key for key in got.keys() | expected.keys() if got[key] != expected[key])
    if wrong:
        campaign, topic = wrong[0]
        msg = (
            f"totals: {len(wrong)} wrong of {len(expected)}; {topic} of {campaign}: "
            f"expected {expected[wrong[0]]}, got {got[wrong[0]]}"
        )
        raise BenchError(msg)


class Meter:
    """Measures the process it lives in."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._first: Mark | None = None

    def mark_first(self) -> None:
        """Note the moment at which the first event was at hand; later calls do nothing."""
        if self._first is None:
            self._first = Mark(time.monotonic(), 0, time.process_time())

    def finish(self, totals: Totals) -> NoReturn:
        """Write the run down and end the process."""
        last = Mark(time.monotonic(), self._job.events, time.process_time())
        if self._first is None:
            msg = "meter: expected a first mark before the last, got none"
            raise BenchError(msg)
        run = Run.between(self._first, last, peak_mb(os.getpid()), totals)
        self._job.result.write_bytes(msgspec.json.encode(run))
        os._exit(0)


def peak_mb(pid: int) -> float:
    """Return the most memory that the process ever held (VmHWM) in MB of 2^20 bytes.

    Not ru_maxrss: that one begins with what the parent held.
    """
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    kilobytes = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    return kilobytes * 1024 / MEBIBYTE


def cpu_seconds(pid: int) -> float:
    """Return the processor time of the process, in user and system mode, to 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = int(fields[11]), int(fields[12])
    return (user + system) / os.sysconf("SC_CLK_TCK")
