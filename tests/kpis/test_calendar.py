"""Hours and days of a zone: spans that touch, whatever the clocks do."""

from datetime import date
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpis.calendar import Calendar, instant_text, minute_text
from tests.kpis.zones import CALENDARS, MINUTES, ZONES, minute, ms


@given(st.sampled_from(ZONES), MINUTES)
@settings(max_examples=400)
def test_hours_and_days_touch_and_never_overlap(name: str, moment: int) -> None:
    calendar = CALENDARS[name]
    for start_of, end_of in (
        (calendar.hour_start, calendar.hour_end),
        (calendar.day_start, calendar.day_end),
    ):
        start = start_of(moment)
        end = end_of(start)
        assert start <= moment < end
        assert start_of(start) == start_of(end - 1) == start
        assert start_of(end) == end
        assert end_of(start_of(start - 1)) == start


@given(st.sampled_from(ZONES), MINUTES)
@settings(max_examples=400)
def test_an_hour_lies_within_one_day(name: str, moment: int) -> None:
    calendar = CALENDARS[name]
    hour = calendar.hour_start(moment)
    assert calendar.day_start(hour) == calendar.day_start(moment)
    assert calendar.day_start(calendar.hour_end(hour) - 1) == calendar.day_start(moment)


@given(st.sampled_from(ZONES), MINUTES)
@settings(max_examples=200)
def test_what_is_remembered_is_what_is_found(name: str, moment: int) -> None:
    used, fresh = CALENDARS[name], Calendar(ZoneInfo(name))
    assert used.hour_start(moment) == fresh.hour_start(moment)
    assert used.day_start(moment) == fresh.day_start(moment)


@pytest.mark.parametrize(
    ("zone", "noon", "hours"),
    [
        ("Europe/Paris", "2026-03-29T12:00:00+02:00", 23),
        ("Europe/Paris", "2026-10-25T12:00:00+01:00", 25),
        ("Europe/Paris", "2026-06-01T12:00:00+02:00", 24),
        ("Australia/Lord_Howe", "2026-04-05T12:00:00+10:30", 24.5),
        ("Australia/Lord_Howe", "2026-10-04T12:00:00+11:00", 23.5),
        ("Antarctica/Casey", "2010-03-05T12:00:00+08:00", 27),
    ],
)
def test_a_day_is_as_long_as_its_clocks_say(zone: str, noon: str, hours: float) -> None:
    calendar = CALENDARS[zone]
    start = calendar.day_start(minute(noon))
    assert calendar.day_end(start) - start == hours * 60


@given(st.sampled_from(ZONES), MINUTES)
@settings(max_examples=1_000)
def test_weeks_months_and_quarters_touch_and_are_whole_days(name: str, moment: int) -> None:
    calendar = CALENDARS[name]
    for start_of, end_of in (
        (calendar.week_start, calendar.week_end),
        (calendar.month_start, calendar.month_end),
        (calendar.quarter_start, calendar.quarter_end),
    ):
        start = start_of(moment)
        end = end_of(start)
        assert start <= moment < end
        assert start_of(start) == start_of(end - 1) == start
        assert start_of(end) == end
        assert end_of(start_of(start - 1)) == start
        assert calendar.day_start(start) == start
        assert calendar.day_start(end) == end


@given(st.sampled_from(ZONES), MINUTES)
@settings(max_examples=1_000)
def test_each_day_has_one_date_and_dates_rise_with_the_days(name: str, moment: int) -> None:
    calendar = CALENDARS[name]
    start = calendar.day_start(moment)
    ordinal = calendar.ordinal(moment)
    assert calendar.ordinal(start) == calendar.ordinal(calendar.day_end(start) - 1) == ordinal
    assert calendar.ordinal(start - 1) < ordinal < calendar.ordinal(calendar.day_end(start))
    assert calendar.minute_of(date.fromordinal(ordinal)) == start


