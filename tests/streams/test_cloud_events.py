"""A shard counts events in each mode of CloudEvents, also between flat ones that it counts by groups."""

from collections.abc import AsyncIterator

import pytest

from tests.cloud_events import Headers, binary, structured
from tests.streams.one_shard import NOW_MS, TOPICS, chunk, impression
from tests.streams.test_stages import Running, closed_at_the_end


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async for one in closed_at_the_end(Running()):
        yield one


async def test_impressions_in_every_mode_count_alike(running: Running) -> None:
    values: list[bytes] = []
    headers: list[Headers] = []
    for number in range(90):
        flat = impression(number)
        value, told = ((flat, []), structured(flat), binary(flat))[number % 3]
        values.append(value)
        headers.append(told)
    topic = TOPICS.inputs["impressions"]
    # Three times, so that what the first taught is used on the next.
    for _ in range(3):
        read_on = chunk(values, running.shard.expected[topic], topic)
        for record, told in zip(read_on.records, headers, strict=True):
            record.headers = told
            record.timestamp = NOW_MS
        running.shard.apply(read_on)
        await running.settle()
    assert running.overall()["lifetime"].facts["impressions"] == 270
