"""One deployment with a worker for all examples: they read and write what a real one does."""

import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
import pytest_asyncio

from kpis.windows import parse_key
from tests.documents import examples_in
from tests.integration.running import Deployment, Sent, event, until
from tests.kpis.records import TOPIC_OF, a_record
from tests.parts.kafka_broker import KafkaBroker
from tests.parts.redis_server import RedisServer

BRAND: Final = {"channel": "google_ads", "campaign_id": "brand"}
LATE: Final = "2026-03-30T10:00:00+02:00"
FINAL_SECONDS: Final = 60.0
DATABASE: Final = 15
"""Of the one Redis; other tests that use it are over by then, or begin later and empty it."""


def long_ago() -> list[Sent]:
    """Return the month of the README: windows that are final by now, on both bases."""
    return [Sent(topic, line.encode()) for topic, line in examples_in("README.md")]


def today() -> Iterator[Sent]:
    """Yield leads, clicks and costs of two channels in the hour before now, and broken records."""
    end = datetime.now(UTC).replace(microsecond=0)
    start = end - timedelta(minutes=50)
    for channel, amount, leads in (("google_ads", 120, 4), ("linkedin_ads", 90, 2)):
        period = {
            "period_start": start.isoformat(),
            "period_end": end.isoformat(),
            "reported_at": end.isoformat(),
            "as_of": end.isoformat(),
        }
        money = {"cost_source": "ads", "amount": amount, "currency": "EUR"}
        place = {"channel": channel, "campaign_id": "autumn"}
        yield event("costs", "cost.snapshot", end.isoformat(), **money, **place, **period)
        for number in range(leads):
            at = (start + timedelta(minutes=number)).isoformat()
            name = f"{channel}-{number}"
            yield event("clicks", "click.recorded", at, click_id=name, **place)
            yield event("leads", "lead.created", at, lead_id=name, click_id=name, **place)
    yield event("clicks", "click.recorded", end.isoformat(), click_id="seo", channel="seo")
    yield Sent(TOPIC_OF["sale.created"], a_record("sale.created", amount="12,50"))
    yield Sent(TOPIC_OF["sale.created"], b"not json")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deployment(
    kafka: KafkaBroker, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Deployment]:
    """Return a deployment that has counted a month long ago and the last hour."""
    directory = tmp_path_factory.mktemp("subscribers")
    prefix = f"subscribers{os.getpid()}."
    environment = {
        "LEADPULSE_KAFKA": kafka.bootstrap,
        "LEADPULSE_REDIS": f"{redis_server.url.removesuffix('/0')}/{DATABASE}",
        "LEADPULSE_TOPICS_PREFIX": prefix,
        "LEADPULSE_APP_ID": f"{prefix}app",
    }
    async with Deployment(environment, directory, 3) as made:
        made.redis.flushdb()
        await made.create_topics()
        made.worker()
        await made.send([*long_ago(), *today()])
        await made.settle()

        async def is_final() -> bool:
            records = await made.kpi_records()
            kinds = {parse_key(key.encode()).kind for key, r in records.items() if r["revision"]}
            return {"1d", "1w", "1mo"} <= kinds

        await until(is_final, "final windows of the month long ago", FINAL_SECONDS)
        # Revises the month; that is told within a minute, while other examples run.
        await made.send([event("leads", "lead.created", LATE, lead_id="late", **BRAND)])
        yield made
