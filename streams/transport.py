"""Record batches into Faust: one message per partition and poll, contiguous in position.

Faust's consumer makes an object per record, commits what agents acknowledged and seeks to the group's
offsets. Here a message carries whole record batches, nothing is acknowledged, and the shards' own
positions are sought. Parts of aiokafka's fetcher and Faust's driver are replaced that are not public;
both are pinned in pyproject.toml for that.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from itertools import chain
from typing import Any, Final, NamedTuple, Protocol

import faust
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import (
    CorruptRecordException,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

EVENTS_PER_MESSAGE = 5_000
"""So that no message holds the loop for more than some milliseconds: a commit takes many turns of it."""

OWN_PER_MESSAGE: Final = 8
"""Records of our own topics are packed: each holds as much work as thousands of volume events."""

BATCHES_PER_POLL = 200
_POLL_SECONDS = 0.25
_PAUSE_SECONDS = 0.02
_GROUP_COMMIT_SECONDS = 5.0


class Record(Protocol):
    """A record as aiokafka's parser makes it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Batch(NamedTuple):
    """The committed records of positions [start, end); none where all were markers, aborted or compacted.

    What was fetched stays compressed until it is read: a poll may hold many batches.
    """

    start: int
    end: int
    fetched: Iterable[Record]

    def read(self) -> list[Record]:
        """Decompress and return the records; to be called once."""
        records = list(self.fetched)
        if records and records[0].offset < self.start:
            records = [record for record in records if record.offset >= self.start]
        return records


class Chunk(NamedTuple):
    """What one message carries: batches of one partition without a hole in [start, end)."""

    topic: str
    partition: int
    start: int
    end: int
    batches: list[Batch]

    @property
    def records(self) -> Iterator[Record]:
        """The records of all batches, in order."""
        return chain.from_iterable(batch.read() for batch in self.batches)


class BatchRecords(fetcher.PartitionRecords):  # type: ignore[misc] # untyped
    """Makes aiokafka's fetcher hand out batches that cover every position, honouring read_committed."""

    next_fetch_offset: int

    def _unpack_records(self) -> Iterator[Batch]:
        while self._records.has_next():
            batch = self._records.next_batch()
            if self._check_crcs and not batch.validate_crc():
                msg = f"{self._tp}: expected a batch with its checksum, got another"
                raise CorruptRecordException(msg)
            start, self.next_fetch_offset = self.next_fetch_offset, batch.next_offset
            yield Batch(start, batch.next_offset, self._committed_from(batch))

    def _committed_from(self, batch: Any) -> Iterable[Record]:
        if self._isolation_level == fetcher.READ_COMMITTED and batch.producer_id is not None:
            self._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and self._contains_abort_marker(batch):
                self._aborted_producers.discard(batch.producer_id)
            if batch.is_transactional and batch.producer_id in self._aborted_producers:
                return ()
        fetched: Iterable[Record] = () if batch.is_control_batch else batch
        return fetched


def install() -> None:
    """Make every aiokafka consumer of this process hand out `Batch`es."""
    fetcher.PartitionRecords = BatchRecords


def chunks(
    topic: str, partition: int, batches: Iterable[Batch], limit: int = EVENTS_PER_MESSAGE
) -> Iterator[Chunk]:
    """Join consecutive batches into chunks of at most `limit` positions each."""
    joined: list[Batch] = []
    size = 0
    for batch in chain.from_iterable(_slices(batch, limit) for batch in batches):
        if joined and size + batch.end - batch.start > limit:
            yield Chunk(topic, partition, joined[0].start, joined[-1].end, joined)
            joined, size = [], 0
        joined.append(batch)
        size += batch.end - batch.start
    if joined:
        yield Chunk(topic, partition, joined[0].start, joined[-1].end, joined)


def _slices(batch: Batch, limit: int) -> Iterator[Batch]:
    if batch.end - batch.start <= limit:
        yield batch
        return
    records, start = batch.read(), batch.start
    while len(records) > limit:
        head, records = records[:limit], records[limit:]
        end = records[0].offset
        yield Batch(start, end, head)
        start = end
    yield Batch(start, batch.end, records)


class Readers(Protocol):
    """What the consumer asks the shards."""

    def positions(self) -> Mapping[TP, int]:
        """Return where to read on, for every source partition of the shards that are open."""
        ...

    def wanted(self) -> Set[TP]:
        """Return the source partitions of the shards that take chunks now."""
        ...


class Watermark(NamedTuple):
    """The end of a partition (0 before the first fetch), and when a fetch said so."""

    end: int
    fetched_ms: int | None


class _ByPartition:
    """Faust's scheduler, yielding one message per partition instead of one per record."""

    def __init__(self, own: frozenset[str]) -> None:
        self._own = own

    def iterate(self, polled: Mapping[TP, list[Batch]]) -> Iterator[tuple[TP, Chunk]]:
        for tp, batches in polled.items():
            limit = OWN_PER_MESSAGE if tp.topic in self._own else EVENTS_PER_MESSAGE
            for chunk in chunks(tp.topic, tp.partition, batches, limit):
                yield tp, chunk


