"""A LeadPulse worker as an operator starts it, on a core of its own, and what it publishes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.request import urlopen

from aiokafka import AIOKafkaConsumer, TopicPartition

from kpis.windows import LIFETIME
from streams.settings import PREFIX, Settings, load
from streams.topics import topics_of
from tests.bench.data_sets import TOPICS, Totals
from tests.bench.measuring import BenchError, Mark, cpu_seconds, peak_mb
from tests.parts.server import free_port, spawn

PROGRAM = Path(sys.executable).with_name("leadpulse")
STOP_SECONDS = 20.0
METRICS_SECONDS = 5.0
SHARDS = b"leadkpi_shards "
LIFETIME_KEY = f"period|{LIFETIME}|-|".encode()


@dataclass(frozen=True, slots=True)
class Deployment:
    """The settings of a worker, as variables."""

    variables: Mapping[str, str]

    @classmethod
    def of(cls, servers: str, redis_url: str, prefix: str, app_id: str, directory: Path) -> Self:
        """Return a deployment with every output on and all else as it is by default."""
        # An empty file: what a developer keeps in ./leadpulse.toml must not count.
        file = directory / "leadpulse.toml"
        file.touch()
        return cls(
            {
                "LEADPULSE_CONFIG": str(file),
                "LEADPULSE_KAFKA": servers,
                "LEADPULSE_REDIS": redis_url,
                "LEADPULSE_METRICS": f"127.0.0.1:{free_port()}",
                "LEADPULSE_APP_ID": app_id,
                "LEADPULSE_TOPICS_PREFIX": prefix,
            }
        )

    @property
    def settings(self) -> Settings:
        """The same as the worker reads them."""
        return load(self.variables)

    def open_shards(self) -> int:
        """Return how many shards the worker has open, 0 while its metrics do not answer."""
        url = f"http://{self.variables['LEADPULSE_METRICS']}/metrics"
        try:
            with urlopen(url, timeout=METRICS_SECONDS) as answer:
                lines = answer.read().splitlines()
        except OSError:
            return 0
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith(SHARDS))


class Worker:
    """`leadpulse worker` in a process of its own; it is stopped on exit."""

    def __init__(self, deployment: Deployment, log: Path, core: int) -> None:
        kept = {name: text for name, text in os.environ.items() if not name.startswith(PREFIX)}
        self._environment = kept | dict(deployment.variables)
        self._log = log
        self._core = core
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            command = [str(PROGRAM), "worker"]
            self._process = spawn(command, log, cpus={self._core}, environment=self._environment)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process = self._running()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def peak_mb(self) -> float:
        """The most memory it ever held, in MB."""
        return peak_mb(self._running().pid)

    def mark(self, events: int) -> Mark:
        """Return a mark of now.

        Raises:
            BenchError: if the worker has ended.
        """
        self.require()
        return Mark(time.monotonic(), events, cpu_seconds(self._running().pid))

    def require(self) -> None:
        """See that the worker lives.

        Raises:
            BenchError: with what it said last, if it has ended.
        """
        status = self._running().poll()
        if status is not None:
            raise BenchError(self.said(f"expected to run on, got exit status {status}"))

    def said(self, fault: str) -> str:
        """Return `fault` with the end of the worker's log."""
        return (
            f"leadpulse worker: {fault}; it said:\n{self._log.read_text(errors='replace')[-3000:]}"
        )

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            msg = "leadpulse worker: expected to be started, got no process"
            raise BenchError(msg)
        return self._process


async def kpi_ends(settings: Settings) -> dict[TopicPartition, int]:
    """Return where leadgen.kpis.v1 ends in each partition: where a new application's records begin."""
    async with _consumer(settings) as consumer:
        return await _ends(consumer, topics_of(settings).kpis)


async def committed_totals(settings: Settings, begins: Mapping[TopicPartition, int]) -> Totals:
    """Return impressions and clicks of each campaign, as committed to leadgen.kpis.v1 after `begins`."""
    latest: dict[bytes, bytes] = {}
    async with _consumer(settings) as consumer:
        ends = await _ends(consumer, topics_of(settings).kpis)
        consumer.assign(list(ends))
        for partition in ends:
            consumer.seek(partition, begins.get(partition, 0))
        while any([await consumer.position(p) < end for p, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                latest |= {r.key: r.value for r in records if r.key.startswith(LIFETIME_KEY)}
    return _totals(latest.values())


def _consumer(settings: Settings) -> AIOKafkaConsumer:
    options = settings.kafka.consumer_options()
    return AIOKafkaConsumer(
        **options, isolation_level="read_committed", auto_offset_reset="earliest"
    )


async def _ends(consumer: AIOKafkaConsumer, topic: str) -> dict[TopicPartition, int]:
    await consumer._client.set_topics([topic])  # without it the client knows no partitions
    numbers = consumer.partitions_for_topic(topic) or ()
    ends: dict[TopicPartition, int] = await consumer.end_offsets(
        [TopicPartition(topic, number) for number in numbers]
    )
    return ends


def _totals(values: Iterable[bytes]) -> Totals:
    totals: Totals = Counter()
    for value in values:
        record = json.loads(value)
        campaign = record["scope"]["campaign_id"]
        if campaign is not None:
            totals |= {(campaign, topic): record["facts"].get(topic, 0) for topic in TOPICS}
    return totals
