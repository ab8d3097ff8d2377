"""What a worker says of its health before and after it has joined the group."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from streams.app import JOIN_SECONDS, Worker
from streams.clock import ManualClock
from streams.publishers.webhook import Notice
from streams.settings import load
from streams.stages import AlertNews

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


class ClosingShard:
    """An open shard that keeps what it was told to be delivered until its last commit."""

    was_clean = True
    is_closed = False
    commits = 0
    confirmed_at = 0.0

    def __init__(self) -> None:
        self.merge = self
        self.told: list[str] = []
        self.committed: list[str] = []

    def delivered(self, notice_id: str) -> None:
        self.told.append(notice_id)

    def suspend(self) -> None:
        """Nothing was under way."""

    async def commit(self) -> None:
        self.committed = list(self.told)

    def abandon(self) -> None:
        self.is_closed = True

    async def close(self) -> None:
        """Nothing was opened."""


@pytest.fixture
async def told(clock: ManualClock) -> AsyncIterator[Worker]:
    async def answer(_: web.Request) -> web.Response:
        await asyncio.sleep(0.2)
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/hook", answer)
    async with TestServer(app) as server:
        settings = load(
            {
                "LEADPULSE_METRICS": "127.0.0.1:0",
                "LEADPULSE_REDIS": "",
                "LEADPULSE_ALERTS_WEBHOOK_URL": str(server.make_url("/hook")),
                "LEADPULSE_ALERTS_WEBHOOK_SECRET": "a secret of many characters",
            }
        )
        worker = Worker(settings, 1, clock=clock)
        assert worker._webhook is not None
        await worker._webhook.start()
        yield worker
        await worker._webhook.stop()


NOTICES = [Notice(0, f"id-{number}", b"{}", f"key-{number}") for number in range(2)]


async def test_what_is_delivered_while_the_worker_stops_is_in_the_last_commit(
    told: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = ClosingShard()
    monkeypatch.setitem(told.owner.shards, 0, shard)
    told._alert(AlertNews.none()._replace(notices=NOTICES))
    await asyncio.sleep(0.05)

    await told.stop()

    assert shard.is_closed
    assert sorted(shard.committed) == ["id-0", "id-1"]


async def test_notice_that_was_dropped_is_not_sent(told: Worker) -> None:
    told._alert(AlertNews.none()._replace(notices=NOTICES, dropped=NOTICES[:1]))

    assert told._webhook is not None
    assert len(told._webhook) == 1


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
