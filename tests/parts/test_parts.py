"""The real parts do what the tests above them rely on."""

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError

from tests.parts.install import MissingPartError
from tests.parts.kafka_broker import KafkaBroker
from tests.parts.redis_server import RedisServer
from tests.parts.server import ServerError, wait_until_gone

pytestmark = pytest.mark.integration


@pytest.fixture
def own_broker() -> Iterator[KafkaBroker]:
    try:
        broker = KafkaBroker({"num.partitions": "3"}, cpus={0})
    except MissingPartError as error:
        pytest.skip(str(error))
    with broker:
        yield broker


async def create_topic(bootstrap: str, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1)])
    finally:
        await admin.close()


async def produce(bootstrap: str, topic: str, values: list[bytes]) -> None:
    async with (
        AIOKafkaProducer(
            bootstrap_servers=bootstrap, transactional_id=f"{topic}-writer"
        ) as producer,
        producer.transaction(),
    ):
        for value in values:
            await producer.send(topic, value, partition=0)


async def consume(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed")
    async with consumer:
        consumer.assign([TopicPartition(topic, 0)])
        await consumer.seek_to_beginning()
        async with asyncio.timeout(30):
            return [(await consumer.getone()).value for _ in range(count)]


async def test_broker_answers(kafka: KafkaBroker, prefix: str) -> None:
    topic = f"{prefix}events.v1"
    await create_topic(kafka.bootstrap, topic)
    await produce(kafka.bootstrap, topic, [b"one", b"two"])

    assert await consume(kafka.bootstrap, topic, 2) == [b"one", b"two"]


@pytest.mark.fault
async def test_broker_keeps_its_data_over_kill_and_restart(own_broker: KafkaBroker) -> None:
    bootstrap = own_broker.bootstrap
    await create_topic(bootstrap, "kept")
    await produce(bootstrap, "kept", [b"before"])

    own_broker.kill()
    assert not own_broker.is_running
    own_broker.start()
    assert own_broker.bootstrap == bootstrap
    await produce(bootstrap, "kept", [b"between"])
    own_broker.restart()

    assert await consume(bootstrap, "kept", 2) == [b"before", b"between"]


def test_broker_runs_on_its_processors_only(own_broker: KafkaBroker) -> None:
    assert os.sched_getaffinity(own_broker.pid) == {0}


def test_broker_that_ends_says_why() -> None:
    try:
        broker = KafkaBroker({"log.dirs": "/proc/nowhere"})
    except MissingPartError as error:
        pytest.skip(str(error))
    with pytest.raises(ServerError, match="/proc/nowhere"), broker:
        pass
    assert not broker.directory.exists()


async def test_redis_answers(redis_server: RedisServer, prefix: str) -> None:
    async with Redis.from_url(redis_server.url) as redis:
        await redis.set(f"{prefix}key", "value")

        assert await redis.get(f"{prefix}key") == b"value"


@pytest.mark.fault
async def test_redis_comes_back_empty_on_the_same_port() -> None:
    with RedisServer() as server:
        url = server.url
        async with Redis.from_url(url) as redis:
            await redis.set("key", "value")
        server.kill()
        server.start()

        assert server.url == url
        async with Redis.from_url(url) as redis:
            assert await redis.dbsize() == 0


async def test_redis_with_password_refuses_strangers() -> None:
    with RedisServer(password="open-sesame") as server:
        async with Redis.from_url(server.url) as redis:
            assert await redis.ping()
        async with Redis(port=server.port, retry=Retry(NoBackoff(), 0)) as stranger:
            with pytest.raises(AuthenticationError):
                await stranger.ping()


def test_servers_die_with_their_parent(tmp_path: Path) -> None:
    parent = textwrap.dedent("""
        import json, os, signal
        from tests.parts.redis_server import RedisServer
        server = RedisServer()
        server.start()
        print(server.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    # What a killed parent leaves behind is taken away with the test's own folder.
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    said = subprocess.run(
        [sys.executable, "-c", parent], env=environment, stdout=subprocess.PIPE, check=False
    )

    wait_until_gone(int(said.stdout))
