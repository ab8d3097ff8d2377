from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from functools import cache
from itertools import islice, pairwise, takewhile
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from kpis.calendar import Calendar
from kpis.events import TOPICS
from kpis.fields import Rules
from kpis.fold import Fold
from kpis.instants import DAY_MS, HOUR_MS, instant_ms
from kpis.leads import Funnel
from kpis.reading import Refused, read
from kpis.retention import Retention
from streams.broken_events import BREAKAGES, Breakage, breakages_of
from streams.traffic import CAMPAIGNS, MISMATCHED, Mix, Record, traffic

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


def expected_refusal(record: Record) -> str | None:
    """Return what can be told from the record alone."""
    return None if record.broken == MISMATCHED else record.broken


BUSY = [replace(c, click_ratio=0.6, lead_ratio=0.5) for c in CAMPAIGNS]


@cache
def many_outcomes(count: int = 60_000, **changes: Any) -> list[Record]:
    """Return records with every kind of event: short cycles, few impressions for each lead."""
    usual: dict[str, Any] = {"campaigns": BUSY, "cycle_ms": 60_000, "cost_every_ms": 20_000}
    return some(count, mix=Mix(**(usual | changes)))


def sound_values(records: list[Record], kind: str) -> list[dict[str, Any]]:
    values = [value_of(record) for record in records if not record.broken]
    return [value for value in values if value["type"] == kind]


def test_same_seed_gives_the_same_records() -> None:
    assert some(5_000, seed=7) == some(5_000, seed=7)


def test_other_seeds_and_starts_share_no_id() -> None:
    runs = [some(500, seed=7), some(500, seed=8), some(500, seed=7, start_ms=NOON + 1)]
    ids = [{value_of(r)["event_id"] for r in run if not r.broken} for run in runs]
    assert not ids[0] & ids[1]
    assert not ids[0] & ids[2]


def test_recomputation_refuses_what_is_broken_and_nothing_else_in_any_order() -> None:
    paris = ZoneInfo("Europe/Paris")
    late = {"late_days": 60, "late_share": 0.02, "time_zone": paris, "cycle_ms": 10_000}
    records = list(enumerate(many_outcomes(30_000, **late)))
    broken = {(r.topic, offset, r.broken) for offset, r in records if r.broken}
    results = []
    for order in (records, Random(1).sample(records, len(records))):
        calendar = Calendar(paris)
        rules = Rules(time_zone=paris)
        fold = Fold(rules, Funnel(), calendar, Retention(), 7 * DAY_MS, 7 * DAY_MS)
        for offset, record in order:
            fold.add(record.topic, 0, offset, record.value, NOON + DAY_MS)
        results.append(fold.result(NOON + DAY_MS))
    assert results[0] == results[1]
    assert {(one.topic, one.offset, one.reason) for one in results[0].rejects} == broken
    assert any(reason == MISMATCHED for _, _, reason in broken)


def test_records_arrive_in_order_of_time() -> None:
    assert all(a.at_ms <= b.at_ms for a, b in pairwise(many_outcomes(20_000)))


@pytest.mark.parametrize("zone", ["UTC", "Europe/Paris"])
def test_sound_records_are_accepted_and_broken_ones_refused_for_their_reason(zone: str) -> None:
    mix = Mix(broken_share=0.3, time_zone=ZoneInfo(zone))
    rules = Rules(time_zone=ZoneInfo(zone))
    for record in some(20_000, mix=mix):
        assert refusal_of(record, rules) == expected_refusal(record), record


@pytest.mark.parametrize("currency", ["EUR", "USD", "SEK", "GBP", "JPY"])
def test_every_kind_is_accepted_in_any_currency_and_however_late(currency: str) -> None:
    paris = ZoneInfo("Europe/Paris")
    late = {"late_days": 60, "late_share": 0.2, "currency": currency, "time_zone": paris}
    rules = Rules(currency=currency, time_zone=paris)
    for record in many_outcomes(20_000, **late):
        assert refusal_of(record, rules) == expected_refusal(record), record


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
    assert len({value_of(r)["event_id"] for r in records}) < len(records)
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
        value = value_of(record)
        is_total = value.keys().isdisjoint({"credit", "ad_group_id", "cost_type"})
        if value["type"] == "cost.snapshot" and "as_of" in value and is_total:
            key = value["channel"], value["campaign_id"], value["period_start"]
            by_key.setdefault(key, []).append((value["as_of"], float(value["amount"])))
    assert by_key
    for snapshots in by_key.values():
        amounts = [amount for _, amount in sorted(snapshots)]
        # Now and then a platform tells too much, and corrects itself.
        falls = [later - before for before, later in pairwise(amounts) if later < before]
        assert len(falls) <= len(amounts) / 5
        assert amounts[-1] > 0


def test_a_new_day_in_the_reporting_zone_begins_a_new_cost_record() -> None:
    paris = replace(SOUND, per_second=2, time_zone=ZoneInfo("Europe/Paris"))
    start_ms = instant_ms("2026-03-28T22:50:00Z")
    rows = sound_values(some(4_000, 1, paris, start_ms), "cost.snapshot")
    starts = {row["period_start"] for row in rows if "as_of" in row}
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


