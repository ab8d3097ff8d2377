"""Cost records and report rows: the newest of a key counts, to the micro."""

from itertools import permutations
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpis.calendar import Calendar
from kpis.contributions import Contribution, correction
from kpis.events import CostSnapshot, CountsReported, Envelope
from kpis.facts import add
from kpis.journeys import Outcome
from kpis.retention import Buckets, Grain, Retention
from kpis.spend import Row, natural_key, restate, row_contribution
from tests.kpis.streams_of_records import CHANGES, LORD_HOWE, PARIS

HOUR_MS = 3_600_000
DAY = 24 * 60
CALENDARS = {zone: Calendar(zone) for zone in (PARIS, LORD_HOWE)}


def a_cost(
    amount_micros: int = 1,
    *,
    at: int = 0,
    event_id: str = "e",
    recorded: int | None = None,
    **other: Any,
) -> CostSnapshot:
    fields: dict[str, Any] = {
        "cost_source": "ads",
        "account_id": "",
        "channel": "google_ads",
        "campaign_id": "c",
        "ad_group_id": "",
        "ad_id": "",
        "cost_type": "media",
        "start_ms": 0,
        "end_ms": HOUR_MS,
        "as_of_ms": HOUR_MS,
        "credit": False,
    }
    envelope = Envelope(event_id, "s", at, recorded, event_id.encode())
    return CostSnapshot(
        envelope=envelope, amount_micros=amount_micros, reported_ms=at, **(fields | other)
    )


def some_counts(count: int, **other: Any) -> CountsReported:
    fields: dict[str, Any] = {
        "kind": "impressions.reported",
        "channel": "google_ads",
        "campaign_id": "c",
        "ad_group_id": "",
        "ad_id": "",
        "start_ms": 0,
        "end_ms": HOUR_MS,
        "as_of_ms": HOUR_MS,
    }
    envelope = Envelope("e", "s", 0, None, b"e")
    return CountsReported(envelope=envelope, count=count, reported_ms=0, **(fields | other))


def row_of(*events: CostSnapshot | CountsReported) -> Row:
    row = None
    for event in events:
        row, _ = restate(row, event)
    assert row is not None
    return row


def total(contribution: Contribution) -> dict[str, int]:
    facts: dict[str, int] = {}
    for part in contribution.values():
        add(facts, part)
    return facts


