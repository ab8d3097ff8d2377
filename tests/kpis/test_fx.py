"""Rates of exchange: which one counts on a day, and amounts that still sum once converted."""

import itertools
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpis.calendar import Calendar
from kpis.events import FxRateSet
from kpis.fx import LONGEST_WAIT_DAYS, Rates
from kpis.money import apportion
from kpis.spread import DailySpread, Spread
from tests.examples import A_PROPERTY
from tests.kpis.bills import DAY, MINUTE_MS, PARIS, UTC_CALENDAR, a_rate, places_in_time

AMOUNTS = st.integers(-(10**18), 10**18)
VALUES = st.integers(1, 10**7)

rates_set = st.builds(
    lambda day, pair, value, at, event_id, recorded: a_rate(
        day, value, 1000, base=pair[0], quote=pair[1], at=at, event_id=event_id, recorded=recorded
    ),
    st.integers(0, 12),
    st.sampled_from((("USD", "EUR"), ("EUR", "USD"), ("GBP", "EUR"), ("USD", "GBP"))),
    VALUES,
    st.integers(0, 2),
    st.sampled_from("abc"),
    st.sampled_from((None, 1, 2)),
)


def said_at(event: FxRateSet) -> tuple[int, str]:
    envelope = event.envelope
    at = envelope.occurred_ms if envelope.recorded_ms is None else envelope.recorded_ms
    return at, envelope.event_id


sets_of_rates = st.lists(rates_set, max_size=8, unique_by=lambda event: (event.day, said_at(event)))


def rates_of(*events: FxRateSet) -> Rates:
    rates = Rates("EUR", UTC_CALENDAR)
    for event in events:
        rates.set(event)
    return rates


def told(rates: Rates) -> list[Fraction | None]:
    return [rates.rate(currency, day) for currency in ("USD", "GBP") for day in range(-1, 24)]


def ordinal(days: int) -> int:
    return UTC_CALENDAR.ordinal(days * DAY)


@given(sets_of_rates, st.randoms())
@A_PROPERTY
def test_any_order_and_any_number_of_rates_give_the_same_rates(
    events: list[FxRateSet], random: Random
) -> None:
    again = [*events, *events]
    random.shuffle(again)
    assert told(rates_of(*again)) == told(rates_of(*events))
    assert list(rates_of(*again).items()) == list(rates_of(*events).items())


@given(sets_of_rates)
@A_PROPERTY
def test_the_rate_of_a_day_is_the_latest_of_the_nearest_day_within_a_week(
    events: list[FxRateSet],
) -> None:
    rates = rates_of(*events)
    for day in range(-1, 24):
        ours = [
            event
            for event in events
            if {event.base, event.quote} == {"USD", "EUR"} and 0 <= day - event.day <= 7
        ]
        if not ours:
            assert rates.rate("USD", day) is None
            continue
        event = max(ours, key=lambda event: (event.day, said_at(event)))
        value = Fraction(event.rate_numerator, event.rate_denominator)
        assert rates.rate("USD", day) == (1 / value if event.base == "EUR" else value)


@given(sets_of_rates, rates_set)
def test_a_new_rate_changes_only_the_days_it_names(
    events: list[FxRateSet], event: FxRateSet
) -> None:
    rates = rates_of(*events)
    days = rates.days_changed(event)
    before = {day: rates.rate("USD", day) for day in range(-10, 40)}
    gbp = [rates.rate("GBP", day) for day in range(-10, 40)]
    rates.set(event)
    assert rates.days_changed(event) == days
    changed = {day for day, rate in before.items() if rates.rate("USD", day) != rate}
    if rates.currency_of(event) == "USD":
        assert changed <= set(days)
        assert [rates.rate("GBP", day) for day in range(-10, 40)] == gbp
    else:
        assert not changed
    assert len(days) <= LONGEST_WAIT_DAYS + 1


@given(sets_of_rates)
def test_stored_rows_restore_the_rates(events: list[FxRateSet]) -> None:
    rates, restored = rates_of(*events), Rates("EUR", UTC_CALENDAR)
    for event in rates.items():
        restored.load(rates.encode(event))
    assert told(restored) == told(rates)
    assert list(restored.items()) == list(rates.items())


@given(st.permutations(range(6)), st.lists(rates_set, min_size=6, max_size=6))
def test_the_rows_written_when_a_rate_was_set_are_those_that_count(
    order: list[int], events: list[FxRateSet]
) -> None:
    rates = Rates("EUR", UTC_CALENDAR)
    rows = {
        rates.key(event): rates.encode(event)
        for event in (events[index] for index in order)
        if rates.set(event)
    }
    assert sorted(rows.values()) == sorted(rates.encode(event) for event in rates.items())


def test_a_rate_from_the_reporting_currency_is_taken_the_other_way_round() -> None:
    rates = rates_of(a_rate(1, 5, 4, base="EUR", quote="USD"))
    assert rates.rate("USD", 1) == Fraction(4, 5)


