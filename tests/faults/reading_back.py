"""What the worker left on Kafka, read back with a plain client: its positions and the rejects."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.app import partitions_of
from streams.settings import Settings
from streams.shards import POSITIONS
from streams.tables import Table
from streams.topics import Topics, topics_of

TURN_SECONDS: Final = 0.5

Positions = dict[tuple[str, int], int]


class NotConsumedError(Exception):
    """The workers did not read everything in time."""


async def read_all(settings: Settings, topic: str) -> list[Any]:
    """Return every committed record of a topic, of each partition in order."""
    async with _consumer(settings) as consumer:
        partitions = await _assign(consumer, settings, topic)
        ends = await consumer.end_offsets(partitions)
        records: list[Any] = []
        while any([await consumer.position(tp) < ends[tp] for tp in partitions]):
            for polled in (await consumer.getmany(timeout_ms=200)).values():
                records += polled
    return records


async def positions(settings: Settings) -> Positions:
    """Return up to where every shard has committed, by topic and partition."""
    topics = topics_of(settings)
    rows: dict[int, Table] = {}
    for record in await read_all(settings, topics.changelog("positions")):
        table = rows.setdefault(record.partition, Table("positions", "", record.partition))
        table.load(record.key, record.value)
    return {
        (topic, partition): position
        for partition, table in rows.items()
        for topic, position in _decoded(table.get(POSITIONS)).items()
    }


async def wait_until_consumed(settings: Settings, seconds: float) -> None:
    """Return when everything that is on the inputs has been committed as far as the KPI records.

    What is forwarded goes through the entities topic, from there perhaps once more (a sale tells its
    lead), and then through the deltas.

    Raises:
        NotConsumedError: unless that is so within `seconds`.
    """
    topics: Topics = topics_of(settings)
    deadline = time.monotonic() + seconds
    for names in ([*topics.inputs.values()], [topics.entities], [topics.entities], [topics.deltas]):
        ends = await _ends(settings, names)
        while behind := _behind(await positions(settings), ends):
            if time.monotonic() > deadline:
                places = ", ".join(f"{t}/{p} {n} records" for (t, p), n in behind.items())
                msg = f"expected all to be read within {seconds:.0f} s, still to be read: {places}"
                raise NotConsumedError(msg)
            await asyncio.sleep(TURN_SECONDS)


async def reject_faults(settings: Settings, broken: Mapping[str, str]) -> list[str]:
    """Return how the rejects differ from one for each of `broken` (key of the reject: reason)."""
    topic = topics_of(settings).rejects
    found = [(r.key.decode(), _reason(r.value)) for r in await read_all(settings, topic)]
    times = Counter(key for key, _ in found)
    reasons = dict(found)
    return [
        *_faults("rejects: expected once, got none", broken, lambda key: key not in reasons),
        *_faults("rejects: expected none, got one", reasons, lambda key: key not in broken),
        *_faults("rejects: expected once, got it twice", times, lambda key: times[key] > 1),
        *_faults(
            "rejects: another reason",
            broken,
            lambda key: reasons.get(key, broken[key]) != broken[key],
        ),
    ]


def _faults(
    what: str, keys: Mapping[str, object], is_fault: Callable[[str], bool]
) -> Iterator[str]:
    for key in keys:
        if is_fault(key):
            yield f"{what}: {key}"


def _reason(value: bytes) -> str:
    return str(msgspec.json.decode(value)["reason"])


def _decoded(row: bytes | None) -> dict[str, int]:
    return {} if row is None else msgspec.msgpack.decode(row, type=dict[str, int])


def _behind(found: Positions, ends: Positions) -> Positions:
    return {
        place: end - found.get(place, 0) for place, end in ends.items() if found.get(place, 0) < end
    }


async def _ends(settings: Settings, names: list[str]) -> Positions:
    count = await partitions_of(settings)
    partitions = [TopicPartition(name, p) for name in names for p in range(count)]
    # Of the log itself, not of what is committed: a transaction may be under way.
    async with AIOKafkaConsumer(**settings.kafka.client_options()) as consumer:
        ends = await consumer.end_offsets(partitions)
    return {(tp.topic, tp.partition): end for tp, end in ends.items()}


def _consumer(settings: Settings) -> Any:
    return AIOKafkaConsumer(
        **settings.kafka.consumer_options(),
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )


async def _assign(consumer: Any, settings: Settings, topic: str) -> list[TopicPartition]:
    partitions = [TopicPartition(topic, p) for p in range(await partitions_of(settings))]
    consumer.assign(partitions)
    return partitions
