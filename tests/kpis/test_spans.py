"""Where windows lie, and of which stored cells they are sums."""

from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpis.retention import LIFETIME_BUCKET, Buckets, Grain, Retention
from kpis.spans import (
    DAYS,
    GRAIN_OF,
    LATENESS_MINUTES,
    LIFETIME_WINDOW,
    ROLLING,
    STORED,
    TUMBLING,
    Cell,
    Spans,
    Window,
)
from tests.kpis.zones import CALENDARS, MINUTES, ZONES, minute

EXAMPLES = max(1_000, settings().max_examples)
SPANS = {zone: Spans(Buckets(calendar, Retention())) for zone, calendar in CALENDARS.items()}
PARIS = SPANS["Europe/Paris"]


def bounds(window: Window) -> tuple[int, int]:
    assert window.start_minute is not None
    assert window.end_minute is not None
    return window.start_minute, window.end_minute


@given(st.sampled_from(ZONES), st.sampled_from(TUMBLING), MINUTES)
@settings(max_examples=EXAMPLES)
def test_every_minute_is_in_one_window_of_each_kind(zone: str, kind: str, moment: int) -> None:
    spans = SPANS[zone]
    window = spans.tumbling(kind, moment)
    start, end = bounds(window)
    assert start <= moment < end
    assert spans.tumbling(kind, start) == spans.tumbling(kind, end - 1) == window
    assert spans.previous(spans.tumbling(kind, end)) == window
    assert spans.previous(window).end_minute == start


@given(st.sampled_from(ZONES), st.sampled_from((*TUMBLING, *ROLLING)), MINUTES)
@settings(max_examples=EXAMPLES)
def test_the_cells_of_a_window_fill_it_without_holes(zone: str, kind: str, moment: int) -> None:
    spans = SPANS[zone]
    window = spans.rolling(kind, moment) if kind in ROLLING else spans.tumbling(kind, moment)
    start, end = bounds(window)
    grain, starts = spans.cells(window)
    assert grain is GRAIN_OF[kind]
    assert starts[0] == start
    ends = [spans.buckets.end(grain, bucket) for bucket in starts]
    assert ends == [*starts[1:], end]
    assert (len(starts) == 1) or kind not in STORED


@given(st.sampled_from(ZONES), st.sampled_from(tuple(Grain)), MINUTES)
@settings(max_examples=EXAMPLES)
def test_a_cell_touches_exactly_the_windows_that_are_sums_of_it(
    zone: str, grain: Grain, moment: int
) -> None:
    spans = SPANS[zone]
    bucket = spans.buckets.start(grain, moment)
    touched = spans.touched(grain, bucket)
    windows = [LIFETIME_WINDOW, *(spans.tumbling(kind, moment) for kind in TUMBLING)]
    assert set(touched) == {w for w in windows if spans.cells(w)[0] is grain}
    for window in touched:
        assert bucket in spans.cells(window)[1]
    assert spans.cells(touched[0])[1] == (bucket,)


@given(st.sampled_from(ZONES), st.sampled_from(tuple(Grain)), MINUTES, st.integers(-3000, 600_000))
@settings(max_examples=EXAMPLES)
def test_a_cell_is_stored_exactly_as_long_as_it_is_kept(
    zone: str, grain: Grain, moment: int, later: int
) -> None:
    spans = SPANS[zone]
    buckets = spans.buckets
    expected = [
        Cell(wider, start)
        for wider in list(Grain)[grain:]
        if buckets.is_kept(wider, start := buckets.start(wider, moment), moment + later)
    ]
    bucket = buckets.start(grain, moment)
    stored = spans.stored(grain, bucket)
    assert [cell for cell, dropped_at in stored if moment + later < dropped_at] == expected
    assert stored[-1].cell == Cell(Grain.LIFETIME, LIFETIME_BUCKET)


@given(st.sampled_from(ZONES), st.sampled_from(TUMBLING), MINUTES, st.integers(0, 700_000))
@settings(max_examples=EXAMPLES)
def test_a_window_is_kept_while_all_its_cells_are(
    zone: str, kind: str, moment: int, later: int
) -> None:
    spans = SPANS[zone]
    window = spans.tumbling(kind, moment)
    grain, starts = spans.cells(window)
    newest = moment + later
    kept = [spans.buckets.is_kept(grain, start, newest) for start in starts]
    assert spans.is_kept(window, newest) is all(kept)


