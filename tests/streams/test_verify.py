"""`leadpulse verify` against a real worker, a real Kafka and a real Redis."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete
from redis.asyncio import Redis
from rich.console import Console

from kpis.facts import OVERALL
from streams.problems import Problem
from streams.publishers.redis_hashes import hash_name
from streams.settings import Settings, load
from streams.topics import admin_client, create, topics_of
from streams.verify import verify
from tests.kpis.streams_of_records import MINUTE_MS, Record, record
from tests.parts.kafka_broker import KafkaBroker
from tests.parts.redis_server import RedisServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

LIFETIME = b"period|lifetime|-|_all|_all"
WORKER = Path(sys.executable).with_name("leadpulse")


@dataclass
class Deployment:
    """A worker that has counted `events` events."""

    settings: Settings
    events: int


def some_records() -> list[Record]:
    """Return one of each kind, some of which are refused, of the last days and minutes."""
    now_ms = time.time_ns() // 1_000_000
    records = []
    for ago in (0, 1, 59, 60, 61, 200, 1500, 3000):
        at_ms = now_ms - ago * MINUTE_MS
        ids: dict[str, Any] = {"event_id": f"e{ago}", "channel": "google_ads", "campaign_id": "c|é"}
        sale: dict[str, Any] = {"sale_id": f"s{ago}", "lead_id": f"l{ago + 1}"}
        sale |= {"amount": "9.5", "currency": "EUR"}
        records += [
            record("impressions", "impression.served", at_ms, **ids),
            record("clicks", "click.recorded", at_ms, **ids, click_id=f"k{ago % 3}"),
            record("clicks", "click.recorded", at_ms, **ids),
            record("leads", "lead.created", at_ms, **ids, lead_id=f"l{ago}"),
            record("stage-changes", "lead.stage_changed", at_ms, lead_id=f"l{ago}", to_stage="sql"),
            record("stage-changes", "lead.stage_changed", at_ms, lead_id=f"l{ago}", to_stage="no"),
            record("sales", "sale.created", at_ms, **sale),
            Record("clicks", b"{", now_ms),
        ]
    return records


async def prepare(settings: Settings, records: list[Record]) -> None:
    await create(settings)
    async with AIOKafkaProducer(**settings.kafka.client_options()) as producer:
        for one in records:
            await producer.send(topics_of(settings).inputs[one.topic], one.value)


@pytest.fixture(scope="module")
def deployment(
    kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    with RedisServer() as redis:
        variables = {
            "LEADPULSE_KAFKA": kafka.bootstrap,
            "LEADPULSE_REDIS": redis.url,
            "LEADPULSE_METRICS": "127.0.0.1:0",
            "LEADPULSE_APP_ID": "verified",
            "LEADPULSE_TOPICS_PREFIX": "verified.",
            "LEADPULSE_TOPICS_PARTITIONS": "2",
            "LEADPULSE_TIME_ZONE": "Europe/Paris",
        }
        settings = load(variables)
        records = some_records()
        asyncio.run(prepare(settings, records))
        directory = tmp_path_factory.mktemp("worker")
        with (directory / "log").open("w") as log:
            worker = subprocess.Popen(
                [WORKER, "worker"],
                cwd=directory,
                env=os.environ | variables,
                stdout=log,
                stderr=log,
            )
            try:
                yield Deployment(settings, len(records))
            finally:
                worker.kill()
                worker.wait()


async def verified(settings: Settings, settle_seconds: float = 60) -> tuple[int, list[str]]:
    """Return exit status and lines of a verification."""
    written = StringIO()
    status = await verify(settings, Console(file=written, width=40), settle_seconds)
    return status, written.getvalue().splitlines()


async def test_a_worker_is_exact(deployment: Deployment) -> None:
    status, lines = await verified(deployment.settings)
    assert status == 0, "\n".join(lines)
    line = lines[0]
    assert line.startswith(f"exact: {deployment.events} events, ")


async def test_without_redis_only_the_topic_is_compared(deployment: Deployment) -> None:
    settings = replace(deployment.settings, redis=replace(deployment.settings.redis, url=""))
    status, (line,) = await verified(settings)
    assert status == 0
    assert line.endswith("values (leadgen.kpis.v1 only: redis.url is empty)")


async def test_a_redis_that_does_not_answer_is_told_in_one_line(deployment: Deployment) -> None:
    await verified(deployment.settings)
    redis = replace(deployment.settings.redis, url="redis://127.0.0.1:1/0")
    with pytest.raises(Problem, match=r"Redis at redis://127\.0\.0\.1:1/0: expected a server"):
        await verified(replace(deployment.settings, redis=redis))


async def test_a_missing_topic_is_told_in_one_line(deployment: Deployment, prefix: str) -> None:
    topics = replace(deployment.settings.topics, prefix=prefix)
    with pytest.raises(Problem, match=f"topic {prefix}impressions.v1: expected a topic, got none"):
        await verified(replace(deployment.settings, topics=topics))


async def test_empty_input_topics_are_not_exact(kafka: KafkaBroker, prefix: str) -> None:
    name = prefix.rstrip(".")
    settings = load(
        {
            "LEADPULSE_KAFKA": kafka.bootstrap,
            "LEADPULSE_REDIS": "",
            "LEADPULSE_APP_ID": name,
            "LEADPULSE_TOPICS_PREFIX": prefix,
            "LEADPULSE_TOPICS_PARTITIONS": "2",
        }
    )
    await create(settings)
    assert await verified(settings) == (1, ["nothing to compare: the input topics are empty"])


async def test_a_wrong_record_is_found(deployment: Deployment) -> None:
    settings = deployment.settings
    await verified(settings)
    partition, right = await last_record(settings, LIFETIME)
    await put(
        settings, topics_of(settings).kpis, partition, LIFETIME, right.replace(b":8,", b":9,")
    )
    try:
        status, lines = await verified(settings, 0)
    finally:
        await put(settings, topics_of(settings).kpis, partition, LIFETIME, right)
    assert status == 1
    assert "period|lifetime|-|_all|_all impressions: expected 8, got 9" in lines
    assert lines[-1].startswith("not exact: ")
    assert (await verified(settings))[0] == 0


async def test_a_wrong_hash_is_found(deployment: Deployment) -> None:
    settings = deployment.settings
    await verified(settings)
    name = hash_name("lifetime", OVERALL)
    redis = Redis.from_url(settings.redis.url, decode_responses=True)
    right = await redis.hget(name, "revenue_gross")
    await redis.hset(name, "revenue_gross", "1.000000")
    try:
        status, lines = await verified(settings, 0)
    finally:
        await redis.hset(name, "revenue_gross", right)
        await redis.aclose()
    assert status == 1
    assert lines[0] == f"{name} revenue_gross: expected 76.000000, got 1.000000"


async def test_an_input_whose_beginning_is_gone_cannot_be_compared(deployment: Deployment) -> None:
    settings = deployment.settings
    await verified(settings)
    topic = topics_of(settings).inputs["clicks"]
    async with admin_client(settings.kafka) as admin:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=1)})
    status, (line,) = await verified(settings)
    assert status == 1
    assert line.startswith(f"{topic}/0: expected all records from 0, got them from 1")


async def last_record(settings: Settings, key: bytes) -> tuple[int, bytes]:
    """Return partition and value of the last record of a key of leadgen.kpis.v1."""
    consumer = AIOKafkaConsumer(
        **settings.kafka.consumer_options(), isolation_level="read_committed"
    )
    async with consumer:
        places = [TopicPartition(topics_of(settings).kpis, partition) for partition in (0, 1)]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        for tp in places:
            consumer.seek(tp, 0)
        found = (0, b"")
        while any([await consumer.position(tp) < ends[tp] for tp in places]):
            for tp, polled in (await consumer.getmany(timeout_ms=200)).items():
                for one in polled:
                    if one.key == key:
                        found = (tp.partition, one.value)
    return found


async def put(settings: Settings, topic: str, partition: int, key: bytes, value: bytes) -> None:
    async with AIOKafkaProducer(**settings.kafka.client_options()) as producer:
        await producer.send_and_wait(topic, value, key=key, partition=partition)
