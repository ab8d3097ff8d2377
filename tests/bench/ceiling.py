"""The most that Python can do with this client: fetch record batches, decode what counts, count.

`python -m tests.bench.ceiling JOB`: no checks, no state that survives, no output. What a KPI needs of
an event is decoded (type, time, channel, campaign); of several ways to count, this was the fastest.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer import fetcher

from tests.bench.data_sets import Totals
from tests.bench.measuring import Job, Meter

BATCHES_PER_POLL = 40


class AdEvent(msgspec.Struct, gc=False):
    """What an impression or a click counts as."""

    type: str
    occurred_at: str
    channel: str
    campaign_id: str


class Batch(NamedTuple):
    """The values of a record batch; aiokafka asks whatever it hands out for `offset`, the last one."""

    offset: int
    values: list[bytes]


class BatchRecords(fetcher.PartitionRecords):  # type: ignore[misc] # untyped
    """Makes aiokafka's fetcher hand out an object per record batch; for topics without transactions."""

    def _unpack_records(self) -> Iterator[Batch]:
        while self._records.has_next():
            batch = self._records.next_batch()
            if self._check_crcs and not batch.validate_crc():
                msg = f"{self._tp}: expected a batch with its checksum, got another"
                raise fetcher.Errors.CorruptRecordException(msg)
            self.next_fetch_offset = batch.next_offset
            yield Batch(batch.next_offset - 1, [record.value for record in batch])


async def main() -> None:
    """Count all events of the job."""
    job = Job.from_arguments()
    short_names = {name: short for short, name in job.topics.items()}
    meter, counts = Meter(job), {short: Counter[str]() for short in job.topics}
    fetcher.PartitionRecords = BatchRecords
    consumer = AIOKafkaConsumer(
        *job.topics.values(),
        bootstrap_servers=job.servers,
        group_id=job.name,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        fetch_max_wait_ms=100,
    )
    await consumer.start()
    done = 0
    while done < job.events:
        polled = await consumer.getmany(timeout_ms=1_000, max_records=BATCHES_PER_POLL)
        if polled:
            meter.mark_first()
        for partition, batches in polled.items():
            done += _count(batches, counts[short_names[partition.topic]])
    meter.finish(_totals(counts))


def _count(batches: list[Any], counts: "Counter[str]") -> int:
    done = 0
    for batch in batches:
        counts.update(
            [
                f"{event.channel}|{event.campaign_id}|{event.occurred_at[:16]}"
                for event in map(_decode, batch.values)
            ]
        )
        done += len(batch.values)
    return done


_decode = msgspec.json.Decoder(AdEvent).decode


def _totals(counts: dict[str, "Counter[str]"]) -> Totals:
    totals: Totals = Counter()
    for topic, counted in counts.items():
        for key, number in counted.items():
            totals[key.split("|")[1], topic] += number
    return totals


if __name__ == "__main__":
    asyncio.run(main())