@given(st.sampled_from(ZONES), MINUTES)
@settings(max_examples=EXAMPLES)
def test_current_windows_are_those_of_the_running_minute(zone: str, moment: int) -> None:
    spans = SPANS[zone]
    slots = dict(spans.slots(moment))
    for kind in TUMBLING:
        window = slots.pop(kind)
        assert window == spans.tumbling(kind, moment)
        assert slots.pop(f"{kind}@previous") == spans.previous(window)
    assert slots.pop("lifetime") == LIFETIME_WINDOW
    for kind in ROLLING:
        start, end = bounds(slots.pop(kind))
        assert start <= moment < end
    assert not slots


@pytest.mark.parametrize(
    ("kind", "start", "end", "cells"),
    [
        ("last_1h", "2026-10-25T11:30:00+01:00", "2026-10-25T12:31:00+01:00", 61),
        ("last_6h", "2026-10-25T06:00:00+01:00", "2026-10-25T13:00:00+01:00", 7),
        ("last_24h", "2026-10-24T13:00:00+02:00", "2026-10-25T13:00:00+01:00", 25),
        ("last_7d", "2026-10-18T13:00:00+02:00", "2026-10-25T13:00:00+01:00", 169),
        ("last_28d", "2026-09-27T00:00:00+02:00", "2026-10-26T00:00:00+01:00", 29),
    ],
)
def test_a_rolling_window_ends_with_the_running_bucket(
    kind: str, start: str, end: str, cells: int
) -> None:
    #  start rounded down      now  end of the running bucket
    #  [------------------------|---)
    window = PARIS.rolling(kind, minute("2026-10-25T12:30:00+01:00"))
    assert window == Window(kind, minute(start), minute(end))
    assert len(PARIS.cells(window)[1]) == cells


@pytest.mark.parametrize(
    ("kind", "wait"),
    [("1m", 10), ("5m", 10), ("1h", 120), ("1d", 2880), ("1w", 2880), ("1mo", 2880)],
)
def test_a_window_is_final_some_time_after_its_end(kind: str, wait: int) -> None:
    window = PARIS.tumbling(kind, minute("2026-03-29T12:30:00+02:00"))
    assert (
        PARIS.final_minute(window)
        == bounds(window)[1] + wait
        == bounds(window)[1] + LATENESS_MINUTES[kind]
    )


def test_lifetime_and_rolling_windows_are_never_final() -> None:
    for window in (LIFETIME_WINDOW, *(PARIS.rolling(kind, 29_602_741) for kind in ROLLING)):
        assert PARIS.final_minute(window) is None


def test_lifetime_is_one_cell_and_always_kept() -> None:
    assert PARIS.cells(LIFETIME_WINDOW) == (Grain.LIFETIME, (LIFETIME_BUCKET,))
    assert PARIS.is_kept(LIFETIME_WINDOW, 10**9)


def test_a_month_over_a_change_of_the_clock_has_its_hours() -> None:
    march = PARIS.tumbling("1mo", minute("2026-03-10T00:00:00+01:00"))
    october = PARIS.tumbling("1mo", minute("2026-10-10T00:00:00+02:00"))
    assert bounds(march)[1] - bounds(march)[0] == (31 * 24 - 1) * 60
    assert bounds(october)[1] - bounds(october)[0] == (31 * 24 + 1) * 60


def test_any_run_of_whole_days_can_be_summed() -> None:
    calendar = CALENDARS["Europe/Paris"]
    start, end = (calendar.minute_of(date(2026, month, 1)) for month in (1, 4))
    grain, starts = PARIS.cells(Window(DAYS, start, end))
    assert grain is Grain.DAY
    assert len(starts) == 90
    assert PARIS.quarter_start(end - 1) == start


def test_no_window_of_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="window: expected one of 1m, 5m"):
        PARIS.tumbling("2h", 0)
    with pytest.raises(ValueError, match="expected one with a start"):
        PARIS.previous(LIFETIME_WINDOW)
