"""Reads topics up to what they hold now, for commands that only look; with a bar where somebody waits."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from streams.clock import Clock
from streams.problems import Problem, kafka_unreachable
from streams.settings import Settings
from streams.transport import Batch

STALLED_SECONDS: Final = 30.0
"""So long a read may go without a record before it is given up."""

_RECORDS_PER_POLL: Final = 500

Take = Callable[[TopicPartition, Any], None]
"""What is done with a record of a partition."""


@asynccontextmanager
async def consumer_of(settings: Settings) -> AsyncIterator[Any]:
    """Return a started consumer of what is committed; it belongs to no group."""
    consumer = AIOKafkaConsumer(
        **settings.kafka.consumer_options(),
        isolation_level="read_committed",
        auto_offset_reset="none",
        enable_auto_commit=False,
        fetch_max_wait_ms=100,
        max_partition_fetch_bytes=4 << 20,
    )
    try:
        await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


async def seek_to_start(consumer: Any, places: list[TopicPartition]) -> dict[TopicPartition, int]:
    """Go to the first record of each partition, and return where that is."""
    consumer.assign(places)
    starts: dict[TopicPartition, int] = await consumer.beginning_offsets(places)
    # seek_to_beginning would lose a race with the first reset.
    for tp, start in starts.items():
        consumer.seek(tp, start)
    return starts


async def read_until(
    consumer: Any,
    ends: Mapping[TopicPartition, int],
    take: Take,
    clock: Clock,
    stalled_seconds: float = STALLED_SECONDS,
) -> AsyncIterator[dict[TopicPartition, int]]:
    """Hand every record before `ends` to `take`, and yield the positions after each poll.

    Raises:
        Problem: if no record comes for `stalled_seconds`.
    """
    positions = {tp: await consumer.position(tp) for tp in ends}
    heard_at = clock.monotonic_seconds()
    while unread := [tp for tp in ends if positions[tp] < ends[tp]]:
        polled = await consumer.getmany(*unread, timeout_ms=500, max_records=_RECORDS_PER_POLL)
        for tp, fetched in polled.items():
            for record in _records(fetched):
                take(tp, record)
        before = dict(positions)
        positions.update({tp: await consumer.position(tp) for tp in unread})
        if positions != before:
            heard_at = clock.monotonic_seconds()
        elif clock.monotonic_seconds() - heard_at > stalled_seconds:
            tp = unread[0]
            where = f"{tp.topic}/{tp.partition}"
            raise Problem(where, f"records up to {ends[tp]}", f"none from {positions[tp]} on")
        yield positions
        await asyncio.sleep(0)


def _records(fetched: list[Any]) -> Iterator[Any]:
    """Yield records, also where this process fetches whole batches (see streams/transport.py)."""
    for one in fetched:
        if isinstance(one, Batch):
            yield from one.read()
        else:
            yield one


async def problem_of(settings: Settings, error: BaseException) -> Problem:
    """Return why reading failed, by the error of the client."""
    if isinstance(error, OffsetOutOfRangeError):
        got = "a broker that has deleted some meanwhile"
        return Problem("input topics", "all records from the beginning", got)
    unreachable = await kafka_unreachable(settings.kafka.servers)
    if "refused" in unreachable.got or "no answer" in unreachable.got:
        return unreachable
    got = f"{type(error).__name__}: {error}"
    return Problem(unreachable.where, "an answer", f"{got:.120}", "see its log")


@contextmanager
def progress_bar(where: str) -> Iterator[Progress]:
    """Return a bar of what was read from `where`, on the terminal if stderr is one."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}"),
        TimeElapsedColumn(),
        TextColumn(f"from {where}", style="dim"),
    )
    # Where nobody looks a bar is only dirt in a log.
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        yield bar
