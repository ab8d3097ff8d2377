"""A deployment of one test: its topics and settings, what is sent to it, and what it publishes."""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple, Self
from urllib.request import urlopen

import msgspec
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from streams import topics
from streams.alerting import ALERT_ROW
from streams.settings import load
from streams.shards import POSITIONS
from streams.tables import Table
from streams.transport import Batch
from streams.verify import BILLS_SETTLE_SECONDS
from tests.faults.reading_back import HOPS
from tests.faults.workers import Worker

PROGRAM: Final = Path(sys.executable).with_name("leadpulse")
TURN_SECONDS: Final = 0.05
SOON_SECONDS: Final = 30.0
"""Until then something that takes a second must have come about, on a busy machine too."""
RUN_SECONDS: Final = 60.0
VERIFY_SECONDS: Final = BILLS_SETTLE_SECONDS + RUN_SECONDS
"""What `verify` takes at most: it may wait for running bills."""

Positions = dict[tuple[str, int], int]


class Sent(NamedTuple):
    """A record to send; `topic` is the short name, None lets chance decide."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    partition: int | None = None
    timestamp_ms: int | None = None
    headers: Sequence[tuple[str, bytes]] = ()


class Place(NamedTuple):
    """Where a record is, by the full name of its topic."""

    topic: str
    partition: int
    offset: int

    @property
    def key(self) -> str:
        """The key of its reject."""
        return "/".join(map(str, self))


def event(topic: str, type_name: str, occurred_at: str, **fields: object) -> Sent:
    """Return an event with only the fields that matter; its id and source follow from them."""
    named = "-".join(str(fields[name]) for name in fields if name.endswith("_id"))
    envelope = {
        "event_id": f"{type_name}-{named}"[:128],
        "source": "/test",
        "type": type_name,
        "occurred_at": occurred_at,
    }
    return Sent(topic, json.dumps(envelope | fields).encode())


async def until(
    condition: Callable[[], Awaitable[bool]], what: str, seconds: float = SOON_SECONDS
) -> float:
    """Return after how many seconds `condition` held.

    Raises:
        TimeoutError: unless it does within `seconds`.
    """
    began = time.monotonic()
    while not await condition():
        if time.monotonic() - began > seconds:
            msg = f"expected within {seconds:.0f} s: {what}"
            raise TimeoutError(msg)
        await asyncio.sleep(TURN_SECONDS)
    return time.monotonic() - began


class Deployment:
    """Topics, settings and processes of one test; as a context manager all end with it."""

    def __init__(self, environment: Mapping[str, str], directory: Path, partitions: int) -> None:
        own = {"LEADPULSE_CONFIG": "", **environment}
        outer = {name: os.environ[name] for name in os.environ if not name.startswith("LEADPULSE_")}
        self.environment = outer | own
        self.settings = load(own)
        self.topics = topics.topics_of(self.settings)
        self.partitions = partitions
        self.directory = directory
        self.redis = redis.Redis.from_url(self.settings.redis.url, decode_responses=True)
        self._random = random.Random(7)
        self._workers: list[Worker] = []
        self._stack = AsyncExitStack()
        self._producer: Any = None
        self._readers: dict[str, _Reader] = {}

    async def __aenter__(self) -> Self:
        self._stack.callback(self.redis.close)
        self._stack.callback(self._kill_workers)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def create_topics(self) -> None:
        """Create all topics as `leadpulse topics --create` does."""
        await topics.create(self.settings, self.partitions)

    # ------------------------------------------------------------------------- processes

    def worker(self, **settings: str) -> Worker:
        """Start a worker."""
        worker = Worker(len(self._workers), {**self.environment, **settings}, self.directory)
        self._workers.append(worker)
        worker.start()
        return worker

    def _kill_workers(self) -> None:
        for worker in self._workers:
            worker.kill()

    def run(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run `leadpulse` with `arguments` to its end."""
        return self._run(arguments, settings, RUN_SECONDS)

    async def verify(self) -> subprocess.CompletedProcess[str]:
        """Run `leadpulse verify` to its end; the consumers of this process live on meanwhile."""
        return await asyncio.to_thread(self._run, ["verify"], {}, VERIFY_SECONDS)

    def _run(
        self, arguments: Sequence[str], settings: Mapping[str, str], seconds: float
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PROGRAM, *arguments],
            env={**self.environment, **settings},
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    # ------------------------------------------------------------------------- input

    async def send(self, records: Iterable[Sent]) -> list[Place]:
        """Send records and return where they are; where nothing is said, key and partition are drawn."""
        drawn = self._random
        producer = await self._started_producer()
        taken = [
            await producer.send(
                self.topics.inputs[record.topic],
                record.value,
                key=record.key or drawn.choice((None, drawn.randbytes(4))),
                partition=drawn.randrange(self.partitions)
                if record.partition is None
                else record.partition,
                timestamp_ms=record.timestamp_ms,
                headers=list(record.headers),
            )
            for record in records
        ]
        metadata = [await one for one in taken]
        return [Place(one.topic, one.partition, one.offset) for one in metadata]

    async def publish_over(self, key: str, old: bytes, new: bytes) -> None:
        """Write the last record of a key of leadgen.kpis.v1 again, with `new` in place of `old`."""
        records = [r for r in await self._read(self.topics.kpis) if r.key == key.encode()]
        value = records[-1].value.replace(old, new)
        producer = await self._started_producer()
        place = {"key": key.encode(), "partition": records[-1].partition}
        await producer.send_and_wait(self.topics.kpis, value, **place)

    async def _started_producer(self) -> Any:
        if self._producer is None:
            self._producer = AIOKafkaProducer(
                **self.settings.kafka.client_options(), acks="all", enable_idempotence=True
            )
            await self._producer.start()
            self._stack.push_async_callback(self._producer.stop)
        return self._producer

    async def settle(self, seconds: float = SOON_SECONDS) -> None:
        """Return when all that is on the inputs is committed on leadgen.kpis.v1.

        What is forwarded goes through the entities topic, perhaps several times, and then through the
        deltas.
        """
        forwarded = [[self.topics.entities]] * HOPS
        for names in ([*self.topics.inputs.values()], *forwarded, [self.topics.deltas]):
            ends = await self._ends(names)

            async def is_read(ends: Positions = ends) -> bool:
                positions = await self.positions()
                return all(positions.get(place, 0) >= end for place, end in ends.items())

            await until(is_read, f"{', '.join(names)} read to the end", seconds)

    async def positions(self) -> Positions:
        """Return up to where every shard has committed, by topic and partition."""
        found: Positions = {}
        tables = [Table("positions", "", p) for p in range(self.partitions)]
        for record in await self._read(self.topics.changelog("positions")):
            tables[record.partition].load(record.key, record.value)
        for partition, table in enumerate(tables):
            row = table.get(POSITIONS)
            if row is not None:
                decoded = msgspec.msgpack.decode(row, type=dict[str, int])
                found |= {(topic, partition): at for topic, at in decoded.items()}
        return found

    # ------------------------------------------------------------------------- output

    async def kpi_records(self) -> dict[str, dict[str, Any]]:
        """Return the last value of each key of leadgen.kpis.v1."""
        latest: dict[str, dict[str, Any]] = {}
        for record in await self._read(self.topics.kpis):
            key = record.key.decode()
            if record.value is None:
                latest.pop(key, None)
            else:
                latest[key] = json.loads(record.value)
        return latest

    async def kpi_count(self) -> int:
        """Return how many records leadgen.kpis.v1 has."""
        return len(await self._read(self.topics.kpis))

    async def lifetime(self, channel: str = "_all", campaign: str = "_all") -> dict[str, Any]:
        """Return the lifetime record of a scope; empty if there is none."""
        return (await self.kpi_records()).get(f"period|lifetime|-|{channel}|{campaign}", {})

    async def facts(self, channel: str = "_all", campaign: str = "_all") -> dict[str, Any]:
        """Return the lifetime facts of a scope."""
        found: dict[str, Any] = (await self.lifetime(channel, campaign)).get("facts", {})
        return found

    async def alerts(self) -> list[tuple[str, dict[str, Any]]]:
        """Return key and value of each record of leadgen.alerts.v1."""
        records = await self._read(self.topics.alerts)
        return [(record.key.decode(), json.loads(record.value)) for record in records]

    async def standings(self) -> dict[tuple[str, str | None, str | None], list[Any]]:
        """Return where rules and scopes stand, by rule, channel and campaign."""
        tables = [Table("windows", "", p) for p in range(self.partitions)]
        for record in await self._read(self.topics.changelog("windows")):
            tables[record.partition].load(record.key, record.value)
        return {
            tuple(key): msgspec.msgpack.decode(row)[0]
            for table in tables
            for packed, row in table.items()
            for kind, *key in [msgspec.msgpack.decode(packed)]
            if kind == ALERT_ROW
        }

    async def rejects(self) -> list[tuple[str, dict[str, Any]]]:
        """Return key and value of each reject."""
        records = await self._read(self.topics.rejects)
        return [(record.key.decode(), json.loads(record.value)) for record in records]

    def hash(
        self, window: str = "lifetime", channel: str = "_all", campaign: str = "_all"
    ) -> dict[str, str]:
        """Return a Redis hash; empty if there is none."""
        found = self.redis.hgetall(f"leadkpi:v1:period:{window}:{channel}:{campaign}")
        return dict(found)  # type: ignore[arg-type] # not awaitable: the client is synchronous

    async def shown(self, fields: Mapping[str, str], *scope: str) -> float:
        """Return after how many seconds a lifetime hash has these fields."""

        async def has_fields() -> bool:
            return fields.items() <= self.hash("lifetime", *scope).items()

        return await until(has_fields, f"{dict(fields)} in the hash of {scope or 'all'}")

    async def _read(self, topic: str) -> list[Any]:
        reader = self._readers.get(topic)
        if reader is None:
            reader = self._readers[topic] = _Reader(self, topic)
            await self._stack.enter_async_context(reader)
        return await reader.read()

    async def _ends(self, names: list[str]) -> Positions:
        partitions = [TopicPartition(n, p) for n in names for p in range(self.partitions)]
        # Of the log itself, not of what is committed: a transaction may be under way.
        async with AIOKafkaConsumer(**self.settings.kafka.client_options()) as consumer:
            ends = await consumer.end_offsets(partitions)
        return {(tp.topic, tp.partition): end for tp, end in ends.items()}


