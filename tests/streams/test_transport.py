"""Record batches into Faust. Source of the rules: design, section 4, by number."""

import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED
from aiokafka.errors import CorruptRecordException
from aiokafka.record import MemoryRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from streams import topics
from streams.group import faust_app
from streams.settings import Settings, load
from streams.transport import (
    EVENTS_PER_MESSAGE,
    OWN_PER_MESSAGE,
    Batch,
    BatchRecords,
    Chunk,
    chunks,
    install,
)
from tests.parts.kafka_broker import KafkaBroker
from tests.streams.one_shard import SETTINGS, TOPICS, Record

CONTROL, ABORT, COMMIT = 0x20, 0, 1
ATTRIBUTES_AT, TRANSACTIONAL = 21, 0x10
TOPIC = TopicPartition("t", 0)
SOURCE = TP(TOPICS.inputs["clicks"], 0)


# ----------------------------------------------------------------------------- batches as the broker stores them


def stored(offset: int, values: list[bytes], producer: int = -1, *, last: int = 0) -> bytes:
    """Return a batch at `offset`; one that was compacted reaches up to `last`."""
    transactional = 0 if producer == -1 else 1
    builder = DefaultRecordBatchBuilder(2, 0, transactional, producer, 0, 0, 1 << 20)
    for number, value in enumerate(values):
        builder.append(number, 1, None, value, [])
    encoded = bytearray(builder.build())
    struct.pack_into(">q", encoded, 0, offset)
    if last:
        # The last offset's delta.
        struct.pack_into(">i", encoded, 23, last - offset)
    return bytes(encoded)


def marker(offset: int, producer: int, kind: int) -> bytes:
    """Return the control batch that ends a transaction."""
    builder = DefaultRecordBatchBuilder(2, 0, 1, producer, 0, 0, 1 << 20)
    builder.append(0, 1, struct.pack(">hh", 0, kind), struct.pack(">hi", 0, 0), [])
    encoded = bytearray(builder.build())
    struct.pack_into(">q", encoded, 0, offset)
    attributes = struct.unpack_from(">h", encoded, ATTRIBUTES_AT)[0] | CONTROL
    struct.pack_into(">h", encoded, ATTRIBUTES_AT, attributes)
    return bytes(encoded)


def fetched(
    *batches: bytes,
    start: int = 0,
    aborted: tuple[tuple[int, int], ...] = (),
    isolation: int = READ_COMMITTED,
    check_crcs: bool = False,
) -> list[tuple[int, int, list[bytes | None]]]:
    """Return start, end and values of the batches that are handed out; `aborted` as the broker says."""
    records = BatchRecords(
        TOPIC,
        MemoryRecords(b"".join(batches)),
        list(aborted),
        start,
        None,
        None,
        check_crcs,
        isolation,
    )
    found: list[Batch] = list(records)
    return [(b.start, b.end, [record.value for record in b.read()]) for b in found]


def test_batches_follow_each_other_without_a_hole() -> None:
    assert fetched(stored(0, [b"a", b"b"]), stored(2, [b"c"])) == [
        (0, 2, [b"a", b"b"]),
        (2, 3, [b"c"]),
    ]


def test_a_marker_is_a_batch_without_records() -> None:
    found = fetched(stored(0, [b"a"], producer=7), marker(1, 7, COMMIT), stored(2, [b"b"]))
    assert found == [(0, 1, [b"a"]), (1, 2, []), (2, 3, [b"b"])]


def test_an_aborted_batch_is_one_without_records() -> None:
    found = fetched(
        stored(0, [b"a"], producer=7),
        stored(1, [b"b"], producer=8),
        marker(2, 7, ABORT),
        stored(3, [b"c"], producer=7),
        marker(4, 7, COMMIT),
        marker(5, 8, COMMIT),
        aborted=((7, 0),),
    )
    values = [value for _, _, batch in found for value in batch]
    assert values == [b"b", b"c"]
    assert [(start, end) for start, end, _ in found] == [(n, n + 1) for n in range(6)]


def test_what_was_compacted_away_belongs_to_the_batch_before_or_behind() -> None:
    #  0 1 2 3 4 5 6 7
    #  [a      )         its last records are gone, its end is not
    #          . .       gone altogether
    #              [b )
    found = fetched(stored(0, [b"a"], last=3), stored(6, [b"b", b"c"]))
    assert found == [(0, 4, [b"a"]), (4, 8, [b"b", b"c"])]


def test_reading_that_begins_inside_a_batch_leaves_out_what_is_before() -> None:
    found = fetched(stored(0, [b"a", b"b", b"c"]), start=2)
    assert found == [(2, 3, [b"c"])]


def test_whoever_reads_uncommitted_gets_what_was_aborted() -> None:
    found = fetched(
        stored(0, [b"a"], producer=7),
        marker(1, 7, ABORT),
        aborted=((7, 0),),
        isolation=READ_UNCOMMITTED,
    )
    assert found == [(0, 1, [b"a"]), (1, 2, [])]


