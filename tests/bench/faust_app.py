"""The same job in plain Faust: events by campaign, minute and type in a table with a changelog.

`python -m tests.bench.faust_app JOB`: one event at a time; with TAKE as second argument in takes of
1,000. What Faust offers without touching its insides is set in its favour: large polls and buffers, a
table in memory, the minute cut out of the time's text, no web server.
"""

import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import faust

from tests.bench.data_sets import TYPES, Totals
from tests.bench.measuring import Job, Meter

PARTITIONS = 4
TAKE = "take"
TAKE_EVENTS = 1_000
TAKE_SECONDS = 0.1
TOPIC_BY_TYPE = {name: topic for topic, name in TYPES.items()}


class AdEvent(faust.Record, serializer="json"):
    """An impression or a click."""

    event_id: str
    source: str
    type: str
    occurred_at: str
    channel: str
    campaign_id: str


def main() -> None:
    """Run the worker until all events of the job are counted."""
    job = Job.from_arguments()
    app = _app(job)
    events = app.topic(*job.topics.values(), value_type=AdEvent)
    meter = Meter(job)
    if TAKE in sys.argv[2:]:
        _count_takes(app, events, job, meter)
    else:
        _count_events(app, events, job, meter)
    app.finalize()
    faust.Worker(app, loglevel="WARNING").execute_from_commandline()


def _app(job: Job) -> faust.App:
    return faust.App(
        job.name,
        broker=f"kafka://{job.servers}",
        store="memory://",
        datadir=f"{job.directory}/faust",
        topic_partitions=PARTITIONS,
        topic_disable_leader=True,
        web_enabled=False,
        value_serializer="json",
        stream_wait_empty=False,
        consumer_auto_offset_reset="earliest",
        broker_max_poll_records=5_000,
        stream_buffer_maxsize=16_384,
    )


def _count_events(app: faust.App, events: Any, job: Job, meter: Meter) -> None:
    counts: Any = app.Table("counts", default=int, partitions=PARTITIONS)

    async def count(stream: faust.StreamT[AdEvent]) -> None:
        done = 0
        async for event in stream:
            meter.mark_first()
            counts[_key(event)] += 1
            done += 1
            if done == job.events:
                await _drain(app)
                meter.finish(_totals(counts.data))

    app.agent(events)(count)


def _count_takes(app: faust.App, events: Any, job: Job, meter: Meter) -> None:
    # take() runs outside the stream's current event: the changelog partition must come from the key.
    counts: Any = app.Table("counts", default=int, partitions=PARTITIONS, use_partitioner=True)

    async def count(stream: faust.StreamT[AdEvent]) -> None:
        done = 0
        # Without its metadata the partitioner knows no partition.
        producer: Any = app.producer
        await producer._producer.partitions_for(counts.changelog_topic_name)
        async for taken in stream.take(TAKE_EVENTS, within=TAKE_SECONDS):
            meter.mark_first()
            for key, number in Counter(map(_key, taken)).items():
                counts[key] += number
            done += len(taken)
            if done == job.events:
                await _drain(app)
                meter.finish(_totals(counts.data))

    app.agent(events)(count)


def _key(event: AdEvent) -> str:
    return f"{event.campaign_id}|{event.occurred_at[:16]}|{event.type}"


async def _drain(app: faust.App) -> None:
    """Wait until the broker has every changelog record: their cost belongs to the run."""
    producer: Any = app.producer
    await producer.buffer.flush()
    await producer.flush()


def _totals(counts: Mapping[str, int]) -> Totals:
    totals: Totals = Counter()
    for key, number in counts.items():
        campaign, _minute, name = key.split("|")
        totals[campaign, TOPIC_BY_TYPE[name]] += number
    return totals


if __name__ == "__main__":
    main()