@given(st.sampled_from(ZONES), MINUTES)
@settings(max_examples=1_000)
def test_a_week_is_that_of_its_date(name: str, moment: int) -> None:
    calendar = CALENDARS[name]
    day = date.fromordinal(calendar.ordinal(moment))
    monday = date.fromisocalendar(*day.isocalendar()[:2], 1)
    assert calendar.week_start(moment) == calendar.minute_of(monday)
    assert calendar.month_start(moment) == calendar.minute_of(day.replace(day=1))


def test_a_date_that_a_zone_left_out_begins_with_the_next_day() -> None:
    #  29 December   31 December
    #  -------------)[----------
    apia = CALENDARS["Pacific/Apia"]
    assert apia.minute_of(date(2011, 12, 30)) == apia.minute_of(date(2011, 12, 31))
    week = apia.week_start(minute("2011-12-31T12:00:00+14:00"))
    assert apia.week_end(week) - week == 6 * 24 * 60


@pytest.mark.parametrize(
    ("day", "week", "month", "quarter"),
    [
        (
            "2026-03-29",
            "2026-03-23T00:00+01:00",
            "2026-03-01T00:00+01:00",
            "2026-01-01T00:00+01:00",
        ),
        (
            "2026-10-31",
            "2026-10-26T00:00+01:00",
            "2026-10-01T00:00+02:00",
            "2026-10-01T00:00+02:00",
        ),
        (
            "2027-01-01",
            "2026-12-28T00:00+01:00",
            "2027-01-01T00:00+01:00",
            "2027-01-01T00:00+01:00",
        ),
    ],
)
def test_weeks_begin_on_monday_and_months_on_the_first(
    day: str, week: str, month: str, quarter: str
) -> None:
    paris = CALENDARS["Europe/Paris"]
    at = paris.minute_of(date.fromisoformat(day)) + 60
    assert paris.week_start(at) == minute(week)
    assert paris.month_start(at) == minute(month)
    assert paris.quarter_start(at) == minute(quarter)


def test_an_hour_that_occurs_twice_is_two_hours() -> None:
    #  2:00 summer   2:00 winter   3:00
    #  [-------------)[------------)
    paris = CALENDARS["Europe/Paris"]
    first, second = minute("2026-10-25T02:30:00+02:00"), minute("2026-10-25T02:30:00+01:00")
    assert paris.hour_start(first) == minute("2026-10-25T02:00:00+02:00")
    assert paris.hour_start(second) == minute("2026-10-25T02:00:00+01:00")


def test_half_an_hour_that_occurs_twice_is_an_hour_and_a_half_hour() -> None:
    #  1:00        1:30       2:00 = 1:30       2:00
    #  [----------------------)[----------------)
    lord_howe = CALENDARS["Australia/Lord_Howe"]
    change = minute("2026-04-04T15:00:00Z")
    assert lord_howe.hour_start(change - 1) == change - 60
    assert lord_howe.hour_start(change) == change
    assert lord_howe.hour_end(change) == change + 30


def test_the_clock_going_back_across_midnight_leaves_the_new_day_whole() -> None:
    #  Saturday 23:59   Sunday 0:00   Saturday 23:01 again … 23:59   Sunday 0:00
    #  ----------------)[----------------------------------------------------
    st_johns = CALENDARS["America/St_Johns"]
    midnight = minute("2006-10-29T00:00:00-02:30")
    assert st_johns.day_start(midnight - 1) == midnight - 24 * 60
    assert {st_johns.day_start(midnight + after) for after in range(70)} == {midnight}


def test_minute_is_written_with_its_offset() -> None:
    paris = CALENDARS["Europe/Paris"].zone
    assert minute_text(minute("2026-03-28T23:00:00Z"), paris) == "2026-03-29T00:00:00+01:00"
    assert minute_text(minute("2026-03-29T22:00:00Z"), paris) == "2026-03-30T00:00:00+02:00"


def test_instant_is_written_to_the_millisecond() -> None:
    assert instant_text(ms("2026-03-29T12:02:10.412Z")) == "2026-03-29T12:02:10.412Z"
    assert instant_text(0) == "1970-01-01T00:00:00Z"