def test_a_batch_that_was_damaged_is_refused() -> None:
    damaged = bytearray(stored(0, [b"abc"]))
    damaged[-2] ^= 0xFF
    with pytest.raises(CorruptRecordException, match="expected a batch with its checksum"):
        fetched(bytes(damaged), check_crcs=True)


# ----------------------------------------------------------------------------- the same from a real broker


@pytest.fixture
def batches_from_aiokafka(monkeypatch: pytest.MonkeyPatch) -> None:
    # `install` is for ever; this ends with the test.
    monkeypatch.setattr(fetcher, "PartitionRecords", fetcher.PartitionRecords)
    install()


@asynccontextmanager
async def transactions(settings: Settings, name: str) -> AsyncIterator[Any]:
    producer = AIOKafkaProducer(**settings.kafka.client_options(), transactional_id=name)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


@pytest.mark.integration
async def test_a_real_broker_s_log_is_covered_without_a_hole_and_only_committed_records_come(
    kafka: KafkaBroker, prefix: str, batches_from_aiokafka: None
) -> None:
    environment = {
        "LEADPULSE_CONFIG": "",
        "LEADPULSE_KAFKA": kafka.bootstrap,
        "LEADPULSE_TOPICS_PREFIX": prefix,
        "LEADPULSE_APP_ID": f"{prefix}app",
    }
    settings = load(environment)
    await topics.create(settings, 1)
    name = topics.topics_of(settings).deltas
    async with (
        transactions(settings, f"{prefix}1") as first,
        transactions(settings, f"{prefix}2") as second,
    ):
        await first.begin_transaction()
        await first.send_and_wait(name, b"aborted", partition=0)
        async with second.transaction():
            await second.send_and_wait(name, b"in between", partition=0)
        await first.abort_transaction()
        async with first.transaction():
            await first.send_and_wait(name, b"committed", partition=0)
        found = await _read(settings, TopicPartition(name, 0))
    assert [record.value for batch in found for record in batch.read()] == [
        b"in between",
        b"committed",
    ]
    assert [batch.start for batch in found] == [0, *(batch.end for batch in found[:-1])]
    assert len(found) == 6


