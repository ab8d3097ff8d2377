"""Opening a shard: fence its old owner, read its tables back, and find out where to read on."""

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import IllegalOperation
from msgspec import msgpack

from streams.outbox import Encoded
from streams.problems import Problem
from streams.settings import Settings
from streams.shards import LAYOUT, LINEAGE, MOST_RECORDS_PER_PRODUCER, Shard
from streams.tables import Table
from streams.topics import Topics

FENCE_SECONDS: Final = 60.0
READ_SECONDS: Final = 600.0
TRANSACTION_TIMEOUT_MS: Final = 60_000
"""Longer than a broker's restart; a takeover aborts at once anyway."""

BATCHES_PER_TURN: Final = 300
_BATCH_BYTES: Final = 1 << 20
_REQUEST_BYTES: Final = 8 << 20


class TransactionalProducer:
    """One shard's producer: aiokafka's, in transactions of whole batches."""

    def __init__(self, settings: Settings, transactional_id: str) -> None:
        self._settings = settings
        self._transactional_id = transactional_id
        self._producer: Any = None
        self._records: dict[tuple[str, int], int] = {}

    async def start(self) -> None:
        """Fence whoever used the transactional id before, and abort what it left open."""
        self._producer = AIOKafkaProducer(
            **self._settings.kafka.client_options(),
            transactional_id=self._transactional_id,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            linger_ms=0,
            max_batch_size=_BATCH_BYTES,
            max_request_size=_REQUEST_BYTES,
            acks="all",
            # The embedded broker keeps little of each partition, and of that what it takes compressed.
            compression_type="zstd" if self._settings.kafka.embedded else None,
        )
        _forget_cancelled(self._producer._message_accumulator)  # noqa: SLF001
        await self._producer.start()
        self._records = {}

    @property
    def epoch(self) -> int:
        """The producer's epoch, which every new owner raises."""
        return int(self._producer._txn_manager.producer_epoch)  # noqa: SLF001 - aiokafka shows it nowhere

    def create_batch(self) -> Any:
        """Return an empty batch."""
        return self._producer.create_batch()

    async def transact(self, batches: list[Encoded]) -> None:
        """Write the batches in one transaction; every one of them is confirmed before it ends."""
        await self._producer.begin_transaction()
        # When it breaks, aiokafka tells every one of these; we raise the first and know the others.
        _know(self._producer._txn_manager.wait_for_transaction_end())  # noqa: SLF001
        queued: list[Any] = []
        try:
            await asyncio.gather(*[await self._send(batch, queued) for batch in batches])
            await self._producer.commit_transaction()
        except BaseException as error:
            # Each was waited for by the batch behind it, which nobody sends any more.
            for batch in queued:
                _know(batch._drain_waiter)  # noqa: SLF001 - aiokafka shows it nowhere
            if isinstance(error, IllegalOperation):
                # What ended the transaction between two batches is why the second may not be sent.
                raise error from self._end_of_transaction()
            raise
        for batch in batches:
            place = (batch.topic, batch.partition)
            self._records[place] = self._records.get(place, 0) + batch.records
        if max(self._records.values(), default=0) > MOST_RECORDS_PER_PRODUCER:
            await self.stop()
            await self.start()

    def _end_of_transaction(self) -> BaseException | None:
        """Return what broke the transaction, if anything did."""
        end = self._producer._txn_manager.wait_for_transaction_end()  # noqa: SLF001
        return end.exception() if end.done() and not end.cancelled() else None

    async def _send(self, batch: Encoded, queued: list[Any]) -> Any:
        """Queue a batch, add what aiokafka made of it to `queued`, and return its delivery."""
        delivery = await self._producer.send_batch(
            batch.batch, batch.topic, partition=batch.partition
        )
        _know(delivery)
        waiting = self._producer._message_accumulator._batches  # noqa: SLF001
        queued += waiting.get(TopicPartition(batch.topic, batch.partition), ())
        return delivery

    async def stop(self) -> None:
        """Close the connections; a transaction under way is left to whoever opens the shard next."""
        if self._producer is not None:
            await self._producer.stop()


def _forget_cancelled(accumulator: Any) -> None:
    """Keep aiokafka from sending a batch again that nobody waits for any more: its task would break."""
    reenqueue = accumulator.reenqueue

    def reenqueue_awaited(batch: Any) -> None:
        if not batch.future.done():
            reenqueue(batch)

    accumulator.reenqueue = reenqueue_awaited


def _know(future: "asyncio.Future[Any]") -> None:
    """Keep asyncio from reporting that nobody asked for the exception of `future`."""
    future.add_done_callback(lambda done: done.cancelled() or done.exception())


async def fence(shard: Shard, settings: Settings) -> TransactionalProducer:
    """Return a producer that is the only one of its shard.

    Raises:
        TimeoutError: if the broker does not answer within FENCE_SECONDS.
    """
    producer = TransactionalProducer(settings, f"{settings.app_id}-{shard.partition}")
    try:
        async with asyncio.timeout(FENCE_SECONDS):
            await producer.start()
    except BaseException:
        await producer.stop()
        raise
    return producer


