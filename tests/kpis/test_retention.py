"""Which buckets are kept, and cutting a span into them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpis.retention import LIFETIME_BUCKET, Buckets, Grain, Retention
from tests.kpis.zones import CALENDARS, minute

CHANGES = {
    "Europe/Paris": (minute("2026-03-29T01:00:00Z"), minute("2026-10-25T01:00:00Z")),
    "Australia/Lord_Howe": (minute("2026-04-04T15:00:00Z"), minute("2026-10-03T15:30:00Z")),
}
DAY = 24 * 60


def finest_kept(buckets: Buckets, minute: int, newest: int) -> tuple[Grain, int]:
    return next(
        (grain, buckets.start(grain, minute))
        for grain in Grain
        if buckets.is_kept(grain, buckets.start(grain, minute), newest)
    )


@st.composite
def spans(draw: st.DrawFn) -> tuple[Buckets, int, int, int]:
    zone = draw(st.sampled_from(tuple(CHANGES)))
    change = draw(st.sampled_from(CHANGES[zone]))
    kept = sorted(draw(st.lists(st.integers(1, 3 * DAY), min_size=3, max_size=3)))
    start = change + draw(st.integers(-2 * DAY, DAY))
    end = start + draw(st.one_of(st.integers(1, 200), st.integers(1, 3 * DAY)))
    newest = change + draw(st.integers(-4 * DAY, 8 * DAY))
    return Buckets(CALENDARS[zone], Retention(*kept)), start, end, newest


@given(spans())
@settings(max_examples=150)
def test_cut_puts_every_minute_once_into_its_finest_kept_bucket(
    span: tuple[Buckets, int, int, int],
) -> None:
    buckets, start, end, newest = span
    expected = start
    for grain, bucket, first, stop in buckets.cut(start, end, newest):
        assert first == expected < stop
        assert {finest_kept(buckets, minute, newest) for minute in range(first, stop)} == {
            (grain, bucket)
        }
        expected = stop
    assert expected == end


@given(spans())
@settings(max_examples=50)
def test_cut_joins_what_goes_into_one_bucket(span: tuple[Buckets, int, int, int]) -> None:
    buckets, start, end, newest = span
    pieces = [(grain, bucket) for grain, bucket, _, _ in buckets.cut(start, end, newest)]
    assert len(pieces) == len(set(pieces))


@given(spans(), st.integers(0, 5 * DAY))
@settings(max_examples=50)
def test_a_bucket_that_left_never_comes_back(
    span: tuple[Buckets, int, int, int], later: int
) -> None:
    buckets, start, _, newest = span
    for grain in Grain:
        bucket = buckets.start(grain, start)
        if not buckets.is_kept(grain, bucket, newest):
            assert not buckets.is_kept(grain, bucket, newest + later)


@pytest.mark.parametrize(("past", "is_kept"), [(60, True), (61, False)])
def test_a_bucket_is_kept_while_its_end_lies_within_retention(past: int, is_kept: bool) -> None:
    #  [minute 0)              newest
    #            <-- 60 min -->
    buckets = Buckets(CALENDARS["UTC"], Retention(minutes=60))
    assert buckets.is_kept(Grain.MINUTE, 0, past) is is_kept


def test_lifetime_is_kept_for_ever() -> None:
    buckets = Buckets(CALENDARS["UTC"], Retention())
    assert buckets.is_kept(Grain.LIFETIME, LIFETIME_BUCKET, 10**9)
    assert buckets.start(Grain.LIFETIME, 29_000_000) == LIFETIME_BUCKET


def test_a_month_is_cut_into_few_pieces() -> None:
    buckets = Buckets(CALENDARS["Europe/Paris"], Retention())
    newest = 29_602_741
    pieces = list(buckets.cut(newest - 60 * DAY, newest, newest))
    assert len(pieces) < 25 + 36 * 24 + 24 + 180 + 60
    assert {grain for grain, *_ in pieces} == {Grain.MINUTE, Grain.HOUR, Grain.DAY}
