from collections import Counter
from dataclasses import replace
from itertools import islice, pairwise, takewhile
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from kpis.events import TOPICS
from kpis.fields import Rules
from kpis.instants import HOUR_MS, instant_ms
from kpis.reading import Refused, read
from streams.broken_events import BREAKAGES, Breakage, breakages_of
from streams.traffic import CAMPAIGNS, Mix, Record, traffic

NOON = instant_ms("2026-03-05T12:00:00Z")
SOUND = Mix(broken_share=0.0, duplicate_share=0.0)


def some(count: int, seed: int = 1, mix: Mix | None = None, start_ms: int = NOON) -> list[Record]:
    return list(islice(traffic(seed, start_ms, mix), count))


def value_of(record: Record) -> dict[str, Any]:
    value: dict[str, Any] = msgspec.json.decode(record.value or b"{}")
    return value


def refusal_of(record: Record, rules: Rules) -> str | None:
    try:
        read(record.topic, record.value, record.at_ms, rules)
    except Refused as refused:
        return refused.reason
    return None


def many_outcomes(count: int = 60_000) -> list[Record]:
    """Return records with every kind of event: short cycles, few impressions for each lead."""
    busy = [replace(c, click_ratio=0.6, lead_ratio=0.5) for c in CAMPAIGNS]
    return some(count, mix=Mix(campaigns=busy, cycle_ms=60_000, cost_every_ms=20_000))


def test_same_seed_gives_the_same_records() -> None:
    assert some(5_000, seed=7) == some(5_000, seed=7)


def test_other_seeds_and_starts_share_no_id() -> None:
    runs = [some(500, seed=7), some(500, seed=8), some(500, seed=7, start_ms=NOON + 1)]
    ids = [{value_of(r)["event_id"] for r in run if not r.broken} for run in runs]
    assert not ids[0] & ids[1]
    assert not ids[0] & ids[2]


def test_records_arrive_in_order_of_time() -> None:
    assert all(a.at_ms <= b.at_ms for a, b in pairwise(many_outcomes(20_000)))


@pytest.mark.parametrize("zone", ["UTC", "Europe/Paris"])
def test_sound_records_are_accepted_and_broken_ones_refused_for_their_reason(zone: str) -> None:
    mix = Mix(broken_share=0.3, time_zone=ZoneInfo(zone))
    rules = Rules(time_zone=ZoneInfo(zone))
    for record in some(20_000, mix=mix):
        assert refusal_of(record, rules) == record.broken, record


def test_all_types_occur() -> None:
    kinds = Counter(value_of(r).get("type") for r in many_outcomes() if not r.broken)
    expected = {kind for types in TOPICS.values() for kind in types}
    assert expected <= kinds.keys()


def test_broken_share_is_kept() -> None:
    records = some(20_000, mix=Mix(broken_share=0.1))
    assert sum(r.broken is not None for r in records) / len(records) == pytest.approx(0.1, abs=0.01)


def test_without_shares_nothing_is_broken_and_nothing_comes_twice() -> None:
    ids = [value_of(r)["event_id"] for r in some(20_000, mix=SOUND)]
    assert len(set(ids)) == len(ids)


def test_duplicates_are_the_same_bytes() -> None:
    records = [r for r in many_outcomes() if not r.broken]
    by_id: dict[str, set[bytes]] = {}
    for record in records:
        by_id.setdefault(value_of(record)["event_id"], set()).add(record.value or b"")
    assert all(len(values) == 1 for values in by_id.values())
    assert len(by_id) < len(records)


def test_some_moves_and_sales_come_before_their_lead_and_some_leads_never() -> None:
    created: set[str] = set()
    early: set[str] = set()
    for record in many_outcomes():
        value = {} if record.broken else value_of(record)
        if value.get("type") == "lead.created":
            created.add(value["lead_id"])
        elif "lead_id" in value and value["lead_id"] not in created:
            early.add(value["lead_id"])
    assert early & created
    assert any(lead_id.startswith("unknown") for lead_id in early - created)


def test_cost_of_a_campaign_grows_within_its_day() -> None:
    by_key: dict[tuple[str, str, str], list[tuple[str, float]]] = {}
    for record in some(30_000, mix=replace(SOUND, per_second=5)):
        if record.topic == "costs":
            value = value_of(record)
            key = value["channel"], value["campaign_id"], value["period_start"]
            by_key.setdefault(key, []).append((value["as_of"], float(value["amount"])))
    assert by_key
    for snapshots in by_key.values():
        amounts = [amount for _, amount in sorted(snapshots)]
        assert amounts == sorted(amounts)
        assert amounts[-1] > 0


def test_a_new_day_in_the_reporting_zone_begins_a_new_cost_record() -> None:
    paris = replace(SOUND, per_second=2, time_zone=ZoneInfo("Europe/Paris"))
    start_ms = instant_ms("2026-03-28T22:50:00Z")
    starts = {
        value_of(r)["period_start"] for r in some(4_000, 1, paris, start_ms) if r.topic == "costs"
    }
    assert starts == {"2026-03-28T22:50:00.000Z", "2026-03-28T23:00:00.000Z"}


def test_traffic_has_about_the_rate_that_was_asked_for() -> None:
    records = some(30_000, mix=Mix(per_second=100))
    seconds = (records[-1].at_ms - records[0].at_ms) / 1000
    assert 70 < len(records) / seconds < 140


def test_nights_are_quieter_than_days() -> None:
    by_hour: Counter[int] = Counter()
    midnight = instant_ms("2026-03-05T00:00:00Z")
    records = traffic(1, midnight, Mix(per_second=0.2))
    for record in takewhile(lambda r: r.at_ms < midnight + 12 * HOUR_MS, records):
        by_hour[(record.at_ms - midnight) // HOUR_MS] += 1
    assert by_hour[2] * 3 < by_hour[10]


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda b: f"{b.reason}: {b.name}")
def test_each_breakage_applies_to_some_type(breakage: Breakage) -> None:
    kinds = {kind for types in TOPICS.values() for kind in types}
    assert any(breakage in breakages_of(kind) for kind in kinds)


@examples(max_examples=20)
@given(
    st.integers(0, 2**64),
    st.integers(1_000_000_000_000, 4_000_000_000_000),
    st.sampled_from(["UTC", "Europe/Paris", "Asia/Kathmandu", "America/New_York"]),
)
def test_any_seed_and_start_give_records_that_are_what_they_say(
    seed: int, start_ms: int, zone: str
) -> None:
    mix = Mix(broken_share=0.05, time_zone=ZoneInfo(zone))
    rules = Rules(time_zone=ZoneInfo(zone))
    for record in some(300, seed, mix, start_ms):
        assert refusal_of(record, rules) == record.broken
