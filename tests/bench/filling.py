"""Puts the data sets into Kafka, in record batches of a given size."""

import asyncio
from collections.abc import Iterable

from confluent_kafka import Consumer, Producer, TopicPartition

from streams.settings import Settings
from streams.topics import create, topics_of
from tests.bench.data_sets import TOPICS, DataSet
from tests.bench.measuring import BenchError

PARTITIONS = 4
# Long enough for the rarer topic to fill its batches too.
LINGER_MS = 2_000
POLL_EVERY = 1_000
QUEUE_EVENTS = 500_000
BATCH_BYTES = 4_000_000
PATIENCE_SECONDS = 60


def fill(settings: Settings, data_set: DataSet) -> None:
    """Create the topics and produce the data set into them.

    Raises:
        Problem: if the topics cannot be created.
        BenchError: unless the broker has every event afterwards.
    """
    asyncio.run(create(settings, PARTITIONS))
    names = topics_of(settings).inputs
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka.servers,
            "compression.type": "zstd",
            "linger.ms": LINGER_MS,
            "batch.num.messages": data_set.batch_size,
            "batch.size": BATCH_BYTES,
            "message.max.bytes": BATCH_BYTES,
            "queue.buffering.max.messages": QUEUE_EVENTS,
            "queue.buffering.max.kbytes": 1 << 20,
        }
    )
    for index, (topic, value) in enumerate(data_set.read()):
        if index % POLL_EVERY == 0:
            producer.poll(0)
        _produce(producer, names[topic], value, index % PARTITIONS)
    producer.flush(PATIENCE_SECONDS)
    there = _count(settings.kafka.servers, [names[topic] for topic in TOPICS])
    if there != data_set.events:
        msg = f"topics {data_set.prefix}…: expected {data_set.events} events, got {there}"
        raise BenchError(msg)


def _produce(producer: Producer, topic: str, value: bytes, partition: int) -> None:
    while True:
        try:
            producer.produce(topic, value, partition=partition)
        except BufferError:
            producer.poll(0.05)
        else:
            return


def _count(servers: str, topics: Iterable[str]) -> int:
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "bench-count"})
    try:
        ends = [
            consumer.get_watermark_offsets(TopicPartition(topic, partition))
            for topic in topics
            for partition in range(PARTITIONS)
        ]
    finally:
        consumer.close()
    return sum(end - begin for begin, end in ends)
