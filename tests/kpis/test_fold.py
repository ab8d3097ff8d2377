"""The whole calculation, from records to facts: its laws, and a month that was worked out by hand."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpis.calendar import Calendar
from kpis.catalog import Catalog, Undefined
from kpis.facts import OVERALL, Facts, Scope, add
from kpis.fold import (
    Fold,
    FoldResult,
    Reject,
    channels_with_facts,
    is_cost_expected,
    window_facts,
)
from kpis.journeys import Funnel
from kpis.money import MICROS
from kpis.reading import Rules
from kpis.retention import Buckets, Grain, Retention
from kpis.windows import Window
from tests.kpis.streams_of_records import (
    ALL_KEPT,
    DAY_MS,
    KEEP_MS,
    LORD_HOWE,
    MINUTE_MS,
    PARIS,
    PARK_MS,
    Record,
    any_records,
    fold_of,
    ms,
    record,
    rows,
    text,
)

ZONES = (PARIS, LORD_HOWE)
LIFETIME = Window("lifetime", None, None)
NOON = ms("2026-03-29T12:00:00+02:00")
FOR_EVER = 10**14

zones = st.sampled_from(ZONES)


def lifetime(result: FoldResult, scope: Scope = OVERALL) -> Facts:
    return window_facts(result, scope, LIFETIME)


def without_stage_current(facts: Mapping[str, int]) -> Facts:
    return {name: fact for name, fact in facts.items() if not name.startswith("stage_current.")}


# ----------------------------------------------------------------------------- laws


@given(st.data(), zones)
@settings(max_examples=25)
def test_any_order_of_the_records_gives_the_same(data: st.DataObject, zone: ZoneInfo) -> None:
    records = data.draw(any_records(zone))
    shuffled = data.draw(st.permutations(records))
    for retention in (ALL_KEPT, Retention(minutes=120, hours=1200, days=3000)):
        assert fold_of(shuffled, zone, retention, FOR_EVER) == fold_of(
            records, zone, retention, FOR_EVER
        )


@given(any_records())
@settings(max_examples=20)
def test_records_twice_are_records_once(records: list[Record]) -> None:
    def is_recognised(one: Record) -> bool:
        value = json.loads(one.value)
        return value["type"] not in ("impression.served", "click.recorded") or "click_id" in value

    known = [one for one in records if is_recognised(one)]
    assert fold_of([*known, *known]).cells == fold_of(known).cells


@given(st.data(), zones)
@settings(max_examples=20)
def test_minutes_sum_to_hours_to_days_to_lifetime(data: st.DataObject, zone: ZoneInfo) -> None:
    result = fold_of(data.draw(any_records(zone)), zone)
    buckets = Buckets(Calendar(zone), ALL_KEPT)
    for cells in result.cells.values():
        for finer, coarser in ((Grain.MINUTE, Grain.HOUR), (Grain.HOUR, Grain.DAY)):
            sums: dict[int, Facts] = {}
            for bucket, facts in cells.get(finer, {}).items():
                add(sums.setdefault(buckets.start(coarser, bucket), {}), facts)
            assert sums == cells.get(coarser, {})
        total: Facts = {}
        for facts in cells.get(Grain.DAY, {}).values():
            add(total, facts)
        assert total == without_stage_current(cells[Grain.LIFETIME][0])


@given(st.data(), zones)
@settings(max_examples=20)
def test_campaigns_sum_to_channels_and_channels_to_overall(
    data: st.DataObject, zone: ZoneInfo
) -> None:
    result = fold_of(data.draw(any_records(zone)), zone)
    campaigns: dict[tuple[Scope, Grain, int], Facts] = {}
    channels: dict[tuple[Scope, Grain, int], Facts] = {}
    for scope, cells in result.cells.items():
        into, whole = (
            (channels, OVERALL)
            if scope.campaign_id is None
            else (campaigns, Scope(scope.channel, None))
        )
        for grain, buckets in cells.items():
            for bucket, facts in buckets.items():
                if scope != OVERALL:
                    add(into.setdefault((whole, grain, bucket), {}), facts)
    for sums in (campaigns, channels):
        for (scope, grain, bucket), facts in sums.items():
            assert facts == result.facts(scope, grain, bucket)
    assert channels.keys() == {
        (OVERALL, grain, bucket)
        for grain, buckets in result.cells.get(OVERALL, {}).items()
        for bucket in buckets
    }


@given(st.data(), zones, st.integers(2, 200), st.integers(200, 3000), st.integers(3000, 9000))
@settings(max_examples=20)
def test_retention_takes_away_old_cells_and_changes_no_other(
    data: st.DataObject, zone: ZoneInfo, minutes: int, hours: int, days: int
) -> None:
    records = data.draw(any_records(zone))
    retention = Retention(minutes, hours, days)
    everything, kept = fold_of(records, zone), fold_of(records, zone, retention)
    buckets = Buckets(Calendar(zone), retention)
    newest = kept.newest_minute or 0
    for scope, cells in everything.cells.items():
        for grain, by_bucket in cells.items():
            expected = {
                bucket: facts
                for bucket, facts in by_bucket.items()
                if buckets.is_kept(grain, bucket, newest)
            }
            assert kept.cells[scope].get(grain, {}) == expected
    assert kept.cells.keys() == everything.cells.keys()


@given(st.data(), zones)
@settings(max_examples=20)
def test_spread_cost_sums_to_the_bills(data: st.DataObject, zone: ZoneInfo) -> None:
    bills = data.draw(st.lists(rows(zone), max_size=3, unique_by=row_key))
    costs = [json.loads(one.value)["amount"] for one in bills if one.topic == "costs"]
    assert lifetime(fold_of(bills, zone)).get("cost", 0) == MICROS * sum(map(int, costs))


def row_key(one: Record) -> tuple[str, ...]:
    names = ("channel", "campaign_id", "cost_type", "period_start", "period_end")
    value = json.loads(one.value)
    return one.topic, *(str(value.get(name)) for name in names)


@given(any_records(), st.integers(0, 5))
@settings(max_examples=20)
def test_a_sale_created_then_voided_was_never_there(records: list[Record], amount: int) -> None:
    sale: dict[str, Any] = {"sale_id": "other", "event_id": "x"}
    made = record(
        "sales", "sale.created", NOON, **sale, lead_id="l1", amount=str(amount), currency="EUR"
    )
    void = record("sales", "sale.voided", NOON + 1, **sale)
    assert fold_of([*records, made, void]).cells == fold_of(records).cells


@given(any_records())
@settings(max_examples=20)
def test_a_lead_created_then_invalidated_leaves_its_creation_and_its_sales(
    records: list[Record],
) -> None:
    made = record("leads", "lead.created", NOON, lead_id="other", channel="seo")
    moved = record("stage-changes", "lead.stage_changed", NOON, lead_id="other", to_stage="sql")
    void = record("leads", "lead.invalidated", NOON + 1, lead_id="other", reason="spam")
    expected = dict(lifetime(fold_of(records)))
    add(expected, {"leads_gross": 1, "leads_voided": 1})
    assert lifetime(fold_of([*records, made, moved, void])) == expected


def test_counting_in_coarser_cells_saves_memory_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records = [
        record("impressions", "impression.served", NOON - minute * 7 * MINUTE_MS, channel="seo")
        for minute in range(400)
    ]
    retention = Retention(minutes=60, hours=600, days=2000)
    expected = fold_of(records, retention=retention)
    monkeypatch.setattr("kpis.fold._MANY_CELLS", 20)
    assert fold_of(records, retention=retention) == expected


# ----------------------------------------------------------------------------- counts and rejects


def test_every_record_is_accepted_or_a_test_or_ignored_or_a_reject() -> None:
    click: dict[str, Any] = {"channel": "seo"}
    records = [
        record("clicks", "click.recorded", NOON, **click),
        record("clicks", "click.recorded", NOON + 10 * MINUTE_MS, test=True, **click),
        Record("clicks", b"{", NOON),
        record("leads", "lead.invalidated", NOON, lead_id="l", reason="spam"),
    ]
    fold = Fold(Rules(), Funnel(), Calendar(PARIS), ALL_KEPT, PARK_MS, KEEP_MS)
    for offset, (topic, value, timestamp_ms) in enumerate(records):
        fold.add(topic, 3, offset, value, timestamp_ms)
    fold.add("costs", 3, 4, None, NOON)
    open_ended, decided = fold.result(), fold.result(NOON + PARK_MS + 1)
    assert open_ended.rejects == [Reject("clicks", 3, 2, "malformed")]
    assert decided.rejects == [
        Reject("clicks", 3, 2, "malformed"),
        Reject("leads", 3, 3, "orphan_lead"),
    ]
    assert (decided.records, decided.accepted, decided.test, decided.ignored) == (5, 1, 1, 1)
    assert (open_ended.records, open_ended.accepted) == (5, 2)


def test_newest_minute_is_that_of_the_event_or_its_record_whichever_is_earlier() -> None:
    ahead = record("clicks", "click.recorded", NOON + 600_000, delay_ms=-600_000)
    late = record("clicks", "click.recorded", NOON - 600_000, delay_ms=6_000_000)
    assert fold_of([ahead]).newest_minute == NOON // MINUTE_MS
    assert fold_of([late]).newest_minute == NOON // MINUTE_MS - 10
    assert fold_of([]).newest_minute is None


def test_an_orphan_of_a_sale_is_told_by_name() -> None:
    void = record("sales", "sale.voided", NOON, sale_id="s")
    assert [one.reason for one in fold_of([void], complete_until_ms=FOR_EVER).rejects] == [
        "orphan_sale"
    ]


def test_a_click_counts_again_once_its_id_is_forgotten() -> None:
    clicks = [
        record("clicks", "click.recorded", NOON + day * DAY_MS, click_id="k", channel="seo")
        for day in (0, 6, 7, 13, 14)
    ]
    assert lifetime(fold_of(clicks)) == {"clicks": 3}


# ----------------------------------------------------------------------------- windows


def clicks_at(*minutes: int) -> list[Record]:
    return [
        record(
            "clicks", "click.recorded", NOON + minute * MINUTE_MS, channel="seo", campaign_id="c"
        )
        for minute in minutes
    ]


def test_a_rolling_window_is_the_sum_of_its_own_start_and_end() -> None:
    #  -60        0 (noon)
    #  [----------)
    #  ^   ^     ^ ^
    result = fold_of(clicks_at(-61, -60, -30, -1, 0))
    noon = NOON // MINUTE_MS
    for scope in (OVERALL, Scope("seo", None), Scope("seo", "c")):
        assert window_facts(result, scope, Window("last_1h", noon - 60, noon)) == {"clicks": 3}
        assert window_facts(result, scope, Window("last_24h", noon - 60, noon)) == {"clicks": 3}
        assert window_facts(result, scope, Window("1m", noon - 1, noon)) == {"clicks": 1}
        assert window_facts(result, scope, Window("1h", noon - 60, noon)) == {"clicks": 3}
        assert window_facts(result, scope, Window("1d", noon - 660, noon + 720)) == {"clicks": 5}
        assert window_facts(result, scope, LIFETIME) == {"clicks": 5}
    assert window_facts(result, Scope("email", None), LIFETIME) == {}


def test_channels_with_facts_are_those_of_the_scope_and_window() -> None:
    lead = record("leads", "lead.created", NOON - DAY_MS, lead_id="l", channel="google_ads")
    result = fold_of([*clicks_at(0), lead])
    noon = NOON // MINUTE_MS
    now = Window("1h", noon, noon + 60)
    assert channels_with_facts(result, OVERALL, LIFETIME) == {"seo", "google_ads"}
    assert channels_with_facts(result, OVERALL, now) == {"seo"}
    assert channels_with_facts(result, Scope("google_ads", None), now) == frozenset()
    assert channels_with_facts(result, Scope("google_ads", "-"), LIFETIME) == {"google_ads"}
    assert is_cost_expected(result, OVERALL, LIFETIME, lambda name: name.endswith("_ads"))
    assert not is_cost_expected(result, OVERALL, now, lambda name: name.endswith("_ads"))


# ----------------------------------------------------------------------------- the golden month

GOLDEN = Path(__file__).parent.parent / "golden"
READ_MS = ms("2026-04-30T12:00:00+02:00")
DAYS_MS = 86_400_000


def golden_records() -> list[Record]:
    lines = (GOLDEN / "events_m1.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        Record(line["topic"], json.dumps(line["value"]).encode(), READ_MS)
        for line in map(json.loads, lines)
    ]


def golden_scope(name: str) -> Scope:
    return Scope(None if name == "_all" else name, None)


EXPECTED: dict[str, Any] = json.loads((GOLDEN / "expected_m1.json").read_text(encoding="utf-8"))[
    "period"
]
AMOUNTS = ("cost", "revenue_gross")


def expected_facts(written: Mapping[str, int]) -> Facts:
    """Return facts by their own names; the note of expected_m1.json says how they are written."""
    stages = Funnel().stages
    facts: Facts = {}
    for name, fact in written.items():
        if name in stages:
            facts[f"stage_entered.{name}"] = fact
        elif name == "cycle_days":
            facts["cycle_ms"] = fact * DAYS_MS
        else:
            facts[name] = fact * MICROS if name in AMOUNTS else fact
    return facts


def check_golden(records: Sequence[Record]) -> None:
    result = fold_of(records, PARIS, Retention(), READ_MS + PARK_MS + 1)
    assert result.rejects == []
    for name, expected in EXPECTED.items():
        scope = golden_scope(name)
        facts = lifetime(result, scope)
        named = expected_facts(expected["facts"])
        assert {fact: facts.get(fact, 0) for fact in named} == named
        # What is not written there is not there, but for facts that the example does not show.
        unnamed = {fact.partition(".")[0] for fact in facts.keys() - named.keys()}
        assert unnamed <= {"cost_media", "cost_records", "stage_current", "stage_implied"}
        is_expected = is_cost_expected(result, scope, LIFETIME, lambda one: one.endswith("_ads"))
        kpis = Catalog(Funnel().stages).evaluate(facts, cost_expected=is_expected)
        for kpi, value in expected["kpis"].items():
            wanted = (
                Undefined(value["undefined_reason"])
                if value["value"] is None
                else round(value["value"] * MICROS)
            )
            assert kpis[kpi] == wanted, f"{name} {kpi}"


def test_the_golden_month_gives_every_fact_and_kpi() -> None:
    check_golden(golden_records())


@pytest.mark.parametrize("seed", range(5))
def test_the_golden_month_shuffled_and_doubled_gives_the_same(seed: int) -> None:
    records = golden_records() * 2
    random.Random(seed).shuffle(records)
    check_golden(records)


def test_the_golden_month_sums_over_the_change_of_the_clocks() -> None:
    result = fold_of(golden_records(), PARIS, Retention())
    days: Facts = {}
    for facts in result.cells[OVERALL][Grain.DAY].values():
        add(days, facts)
    assert days == without_stage_current(lifetime(result))
    assert text(READ_MS).startswith("2026-04-30")