class _Forgetful(dict[TP, int | None]):
    """Where Faust notes what it has delivered: kept empty, or it drops what is read again after a seek."""

    def __missing__(self, tp: TP) -> None:
        return None

    def __setitem__(self, tp: TP, offset: int | None) -> None:
        pass


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread with the settings it does not expose."""

    def _create_worker_consumer(self, transport: driver.Transport) -> Any:
        consumer: Any = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"  # noqa: SLF001 - read when it starts
        # A request under way holds back the partitions that were not in it (Faust: 1500 ms).
        consumer._fetch_max_wait_ms = 100  # noqa: SLF001
        return consumer


class Consumer(driver.Consumer):
    """Faust's consumer over chunks; positions are the shards'."""

    consumer_thread = ConsumerThread
    shards: Readers
    own_topics: frozenset[str] = frozenset()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.scheduler = _ByPartition(self.own_topics)  # type: ignore[assignment] # Faust's type wants records
        self._read_offset = _Forgetful()

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        chunk: Chunk = record
        return ConsumerMessage(
            chunk.topic,
            chunk.partition,
            chunk.end - 1,
            0.0,
            0,
            [],
            None,
            record,
            None,
            0,
            0,
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    async def _wait_next_records(self, timeout: float) -> tuple[Any, None]:  # noqa: ASYNC109 - Faust's
        if not self.flow_active:
            await self.wait(self.can_resume_flow)  # type: ignore[arg-type] # mode's own Event
        # A copy: the other thread looks at it while shards come, go and pause.
        wanted = frozenset(self._get_active_partitions() & self.shards.wanted())
        # Faust throws away the first poll after a rebalance; its records would be a hole.
        if self.app.rebalancing or not wanted:
            await asyncio.sleep(_PAUSE_SECONDS)
            return {}, None
        generation = self.app.consumer_generation_id
        try:
            polled = await self._getmany(wanted, min(timeout, _POLL_SECONDS))  # type: ignore[arg-type]
        except (NoOffsetForPartitionError, OffsetOutOfRangeError):
            # A poll that outlives a rebalance meets partitions that are yet to be sought.
            if not self._is_rebalanced_since(generation):
                raise
            return {}, None
        # None: Faust would drop the records of partitions that were paused meanwhile.
        return polled, None

    def _is_rebalanced_since(self, generation: int) -> bool:
        return self.app.rebalancing or self.app.consumer_generation_id != generation

    def ack(self, message: Any) -> bool:
        """Forget the message: what has been read is committed by the shard's transaction."""
        message.acked = True
        self._unacked_messages.discard(message)
        return True

    async def commit(self, *_args: Any, **_kwargs: Any) -> bool:
        """Do nothing; see `ack`."""
        return False

    async def perform_seek(self) -> None:
        """Seek every partition of the open shards to its position."""
        await self.seek_all(self.shards.positions())

    async def seek_all(self, positions: Mapping[TP, int]) -> None:
        """Seek partitions, those that are assigned."""
        # In the consumer's thread, or the fetcher may move on in between.
        await self._thread.call_thread(self._seek_in_thread, dict(positions))

    async def _seek_in_thread(self, positions: Mapping[TP, int]) -> None:
        consumer = self._thread._ensure_consumer()  # noqa: SLF001
        assigned = consumer.assignment()
        for tp, position in positions.items():
            if (partition := TopicPartition(*tp)) in assigned:
                consumer.seek(partition, position)

    def highwater(self, tp: TP) -> int:  # noqa: ARG002 - Faust's
        """Return 0: Faust's monitor wants it for each message, and aiokafka fails if `tp` was revoked."""
        return 0

    def watermark(self, topic: str, partition: int) -> Watermark:
        """Return the end of a partition as of its last fetch."""
        consumer = self._thread._consumer  # noqa: SLF001
        assignment = consumer and consumer._fetcher._subscriptions.subscription.assignment  # noqa: SLF001
        tp = TopicPartition(topic, partition)
        if not assignment or tp not in assignment.tps:
            return Watermark(0, None)
        state = assignment.state_value(tp)
        # The time first: the fetcher sets it last, so the end is at least as new.
        fetched_ms = state.timestamp
        return Watermark(state.highwater or 0, fetched_ms)

    async def show_positions(self, positions: Mapping[TP, int]) -> bool:
        """Commit positions as group offsets for lag tools, best effort; nothing here reads them.

        Return whether the group took them, which it does only from a member of its present generation.
        """
        offsets = {
            TopicPartition(*tp): OffsetAndMetadata(position, "")
            for tp, position in positions.items()
        }
        try:
            await self._thread.call_thread(self._commit_in_thread, offsets)
        except (KafkaError, TimeoutError) as error:
            self.log.info("Group offsets not committed: %r", error)
            return False
        return True

    async def _commit_in_thread(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        # aiokafka tries for ever, and the thread has only two hands.
        async with asyncio.timeout(_GROUP_COMMIT_SECONDS):
            await self._thread._ensure_consumer().commit(offsets)  # noqa: SLF001


def transport_for(shards: Readers, own_topics: frozenset[str]) -> type[driver.Transport]:
    """Return the Faust transport whose consumer seeks to the positions of `shards`.

    Args:
        shards: Asked for positions after each assignment, and before each poll for what to read.
        own_topics: Topics whose records are packed by us.
    """
    consumer = type("ShardConsumer", (Consumer,), {"shards": shards, "own_topics": own_topics})
    return type("ShardTransport", (driver.Transport,), {"Consumer": consumer})


Deliver = Callable[[Chunk, int], None]
"""Takes a chunk and the generation it was fetched in."""


async def deliver(stream: faust.StreamT[Any], to: Deliver) -> None:
    """Hand every chunk of a stream over, synchronously: nothing may come between reading and applying."""
    async for event in stream.events():
        to(event.value, event.message.generation_id)
        # A stream whose queue is never empty would not let commits have their turns.
        await asyncio.sleep(0)