async def read_tables(shard: Shard, settings: Settings, *, accept_loss: bool) -> dict[str, int]:
    """Read a shard's changelogs to their end, and return where to read every source on.

    Raises:
        Problem: if a source no longer holds the shard's position, or the deployment has changed.
    """
    consumer = AIOKafkaConsumer(
        **settings.kafka.consumer_options(),
        isolation_level="read_committed",
        auto_offset_reset="none",
        enable_auto_commit=False,
        fetch_max_wait_ms=100,
        max_partition_fetch_bytes=4 << 20,
    )
    topics = Topics(settings.topics.prefix, settings.app_id)
    sources = [TopicPartition(topic, shard.partition) for topic in topics.sources]
    tables = {
        TopicPartition(table.changelog, shard.partition): table for table in shard.tables.values()
    }
    await consumer.start()
    try:
        async with asyncio.timeout(READ_SECONDS):
            logs = await _logs(consumer, [*sources, *tables])
            await _read_changelogs(consumer, shard, tables, logs)
    finally:
        await consumer.stop()
    _check_layout(shard, settings)
    stored = shard.stored_positions()
    inputs = topics.inputs.values()
    is_from_end = settings.kafka.start == "end"
    return {
        tp.topic: logs[tp].end
        if is_from_end and tp.topic in inputs and tp.topic not in stored
        else _position(tp, logs[tp], stored.get(tp.topic), accept_loss=accept_loss)
        for tp in sources
    }


class Log(NamedTuple):
    """The positions of the first record that is left and behind the last one."""

    first: int
    end: int


async def _logs(consumer: Any, partitions: list[Any]) -> dict[Any, Log]:
    # All topics at once; it would ask for each that it does not know, and wait each time.
    await consumer._client.set_topics({tp.topic for tp in partitions})  # noqa: SLF001
    firsts = await consumer.beginning_offsets(partitions)
    ends = await consumer.end_offsets(partitions)
    return {tp: Log(firsts[tp], ends[tp]) for tp in partitions}


async def _read_changelogs(
    consumer: Any, shard: Shard, tables: Mapping[Any, Table], logs: Mapping[Any, Log]
) -> None:
    # At once: aiokafka looks for a position by itself, and seek_to_beginning would lose that race.
    consumer.assign(list(tables))
    for tp in tables:
        consumer.seek(tp, logs[tp].first)
    read_to = {tp: logs[tp].first for tp in tables}
    while unread := [tp for tp in tables if read_to[tp] < logs[tp].end]:
        polled = await consumer.getmany(*unread, timeout_ms=500, max_records=BATCHES_PER_TURN)
        for tp, batches in polled.items():
            for batch in batches:
                records = batch.read()
                for record in records:
                    tables[tp].load(record.key, record.value)
                shard.rows_read += len(records)
            read_to[tp] = batches[-1].end
            # Other shards go on between two turns.
            await asyncio.sleep(0)
    for table in shard.tables.values():
        table.loaded()


def _position(tp: Any, log: Log, stored: int | None, *, accept_loss: bool) -> int:
    if stored is None:
        return log.first
    if log.first <= stored <= log.end:
        return stored
    if accept_loss:
        return log.first
    raise _lost(tp, stored, log.first, log.end)


def _lost(tp: Any, position: int, first: int, end: int) -> Problem:
    return Problem(
        f"{tp.topic}/{tp.partition}",
        f"position {position}, up to which it has been counted",
        f"records {first} to {end} (deleted, or the topic was made anew)",
        "restore the topic, or accept the loss with `leadpulse worker --accept-loss`",
    )


FORMAT: Final = "2"
BEFORE: Final[Mapping[str, str]] = {"format of the tables": "1", "dedup.impressions": "false"}
"""What tables that do not say it were counted with."""


def layout(settings: Settings, partitions: int) -> dict[str, str]:
    """Return the settings that the stored numbers depend on; to change one is to count anew."""
    return {
        "topics.partitions": str(partitions),
        "currency": settings.currency,
        "time_zone": str(settings.time_zone),
        "funnel.stages": ",".join(settings.funnel.stages),
        "funnel.skipped": settings.funnel.skipped,
        "retention.minute_hours": str(settings.retention.minute_hours),
        "retention.hour_days": str(settings.retention.hour_days),
        "retention.day_days": str(settings.retention.day_days),
        "cohort.horizon_days": str(settings.cohort.horizon_days),
        "dedup.impressions": str(settings.dedup.impressions).lower(),
        "format of the tables": FORMAT,
    }


def _check_layout(shard: Shard, settings: Settings) -> None:
    positions = shard.tables["positions"]
    now = layout(settings, shard.partitions)
    row = positions.get(LAYOUT)
    then: Mapping[str, str] = now if row is None else msgpack.decode(row, type=dict[str, str])
    for name, value in now.items():
        before = then.get(name, BEFORE.get(name, "nothing"))
        if before != value:
            raise Problem(
                name,
                f"{before}, with which app_id {settings.app_id} has counted so far",
                value,
                "set it back, or set another app_id, which counts everything anew",
            )
    if row is None:
        positions.put(LAYOUT, msgpack.encode(now))


def lineage(shard: Shard) -> str:
    """Return a name that the shard's tables got when they were new: positions of another are not comparable."""
    positions = shard.tables["positions"]
    row = positions.get(LINEAGE)
    if row is None:
        row = secrets.token_hex(4).encode()
        positions.put(LINEAGE, row)
    return row.decode()
