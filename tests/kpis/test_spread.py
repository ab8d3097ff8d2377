"""Spreading a bill over its minutes, exactly."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from kpis.spread import DailySpread, Spread, spread
from tests.examples import A_PROPERTY

AMOUNTS = st.integers(-(10**18), 10**18)
MINUTE_MS = 60_000


@given(st.integers(0, 10**9), st.integers(1, 600_000), AMOUNTS, st.lists(st.integers(0, 600_000)))
@A_PROPERTY
def test_parts_of_any_cut_sum_to_the_bill(
    start: int, minutes: int, amount: int, cuts: list[int]
) -> None:
    bill = Spread(start, start + minutes, amount)
    edges = sorted({start, start + minutes, *(start + cut % minutes for cut in cuts)})
    parts = [bill.between(first, stop) for first, stop in itertools.pairwise(edges)]
    assert sum(parts) == amount


@given(st.integers(1, 50), AMOUNTS)
def test_minutes_differ_by_one_micro_at_most_and_the_first_are_larger(
    minutes: int, amount: int
) -> None:
    bill = Spread(0, minutes, amount)
    parts = [bill.between(minute, minute + 1) for minute in range(minutes)]
    assert max(parts) - min(parts) <= 1
    assert parts == sorted(parts, key=abs, reverse=True)


@given(st.integers(0, 10**12), st.integers(0, 10**8))
def test_spread_begins_in_the_minute_of_its_start_and_ends_at_as_of_rounded_up(
    start_ms: int, length_ms: int
) -> None:
    bill = spread(start_ms, start_ms + length_ms, 1)
    assert bill.start_minute * MINUTE_MS <= start_ms < (bill.start_minute + 1) * MINUTE_MS
    assert bill.end_minute > bill.start_minute
    assert bill.end_minute * MINUTE_MS >= start_ms + length_ms
    if bill.end_minute - bill.start_minute > 1:
        assert (bill.end_minute - 1) * MINUTE_MS < start_ms + length_ms


def test_seven_micros_over_three_minutes_are_three_two_two() -> None:
    bill = Spread(10, 13, 7)
    assert [bill.between(minute, minute + 1) for minute in (10, 11, 12)] == [3, 2, 2]


@given(st.integers(1, 600_000), AMOUNTS, st.integers(0, 600_000), st.integers(0, 600_000))
@A_PROPERTY
def test_a_credit_takes_back_minute_by_minute_what_a_bill_of_its_size_booked(
    minutes: int, amount: int, first: int, stop: int
) -> None:
    first, stop = sorted((first % minutes, stop % minutes))
    bill, credit = Spread(0, minutes, amount), Spread(0, minutes, -amount)
    assert credit.between(first, stop) == -bill.between(first, stop)


@given(
    st.lists(
        st.tuples(st.integers(1, 90), st.none() | st.integers(-(10**9), 10**9)),
        min_size=1,
        max_size=6,
    ),
    st.lists(st.integers(0, 10**6), max_size=5),
)
@A_PROPERTY
def test_parts_of_any_cut_sum_to_the_known_amounts_of_the_days(
    days: list[tuple[int, int | None]], cuts: list[int]
) -> None:
    edges = [7, *itertools.accumulate((length for length, _ in days), initial=7)][1:]
    daily = DailySpread(tuple(edges[:-1]), edges[-1], tuple(amount for _, amount in days))
    cut_at = sorted({7, edges[-1], *(7 + cut % (edges[-1] - 7) for cut in cuts)})
    parts = [daily.between(first, stop) for first, stop in itertools.pairwise(cut_at)]
    assert sum(amount for amount, _ in parts) == sum(amount or 0 for _, amount in days)
    assert sum(unknown for _, unknown in parts) == sum(
        length for length, amount in days if amount is None
    )


def test_each_day_is_spread_over_its_own_minutes() -> None:
    daily = DailySpread((10, 13, 15), 17, (7, None, -3))
    parts = [daily.between(minute, minute + 1) for minute in range(10, 17)]
    assert parts == [(3, 0), (2, 0), (2, 0), (0, 1), (0, 1), (-2, 0), (-1, 0)]


def test_a_row_of_no_length_counts_in_its_minute() -> None:
    assert spread(5 * MINUTE_MS, 5 * MINUTE_MS, 9) == Spread(5, 6, 9)
