"""What the three stages of a shard make of odd but valid events, through real commits."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from kpis.facts import OVERALL
from kpis.lead_rows import decode_lead
from kpis.reading import Rules, read
from kpis.spend import natural_key
from streams.metrics import Metrics
from streams.settings import Settings, load
from streams.tally import Tally
from tests.streams.one_shard import (
    NOW_MS,
    SETTINGS,
    TOPICS,
    Broker,
    RecordingProducer,
    World,
    chunk,
    impression,
    started,
)

DAY_MS = 86_400_000


@dataclass
class Running:
    """A shard whose own topics are handed back to it, as the broker would."""

    world: World = field(default_factory=World)
    broker: Broker = field(default_factory=Broker)
    settings: Settings = SETTINGS

    def __post_init__(self) -> None:
        self.shard = started(self.world, RecordingProducer(self.broker), self.settings)
        self._read = {TOPICS.entities: 0, TOPICS.deltas: 0}

    async def take(self, topic: str, *events: bytes, timestamp_ms: int = NOW_MS) -> None:
        """Let the shard read events of a topic and everything that follows from them."""
        read_on = chunk(events, self.shard.expected[TOPICS.inputs[topic]], topic)
        for record in read_on.records:
            record.timestamp = timestamp_ms
        self.shard.apply(read_on)
        await self.settle()

    async def settle(self) -> None:
        """Commit and hand back until nothing comes any more."""
        rounds = 0
        while rounds < 6 or self.shard.merge.has_more:
            rounds += 1
            self.world.clock.advance(timedelta(seconds=1))
            await self.shard.commit()
            assert self.world.stopped == []
            for topic, at in self._read.items():
                values = [one.value for one in self.broker.records(topic)][at:]
                if values:
                    self.shard.apply(chunk(values, at, topic))
                    self._read[topic] = at + len(values)

    def overall(self) -> dict[str, Any]:
        """Return the latest published windows of everything, by slot."""
        views = [view for view in self.world.published if view.scope == OVERALL]
        return {**views[-1].slots} if views else {}


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async for running in closed_at_the_end(Running()):
        yield running


@pytest.fixture
async def deduplicating() -> AsyncIterator[Running]:
    settings = load({"LEADPULSE_CONFIG": "", "LEADPULSE_DEDUP_IMPRESSIONS": "true"})
    async for running in closed_at_the_end(Running(settings=settings)):
        yield running


async def closed_at_the_end(running: Running) -> AsyncIterator[Running]:
    yield running
    running.shard.abandon()
    await running.shard.close()


def event(**fields: object) -> bytes:
    told = {"event_id": "e", "source": "/test", "occurred_at": "2026-03-05T11:59:00Z"}
    return json.dumps(told | fields).encode()


def sale(number: int, **fields: object) -> bytes:
    told = {"event_id": f"s-{number}", "sale_id": f"S{number}", "amount": "1", "currency": "EUR"}
    return event(**(told | fields))


def bill(**fields: object) -> bytes:
    told = {
        "type": "cost.snapshot",
        "cost_source": "bank",
        "channel": "google_ads",
        "amount": "100",
        "currency": "EUR",
        "period_start": "2025-03-01",
        "period_end": "2026-03-01",
        "occurred_at": "2025-03-01T00:00:00Z",
        "reported_at": "2026-03-01T00:00:00Z",
    }
    return event(**(told | fields))


async def test_sums_beyond_64_bits_are_counted_and_do_not_stop_the_worker(running: Running) -> None:
    await running.take("sales", *(sale(i, amount="1000000000000") for i in range(15)))
    await running.take("sales", *(sale(i, amount="1000000000000") for i in range(15, 30)))
    facts = running.overall()["lifetime"].facts
    assert facts["revenue_gross"] == 30 * 10**12 * 10**6
    assert facts["revenue_gross"] > 2**64


async def test_a_lead_that_many_sales_name_is_written_once_a_chunk(running: Running) -> None:
    await running.take("sales", *(sale(i, lead_id="walk-in") for i in range(400)))
    row = running.shard.tables["journeys"].get(b"lwalk-in")
    assert row is not None
    assert len(decode_lead(row).sales) == 400
    written = [
        one
        for one in running.broker.records(TOPICS.changelog("journeys"))
        if b"walk-in" in (one.key or b"")
    ]
    assert len(written) == 1
    assert running.overall()["lifetime"].facts["sales_unattributed"] == 400


async def test_a_year_long_bill_as_the_first_event_is_not_cut_into_minutes(
    running: Running,
) -> None:
    await running.take("costs", bill())
    written = [one for one in running.broker.records(TOPICS.changelog("cells")) if one.value]
    assert len(written) < 10_000
    assert running.overall()["lifetime"].facts["cost"] == 100_000_000


async def test_what_lies_ahead_is_shown_when_its_time_has_come(running: Running) -> None:
    await running.take("impressions", impression(1, occurred_at="2026-03-06T02:00:00Z"))
    assert set(running.overall()) == {"1w", "1mo", "lifetime"}
    running.world.clock.advance(timedelta(hours=14, minutes=5))
    await running.settle()
    assert {"1h", "1d", "last_1h", "last_24h"} <= set(running.overall())


def test_rows_of_different_unknown_channels_stay_different_rows() -> None:
    rules = Rules(allow_unknown_channels=False)
    rows = [
        read("costs", bill(channel=channel), NOW_MS, rules).event
        for channel in ("tiktok_ads", "snapchat_ads", " TikTok_Ads ")
    ]
    assert {row.channel for row in rows} == {"other"}  # type: ignore[union-attr] # rows have one
    first, second, again = (natural_key(row) for row in rows)  # type: ignore[arg-type] # they are rows
    assert first != second
    assert first == again


async def test_an_event_is_late_by_its_own_arrival_and_not_by_that_of_others(
    running: Running,
) -> None:
    await running.take("leads", event(type="lead.created", lead_id="L"))
    week_ago_ms = NOW_MS - 7 * DAY_MS
    then = [impression(i, occurred_at="2026-02-26T11:59:00Z") for i in range(50)]
    late = [impression(i, occurred_at="2026-02-26T08:00:00Z") for i in range(3)]
    await running.take("impressions", *then, *late, timestamp_ms=week_ago_ms)
    events = running.shard._deployment.metrics.events
    assert events.labels("impressions", "late")._value.get() == 3
    assert events.labels("impressions", "accepted")._value.get() == 53


async def test_impressions_sent_twice_count_once_where_they_are_deduplicated(
    deduplicating: Running,
) -> None:
    known = [impression(i, impression_id=f"I{i}") for i in range(50)]
    plain = [impression(i) for i in range(30)]
    other = impression(0, impression_id="I0", viewable=True)
    await deduplicating.take("impressions", *known, *plain)
    await deduplicating.take("impressions", *plain, *known, other)
    assert deduplicating.overall()["lifetime"].facts["impressions"] == 50 + 2 * 30
    events = deduplicating.shard._deployment.metrics.events
    counts = {
        outcome: events.labels("impressions", outcome)._value.get()
        for outcome in ("accepted", "duplicate", "conflict")
    }
    assert counts == {"accepted": 50 + 2 * 30, "duplicate": 50, "conflict": 1}


async def test_impressions_sent_twice_count_twice_as_long_as_nobody_asks(running: Running) -> None:
    known = [impression(i, impression_id=f"I{i}") for i in range(50)]
    await running.take("impressions", *known)
    await running.take("impressions", *known)
    assert running.overall()["lifetime"].facts["impressions"] == 100
    assert not [key for key, _ in running.shard.tables["journeys"].items()]


def test_the_newest_report_of_a_channel_is_told_whichever_shard_knows_it() -> None:
    metrics = Metrics(CollectorRegistry(), "test")
    older, newer = Tally(), Tally()
    older.cost_reported("google_ads", 1_000)
    newer.cost_reported("google_ads", 2_000)
    newer.report(metrics)
    older.report(metrics)
    assert metrics.cost_last_reported.labels("google_ads")._value.get() == 2


def test_what_was_taken_to_be_reported_is_not_counted_on() -> None:
    tally = Tally()
    tally.outcome("leads", "accepted")
    taken = tally.take()
    tally.outcome("leads", "accepted", 5)
    metrics = Metrics(CollectorRegistry(), "test")
    taken.report(metrics)
    assert metrics.events.labels("leads", "accepted")._value.get() == 1
