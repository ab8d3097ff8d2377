"""A shard with its real tables and stages, a producer that keeps what is written, and chunks for it."""

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka.errors import ProducerFenced
from aiokafka.producer.message_accumulator import BatchBuilder
from prometheus_client import CollectorRegistry

from kpis.catalog import Catalog
from streams.app import deployment_of, shard_factory
from streams.clock import ManualClock
from streams.messages import Delta, decode_envelope, decode_merge_item
from streams.metrics import Metrics
from streams.outbox import Encoded
from streams.publishers import ScopeView
from streams.settings import Settings, load
from streams.shards import Effects, Shard
from streams.stages import AlertNews
from streams.topics import Topics, topics_of
from streams.transport import Batch, Chunk, Watermark

NOW_MS: Final = 1_772_712_000_000
"""5 March 2026, 12:00 UTC."""

BATCH_BYTES: Final = 1 << 20

SETTINGS: Final = load({"LEADPULSE_CONFIG": ""})
TOPICS: Final = topics_of(SETTINGS)


@dataclass(slots=True)
class Record:
    """A record as it is read."""

    offset: int
    value: bytes | None
    key: bytes | None = None
    timestamp: int = NOW_MS
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass(slots=True)
class Written:
    """A record of a transaction."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None


class RecordingBuilder:
    """aiokafka's own builder, and what was put into it."""

    def __init__(self) -> None:
        self._builder = BatchBuilder(BATCH_BYTES, 0, is_transactional=1)
        self.records: list[tuple[bytes | None, bytes | None]] = []
        self.is_closed = False

    def append(self, *, key: bytes | None, value: bytes | None, **rest: Any) -> object | None:
        """Add a record, None if it does not fit."""
        fits: object | None = self._builder.append(key=key, value=value, **rest)
        if fits is not None:
            self.records.append((key, value))
        return fits

    def close(self) -> None:
        """Take no more records."""
        self.is_closed = True
        self._builder.close()


class Broker:
    """What transactional ids the recording producers have, and what they committed."""

    def __init__(self) -> None:
        self.transactions: list[list[Written]] = []
        self.latest: dict[str, RecordingProducer] = {}

    def records(self, topic: str) -> list[Written]:
        """Return all committed records of a topic."""
        return [one for written in self.transactions for one in written if one.topic == topic]


class RecordingProducer:
    """Keeps what is committed; can be held up, and can fail.

    `steps` tells in which order batches were made and transactions begun.
    """

    def __init__(self, broker: Broker, transactional_id: str = "app-0") -> None:
        self._broker = broker
        self._transactional_id = transactional_id
        before = broker.latest.get(transactional_id)
        self.epoch: int = 0 if before is None else before.epoch + 1
        broker.latest[transactional_id] = self
        self.steps: list[str] = []
        self.failure: BaseException | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.has_begun = asyncio.Event()
        self.is_stopped = False

    def create_batch(self) -> RecordingBuilder:
        """Return an empty batch."""
        self.steps.append("batch")
        return RecordingBuilder()

    async def transact(self, batches: list[Encoded]) -> None:
        """Commit the batches, unless another producer has come, or a failure is asked for."""
        self.steps.append("transaction")
        self.has_begun.set()
        await self.gate.wait()
        if self._broker.latest[self._transactional_id] is not self:
            raise ProducerFenced
        if self.failure is not None:
            raise self.failure
        self._broker.transactions.append(
            [
                Written(encoded.topic, encoded.partition, key, value)
                for encoded in batches
                for key, value in encoded.batch.records
            ]
        )

    async def stop(self) -> None:
        """End."""
        self.is_stopped = True


@dataclass
class World:
    """All that a shard asked of the rest of the worker."""

    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW_MS))
    ends: dict[str, int] = field(default_factory=dict)
    sought: list[tuple[str, int, int]] = field(default_factory=list)
    published: list[ScopeView] = field(default_factory=list)
    alerted: list[AlertNews] = field(default_factory=list)
    fenced: list[Shard] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)

    def effects(self) -> Effects:
        """Return the effects that are noted here."""
        return Effects(
            seek=lambda *place: self.sought.append(place),
            watermark=lambda topic, _: Watermark(self.ends.get(topic, 0), None),
            publish=self.published.extend,
            alert=self.alerted.append,
            fenced=self.fenced.append,
            stop_worker=self.stopped.append,
        )


def a_shard(world: World, settings: Settings = SETTINGS, partitions: int = 1) -> Shard:
    """Return shard 0, not yet started."""
    metrics = Metrics(CollectorRegistry(), "test")
    deployment = deployment_of(settings, partitions, metrics, world.clock)
    return shard_factory(deployment, settings, Catalog(settings.funnel.stages))(0)


def started(
    world: World, producer: RecordingProducer, settings: Settings = SETTINGS, **positions: int
) -> Shard:
    """Return shard 0 at work from `positions` (0 unless named, by the inputs' short names)."""
    shard = a_shard(world, settings)
    named = {TOPICS.inputs[short.replace("_", "-")]: at for short, at in positions.items()}
    at = dict.fromkeys(TOPICS.sources, 0) | named
    for _ in shard.restore(at, lambda position: f"{position}.0.x"):
        pass
    shard.start(producer, world.effects())
    shard.resume()
    return shard


def impression(number: int, **fields: object) -> bytes:
    """Return an impression of one campaign."""
    event = {
        "event_id": f"i-{number}",
        "source": "/test",
        "type": "impression.served",
        "occurred_at": "2026-03-05T11:59:00Z",
        "channel": "google_ads",
        "campaign_id": "c",
    }
    return json.dumps(event | fields).encode()


def chunk(values: Sequence[bytes | None], start: int = 0, topic: str = "impressions") -> Chunk:
    """Return a chunk of one batch that begins at `start`; `topic` is the short name of an input."""
    name = TOPICS.inputs.get(topic, topic)
    end = start + len(values)
    records = [Record(start + i, value) for i, value in enumerate(values)]
    return Chunk(name, 0, start, end, [Batch(start, end, records)])


def impressions(start: int, end: int) -> Chunk:
    """Return a chunk with an impression at each position of [start, end)."""
    return chunk([impression(number) for number in range(start, end)], start)


def deltas(broker: Broker, topics: Topics = TOPICS) -> Iterable[Delta]:
    """Return every committed delta."""
    for written in broker.records(topics.deltas):
        if written.value is not None:
            items = (decode_merge_item(raw) for raw in decode_envelope(written.value).items)
            yield from (item for item in items if isinstance(item, Delta))


def counted(broker: Broker) -> int:
    """Return how many impressions of all scopes were committed."""
    of_all = (delta for delta in deltas(broker) if delta.channel is None)
    return sum(int(delta.facts.get("impressions", 0)) for delta in of_all)
