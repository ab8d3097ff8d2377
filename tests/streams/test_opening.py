"""Opening shards on a real broker. Source: design, sections 3 and 4."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.consumer import fetcher
from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.structs import OffsetAndMetadata
from msgspec import msgpack

from streams import opening, topics, transport
from streams.outbox import Outbox
from streams.problems import Problem
from streams.sending import sender
from streams.settings import Settings, load
from streams.shards import LAYOUT, POSITIONS, Producer, Shard, is_fenced
from streams.topics import Topics, admin_client, topics_of
from tests.faults.reading_back import read_all, wait_until_consumed
from tests.faults.workers import Worker
from tests.parts.kafka_broker import KafkaBroker
from tests.parts.redis_server import RedisServer
from tests.streams.one_shard import (
    Broker,
    RecordingProducer,
    World,
    a_shard,
    impression,
)

pytestmark = pytest.mark.integration


@pytest.fixture
def names(kafka: KafkaBroker, prefix: str) -> dict[str, str]:
    return {
        "LEADPULSE_CONFIG": "",
        "LEADPULSE_KAFKA": kafka.bootstrap,
        "LEADPULSE_TOPICS_PREFIX": prefix,
        "LEADPULSE_APP_ID": f"{prefix}app",
    }


@pytest.fixture
async def settings(names: dict[str, str]) -> Settings:
    settings = load(names)
    await topics.create(settings, 1)
    return settings


@pytest.fixture
def home(settings: Settings) -> Topics:
    return topics_of(settings)


@pytest.fixture(autouse=True)
def batches(monkeypatch: pytest.MonkeyPatch) -> None:
    # `install` is for ever; this ends with the test.
    monkeypatch.setattr(fetcher, "PartitionRecords", transport.BatchRecords)


@asynccontextmanager
async def fenced_off(settings: Settings, shard: Shard) -> AsyncIterator[Any]:
    producer = await opening.fence(shard, settings)
    try:
        yield producer
    finally:
        await producer.stop()


async def opened(
    settings: Settings, *, accept_loss: bool = False
) -> tuple[Shard, Mapping[str, int]]:
    """Return shard 0 with what its changelogs say, and the positions to read on from."""
    shard = a_shard(World(), settings)
    async with fenced_off(settings, shard):
        return shard, await opening.read_tables(shard, settings, accept_loss=accept_loss)


async def write(
    settings: Settings, rows: Mapping[bytes, bytes], positions: Mapping[str, int] | None = None
) -> None:
    """Commit rows and positions as the owner of shard 0."""
    shard, _ = await opened(settings)
    for key, row in rows.items():
        shard.tables["journeys"].put(key, row)
    if positions is not None:
        shard.tables["positions"].put(POSITIONS, msgpack.encode(positions))
    async with fenced_off(settings, shard) as producer:
        await producer.transact(encoded(shard, producer))


def encoded(shard: Shard, producer: Any) -> Any:
    outbox = Outbox()
    for table in shard.tables.values():
        table.flush(outbox)
    return outbox.encode(producer)


def journeys(shard: Shard) -> dict[bytes, bytes]:
    return dict(shard.tables["journeys"].items())


# ----------------------------------------------------------------------------- fencing


@asynccontextmanager
async def two_owners(
    kind: str, settings: Settings
) -> AsyncIterator[tuple[Producer, Producer, Any]]:
    """Return an owner, another who came later, and what reads the values that were committed to deltas."""
    shard = a_shard(World(), settings)
    if kind == "recording":
        broker = Broker()
        first, second = RecordingProducer(broker), RecordingProducer(broker)

        async def recorded() -> list[bytes | None]:
            return [one.value for one in broker.records(topics_of(settings).deltas)]

        yield first, second, recorded
        return

    async def read() -> list[bytes | None]:
        return [one.value for one in await read_all(settings, topics_of(settings).deltas)]

    async with fenced_off(settings, shard) as one, fenced_off(settings, shard) as other:
        yield one, other, read


def one_record(topic: str, value: bytes, producer: Producer) -> Any:
    outbox = Outbox()
    outbox.put(topic, 0, None, value)
    return outbox.encode(producer)


@pytest.mark.parametrize("kind", ["recording", "real"])
async def test_a_new_owner_fences_the_old_one_who_can_write_nothing_more(
    kind: str, settings: Settings, home: Topics
) -> None:
    async with two_owners(kind, settings) as (old, new, read):
        assert new.epoch > old.epoch
        with pytest.raises(Exception, match=r".*") as caught:
            await old.transact(one_record(home.deltas, b"old", old))
        assert is_fenced(caught.value)
        await new.transact(one_record(home.deltas, b"new", new))
        assert await read() == [b"new"]


async def test_who_is_fenced_between_two_batches_knows_it(
    settings: Settings, home: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = a_shard(World(), settings)
    async with fenced_off(settings, shard) as old, fenced_off(settings, shard):
        client, sender_task = old._producer.client, old._producer._sender.sender_task
        known = client._wait_on_metadata

        async def late(topic: str) -> Any:
            if topic == home.deltas:
                # Until the broker has refused the first batch.
                await asyncio.wait([sender_task])
            return await known(topic)

        monkeypatch.setattr(client, "_wait_on_metadata", late)
        batches = one_record(home.entities, b"1", old) + one_record(home.deltas, b"2", old)
        with pytest.raises(Exception, match=r".*") as caught:
            await old.transact(batches)
    assert is_fenced(caught.value)


async def test_a_batch_that_was_given_up_is_not_sent_again(
    settings: Settings, home: Topics
) -> None:
    shard = a_shard(World(), settings)
    async with fenced_off(settings, shard) as producer:
        inner = producer._producer
        await inner.begin_transaction()
        (batch,) = one_record(home.deltas, b"1", producer)
        delivery = await inner.send_batch(batch.batch, batch.topic, partition=0)
        (queued,) = inner._message_accumulator._batches[TopicPartition(home.deltas, 0)]
        opening._know(queued._drain_waiter)
        queued.failure(TimeoutError())
        with pytest.raises(TimeoutError):
            await delivery
        # What aiokafka does when a broker that was away is to be asked again.
        inner._message_accumulator.reenqueue(queued)
        assert queued not in inner._message_accumulator._pending_batches


async def test_opening_aborts_what_the_old_owner_had_under_way(
    settings: Settings, home: Topics
) -> None:
    await write(settings, {b"before": b"1"})
    shard = a_shard(World(), settings)
    async with fenced_off(settings, shard) as crashed:
        shard.tables["journeys"].put(b"under way", b"1")
        inner = crashed._producer
        await inner.begin_transaction()
        for batch in encoded(shard, crashed):
            await (await inner.send_batch(batch.batch, batch.topic, partition=0))
        # Well within the transaction's own timeout: it does not hold up the next owner.
        async with asyncio.timeout(20):
            successor, _ = await opened(settings)
    assert journeys(successor) == {b"before": b"1"}


async def test_a_transaction_with_a_refused_batch_is_not_committed(
    settings: Settings, home: Topics
) -> None:
    # Rule 5: aiokafka commits happily after a batch was refused, unless somebody looks.
    shard = a_shard(World(), settings)
    async with fenced_off(settings, shard) as producer:
        outbox = Outbox()
        outbox.put(home.deltas, 0, None, b"small")
        outbox.put(home.inputs["leads"], 0, None, b"x" * (2 << 20))
        with pytest.raises(MessageSizeTooLargeError):
            await producer.transact(outbox.encode(producer))
    await opened(settings)
    assert not any(batch.read() for batch in await read_all(settings, home.deltas))


async def test_own_topics_take_a_record_of_the_largest_size_that_is_made(
    settings: Settings, home: Topics
) -> None:
    # Rule 6: a commit that the broker refuses would come back after each restart.
    shard = a_shard(World(), settings)
    async with fenced_off(settings, shard) as producer:
        await producer.transact(one_record(home.entities, b"x" * (3 << 20), producer))


# ----------------------------------------------------------------------------- recovery


async def test_a_new_shard_reads_from_the_beginning(settings: Settings, home: Topics) -> None:
    shard, positions = await opened(settings)
    assert positions == dict.fromkeys(home.sources, 0)
    assert journeys(shard) == {}


async def test_an_opened_shard_has_the_rows_and_positions_of_the_last_commit(
    settings: Settings, home: Topics
) -> None:
    await send(settings, 3)
    at = dict.fromkeys(home.sources, 0) | {home.inputs["impressions"]: 2}
    await write(settings, {b"a": b"1", b"large": b"x" * 700_000}, at)
    await write(settings, {b"b": b"2"})
    shard, positions = await opened(settings)
    assert journeys(shard) == {b"a": b"1", b"b": b"2", b"large": b"x" * 700_000}
    assert positions == at


async def test_opening_tells_how_far_it_is(settings: Settings) -> None:
    await write(settings, {b"a": b"1", b"b": b"2"})
    shard, _ = await opened(settings)
    # The two, and what says with which settings they were counted.
    assert shard.rows_read == 3


async def test_a_lineage_lasts_as_long_as_the_tables(settings: Settings) -> None:
    shard, _ = await opened(settings)
    first = opening.lineage(shard)
    async with fenced_off(settings, shard) as producer:
        await producer.transact(encoded(shard, producer))
    again, _ = await opened(settings)
    assert opening.lineage(again) == first


async def test_inputs_may_be_read_from_their_end_but_our_own_topics_never(
    names: dict[str, str], settings: Settings, home: Topics
) -> None:
    await send(settings, 3)
    shard = a_shard(World(), settings)
    async with fenced_off(settings, shard) as producer:
        await producer.transact(one_record(home.deltas, b"not yet merged", producer))
    from_end = load({**names, "LEADPULSE_KAFKA_START": "end"})
    _, positions = await opened(from_end)
    assert positions == dict.fromkeys(home.sources, 0) | {home.inputs["impressions"]: 3}


async def test_the_start_counts_only_where_there_is_no_position(
    names: dict[str, str], settings: Settings, home: Topics
) -> None:
    await send(settings, 3)
    at = dict.fromkeys(home.sources, 0) | {home.inputs["impressions"]: 1}
    await write(settings, {}, at)
    _, positions = await opened(load({**names, "LEADPULSE_KAFKA_START": "end"}))
    assert positions == at


# ----------------------------------------------------------------------------- positions lost


async def send(settings: Settings, count: int) -> None:
    async with sender(settings) as out:
        for number in range(count):
            await out.send("impressions", None, impression(number))


async def test_records_that_were_deleted_before_they_were_counted_are_told(
    settings: Settings, home: Topics
) -> None:
    await send(settings, 5)
    source = home.inputs["impressions"]
    await write(settings, {}, dict.fromkeys(home.sources, 0) | {source: 2})
    async with admin_client(settings.kafka) as admin:
        await admin.delete_records({TopicPartition(source, 0): RecordsToDelete(4)})
    with pytest.raises(Problem) as told:
        await opened(settings)
    assert str(told.value) == (
        f"{source}/0: expected position 2, up to which it has been counted, got records 4 to 5"
        " (deleted, or the topic was made anew); restore the topic, or accept the loss with"
        " `leadpulse worker --accept-loss`"
    )
    _, positions = await opened(settings, accept_loss=True)
    assert positions[source] == 4


async def test_a_topic_that_is_shorter_than_what_was_read_of_it_was_made_anew(
    settings: Settings, home: Topics
) -> None:
    await write(settings, {}, dict.fromkeys(home.sources, 0) | {home.inputs["sales"]: 7})
    with pytest.raises(Problem, match=r"expected position 7, .* got records 0 to 0"):
        await opened(settings)
    _, positions = await opened(settings, accept_loss=True)
    assert positions[home.inputs["sales"]] == 0


@pytest.mark.parametrize(
    ("name", "value", "where"),
    [
        ("LEADPULSE_CURRENCY", "USD", "currency: expected EUR"),
        ("LEADPULSE_TIME_ZONE", "Europe/Paris", "time_zone: expected UTC"),
        ("LEADPULSE_FUNNEL_SKIPPED", "strict", "funnel.skipped: expected imply"),
        ("LEADPULSE_COHORT_HORIZON_DAYS", "60", "cohort.horizon_days: expected 30"),
        ("LEADPULSE_DEDUP_IMPRESSIONS", "true", "dedup.impressions: expected false"),
    ],
)
async def test_a_setting_that_the_numbers_depend_on_cannot_be_changed(
    names: dict[str, str], settings: Settings, name: str, value: str, where: str
) -> None:
    await write(settings, {b"a": b"1"})
    with pytest.raises(Problem, match=f"{where}, with which app_id .* set another app_id"):
        await opened(load({**names, name: value}))


async def test_tables_that_do_not_say_it_were_counted_without_deduplicating_impressions(
    names: dict[str, str], settings: Settings
) -> None:
    await write(settings, {b"a": b"1"})
    shard, _ = await opened(settings)
    positions = shard.tables["positions"]
    told = msgpack.decode(positions.get(LAYOUT) or b"", type=dict[str, str])
    del told["dedup.impressions"]
    positions.put(LAYOUT, msgpack.encode(told))
    async with fenced_off(settings, shard) as producer:
        await producer.transact(encoded(shard, producer))
    again, _ = await opened(settings)
    assert journeys(again) == {b"a": b"1"}
    with pytest.raises(Problem, match=r"dedup\.impressions: expected false, with which app_id"):
        await opened(load({**names, "LEADPULSE_DEDUP_IMPRESSIONS": "true"}))


# ----------------------------------------------------------------------------- a whole worker


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@asynccontextmanager
async def at_work(environment: Mapping[str, str], directory: Path) -> AsyncIterator[Worker]:
    worker = Worker(0, {**os.environ, **environment}, directory)
    worker.start()
    try:
        yield worker
    finally:
        assert worker.stop() == 0


def verify(environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("leadpulse")
    return subprocess.run(
        [program, "verify"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.fault
@pytest.mark.parametrize("lie", ["beginning", "end"])
async def test_what_the_group_says_about_offsets_changes_no_number(
    names: dict[str, str],
    settings: Settings,
    redis: RedisServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lie: str,
) -> None:
    monkeypatch.undo()
    environment = {**names, "LEADPULSE_REDIS": redis.url}
    await send(settings, 20)
    async with at_work(environment, tmp_path):
        await wait_until_consumed(settings, 30)
    await send(settings, 30)
    await commit_group_offsets(settings, lie)
    async with at_work(environment, tmp_path):
        await wait_until_consumed(settings, 30)
        done = await asyncio.to_thread(verify, environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("exact: 50 events")


async def commit_group_offsets(settings: Settings, lie: str) -> None:
    consumer = AIOKafkaConsumer(
        **settings.kafka.client_options(), group_id=settings.app_id, enable_auto_commit=False
    )
    async with consumer:
        partitions = [TopicPartition(topic, 0) for topic in topics_of(settings).sources]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        positions = {tp: 0 if lie == "beginning" else ends[tp] for tp in partitions}
        await consumer.commit({tp: OffsetAndMetadata(at, "") for tp, at in positions.items()})