def test_the_later_of_both_directions_counts() -> None:
    one_way = a_rate(1, 9, 10, at=1)
    other_way = a_rate(1, 5, 4, base="EUR", quote="USD", at=2)
    for order in itertools.permutations((one_way, other_way)):
        assert rates_of(*order).rate("USD", 1) == Fraction(4, 5)


def test_the_later_goes_by_recorded_at_before_occurred_at() -> None:
    early, late = a_rate(1, 2, at=9, recorded=1), a_rate(1, 3, at=0, recorded=2)
    assert rates_of(late, early).rate("USD", 1) == 3


def test_a_rate_serves_its_day_and_seven_more_unless_a_later_one_comes_between() -> None:
    rates = rates_of(a_rate(10, 2), a_rate(14, 3))
    assert [rates.rate("USD", day) for day in (9, 10, 13, 14, 21, 22)] == [None, 2, 2, 3, 3, None]
    assert rates.days_changed(a_rate(10, 9)) == range(10, 14)
    assert rates.days_changed(a_rate(14, 9)) == range(14, 22)


@pytest.mark.parametrize("pair", [("USD", "GBP"), ("EUR", "EUR")])
def test_a_pair_that_does_not_lead_to_the_reporting_currency_says_nothing(
    pair: tuple[str, str],
) -> None:
    event = a_rate(1, 2, base=pair[0], quote=pair[1])
    rates = Rates("EUR", UTC_CALENDAR)
    assert not rates.set(event)
    assert list(rates.items()) == []
    assert rates.days_changed(event) == range(0)


def test_the_reporting_currency_needs_no_rate() -> None:
    rates = Rates("EUR", UTC_CALENDAR)
    assert rates.rate("EUR", 1) == 1
    assert rates.convert("EUR", 0, 7) == 7


def test_an_amount_takes_the_rate_of_its_business_day_in_the_reporting_zone() -> None:
    # 23:30 in London is 00:30 of the next day in Paris.
    at_ms = 30 * DAY * MINUTE_MS - 30 * MINUTE_MS
    day = ordinal(30)
    rates = Rates("EUR", PARIS)
    rates.set(a_rate(day - 1, 2))
    rates.set(a_rate(day, 3))
    assert rates.convert("USD", at_ms, 10) == 30


@pytest.mark.parametrize(
    ("micros", "converted"), [(1, 0), (3, 2), (5, 2), (7, 4), (-1, 0), (-3, -2), (-5, -2)]
)
def test_half_a_micro_is_rounded_to_the_even_one(micros: int, converted: int) -> None:
    rates = rates_of(a_rate(ordinal(0), 1, 2))
    assert rates.convert("USD", 0, micros) == converted


@given(AMOUNTS, VALUES, VALUES)
def test_a_converted_amount_is_within_half_a_micro_and_symmetric(
    amount: int, numerator: int, denominator: int
) -> None:
    rates = rates_of(a_rate(ordinal(0), numerator, denominator))
    converted = round(Fraction(amount * numerator, denominator))
    assert rates.convert("USD", 0, amount) == converted
    assert rates.convert("USD", 0, -amount) == -converted


@given(st.lists(st.integers(1, 10**15), min_size=1), VALUES, VALUES)
@A_PROPERTY
def test_refunds_in_full_take_back_exactly_what_the_sale_booked(
    refunds: list[int], numerator: int, denominator: int
) -> None:
    rates = rates_of(a_rate(ordinal(0), numerator, denominator))
    edges = [0, *itertools.accumulate(refunds)]
    parts = [rates.convert_between("USD", 0, *edge) for edge in itertools.pairwise(edges)]
    known = [part for part in parts if part is not None]
    assert sum(known) == rates.convert("USD", 0, sum(refunds))
    assert len(known) == len(refunds)
    assert min(known) >= 0


def test_without_a_rate_there_is_no_amount() -> None:
    rates = rates_of(a_rate(ordinal(0), 2))
    late = 8 * DAY * MINUTE_MS
    assert rates.convert("USD", late, 1) is None
    assert rates.convert_between("USD", late, 0, 1) is None
    assert rates.convert("GBP", 0, 1) is None


# ----------------------------------------------------------------------------- bills


@given(
    st.lists(st.builds(Fraction, st.integers(0, 4000), st.integers(1, 40)), max_size=8),
    st.booleans(),
)
@A_PROPERTY
def test_largest_remainders_are_rounded_up_and_the_earlier_of_equal_ones(
    parts: list[Fraction], is_credit: bool
) -> None:
    sign = -1 if is_credit else 1
    rounded = [sign * part for part in apportion([sign * part for part in parts])]
    assert sum(rounded) == round(sum(parts, Fraction(0)))
    remainders = [part - int(part) for part in parts]
    upwards = [after - int(part) for part, after in zip(parts, rounded, strict=True)]
    ranked = sorted(range(len(parts)), key=lambda index: (-remainders[index], index))
    assert [upwards[index] for index in ranked] == sorted(upwards, reverse=True)
    assert set(upwards) <= {0, 1}
    assert all(remainder for remainder, up in zip(remainders, upwards, strict=True) if up)


