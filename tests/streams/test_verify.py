"""`leadpulse verify` against a real worker, a real Kafka and a real Redis."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

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
from tests.kpis.streams_of_records import MINUTE_MS, Record, record, text
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
    """Return records of each kind, some of which are refused, of the last days and minutes."""
    now_ms = time.time_ns() // 1_000_000
    records = [Record("clicks", b"{", now_ms), *money_of(now_ms)]
    for ago in (0, 1, 59, 60, 61, 200, 1500, 3000):
        at_ms = now_ms - ago * MINUTE_MS
        ids: dict[str, Any] = {"event_id": f"e{ago}", "channel": "google_ads", "campaign_id": "c|é"}
        sale: dict[str, Any] = {"sale_id": f"s{ago}", "amount": "9.5", "currency": "EUR"}
        visit: dict[str, Any] = {"visit_id": f"w{ago}", "visitor_id": f"v{ago % 3}"}
        lead_id = f"l{ago}"
        records += [
            record("impressions", "impression.served", at_ms, **ids),
            record("clicks", "click.recorded", at_ms, **ids, click_id=f"k{ago % 3}"),
            record("clicks", "click.recorded", at_ms, **ids),
            record("visits", "visit.started", at_ms, **ids, **visit),
            record("leads", "lead.created", at_ms, **ids, lead_id=lead_id),
            record("leads", "lead.created", at_ms, lead_id=f"of click {ago}", click_id="k0"),
            record("stage-changes", "lead.stage_changed", at_ms, lead_id=lead_id, to_stage="sql"),
            record("stage-changes", "lead.stage_changed", at_ms, lead_id=lead_id, to_stage="no"),
            record("sales", "sale.created", at_ms, **sale, lead_id=f"l{ago + 1}"),
        ]
    return records


def money_of(now_ms: int) -> list[Record]:
    """Return a sale in dollars with its reversals, a rate, bills of today, corrections and a target."""
    today = datetime.fromtimestamp(now_ms / 1000, ZoneInfo("Europe/Paris")).date()
    bill: dict[str, Any] = {
        "cost_source": "ads",
        "channel": "google_ads",
        "period_start": today.isoformat(),
        "period_end": (today + timedelta(days=1)).isoformat(),
        "amount": "1234.56",
        "reported_at": text(now_ms),
    }
    rate: dict[str, Any] = {"base": "USD", "quote": "EUR", "rate": "0.92"}
    sale: dict[str, Any] = {"sale_id": "dollars", "currency": "USD"}
    target: dict[str, Any] = {"kpi": "leads", "period": "day", "period_start": today.isoformat()}
    merger: dict[str, Any] = {"lead_id": "l60", "into_lead_id": "l59"}
    return [
        record("costs", "cost.snapshot", now_ms, **bill, currency="EUR"),
        record("costs", "cost.snapshot", now_ms, **bill, currency="USD", account_id="other"),
        # A fee is for the whole day: it is booked as time goes by.
        record("costs", "cost.snapshot", now_ms, **bill, currency="EUR", cost_type="fee"),
        record("fx-rates", "fxrate.set", now_ms, **rate, date=today.isoformat()),
        record("sales", "sale.created", now_ms, **sale, amount="100", lead_id="l0"),
        record("sales", "sale.refunded", now_ms, **sale, amount="40", refund_id="r1"),
        record("sales", "sale.refunded", now_ms, sale_id="s60", **REFUND_IN_DOLLARS),
        record("sales", "sale.cancelled", now_ms, sale_id="s61"),
        record("leads", "lead.merged", now_ms, **merger),
        record("leads", "lead.updated", now_ms, lead_id="l200", channel="seo"),
        record("leads", "lead.disqualified", now_ms, lead_id="l1"),
        record("targets", "target.set", now_ms, **target, value=20, reported_at=text(now_ms)),
    ]


REFUND_IN_DOLLARS: dict[str, Any] = {"refund_id": "r2", "amount": "1", "currency": "USD"}


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
        settings,
        topics_of(settings).kpis,
        partition,
        LIFETIME,
        right.replace(b'"impressions":8', b'"impressions":9'),
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
    assert isinstance(right, str)
    await redis.hset(name, "revenue_gross", "1.000000")
    try:
        status, lines = await verified(settings, 0)
    finally:
        await redis.hset(name, "revenue_gross", right)
        await redis.aclose()
    assert status == 1
    assert lines[0] == f"{name} revenue_gross: expected {right}, got 1.000000"


async def test_a_wrong_ledger_is_found(deployment: Deployment) -> None:
    settings = deployment.settings
    await verified(settings)
    topic = topics_of(settings).windows
    partition, key, value = await some_record(settings, topic)
    await put(settings, topic, partition, key, value)
    status, lines = await verified(settings, 0)
    assert status == 1
    told = key.decode()
    assert f"ledger {told} id: expected one of its own, got that of {told} revision 1" in lines
    assert f"ledger {told} revision: expected 2, got 1" in lines


async def test_an_input_whose_beginning_is_gone_cannot_be_compared(deployment: Deployment) -> None:
    settings = deployment.settings
    # The ledger is wrong since the test before: there is nothing to wait for.
    await verified(settings, 0)
    topic = topics_of(settings).inputs["clicks"]
    async with admin_client(settings.kafka) as admin:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=1)})
    status, (line,) = await verified(settings)
    assert status == 1
    assert line.startswith(f"{topic}/0: expected all records from 0, got them from 1")


async def last_record(settings: Settings, key: bytes) -> tuple[int, bytes]:
    """Return partition and value of the last record of a key of leadgen.kpis.v1."""
    found = (0, b"")
    async for partition, one in read(settings, topics_of(settings).kpis):
        if one.key == key:
            found = (partition, one.value)
    return found


async def some_record(settings: Settings, topic: str) -> tuple[int, bytes, bytes]:
    """Return partition, key and value of a record of the overall numbers in a topic."""
    found = (0, b"", b"")
    async for partition, one in read(settings, topic):
        if one.key.endswith(b"|_all|_all"):
            found = (partition, one.key, one.value)
    return found


async def read(settings: Settings, topic: str) -> AsyncIterator[tuple[int, Any]]:
    """Yield the records of a topic with their partitions."""
    consumer = AIOKafkaConsumer(
        **settings.kafka.consumer_options(), isolation_level="read_committed"
    )
    async with consumer:
        places = [TopicPartition(topic, partition) for partition in (0, 1)]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        for tp in places:
            consumer.seek(tp, 0)
        while any([await consumer.position(tp) < ends[tp] for tp in places]):
            for tp, polled in (await consumer.getmany(timeout_ms=200)).items():
                for one in polled:
                    yield tp.partition, one


async def put(settings: Settings, topic: str, partition: int, key: bytes, value: bytes) -> None:
    async with AIOKafkaProducer(**settings.kafka.client_options()) as producer:
        await producer.send_and_wait(topic, value, key=key, partition=partition)