class _Reader:
    """Every committed record of one topic, read on from where the last call stopped."""

    def __init__(self, deployment: Deployment, topic: str) -> None:
        self._partitions = [TopicPartition(topic, p) for p in range(deployment.partitions)]
        self._records: list[Any] = []
        self._consumer: Any = AIOKafkaConsumer(
            **deployment.settings.kafka.client_options(),
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            fetch_max_wait_ms=50,
        )

    async def __aenter__(self) -> Self:
        await self._consumer.start()
        self._consumer.assign(self._partitions)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def read(self) -> list[Any]:
        ends = await self._consumer.end_offsets(self._partitions)
        while any([await self._consumer.position(tp) < end for tp, end in ends.items()]):
            for fetched in (await self._consumer.getmany(timeout_ms=100)).values():
                for one in fetched:
                    # Another test may have made this process fetch whole batches.
                    self._records += one.read() if isinstance(one, Batch) else (one,)
        return self._records


# ----------------------------------------------------------------------------- metrics

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def fetch(url: str) -> str:
    """Return what is served at `url`."""
    with urlopen(url, timeout=10) as response:
        text: str = response.read().decode()
    return text


def series(text: str) -> Series:
    """Return every sample of an exposition, by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def names(of: Series) -> set[str]:
    """Return the names of all samples."""
    return {name for name, _ in of}


def sample(of: Series, name: str, **labels: str) -> float | None:
    """Return the sum of the samples of `name` that have `labels`; None if there is none."""
    found = [value for (n, has), value in of.items() if n == name and labels.items() <= has]
    return sum(found) if found else None