Foreign = tuple[Spread, Rates, Calendar]


@st.composite
def foreign_bills(draw: st.DrawFn) -> Foreign:
    """Return a bill around a change of the clocks, and rates of which some days may lack one."""
    calendar, change = draw(places_in_time)
    start = change + draw(st.integers(-3 * DAY, DAY))
    bill = Spread(start, start + draw(st.integers(1, 12 * DAY)), draw(AMOUNTS))
    rates = Rates("EUR", calendar)
    first = calendar.ordinal(start)
    for day in draw(st.sets(st.integers(-20, 14), max_size=4)):
        pair = draw(st.sampled_from((("USD", "EUR"), ("EUR", "USD"))))
        value = draw(VALUES), draw(VALUES)
        rates.set(a_rate(first + day, *value, base=pair[0], quote=pair[1]))
    return bill, rates, calendar


@given(foreign_bills())
@A_PROPERTY
def test_days_of_a_foreign_bill_sum_to_the_rounded_whole(drawn: Foreign) -> None:
    bill, rates, calendar = drawn
    converted = rates.convert_bill("USD", bill)
    edges = [*converted.starts, bill.end_minute]
    exact = []
    for first, stop, amount in zip(edges[:-1], edges[1:], converted.amounts, strict=True):
        day = calendar.ordinal(first)
        assert calendar.ordinal(stop - 1) == day
        assert first == bill.start_minute or first == calendar.day_start(first)
        rate = rates.rate("USD", day)
        if rate is None:
            assert amount is None
        else:
            assert amount is not None
            exact.append(bill.between(first, stop) * rate)
            assert abs(amount - exact[-1]) < 1
    known = [amount for amount in converted.amounts if amount is not None]
    assert sum(known) == round(sum(exact, Fraction(0)))


@given(foreign_bills(), st.lists(st.integers(0, 12 * DAY), max_size=6))
@A_PROPERTY
def test_parts_of_any_cut_of_a_foreign_bill_sum_to_it(drawn: Foreign, cuts: list[int]) -> None:
    bill, rates, calendar = drawn
    converted = rates.convert_bill("USD", bill)
    length = bill.end_minute - bill.start_minute
    edges = sorted({0, length, *(cut % length for cut in cuts)})
    parts = [
        converted.between(bill.start_minute + first, bill.start_minute + stop)
        for first, stop in itertools.pairwise(edges)
    ]
    assert sum(amount for amount, _ in parts) == sum(amount or 0 for amount in converted.amounts)
    minutes = range(bill.start_minute, bill.end_minute, 60)
    days = {calendar.ordinal(minute) for minute in (*minutes, bill.end_minute - 1)}
    missing = sum(unknown for _, unknown in parts)
    assert (missing == 0) == all(rates.rate("USD", day) is not None for day in days)


@given(foreign_bills())
@A_PROPERTY
def test_a_foreign_credit_takes_back_a_bill_of_its_size(drawn: Foreign) -> None:
    bill, rates, _ = drawn
    converted = rates.convert_bill("USD", bill)
    credit = rates.convert_bill("USD", bill._replace(amount=-bill.amount))
    assert credit.amounts == tuple(None if part is None else -part for part in converted.amounts)


@given(foreign_bills(), VALUES)
def test_a_bill_is_converted_anew_when_a_rate_comes(drawn: Foreign, value: int) -> None:
    bill, rates, calendar = drawn
    rates.convert_bill("USD", bill)
    rates.set(a_rate(calendar.ordinal(bill.start_minute), value, at=1))
    fresh = Rates("EUR", calendar)
    for event in rates.items():
        fresh.set(event)
    assert rates.convert_bill("USD", bill) == fresh.convert_bill("USD", bill)


def test_remainders_go_to_the_days_with_the_largest_ones_the_earlier_first() -> None:
    rates = rates_of(a_rate(ordinal(0), 1, 2))
    bill = Spread(0, 3 * DAY, 9)
    # Nine micros over three days are 9, 0, 0: the first minutes carry them.
    assert rates.convert_bill("USD", bill) == DailySpread((0, DAY, 2 * DAY), 3 * DAY, (4, 0, 0))
    # 1440 micros a day and two more on the first: 480 2/3, 480 and 480 of the reporting currency.
    rates = rates_of(a_rate(ordinal(0), 1, 3))
    bill = Spread(0, 3 * DAY, 3 * DAY + 2)
    assert rates.convert_bill("USD", bill).amounts == (481, 480, 480)


def test_more_bills_than_are_remembered_are_converted_all_the_same() -> None:
    rates = rates_of(a_rate(ordinal(0), 2))
    bills = [Spread(0, 300 * DAY, amount) for amount in range(700)]
    for _ in range(2):
        assert all(
            sum(amount or 0 for amount in rates.convert_bill("USD", bill).amounts)
            == 2 * bill.between(0, 8 * DAY)
            for bill in bills
        )
