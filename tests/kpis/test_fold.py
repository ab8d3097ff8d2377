"""The whole calculation, from records to facts: its laws, and what it says of single stories."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpis import visitors
from kpis.calendar import Calendar
from kpis.catalog import Catalog, Undefined
from kpis.facts import BASES, COHORT, OVERALL, PERIOD, Facts, Scope, Subject, add
from kpis.fold import HORIZON_MS, Fold, FoldResult
from kpis.fold_cells import scopes_of
from kpis.fold_entities import Reject
from kpis.leads import Funnel
from kpis.money import MICROS
from kpis.reading import Rules
from kpis.retention import Buckets, Grain, Retention
from kpis.spans import LIFETIME_WINDOW, Window
from kpis.windows import decimal_text
from tests.examples import A_PROPERTY, examples
from tests.kpis.streams_of_records import (
    ALL_KEPT,
    DAY_MS,
    HOUR_MS,
    KEEP_MS,
    LORD_HOWE,
    MINUTE_MS,
    PARIS,
    PARK_MS,
    Record,
    any_impressions,
    any_records,
    fold_of,
    ms,
    record,
    rows,
)

ZONES = (PARIS, LORD_HOWE)
SHORT = Retention(minutes=120, hours=1200, days=3000)
HOURS_KEPT = Retention(minutes=0, hours=10**7, days=10**7)
NOON = ms("2026-03-29T12:00:00+02:00")
FOR_EVER = 10**14
A_LAW = examples(50)

zones = st.sampled_from(ZONES)
needs_sketches = pytest.mark.skipif(not visitors.AVAILABLE, reason="visitors need datasketches")


def lifetime(result: FoldResult, scope: Scope = OVERALL, basis: str = PERIOD) -> Facts:
    return result.facts(Subject(basis, scope), LIFETIME_WINDOW)


def without_stage_current(facts: Mapping[str, int]) -> Facts:
    return {name: fact for name, fact in facts.items() if not name.startswith("stage_current.")}


# ----------------------------------------------------------------------------- laws


def check_order(data: st.DataObject, zone: ZoneInfo, retention: Retention) -> None:
    records = data.draw(any_records(zone))
    reordered = data.draw(st.permutations(records))
    dedup = data.draw(st.booleans())
    expected = fold_of(records, zone, retention, FOR_EVER, dedup=dedup)
    assert fold_of(reordered, zone, retention, FOR_EVER, dedup=dedup) == expected


@given(st.data(), zones)
@A_PROPERTY
def test_any_order_of_the_records_gives_the_same(data: st.DataObject, zone: ZoneInfo) -> None:
    check_order(data, zone, SHORT)


@given(st.data(), zones)
@A_LAW
def test_any_order_gives_the_same_minutes_of_all_time(data: st.DataObject, zone: ZoneInfo) -> None:
    check_order(data, zone, ALL_KEPT)


def is_recognised(one: Record, *, dedup: bool) -> bool:
    value = json.loads(one.value)
    if value["type"] == "impression.served":
        return dedup and "impression_id" in value
    return value["type"] != "click.recorded" or "click_id" in value


@given(any_records(), st.data(), st.booleans())
@A_PROPERTY
def test_records_twice_are_records_once(
    records: list[Record], data: st.DataObject, dedup: bool
) -> None:
    check_repeats(records, data, dedup=dedup)


@given(any_impressions(), st.data())
@A_PROPERTY
def test_impressions_with_an_id_twice_are_impressions_once(
    records: list[Record], data: st.DataObject
) -> None:
    check_repeats(records, data, dedup=True)


def check_repeats(records: list[Record], data: st.DataObject, *, dedup: bool) -> None:
    once = [one for one in records if is_recognised(one, dedup=dedup)]
    again = data.draw(st.permutations(once))
    expected = fold_of(once, retention=SHORT, dedup=dedup)
    result = fold_of([*once, *again], retention=SHORT, dedup=dedup)
    assert result.cells == expected.cells
    assert result.visitors == expected.visitors
    assert (result.reports, result.targets) == (expected.reports, expected.targets)


@given(st.data(), zones)
@A_LAW
def test_minutes_sum_to_hours(data: st.DataObject, zone: ZoneInfo) -> None:
    check_sums(fold_of(data.draw(any_records(zone)), zone), Grain.MINUTE)


@given(st.data(), zones)
@A_PROPERTY
def test_hours_sum_to_days_and_days_to_lifetime(data: st.DataObject, zone: ZoneInfo) -> None:
    check_sums(fold_of(data.draw(any_records(zone)), zone, HOURS_KEPT), Grain.HOUR)


def check_sums(result: FoldResult, finest: Grain) -> None:
    """Check that the cells from `finest` on sum to those of the coarser grains."""
    for subject, cells in result.cells.items():
        for finer, coarser in pairwise(list(Grain)[finest : Grain.LIFETIME]):
            sums: dict[int, Facts] = {}
            for bucket, facts in cells.get(finer, {}).items():
                start = result.spans.buckets.start(coarser, bucket)
                add(sums.setdefault(start, {}), facts)
            assert {start: facts for start, facts in sums.items() if facts} == cells.get(
                coarser, {}
            )
        total: Facts = {}
        for facts in cells.get(Grain.DAY, {}).values():
            add(total, facts)
        assert total == without_stage_current(result.cell(subject, Grain.LIFETIME, 0))


@given(st.data(), zones)
@A_LAW
def test_days_sum_to_weeks_and_months(data: st.DataObject, zone: ZoneInfo) -> None:
    result = fold_of(data.draw(any_records(zone)), zone)
    for subject in result.subjects:
        for kind in ("1w", "1mo"):
            windows = {result.spans.tumbling(kind, day) for day in result.days(subject)}
            total: Facts = {}
            for window in windows:
                add(total, without_visitors(result.facts(subject, window)))
            assert total == without_stage_current(result.cell(subject, Grain.LIFETIME, 0))


def without_visitors(facts: Mapping[str, int]) -> Facts:
    return {name: fact for name, fact in facts.items() if name != "visitors"}


@given(st.data(), zones)
@A_PROPERTY
def test_campaigns_sum_to_channels_and_channels_to_overall(
    data: st.DataObject, zone: ZoneInfo
) -> None:
    result = fold_of(data.draw(any_records(zone)), zone, SHORT)
    sums: dict[tuple[Subject, Grain, int], Facts] = {}
    wholes = set()
    for (basis, scope), cells in result.cells.items():
        for grain, by_bucket in cells.items():
            for bucket, facts in by_bucket.items():
                if scope.campaign_id is None:
                    wholes.add((Subject(basis, scope), grain, bucket))
                if scope != OVERALL:
                    wider = OVERALL if scope.campaign_id is None else Scope(scope.channel, None)
                    add(sums.setdefault((Subject(basis, wider), grain, bucket), {}), facts)
    for place, facts in sums.items():
        assert facts == result.cell(*place)
    assert wholes <= sums.keys()


@needs_sketches
@given(any_records())
@A_LAW
def test_visitors_of_the_whole_are_at_least_those_of_any_part_and_at_most_their_sum(
    records: list[Record],
) -> None:
    result = fold_of(records)
    for window in {
        result.spans.tumbling("1d", day) for day in result.days(Subject(PERIOD, OVERALL))
    }:
        parts = [
            result.facts(Subject(PERIOD, Scope(channel, None)), window).get("visitors", 0)
            for channel in result.channels(PERIOD)
        ]
        whole = result.facts(Subject(PERIOD, OVERALL), window).get("visitors", 0)
        assert max(parts, default=0) <= whole <= sum(parts)


@given(st.data(), zones, st.integers(2, 200), st.integers(200, 3000), st.integers(3000, 9000))
@A_LAW
def test_retention_takes_away_old_cells_and_changes_no_other(
    data: st.DataObject, zone: ZoneInfo, minutes: int, hours: int, days: int
) -> None:
    records = data.draw(any_records(zone))
    retention = Retention(minutes, hours, days)
    everything, kept = fold_of(records, zone), fold_of(records, zone, retention)
    buckets = Buckets(Calendar(zone), retention)
    newest = kept.newest_minute or 0
    for subject, cells in everything.cells.items():
        for grain, by_bucket in cells.items():
            expected = {
                bucket: facts
                for bucket, facts in by_bucket.items()
                if buckets.is_kept(grain, bucket, newest)
            }
            assert kept.cells[subject].get(grain, {}) == expected
    assert kept.cells.keys() == everything.cells.keys()


@given(st.data(), zones)
@A_LAW
def test_spread_cost_sums_to_the_bills(data: st.DataObject, zone: ZoneInfo) -> None:
    bills = data.draw(st.lists(rows(zone), max_size=3, unique_by=row_key))
    costs = [json.loads(one.value)["amount"] for one in bills if one.topic == "costs"]
    for basis in BASES:
        spent = lifetime(fold_of(bills, zone, SHORT), basis=basis).get("cost", 0)
        assert spent == MICROS * sum(map(int, costs))


def row_key(one: Record) -> tuple[str, ...]:
    names = ("channel", "campaign_id", "cost_type", "period_start", "period_end")
    value = json.loads(one.value)
    return one.topic, *(str(value.get(name)) for name in names)


@given(any_records(), st.integers(0, 5))
@A_PROPERTY
def test_a_sale_created_then_voided_was_never_there(records: list[Record], amount: int) -> None:
    sale: dict[str, Any] = {"sale_id": "other", "event_id": "x"}
    paid: dict[str, Any] = {"amount": str(amount), "currency": "EUR"}
    made = record("sales", "sale.created", NOON, **sale, **paid, lead_id="l1")
    void = record("sales", "sale.voided", NOON + 1, **sale)
    assert coarse_cells([*records, made, void]) == coarse_cells(records)


def coarse_cells(records: Sequence[Record]) -> dict[Subject, dict[Grain, dict[int, Facts]]]:
    """Return all cells but those of minutes: which of these are kept, any newer event decides."""
    cells = fold_of(records, retention=HOURS_KEPT).cells
    return {
        subject: {grain: of for grain, of in by_grain.items() if grain is not Grain.MINUTE}
        for subject, by_grain in cells.items()
    }


@given(any_records())
@A_PROPERTY
def test_a_lead_created_then_invalidated_leaves_its_creation_and_its_sales(
    records: list[Record],
) -> None:
    made = record("leads", "lead.created", NOON, lead_id="other", channel="seo")
    moved = record("stage-changes", "lead.stage_changed", NOON, lead_id="other", to_stage="sql")
    void = record("leads", "lead.invalidated", NOON + 1, lead_id="other", reason="spam")
    before = fold_of(records, retention=SHORT)
    after = fold_of([*records, made, moved, void], retention=SHORT)
    expected = dict(lifetime(before))
    add(expected, {"leads_gross": 1, "leads_voided": 1})
    assert lifetime(after) == expected
    expected = dict(lifetime(before, basis=COHORT))
    add(expected, {"leads_gross": 1})
    assert lifetime(after, basis=COHORT) == expected


@pytest.mark.parametrize(("days", "expected"), [(6, 1), (7, 2)])
def test_an_impression_counts_again_once_its_id_is_forgotten(days: int, expected: int) -> None:
    served: dict[str, Any] = {"channel": "seo", "impression_id": "i"}
    again = record("impressions", "impression.served", NOON, days * DAY_MS, **served)
    records = [record("impressions", "impression.served", NOON, **served), again]
    assert lifetime(fold_of(records, dedup=True)) == {"impressions": expected}
    assert lifetime(fold_of(records)) == {"impressions": 2}


def test_impressions_without_an_id_all_count() -> None:
    records = [record("impressions", "impression.served", NOON, channel="seo")] * 3
    assert lifetime(fold_of(records, dedup=True)) == {"impressions": 3}


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


def a_fold(records: Sequence[Record] = ()) -> Fold:
    """Return a fold that took `records` at the offsets of their places."""
    fold = Fold(Rules(), Funnel(), Calendar(PARIS), ALL_KEPT, PARK_MS, KEEP_MS)
    for offset, (topic, value, timestamp_ms) in enumerate(records):
        fold.add(topic, 3, offset, value, timestamp_ms)
    return fold


def test_every_record_is_accepted_or_a_test_or_ignored_or_a_reject() -> None:
    click: dict[str, Any] = {"channel": "seo"}
    fold = a_fold(
        [
            record("clicks", "click.recorded", NOON, **click),
            record("clicks", "click.recorded", NOON + 10 * MINUTE_MS, test=True, **click),
            Record("clicks", b"{", NOON),
            record("leads", "lead.invalidated", NOON, lead_id="l", reason="spam"),
        ]
    )
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


@pytest.mark.parametrize(
    ("topic", "type_name", "fields", "reason"),
    [
        ("sales", "sale.voided", {"sale_id": "s"}, "orphan_sale"),
        ("sales", "sale.cancelled", {"sale_id": "s"}, "orphan_sale"),
        ("leads", "lead.merged", {"lead_id": "l", "into_lead_id": "m"}, "orphan_lead"),
        ("leads", "lead.updated", {"lead_id": "l", "channel": "seo"}, "orphan_lead"),
        ("stage-changes", "lead.stage_changed", {"lead_id": "l", "to_stage": "mql"}, "orphan_lead"),
    ],
)
def test_an_orphan_is_told_by_name(
    topic: str, type_name: str, fields: dict[str, Any], reason: str
) -> None:
    orphan = record(topic, type_name, NOON, **fields)
    (reject,) = fold_of([orphan], complete_until_ms=FOR_EVER).rejects
    assert reject.reason == reason


def a_sale(currency: str, **fields: Any) -> Record:
    return record(
        "sales", "sale.created", NOON, sale_id="s", amount="9", currency=currency, **fields
    )


def a_refund(currency: str, after_ms: int = 1, **fields: Any) -> Record:
    fields = {"refund_id": "r", "amount": "1", **fields}
    return record(
        "sales", "sale.refunded", NOON + after_ms, sale_id="s", currency=currency, **fields
    )


def an_amendment(currency: str) -> Record:
    return record(
        "sales",
        "sale.amended",
        NOON + 5,
        sale_id="s",
        amount="9",
        currency=currency,
        recorded_at="2026-03-29T12:00:00Z",
    )


def test_a_refund_in_a_currency_that_its_sale_never_had_is_rejected() -> None:
    fold = a_fold([a_sale("EUR"), a_refund("EUR"), a_refund("USD", refund_id="other")])
    refused = Reject("sales", 3, 2, "currency_mismatch")
    assert fold.mismatches() == [(refused,)]
    assert fold.possible_mismatches() == [refused]
    assert fold.result().rejects == [refused]
    assert lifetime(fold.result())["refunds"] == MICROS


def test_a_refund_in_a_currency_that_its_sale_had_once_may_be_rejected_or_not() -> None:
    fold = a_fold([a_sale("EUR"), an_amendment("USD"), a_refund("EUR")])
    assert fold.mismatches() == []
    assert fold.possible_mismatches() == [Reject("sales", 3, 2, "currency_mismatch")]


def test_of_a_refund_that_was_sent_twice_one_is_rejected() -> None:
    fold = a_fold([a_sale("EUR"), a_refund("USD"), a_refund("USD", after_ms=2)])
    (events,) = fold.mismatches()
    assert [event.offset for event in events] == [1, 2]
    assert len(fold.result().rejects) == 1


def test_a_refund_of_no_sale_is_an_orphan_and_no_mismatch() -> None:
    fold = a_fold([a_refund("USD")])
    assert fold.possible_mismatches() == []
    assert [one.reason for one in fold.result(FOR_EVER).rejects] == ["orphan_sale"]


# ----------------------------------------------------------------------------- clicks, leads


def a_click(day: float = 0, **fields: Any) -> Record:
    at_ms = NOON + round(day * DAY_MS)
    fields = {"click_id": "k", "channel": "seo", "campaign_id": "c", **fields}
    return record("clicks", "click.recorded", at_ms, **fields)


def test_a_click_counts_again_once_its_id_is_forgotten() -> None:
    assert lifetime(fold_of([a_click(day) for day in (0, 6, 7, 13, 14)])) == {"clicks": 3}


def test_a_void_makes_the_click_invalid_that_it_belongs_to() -> None:
    void = record("clicks", "click.voided", NOON + 8 * DAY_MS, click_id="k")
    facts = lifetime(fold_of([a_click(0), a_click(7), a_click(20), void]))
    assert facts == {"clicks": 2, "invalid_clicks": 1}


def a_lead(day: float, **fields: Any) -> Record:
    at_ms = NOON + round(day * DAY_MS)
    return record("leads", "lead.created", at_ms, **{"lead_id": "l", **fields})


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (-7.01, Scope("unattributed", "-")),
        (-7, Scope("seo", "c")),
        (6.99, Scope("seo", "c")),
        (7, Scope("email", "d")),
        (15, Scope("unattributed", "-")),
    ],
)
def test_a_lead_without_a_channel_takes_that_of_the_click_known_in_its_time(
    day: float, expected: Scope
) -> None:
    #  -7          0           7          14
    #  [-- waits --[-- known --[-- anew ---)
    clicks = [a_click(0), a_click(7.5, channel="email", campaign_id="d")]
    result = fold_of([*clicks, a_lead(day, click_id="k")])
    assert lifetime(result, expected)["leads_gross"] == 1


def test_a_chain_of_mergers_ends_at_its_last_lead_and_a_circle_at_its_smallest() -> None:
    leads = [a_lead(0, lead_id=name, channel="seo") for name in "abcd"]

    def merger(lead_id: str, into: str) -> Record:
        return record("leads", "lead.merged", NOON + 1, lead_id=lead_id, into_lead_id=into)

    chain = [merger("a", "b"), merger("b", "c")]
    assert lifetime(fold_of([*leads, *chain]))["leads_gross"] == 2
    circle = [*chain, merger("c", "b")]
    sale = record(
        "sales", "sale.created", NOON, sale_id="s", lead_id="c", amount="5", currency="EUR"
    )
    facts = lifetime(fold_of([*leads, *circle, sale]), Scope("seo", "-"))
    assert (facts["leads_gross"], facts["sales"]) == (2, 1)


# ----------------------------------------------------------------------------- money


def a_rate(day: str, rate: str, **fields: Any) -> Record:
    fields = {"base": "USD", "quote": "EUR", "date": day, "rate": rate, **fields}
    return record("fx-rates", "fxrate.set", NOON, **fields)


def test_a_rate_that_comes_last_converts_what_came_before() -> None:
    sale = a_sale("USD")
    assert lifetime(fold_of([sale])) == {
        "sales": 1,
        "sales_unattributed": 1,
        "fx_missing": 1,
    }
    facts = lifetime(fold_of([sale, a_refund("USD"), a_rate("2026-03-25", "0.5")]))
    assert (facts["revenue_gross"], facts["refunds"]) == (4_500_000, 500_000)
    assert "fx_missing" not in facts


def a_fee(**fields: Any) -> Record:
    fields = {
        "cost_source": "agency",
        "channel": "seo",
        "cost_type": "fee",
        "period_start": "2026-03-29T00:00:00+01:00",
        "period_end": "2026-03-30T00:00:00+02:00",
        "amount": "13.8",
        "currency": "EUR",
        "reported_at": "2026-03-29T06:00:00+02:00",
        **fields,
    }
    return record("costs", "cost.snapshot", NOON, **fields)


def test_a_bill_for_a_time_to_come_is_booked_as_time_reaches_it() -> None:
    fold = a_fold([a_fee()])
    assert fold.has_running_bills
    noon = NOON // MINUTE_MS
    # The day has 23 hours: at noon 11 of them are over.
    assert lifetime(fold.result(None, noon))["cost"] == 6_600_000
    assert lifetime(fold.result(NOON + HOUR_MS), basis=COHORT)["cost"] == 7_200_000
    assert lifetime(fold.result(FOR_EVER))["cost"] == 13_800_000
    assert lifetime(fold.result()) == {}


def test_what_is_booked_later_changes_no_result_that_was_given_before() -> None:
    fold = a_fold([a_fee(), a_click()])
    early = fold.result(None, NOON // MINUTE_MS)
    facts = lifetime(early)
    fold.result(FOR_EVER)
    assert lifetime(early) == facts


def test_a_cost_that_was_deleted_is_none_and_says_nothing_of_how_far_cost_is_known() -> None:
    key = {
        name: json.loads(a_fee().value)[name]
        for name in ("cost_source", "channel", "cost_type", "period_start", "period_end")
    }
    deleted = record("costs", "cost.deleted", NOON, **key, reported_at="2026-03-29T12:00:00+02:00")
    fold = a_fold([a_fee(), deleted])
    assert not fold.has_running_bills
    assert (fold.result(FOR_EVER).cells, fold.result().reports) == ({}, ())


def test_how_far_cost_is_known_is_told_by_live_rows() -> None:
    result = a_fold([a_fee()]).result()
    assert result.reports == (("seo", ms("2026-03-29T06:00:00+02:00") // MINUTE_MS, 1),)


def test_the_newest_target_of_a_period_counts() -> None:
    def a_target(after_ms: int, type_name: str = "target.set", **fields: Any) -> Record:
        told = {
            "kpi": "leads",
            "period": "month",
            "period_start": "2026-03-01",
            "reported_at": f"2026-03-29T12:00:0{after_ms}Z",
            **fields,
        }
        return record("targets", type_name, NOON + after_ms, **told)

    targets = [a_target(1, value=10), a_target(3, value=30), a_target(2, value=20)]
    (target,) = a_fold(targets).result().targets[OVERALL]
    assert (target.kpi, decimal_text(target.value_micros)) == ("leads", "30.0")
    assert a_fold([*targets, a_target(4, "target.removed")]).result().targets == {}


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
    for scope in scopes_of("seo", "c"):
        subject = Subject(PERIOD, scope)
        assert result.facts(subject, Window("last_1h", noon - 60, noon)) == {"clicks": 3}
        assert result.facts(subject, Window("last_24h", noon - 60, noon)) == {"clicks": 3}
        assert result.facts(subject, Window("1m", noon - 1, noon)) == {"clicks": 1}
        assert result.facts(subject, Window("5m", noon - 5, noon)) == {"clicks": 1}
        assert result.facts(subject, Window("1h", noon - 60, noon)) == {"clicks": 3}
        assert result.facts(subject, Window("1d", noon - 660, noon + 720)) == {"clicks": 5}
        assert result.facts(subject, LIFETIME_WINDOW) == {"clicks": 5}
    assert result.facts(Subject(PERIOD, Scope("email", None)), LIFETIME_WINDOW) == {}


@needs_sketches
def test_visitors_are_merged_and_not_added() -> None:
    visits = [
        record(
            "visits",
            "visit.started",
            NOON + day * DAY_MS,
            visit_id=f"w{day}{who}",
            visitor_id=who,
            channel="seo",
            is_bot=is_bot,
        )
        for day, who, is_bot in ((0, "a", False), (0, "b", False), (1, "a", False), (1, "c", True))
    ]
    result = fold_of(visits)
    noon = NOON // MINUTE_MS
    subject = Subject(PERIOD, OVERALL)

    def in_window(window: Window) -> int:
        return result.facts(subject, window).get("visitors", 0)

    days = [result.spans.tumbling("1d", noon + day * 1440) for day in (0, 1)]
    assert [in_window(day) for day in days] == [2, 1]
    assert in_window(result.spans.tumbling("1mo", noon)) == 2
    assert in_window(result.spans.rolling("last_28d", noon + 1440)) == 2
    assert in_window(result.spans.rolling("last_7d", noon + 1440)) == 0
    assert in_window(LIFETIME_WINDOW) == 2
    assert result.subjects == {Subject(PERIOD, scope) for scope in scopes_of("seo", "-")}


# ----------------------------------------------------------------------------- the first golden month

GOLDEN = Path(__file__).parent.parent / "golden"
READ_MS = ms("2026-04-30T12:00:00+02:00")
EXPECTED: dict[str, Any] = json.loads((GOLDEN / "expected_m1.json").read_text(encoding="utf-8"))[
    "period"
]
AMOUNTS = ("cost", "revenue_gross")


def golden_records() -> list[Record]:
    lines = (GOLDEN / "events_m1.jsonl").read_text(encoding="utf-8").splitlines()
    return [
        Record(line["topic"], json.dumps(line["value"]).encode(), READ_MS)
        for line in map(json.loads, lines)
    ]


def expected_facts(written: Mapping[str, int]) -> Facts:
    """Return facts by their own names; the note of expected_m1.json says how they are written."""
    facts: Facts = {}
    for name, fact in written.items():
        if name in Funnel().stages:
            facts[f"stage_entered.{name}"] = fact
        elif name == "cycle_days":
            facts["cycle_ms"] = fact * DAY_MS
        else:
            facts[name] = fact * MICROS if name in AMOUNTS else fact
    return facts


def expects_cost(channel: str) -> bool:
    return channel.endswith("_ads")


def shuffled(records: Sequence[Record]) -> list[Record]:
    """Return the records in another order, each twice."""
    twice = [*records, *records]
    random.Random(1).shuffle(twice)
    return twice


@pytest.mark.parametrize("reordered", [list, shuffled])
def test_the_golden_month_gives_every_fact_and_kpi(
    reordered: Callable[[list[Record]], list[Record]],
) -> None:
    result = fold_of(reordered(golden_records()), PARIS, Retention(), READ_MS + PARK_MS + 1)
    outlook = result.outlook(expects_cost, HORIZON_MS)
    assert result.rejects == []
    for name, expected in EXPECTED.items():
        subject = Subject(PERIOD, Scope(None if name == "_all" else name, None))
        facts = result.facts(subject, LIFETIME_WINDOW)
        named = expected_facts(expected["facts"])
        assert {fact: facts.get(fact, 0) for fact in named} == named
        around = outlook.surroundings(subject, LIFETIME_WINDOW, READ_MS)
        kpis = Catalog(Funnel().stages).evaluate(PERIOD, facts, around)
        for kpi, value in expected["kpis"].items():
            wanted = (
                Undefined(value["undefined_reason"])
                if value["value"] is None
                else round(value["value"] * MICROS)
            )
            assert kpis[kpi] == wanted, f"{name} {kpi}"