def test_volume_is_nearly_everything() -> None:
    topics = Counter(record.topic for record in some(30_000, mix=SOUND))
    volume = topics["impressions"] + topics["clicks"] + topics["visits"]
    assert volume / topics.total() > 0.9


def test_without_late_days_only_what_is_counted_one_by_one_is_late_and_by_hours() -> None:
    for record in many_outcomes(20_000, late_share=0.5, broken_share=0.0):
        value = value_of(record)
        behind_ms = record.at_ms - instant_ms(value["occurred_at"])
        is_single = value["type"] in {"impression.served", "click.recorded", "visit.started"}
        assert behind_ms < (6 * HOUR_MS if is_single or record.topic == "clicks" else HOUR_MS)


def test_events_of_every_kind_are_late_by_up_to_so_many_days() -> None:
    furthest: dict[str, int] = {}
    for record in many_outcomes(late_days=60, late_share=0.4, broken_share=0.0):
        value = value_of(record)
        behind_ms = record.at_ms - instant_ms(value["occurred_at"])
        furthest[value["type"]] = max(behind_ms, furthest.get(value["type"], 0))
    assert furthest.keys() == {kind for types in TOPICS.values() for kind in types}
    assert max(furthest.values()) < 61 * DAY_MS
    rare = {kind: late_ms for kind, late_ms in furthest.items() if late_ms < DAY_MS}
    assert rare == {}


def test_refunds_in_a_wrong_currency_are_the_only_ones_that_differ_from_their_sale() -> None:
    records = many_outcomes()
    currencies: dict[str, set[str]] = {}
    for kind in ("sale.created", "sale.amended"):
        for value in sound_values(records, kind):
            currencies.setdefault(value["sale_id"], set()).add(value["currency"])
    broken = [value_of(record) for record in records if record.broken == MISMATCHED]
    assert broken
    assert all(value["currency"] not in currencies[value["sale_id"]] for value in broken)
    refunds = [r for r in sound_values(records, "sale.refunded") if r["sale_id"] in currencies]
    assert all({value["currency"]} == currencies[value["sale_id"]] for value in refunds)


def test_refunds_are_partial_full_and_too_large() -> None:
    records = many_outcomes()
    created = {v["sale_id"]: float(v["amount"]) for v in sound_values(records, "sale.created")}
    amended = {value["sale_id"] for value in sound_values(records, "sale.amended")}
    shares = {
        (float(value["amount"]) > created[value["sale_id"]])
        - (float(value["amount"]) < created[value["sale_id"]])
        for value in sound_values(records, "sale.refunded")
        if value["sale_id"] in created.keys() - amended
    }
    assert shares == {-1, 0, 1}


def test_merged_leads_make_chains_and_circles() -> None:
    into = {v["lead_id"]: v["into_lead_id"] for v in sound_values(many_outcomes(), "lead.merged")}
    chains = [lead for lead, survivor in into.items() if survivor in into]
    circles = [lead for lead in chains if into[into[lead]] == lead]
    assert circles
    assert len(chains) > len(circles)


def test_some_leads_name_a_click_and_no_channel() -> None:
    records = many_outcomes()
    clicks = {value.get("click_id") for value in sound_values(records, "click.recorded")}
    silent = [v for v in sound_values(records, "lead.created") if "channel" not in v]
    assert any(value.get("click_id") in clicks for value in silent)
    assert any("click_id" not in value for value in silent)


def test_one_currency_has_no_rate_when_its_sales_begin() -> None:
    rated, unrated = set(), set()
    for record in many_outcomes(20_000, cycle_ms=10_000, cost_every_ms=40_000):
        value = {} if record.broken else value_of(record)
        if value.get("type") == "fxrate.set":
            rated |= {value["base"], value["quote"]}
        elif value.get("type") == "sale.created" and value["currency"] not in {*rated, "EUR"}:
            unrated.add(value["currency"])
    assert unrated == {"GBP"}
    assert rated >= {"EUR", "USD", "GBP"}


def test_late_traffic_brings_the_rates_of_the_days_before_with_a_hole() -> None:
    today = date(2026, 3, 5)
    mix = Mix(late_days=60, late_share=0.0, broken_share=0.0)
    rates = sound_values(some(60_000, mix=replace(mix, per_second=50)), "fxrate.set")
    days = {
        currency: {
            (today - date.fromisoformat(value["date"])) // timedelta(days=1)
            for value in rates
            if currency in (value["base"], value["quote"])
        }
        for currency in ("USD", "GBP")
    }
    assert max(days["USD"]) > 50
    assert days["USD"] & {*range(20, 32)}
    assert not days["GBP"] & {*range(20, 32)}


def test_bills_reach_into_the_future_as_far_as_the_mix_says() -> None:
    def ends(mix: Mix) -> set[str]:
        rows = sound_values(some(3_000, mix=mix), "cost.snapshot")
        return {row["period_end"] for row in rows if row.get("cost_type") in {"fee", "tool"}}

    assert ends(SOUND) == {"2026-04-01T00:00:00.000Z"}
    assert ends(replace(SOUND, fee_ahead_ms=90_000)) == {"2026-03-05T12:01:30.000Z"}


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
        assert refusal_of(record, rules) == expected_refusal(record)