@given(
    st.lists(
        st.builds(
            a_cost,
            st.integers(0, 9),
            at=st.integers(0, 2),
            event_id=st.sampled_from("abc"),
            recorded=st.sampled_from((None, 1, 2)),
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda event: (
            event.envelope.recorded_ms,
            event.reported_ms,
            event.envelope.event_id,
        ),
    )
)
def test_any_order_and_number_of_snapshots_leaves_the_newest(events: list[CostSnapshot]) -> None:
    rows = {row_of(*order, *order).newest for order in permutations(events)}
    newest = {(row.envelope.recorded_ms or row.reported_ms, row.envelope.event_id) for row in rows}
    assert newest == {
        max((e.envelope.recorded_ms or e.reported_ms, e.envelope.event_id) for e in events)
    }


def test_newest_goes_by_recorded_at_before_reported_at() -> None:
    early, late = a_cost(1, at=9, recorded=1), a_cost(2, at=0, recorded=2)
    assert row_of(early, late) == row_of(late, early) == Row(late)


def test_an_older_snapshot_and_a_repeat_have_no_effect() -> None:
    newer = a_cost(2, at=2)
    row, outcome = restate(None, newer)
    assert outcome is Outcome.ACCEPTED
    assert restate(row, a_cost(1, at=1)) == (row, Outcome.DUPLICATE)
    assert restate(row, newer) == (row, Outcome.DUPLICATE)


@pytest.mark.parametrize(
    "field",
    ["cost_source", "account_id", "channel", "campaign_id", "ad_group_id", "ad_id", "cost_type"],
)
def test_every_part_of_the_key_makes_another_record(field: str) -> None:
    other: dict[str, Any] = {field: "x"}
    assert natural_key(a_cost()) != natural_key(a_cost(**other))


def test_period_and_credit_make_another_record_but_as_of_does_not() -> None:
    keys = {
        natural_key(a_cost(**other))
        for other in ({}, {"start_ms": 1}, {"end_ms": 1}, {"credit": True}, {"as_of_ms": 1})
    }
    assert len(keys) == 4


def test_impressions_and_clicks_of_one_report_are_different_rows() -> None:
    clicks = some_counts(1, kind="clicks.reported")
    assert natural_key(clicks) != natural_key(some_counts(1))
    assert total(row_contribution(Row(clicks), Buckets(CALENDARS[PARIS], Retention()), 60)) == {
        "clicks": 1
    }


@st.composite
def bills(draw: st.DrawFn) -> tuple[CostSnapshot, Buckets, int]:
    zone = draw(st.sampled_from((PARIS, LORD_HOWE)))
    change_ms = draw(st.sampled_from(CHANGES[zone]))
    start_ms = change_ms + draw(st.integers(-50, 20)) * HOUR_MS + draw(st.integers(0, 60_000))
    length_ms = draw(st.sampled_from((0, 59_999, HOUR_MS, 25 * HOUR_MS, 70 * HOUR_MS)))
    kept = sorted(draw(st.lists(st.integers(1, 3 * DAY), min_size=3, max_size=3)))
    bill = a_cost(
        draw(st.integers(-(10**9), 10**15)),
        start_ms=start_ms,
        end_ms=start_ms + length_ms,
        as_of_ms=start_ms + length_ms,
        cost_type=draw(st.sampled_from(("media", "fee"))),
    )
    newest_minute = change_ms // 60_000 + draw(st.integers(-2 * DAY, 6 * DAY))
    return bill, Buckets(CALENDARS[zone], Retention(*kept)), newest_minute


@given(bills())
@settings(max_examples=60)
def test_spread_cost_sums_to_the_bill_to_the_micro(bill: tuple[CostSnapshot, Buckets, int]) -> None:
    event, buckets, newest_minute = bill
    facts = total(row_contribution(Row(event), buckets, newest_minute))
    minutes = max(1, -(-event.as_of_ms // 60_000) - event.start_ms // 60_000)
    assert facts.get("cost", 0) == event.amount_micros
    assert facts.get("cost_media", 0) == (event.amount_micros if event.cost_type == "media" else 0)
    assert facts["cost_records"] == minutes


@given(bills(), st.integers(0, 3 * DAY))
@settings(max_examples=60)
def test_what_counts_in_an_hour_does_not_depend_on_when_it_was_booked(
    bill: tuple[CostSnapshot, Buckets, int], later: int
) -> None:
    event, buckets, newest_minute = bill
    now = row_contribution(Row(event), buckets, newest_minute)
    then = row_contribution(Row(event), buckets, newest_minute + later)
    for grain in (Grain.HOUR, Grain.DAY):
        assert at_grain(now, grain, buckets, newest_minute + later) == at_grain(
            then, grain, buckets, newest_minute + later
        )


def at_grain(
    contribution: Contribution, grain: Grain, buckets: Buckets, newest_minute: int
) -> dict[int, dict[str, int]]:
    """Return the facts of the kept buckets of a grain."""
    cells: dict[int, dict[str, int]] = {}
    for place, facts in contribution.items():
        if place.grain <= grain:
            bucket = buckets.start(grain, place.bucket)
            if buckets.is_kept(grain, bucket, newest_minute):
                add(cells.setdefault(bucket, {}), facts)
    return cells


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_restatement_rewrites_the_window_of_the_old(old: int, new: int) -> None:
    buckets = Buckets(Calendar(ZoneInfo("UTC")), Retention())
    before = row_contribution(Row(a_cost(old)), buckets, 60)
    after = row_contribution(Row(a_cost(new, at=1)), buckets, 60)
    assert total(correction(after, before)) == (
        {"cost": new - old, "cost_media": new - old} if new != old else {}
    )


def test_a_cost_of_zero_is_a_known_cost() -> None:
    buckets = Buckets(Calendar(ZoneInfo("UTC")), Retention())
    assert total(row_contribution(Row(a_cost(0)), buckets, 60)) == {"cost_records": 60}


def test_no_row_adds_nothing() -> None:
    assert row_contribution(None, Buckets(Calendar(PARIS), Retention()), 0) == {}
