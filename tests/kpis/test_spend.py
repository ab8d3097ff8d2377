"""Cost records and report rows: the newest of a key counts, to the micro, as far as time has come."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from kpis.calendar import Calendar
from kpis.contributions import Contribution, correction
from kpis.events import CostDeleted, CostSnapshot
from kpis.facts import COHORT, PERIOD, Facts, add
from kpis.fx import Rates
from kpis.orders import Outcome
from kpis.retention import Buckets, Grain, Retention
from kpis.spend import (
    Row,
    RowEvent,
    booked_between,
    currency_of,
    days,
    end_minute,
    is_ahead,
    natural_key,
    reported,
    restate,
    row_contribution,
)
from tests.examples import A_PROPERTY
from tests.kpis.bills import (
    DAY,
    HOUR,
    MINUTE_MS,
    UTC_CALENDAR,
    a_cost,
    a_deletion,
    a_rate,
    places_in_time,
    some_counts,
    total,
)

BUCKETS = Buckets(UTC_CALENDAR, Retention())
NO_RATES = Rates("EUR", UTC_CALENDAR)


def row_of(*events: RowEvent) -> Row:
    row = None
    for event in events:
        row, _ = restate(row, event)
    assert row is not None
    return row


def counted(row: Row | None, booked_minute: int = 0, rates: Rates = NO_RATES) -> Contribution:
    return row_contribution(row, BUCKETS, 60, booked_minute, rates)


# ----------------------------------------------------------------------------- the newest


def said_at(event: CostSnapshot | CostDeleted) -> tuple[int, str]:
    recorded = event.envelope.recorded_ms
    return (event.reported_ms if recorded is None else recorded), event.envelope.event_id


events_of_a_row = st.lists(
    st.one_of(
        st.builds(
            a_cost,
            st.integers(0, 9),
            at=st.integers(0, 2),
            event_id=st.sampled_from("abc"),
            recorded=st.sampled_from((None, 1, 2)),
        ),
        st.builds(
            a_deletion,
            at=st.integers(0, 2),
            event_id=st.sampled_from("abc"),
            recorded=st.sampled_from((None, 1, 2)),
        ),
    ),
    min_size=1,
    max_size=6,
    unique_by=said_at,
)


@given(events_of_a_row, st.randoms())
@A_PROPERTY
def test_any_order_and_number_of_snapshots_and_deletions_leaves_the_newest(
    events: list[CostSnapshot | CostDeleted], random: Random
) -> None:
    again = [*events, *events]
    random.shuffle(again)
    newest = max(events, key=said_at)
    assert len({natural_key(event) for event in events}) == 1
    assert row_of(*again) == Row(newest)
    facts = {"cost_records": 60}
    if isinstance(newest, CostSnapshot) and newest.amount_micros:
        facts |= {"cost": newest.amount_micros, "cost_media": newest.amount_micros}
    contribution = counted(row_of(*again))
    expected = {} if isinstance(newest, CostDeleted) else facts
    assert total(contribution, PERIOD) == total(contribution, COHORT) == expected


def test_newest_goes_by_recorded_at_before_reported_at() -> None:
    early, late = a_cost(1, at=9, recorded=1), a_cost(2, at=0, recorded=2)
    assert row_of(early, late) == row_of(late, early) == Row(late)


def test_an_older_snapshot_and_a_repeat_have_no_effect() -> None:
    newer = a_cost(2, at=2)
    row, outcome = restate(None, newer)
    assert outcome is Outcome.ACCEPTED
    assert restate(row, a_cost(1, at=1)) == (row, Outcome.DUPLICATE)
    assert restate(row, a_deletion(at=1)) == (row, Outcome.DUPLICATE)
    assert restate(row, newer) == (row, Outcome.DUPLICATE)


def test_a_deleted_row_counts_again_when_a_newer_snapshot_comes() -> None:
    deleted = row_of(a_cost(7), a_deletion(at=1))
    assert counted(deleted) == {}
    assert total(counted(row_of(a_cost(8, at=2), a_deletion(at=1), a_cost(7))))["cost"] == 8


@pytest.mark.parametrize(
    "field",
    ["cost_source", "account_id", "channel", "campaign_id", "ad_group_id", "ad_id", "cost_type"],
)
def test_every_part_of_the_key_makes_another_record(field: str) -> None:
    other: dict[str, Any] = {field: "x"}
    assert natural_key(a_cost()) != natural_key(a_cost(**other))
    assert natural_key(a_deletion(**other)) == natural_key(a_cost(**other))


def test_period_and_credit_make_another_record_but_as_of_and_currency_do_not() -> None:
    others: tuple[dict[str, Any], ...] = (
        {},
        {"start_ms": 1},
        {"end_ms": 1},
        {"credit": True},
        {"as_of_ms": 1},
        {"currency": "USD"},
    )
    assert len({natural_key(a_cost(**other)) for other in others}) == 4


def test_unknown_channels_that_count_as_other_stay_different_records() -> None:
    keys = {natural_key(a_cost(channel="other", declared_channel=name)) for name in ("a", "b")}
    assert len(keys) == 2


def test_impressions_and_clicks_of_one_report_are_different_rows() -> None:
    clicks = some_counts(1, kind="clicks.reported")
    assert natural_key(clicks) != natural_key(some_counts(1))
    assert total(counted(Row(clicks))) == {"clicks": 1}
    assert total(counted(Row(some_counts(2)))) == {"impressions": 2}


def test_reported_counts_are_of_the_period_basis_only_and_costs_of_both() -> None:
    assert total(counted(Row(some_counts(2))), COHORT) == {}
    cost = counted(Row(a_cost(5, cost_type="fee")))
    assert total(cost, COHORT) == total(cost, PERIOD) == {"cost": 5, "cost_records": 60}


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_restatement_rewrites_the_window_of_the_old(old: int, new: int) -> None:
    before, after = counted(Row(a_cost(old))), counted(Row(a_cost(new, at=1)))
    assert total(correction(after, before)) == (
        {"cost": new - old, "cost_media": new - old} if new != old else {}
    )


def test_a_cost_of_zero_is_a_known_cost() -> None:
    assert total(counted(Row(a_cost(0)))) == {"cost_records": 60}


def test_no_row_adds_nothing() -> None:
    assert counted(None) == {}
    assert booked_between(None, BUCKETS, 0, 0, 60, NO_RATES) == {}


# ----------------------------------------------------------------------------- about a row


def test_a_row_is_ahead_if_it_counts_beyond_its_report() -> None:
    hour_ms = HOUR * MINUTE_MS
    assert is_ahead(Row(a_cost(reported_ms=hour_ms - 1)))
    assert not is_ahead(Row(a_cost(reported_ms=hour_ms)))
    assert is_ahead(Row(some_counts(1, reported_ms=0)))
    assert not is_ahead(Row(a_deletion()))
    assert not is_ahead(None)


def test_cost_is_known_up_to_as_of_but_not_beyond_its_report() -> None:
    assert reported(Row(a_cost(as_of_ms=10 * MINUTE_MS + 1))) == ("google_ads", 10)
    assert reported(Row(a_cost(reported_ms=5 * MINUTE_MS))) == ("google_ads", 5)
    assert reported(Row(a_deletion())) is None
    assert reported(Row(some_counts(1))) is None
    assert reported(None) is None


def test_a_row_tells_its_currency_its_days_and_its_end() -> None:
    row = Row(a_cost(currency="USD", end_ms=(2 * DAY + 1) * MINUTE_MS))
    first = UTC_CALENDAR.ordinal(0)
    assert currency_of(row) == "USD"
    assert days(row, UTC_CALENDAR) == range(first, first + 3)
    assert end_minute(row) == 2 * DAY + 1
    assert days(Row(a_cost(end_ms=DAY * MINUTE_MS)), UTC_CALENDAR) == range(first, first + 1)
    for nothing in (None, Row(a_deletion())):
        assert (currency_of(nothing), days(nothing, UTC_CALENDAR), end_minute(nothing)) == (
            None,
            range(0),
            0,
        )
    assert currency_of(Row(some_counts(1))) is None


# ----------------------------------------------------------------------------- bills


class Drawn:
    """A row around a change of the clocks, its buckets, and rates of which some days may lack one."""

    def __init__(self, row: Row, buckets: Buckets, newest_minute: int, rates: Rates) -> None:
        self.row, self.buckets, self.newest_minute, self.rates = row, buckets, newest_minute, rates

    def __repr__(self) -> str:
        return f"Drawn({self.row}, newest {self.newest_minute}, rates {list(self.rates.items())})"

    def contribution(self, booked_minute: int = 0, later: int = 0) -> Contribution:
        newest = self.newest_minute + later
        return row_contribution(self.row, self.buckets, newest, booked_minute, self.rates)

    def booked_between(self, from_minute: int, to_minute: int) -> Contribution:
        return booked_between(
            self.row, self.buckets, self.newest_minute, from_minute, to_minute, self.rates
        )


LENGTHS_MS = (0, 59_999, *(length * MINUTE_MS for length in (1, HOUR, 25 * HOUR, 9 * DAY)))


@st.composite
def bills(draw: st.DrawFn, *, ahead: bool = False) -> Drawn:
    calendar, change = draw(places_in_time)
    start_ms = (change + draw(st.integers(-50, 20)) * HOUR) * MINUTE_MS + draw(
        st.integers(0, 60_000)
    )
    length_ms = draw(st.sampled_from(LENGTHS_MS[2:] if ahead else LENGTHS_MS))
    kept = (draw(st.integers(1, limit)) for limit in (3 * HOUR, 2 * DAY, 4 * DAY))
    bill = a_cost(
        draw(st.integers(-(10**9), 10**15)),
        start_ms=start_ms,
        end_ms=start_ms + length_ms,
        reported_ms=start_ms - 1 if ahead else start_ms + length_ms,
        cost_type=draw(st.sampled_from(("media", "fee"))),
        currency=draw(st.sampled_from(("EUR", "USD"))),
        credit=True,
    )
    # Minutes later than the newest one are minutes: few of them, or each example takes long.
    newest_minute = (start_ms + length_ms) // MINUTE_MS + draw(st.integers(-9 * HOUR, 6 * DAY))
    rates = draw(rates_near(calendar, calendar.ordinal(start_ms // MINUTE_MS)))
    return Drawn(Row(bill), Buckets(calendar, Retention(*sorted(kept))), newest_minute, rates)


@st.composite
def rates_near(draw: st.DrawFn, calendar: Calendar, day: int) -> Rates:
    rates = Rates("EUR", calendar)
    for offset in draw(st.sets(st.integers(-9, 12), max_size=4)):
        numerator, denominator = draw(st.integers(1, 10**7)), draw(st.integers(1, 10**7))
        rates.set(a_rate(day + offset, numerator, denominator))
    return rates


def rate_of_minutes(drawn: Drawn, first: int, minutes: int) -> Iterator[Fraction | None]:
    """Return the rate of each minute, by its own day."""
    rates: dict[int, Fraction | None] = {}
    for minute in range(first, first + minutes):
        day = drawn.buckets.calendar.ordinal(minute)
        if day not in rates:
            rates[day] = drawn.rates.rate("USD", day)
        yield rates[day]


def whole_of(drawn: Drawn) -> Facts:
    """Return what a bill adds in all, day by day from the definitions."""
    event = drawn.row.newest
    assert isinstance(event, CostSnapshot)
    first = event.start_ms // MINUTE_MS
    minutes = max(1, -(-event.as_of_ms // MINUTE_MS) - first)
    if event.currency == "EUR":
        amount, missing = event.amount_micros, 0
    else:
        share, remainder = divmod(abs(event.amount_micros), minutes)
        exact, missing = Fraction(0), 0
        for index, rate in enumerate(rate_of_minutes(drawn, first, minutes)):
            if rate is None:
                missing += 1
            else:
                exact += (share + (index < remainder)) * rate
        amount = round(exact) * (1 if event.amount_micros >= 0 else -1)
    media = amount if event.cost_type == "media" else 0
    facts = {"cost": amount, "cost_media": media, "cost_records": minutes, "fx_missing": missing}
    return {name: value for name, value in facts.items() if value}


@given(bills())
@A_PROPERTY
def test_spread_cost_sums_to_the_bill_to_the_micro(drawn: Drawn) -> None:
    contribution = drawn.contribution()
    assert total(contribution, PERIOD) == total(contribution, COHORT) == whole_of(drawn)


@given(bills(), st.integers(0, 2 * DAY))
@A_PROPERTY
def test_what_counts_in_an_hour_does_not_depend_on_when_it_was_booked(
    drawn: Drawn, later: int
) -> None:
    now, then = drawn.contribution(), drawn.contribution(later=later)
    for grain in (Grain.HOUR, Grain.DAY):
        assert at_grain(now, grain, drawn.buckets, drawn.newest_minute + later) == at_grain(
            then, grain, drawn.buckets, drawn.newest_minute + later
        )


def at_grain(
    contribution: Contribution, grain: Grain, buckets: Buckets, newest_minute: int
) -> dict[tuple[str, int], Facts]:
    """Return the facts of the kept buckets of a grain."""
    cells: dict[tuple[str, int], Facts] = {}
    for place, facts in contribution.items():
        if place.grain <= grain:
            bucket = buckets.start(grain, place.bucket)
            if buckets.is_kept(grain, bucket, newest_minute):
                add(cells.setdefault((place.basis, bucket), {}), facts)
    return cells


@given(bills())
@A_PROPERTY
def test_a_credit_takes_back_place_by_place_what_a_bill_of_its_size_booked(drawn: Drawn) -> None:
    event = drawn.row.newest
    assert isinstance(event, CostSnapshot)
    booked = drawn.contribution()
    drawn.row = Row(structs.replace(event, amount_micros=-event.amount_micros))
    taken_back = drawn.contribution()
    assert booked.keys() == taken_back.keys()
    for place, facts in booked.items():
        for fact in ("cost", "cost_media"):
            assert taken_back[place].get(fact, 0) == -facts.get(fact, 0)


# ----------------------------------------------------------------------------- bills ahead


@given(bills(ahead=True), st.lists(st.integers(-HOUR, 13 * DAY), max_size=6))
@A_PROPERTY
def test_however_often_a_bill_is_booked_on_its_parts_sum_to_it(
    drawn: Drawn, steps: list[int]
) -> None:
    event = drawn.row.newest
    start = event.start_ms // MINUTE_MS
    booked: Contribution = {}
    edges = sorted({start - HOUR, *(start + step for step in steps), start + 13 * DAY})
    for from_minute, to_minute in pairwise(edges):
        for place, facts in drawn.booked_between(from_minute, to_minute).items():
            add(booked.setdefault(place, {}), facts)
        assert correction(booked, drawn.contribution(to_minute)) == {}
    assert drawn.contribution(edges[0]) == {}
    assert total(booked, PERIOD) == total(booked, COHORT) == whole_of(drawn)


@given(bills(), st.integers(0, 10**8), st.integers(0, 10**8))
def test_a_row_that_is_not_ahead_counts_in_full_at_once(drawn: Drawn, one: int, other: int) -> None:
    assert drawn.contribution(one) == drawn.contribution(other)
    assert drawn.booked_between(min(one, other), max(one, other)) == {}


def test_of_a_monthly_fee_only_the_minutes_before_the_booked_one_count() -> None:
    fee = Row(a_cost(60, cost_type="fee", reported_ms=0))
    assert counted(fee, 0) == {}
    assert total(counted(fee, 15)) == {"cost": 15, "cost_records": 15}
    assert total(booked_between(fee, BUCKETS, 60, 15, 16, NO_RATES)) == {
        "cost": 1,
        "cost_records": 1,
    }
    assert total(counted(fee, 10**9)) == {"cost": 60, "cost_records": 60}


def test_reported_counts_of_minutes_to_come_are_booked_as_they_come() -> None:
    row = Row(some_counts(120, reported_ms=0))
    assert total(counted(row, 15)) == {"impressions": 30}
    assert total(booked_between(row, BUCKETS, 60, 15, 16, NO_RATES)) == {"impressions": 2}


def test_one_minute_of_a_years_bill_looks_at_that_minute_only() -> None:
    year = Row(a_cost(10**12, cost_type="fee", end_ms=365 * DAY * MINUTE_MS, reported_ms=0))
    booked = booked_between(year, BUCKETS, 200 * DAY, 200 * DAY, 200 * DAY + 1, NO_RATES)
    assert {place.bucket for place in booked} == {200 * DAY}


# ----------------------------------------------------------------------------- foreign money


def test_days_without_a_rate_count_without_an_amount_until_the_rate_comes() -> None:
    first = UTC_CALENDAR.ordinal(0)
    rates = Rates("EUR", UTC_CALENDAR)
    rates.set(a_rate(first - 7, 1, 2))
    bill = Row(a_cost(2 * DAY, currency="USD", end_ms=2 * DAY * MINUTE_MS))
    assert total(counted(bill, rates=rates)) == {
        "cost": DAY // 2,
        "cost_media": DAY // 2,
        "cost_records": 2 * DAY,
        "fx_missing": DAY,
    }
    late = a_rate(first + 1, 2)
    assert set(days(bill, UTC_CALENDAR)) & set(rates.days_changed(late))
    rates.set(late)
    assert total(counted(bill, rates=rates)) == {
        "cost": DAY // 2 + 2 * DAY,
        "cost_media": DAY // 2 + 2 * DAY,
        "cost_records": 2 * DAY,
    }


@given(bills(), st.randoms())
@A_PROPERTY
def test_the_order_of_the_rates_changes_no_amount(drawn: Drawn, random: Random) -> None:
    before = drawn.contribution()
    events = list(drawn.rates.items()) * 2
    random.shuffle(events)
    drawn.rates = Rates("EUR", drawn.buckets.calendar)
    for event in events:
        drawn.rates.set(event)
    assert drawn.contribution() == before


@given(bills(), st.integers(-12, 16), st.integers(1, 10**7))
def test_a_new_rate_changes_only_bills_that_have_one_of_its_days(
    drawn: Drawn, offset: int, value: int
) -> None:
    calendar = drawn.buckets.calendar
    event = a_rate(calendar.ordinal(drawn.row.newest.start_ms // MINUTE_MS) + offset, value, at=1)
    concerned = set(days(drawn.row, calendar)) & set(drawn.rates.days_changed(event))
    before = drawn.contribution()
    drawn.rates.set(event)
    if not concerned or currency_of(drawn.row) == "EUR":
        assert drawn.contribution() == before
