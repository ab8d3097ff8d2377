"""What a worker says of its health before and after it has joined the group."""

import logging
from collections.abc import AsyncIterator
from datetime import timedelta

import aiohttp
import pytest

from streams.app import JOIN_SECONDS, Worker
from streams.clock import ManualClock
from streams.settings import load

LONG = timedelta(seconds=JOIN_SECONDS + 1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_800_000_000_000)


@pytest.fixture
async def worker(clock: ManualClock) -> AsyncIterator[Worker]:
    settings = load({"LEADPULSE_METRICS": "127.0.0.1:0", "LEADPULSE_REDIS": ""})
    worker = Worker(settings, 1, clock=clock)
    await worker.endpoint.start()
    yield worker
    await worker.endpoint.stop()


async def health(worker: Worker) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.get(f"{worker.endpoint.url}/healthz") as reply:
        return reply.status, await reply.text()


async def test_a_worker_that_the_group_never_answers_is_not_healthy_after_a_minute(
    worker: Worker, clock: ManualClock
) -> None:
    clock.advance(timedelta(seconds=JOIN_SECONDS))
    assert (await health(worker))[0] == 200
    clock.advance(timedelta(seconds=1))
    status, text = await health(worker)
    assert status == 503
    assert "not joined the group yet: expected an assignment of group leadpulse within 60 s" in text


async def test_a_worker_that_joined_without_a_shard_is_healthy(
    worker: Worker, clock: ManualClock
) -> None:
    worker.owner.current_generation = lambda: 1
    assert await worker.owner.assign({}, 1)
    clock.advance(LONG)
    assert (await health(worker))[0] == 200


async def test_it_is_warned_of_once(
    worker: Worker, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "leadpulse"):
        worker._warn_once()
        assert caplog.messages == []
        clock.advance(LONG)
        worker._warn_once()
        worker._warn_once()
    [line] = caplog.messages
    assert "READ on the group" in line


async def test_a_worker_without_a_shard_shows_the_group_no_positions(worker: Worker) -> None:
    # It has no consumer yet, so whatever it sent would be an error.
    await worker._show_committed()
