from collections import Counter
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer

from kpis.instants import instant_ms
from streams.clock import SystemClock
from streams.problems import Problem
from streams.settings import load
from streams.simulate import Plan, mix_of, schedule, simulate
from streams.topics import create, topics_of
from tests.parts.kafka_broker import KafkaBroker
from tests.parts.server import free_port

NOW = instant_ms("2026-03-05T12:00:00Z")


def test_run_ends_after_its_seconds_with_event_time_in_the_present() -> None:
    scheduled = list(schedule(Plan(seconds=10, rate=200), NOW))
    last = scheduled[-1]
    assert 9 < last.due_seconds < 10
    assert abs(last.record.at_ms - (NOW + 10_000)) < 30_000
    assert all(s.record.at_ms <= NOW + 10_000 for s in scheduled)


def test_event_time_catches_up_in_half_a_minute_and_then_keeps_the_machine_s_pace() -> None:
    scheduled = list(schedule(Plan(seconds=60, rate=200), NOW))
    #  due     0 s          30 s           60 s
    #  event   -29.5 min    now + 30 s     now + 60 s
    first, last = scheduled[0], scheduled[-1]
    assert first.record.at_ms < NOW - 29 * 60_000
    assert abs(last.record.at_ms - NOW - last.due_seconds * 1000) < 100
    ahead = [s for s in scheduled if s.record.at_ms > NOW + s.due_seconds * 1000 + 1]
    assert ahead == []


def test_rate_is_about_the_same_before_and_after_catching_up() -> None:
    dues = [s.due_seconds for s in schedule(Plan(seconds=60, rate=200), NOW)]
    before, after = sum(due < 30 for due in dues), sum(due >= 30 for due in dues)
    assert 4_500 < before < 7_800
    assert 4_500 < after < 7_800


def test_leads_stages_and_sales_are_seen_within_half_a_minute() -> None:
    topics = Counter(s.record.topic for s in schedule(Plan(seconds=30), NOW))
    assert topics["leads"] > 20
    assert topics["stage-changes"] > 10
    assert topics["sales"] > 3
    assert topics["costs"] > 20


def test_run_ends_after_its_events() -> None:
    assert len(list(schedule(Plan(events=1_234), NOW))) == 1_234


def test_speed_one_begins_in_the_present() -> None:
    first = next(schedule(Plan(speed=1.0), NOW))
    assert 0 <= first.record.at_ms - NOW < 5_000


def test_due_times_never_fall() -> None:
    dues = [s.due_seconds for s in schedule(Plan(seconds=40), NOW)]
    assert all(a <= b for a, b in pairwise(dues))


def test_same_plan_and_time_give_the_same_schedule() -> None:
    plan = Plan(seconds=5, seed=3)
    assert list(schedule(plan, NOW)) == list(schedule(plan, NOW))


def test_mix_follows_the_settings() -> None:
    settings = load(
        {
            "LEADPULSE_CURRENCY": "SEK",
            "LEADPULSE_TIME_ZONE": "Europe/Stockholm",
            "LEADPULSE_FUNNEL_STAGES": "lead,call,meeting,customer",
        }
    )
    mix = mix_of(settings)
    values = [_value(s.record.value) for s in schedule(Plan(events=20_000, mix=mix), NOW)]
    stages = {value["to_stage"] for value in values if value.get("type") == "lead.stage_changed"}
    assert {"call", "meeting"} <= stages
    assert "mql" not in stages
    assert "SEK" in {value.get("currency") for value in values}


def _value(value: bytes | None) -> dict[str, Any]:
    try:
        return msgspec.json.decode(value or b"", type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


@pytest.mark.integration
async def test_simulation_arrives_in_kafka(kafka: KafkaBroker, prefix: str) -> None:
    environ = {"LEADPULSE_KAFKA": kafka.bootstrap, "LEADPULSE_TOPICS_PREFIX": prefix}
    settings = load({**environ, "LEADPULSE_APP_ID": prefix.strip(".")})
    await create(settings)
    reports: list[int] = []

    sent = await simulate(
        settings,
        Plan(events=3_000, rate=100_000),
        SystemClock(),
        lambda counts: reports.append(counts.total()),
    )

    assert sent.total() - sent["broken"] == 3_000
    assert reports[-1] == sent.total()
    assert await _records_in(settings.kafka.servers, topics_of(settings).inputs) == {
        topic: count for topic, count in sent.items() if topic != "broken"
    }


async def _records_in(servers: str, inputs: Any) -> dict[str, int]:
    counts: Counter[str] = Counter()
    consumer = AIOKafkaConsumer(
        *inputs.values(), bootstrap_servers=servers, auto_offset_reset="earliest"
    )
    async with consumer:
        ends = await consumer.end_offsets(consumer.assignment())
    short = {full: name for name, full in inputs.items()}
    for partition, end in ends.items():
        counts[short[partition.topic]] += end
    return {name: count for name, count in counts.items() if count}


@pytest.mark.integration
async def test_missing_topics_are_one_problem(kafka: KafkaBroker, prefix: str) -> None:
    environ = {"LEADPULSE_KAFKA": kafka.bootstrap, "LEADPULSE_TOPICS_PREFIX": prefix}
    with pytest.raises(
        Problem, match="expected a topic, got none; run `leadpulse topics --create`"
    ):
        await simulate(load(environ), Plan(events=10), SystemClock(), lambda _: None)


async def test_missing_broker_is_one_problem() -> None:
    settings = load({"LEADPULSE_KAFKA": f"localhost:{free_port()}"})
    with pytest.raises(Problem, match="got connection refused"):
        await simulate(settings, Plan(events=10), SystemClock(), lambda _: None)