async def _read(settings: Settings, tp: TopicPartition) -> list[Batch]:
    consumer = AIOKafkaConsumer(
        **settings.kafka.client_options(),
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    async with consumer:
        consumer.assign([tp])
        end = (await consumer.end_offsets([tp]))[tp]
        found: list[Batch] = []
        while not found or found[-1].end < end:
            polled = await consumer.getmany(timeout_ms=100)
            found += polled.get(tp, [])
    return found


# ----------------------------------------------------------------------------- chunks


def batch(start: int, size: int, markers: int = 0) -> Batch:
    records = [Record(start + i, b"") for i in range(size)]
    return Batch(start, start + size + markers, records)


def following(sizes: list[int]) -> Iterator[Batch]:
    start = 0
    for size in sizes:
        one = batch(start, size, markers=1)
        yield one
        start = one.end


@given(sizes=st.lists(st.integers(0, 60), max_size=20), limit=st.integers(1, 25))
def test_chunks_cover_every_position_once_and_hold_no_more_than_they_may(
    sizes: list[int], limit: int
) -> None:
    found = list(chunks("t", 0, following(sizes), limit))
    parts = [part for one in found for part in one.batches]
    ends = [part.end for part in parts]
    assert [part.start for part in parts] == [0, *ends][: len(parts)]
    assert [(one.start, one.end) for one in found] == [
        (one.batches[0].start, one.batches[-1].end) for one in found
    ]
    read = [[record.offset for record in one.records] for one in found]
    assert all(len(offsets) <= limit for offsets in read)
    assert [offset for offsets in read for offset in offsets] == [
        record.offset for one in following(sizes) for record in one.read()
    ]


def test_a_message_carries_at_most_twenty_thousand_events() -> None:
    # Rule 7: no apply may hold the loop for long.
    found = list(chunks("t", 0, [batch(0, 50_001), batch(50_001, 100)]))
    sizes = [sum(1 for _ in one.records) for one in found]
    assert sum(sizes) == 50_101
    assert max(sizes) <= EVENTS_PER_MESSAGE <= 20_000


# ----------------------------------------------------------------------------- Faust's consumer


class Shards:
    """Says what it is told to say."""

    def __init__(self) -> None:
        self.at = {SOURCE: 5}
        self.wants: set[TP] = {SOURCE}

    def positions(self) -> dict[TP, int]:
        return self.at

    def wanted(self) -> set[TP]:
        return self.wants


@pytest.fixture
async def shards() -> Shards:
    return Shards()


@pytest.fixture
async def consumer(shards: Shards) -> Any:
    """Return the consumer of an app that is not started, with partitions as if assigned."""
    app = faust_app(SETTINGS, TOPICS, 2, shards, lambda _: None)  # type: ignore[arg-type]
    app.finalize()
    consumer: Any = app.consumer
    consumer._set_active_tps({SOURCE, TP(SOURCE.topic, 1)})
    app.rebalancing = False
    polls: list[frozenset[TP]] = []

    async def getmany(wanted: frozenset[TP], _timeout: float) -> dict[TP, list[Batch]]:
        polls.append(wanted)
        return {tp: [batch(0, 3)] for tp in wanted}

    consumer._getmany = getmany
    consumer.polls = polls
    thread = consumer._thread
    yield consumer
    # It has made a loop for the thread that it has not started.
    thread.thread_loop.close()


async def received(consumer: Any) -> list[Chunk]:
    return [message.value async for _, message in consumer.getmany(timeout=0.0)]


async def test_a_poll_becomes_a_message_per_partition(consumer: Any, shards: Shards) -> None:
    shards.wants = {SOURCE, TP(SOURCE.topic, 1)}
    assert sorted((one.partition, one.start, one.end) for one in await received(consumer)) == [
        (0, 0, 3),
        (1, 0, 3),
    ]


async def test_nothing_is_polled_while_the_group_rebalances(consumer: Any) -> None:
    # Rule 1: Faust throws away the first poll after a rebalance.
    consumer.app.rebalancing = True
    assert await received(consumer) == []
    assert consumer.polls == []


async def test_only_partitions_of_shards_that_take_chunks_are_polled(
    consumer: Any, shards: Shards
) -> None:
    # Rule 7: a shard with too much uncommitted work is not read on, the others are.
    await received(consumer)
    shards.wants = set()
    await received(consumer)
    assert consumer.polls == [{SOURCE}]


async def test_chunks_of_a_shard_that_pauses_while_they_are_fetched_are_not_lost(
    consumer: Any, shards: Shards
) -> None:
    poll = consumer._getmany

    async def pausing(wanted: frozenset[TP], seconds: float) -> Any:
        shards.wants = set()
        consumer.pause_partitions(wanted)
        return await poll(wanted, seconds)

    consumer._getmany = pausing
    assert [one.end for one in await received(consumer)] == [3]


async def test_what_is_read_again_after_a_seek_is_not_dropped_as_known(consumer: Any) -> None:
    consumer._read_offset[SOURCE] = 99
    assert consumer._read_offset[SOURCE] is None
    assert not consumer._read_offset


async def test_a_message_is_forgotten_when_it_is_acknowledged(consumer: Any) -> None:
    # Rule 11: Faust's acknowledgements and commits play no part.
    [(tp, message)] = [pair async for pair in consumer.getmany(timeout=0.0)]
    consumer.track_message(message)
    consumer.ack(message)
    assert message.acked
    assert not consumer._unacked_messages
    assert not consumer._acked[tp]
    assert await consumer.commit() is False


async def test_a_poll_holds_no_partition_back_and_reads_only_what_is_committed(
    consumer: Any,
) -> None:
    # Rules 8 and 9: both are set before the client starts.
    client = consumer._thread._create_worker_consumer(consumer.transport)
    try:
        assert client._fetch_max_wait_ms <= 100
        assert client._isolation_level == "read_committed"
        assert client._auto_offset_reset == "none"
        assert not client._enable_auto_commit
    finally:
        await client.stop()


async def test_our_own_topics_come_in_smaller_chunks(consumer: Any) -> None:
    tp = TP(TOPICS.deltas, 0)
    polled = {tp: [batch(0, 3 * OWN_PER_MESSAGE)], SOURCE: [batch(0, 3 * OWN_PER_MESSAGE)]}
    sizes = [(tp.topic, one.end - one.start) for tp, one in consumer.scheduler.iterate(polled)]
    assert sizes == [
        *([(TOPICS.deltas, OWN_PER_MESSAGE)] * 3),
        (SOURCE.topic, 3 * OWN_PER_MESSAGE),
    ]


class Thread:
    """Runs at once what the consumer's thread would."""

    def __init__(self) -> None:
        self.sought: dict[TopicPartition, int] = {}
        self.assigned = {TopicPartition(*SOURCE)}

    async def call_thread(self, work: Any, *arguments: Any) -> Any:
        return await work(*arguments)

    def _ensure_consumer(self) -> Any:
        return self

    def assignment(self) -> set[TopicPartition]:
        return self.assigned

    def seek(self, tp: TopicPartition, position: int) -> None:
        self.sought[tp] = position


async def test_after_an_assignment_every_position_is_sought(consumer: Any) -> None:
    consumer._thread = Thread()
    await consumer.perform_seek()
    assert consumer._thread.sought == {TopicPartition(*SOURCE): 5}


async def test_what_is_no_longer_assigned_is_not_sought(consumer: Any) -> None:
    consumer._thread = Thread()
    await consumer.seek_all({TP(SOURCE.topic, 1): 7})
    assert not consumer._thread.sought
