"""The live page of real workers: it shows what is in Redis, follows it, and all workers show the same."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import aiohttp
import pytest

from tests.faults.workers import Worker
from tests.integration.conftest import Deploy
from tests.integration.running import Deployment, Sent, event, until
from tests.streams.pages import Stream

pytestmark = pytest.mark.integration

KOLKATA = ZoneInfo("Asia/Kolkata")
HOUR = timedelta(hours=1)
CHANNELS = ("google_ads", "seo")
LIFETIME = "period|lifetime|{}|_all"
OVERALL = LIFETIME.format("_all")


def traffic(number: int) -> list[Sent]:
    """Return a click and a lead of each channel, and what Google cost."""
    now = datetime.now(UTC)
    scopes = [{"channel": channel, "campaign_id": "c-1"} for channel in CHANNELS]
    at = now.isoformat()
    events = [
        event(topic, kind, at, **{key: f"{number}-{scope['channel']}"}, **scope)
        for scope in scopes
        for topic, kind, key in (
            ("clicks", "click.recorded", "click_id"),
            ("leads", "lead.created", "lead_id"),
        )
    ]
    hour = now.astimezone(KOLKATA).replace(minute=0, second=0, microsecond=0)
    cost = event(
        "costs",
        "cost.snapshot",
        at,
        period_start=hour.isoformat(),
        period_end=(hour + HOUR).isoformat(),
        reported_at=at,
        cost_source="bills",
        amount="12.50",
        currency="EUR",
        **scopes[0],
    )
    return [*events, cost]


def url_of(worker: Worker, path: str) -> str:
    return worker.metrics_url.removesuffix("/metrics") + path


async def board(session: aiohttp.ClientSession, worker: Worker) -> dict[str, Any]:
    async with session.get(url_of(worker, "/board")) as answer:
        found: dict[str, Any] = await answer.json()
    return found


async def shows(
    session: aiohttp.ClientSession, worker: Worker, clicks: int, cost: str
) -> dict[str, Any]:
    """Return the board as soon as it shows so many clicks and leads, and so much cost."""
    found: dict[str, Any] = {}

    async def does() -> bool:
        nonlocal found
        found = await board(session, worker)
        fields = found["numbers"].get(OVERALL, {})
        told = [fields.get(name) for name in ("clicks", "leads", "cost")]
        return told == [str(clicks), str(clicks), cost]

    await until(does, f"{clicks} clicks and leads and {cost} of cost on the board")
    return found


def in_redis(deployment: Deployment, key: str) -> dict[str, str]:
    found = deployment.redis.hgetall(f"leadkpi:v1:{key.replace('|', ':')}")
    return dict(found)  # type: ignore[arg-type] # not awaitable: the client is synchronous


async def is_as_in_redis(deployment: Deployment, shown: dict[str, Any]) -> bool:
    numbers = shown["numbers"]
    return all(fields == in_redis(deployment, key) for key, fields in numbers.items())


async def to_the_end(stream: Stream) -> None:
    while True:
        await stream.next()


async def test_the_page_shows_what_is_in_redis_and_follows_it(deploy: Deploy) -> None:
    deployment = await deploy(LEADPULSE_TIME_ZONE=KOLKATA.key)
    worker = deployment.worker()
    await deployment.send(traffic(1))
    await deployment.settle()
    async with aiohttp.ClientSession() as session:
        shown = await shows(session, worker, 2, cost="12.500000")

        async def is_equal() -> bool:
            # A minute may begin between the two readings.
            return await is_as_in_redis(deployment, await board(session, worker))

        await until(is_equal, "every number as in Redis")
        for channel in ("_all", *CHANNELS):
            assert f"cohort|1d|{channel}|_all" in shown["numbers"]
        assert "period|last_24h|seo|c-1" in shown["numbers"]
        hours = shown["series"]
        assert sorted(hours) == ["_all", *CHANNELS]
        # Start, impressions, clicks, cost, leads, sales, new customers, net revenue.
        assert [hour[1:] for hour in hours["_all"]][-1] == [0, 2, 12.5, 2, 0, 0, 0]
        assert hours["google_ads"][-1][3] == 12.5
        assert hours["seo"][-1][3] == 0
        assert hours["seo"][-1][0] % 3_600_000 == 1_800_000

        async with session.get(url_of(worker, "/live")) as response:
            stream = Stream(response)
            first = await stream.next()
            assert first.content["numbers"][OVERALL]["clicks"] == "2"
            await deployment.send(traffic(2))
            clicks = {"2"}
            while "4" not in clicks:
                change = await stream.next()
                assert change.name == "change"
                clicks.add(change.content.get("numbers", {}).get(OVERALL, {}).get("clicks"))
            assert worker.stop() == 0
            with pytest.raises((EOFError, aiohttp.ClientPayloadError)):
                await to_the_end(stream)
    assert worker.tracebacks() == 0


async def test_two_workers_show_the_same_board(deploy: Deploy) -> None:
    deployment = await deploy()
    first, second = deployment.worker(), deployment.worker()
    for number in range(3):
        await deployment.send(traffic(number))
    await deployment.settle()
    async with aiohttp.ClientSession() as session:
        for worker in (first, second):
            await shows(session, worker, 6, cost="12.500000")

        async def are_equal() -> bool:
            one, two = [await board(session, worker) for worker in (first, second)]
            return all(one[part] == two[part] for part in ("numbers", "series", "kpis"))

        await until(are_equal, "the same board on both workers")
    assert first.tracebacks() == second.tracebacks() == 0
