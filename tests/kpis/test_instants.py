"""Times as they are written, against the calendar of the standard library."""

from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpis.instants import (
    DAY_MS,
    HOUR_MS,
    PERIODS,
    InstantError,
    calendar_date,
    date_ms,
    day_start_ms,
    days_between,
    instant_ms,
    is_date,
    period_end,
    time_zone,
)

PARIS = ZoneInfo("Europe/Paris")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOON_MS = 1_772_712_000_000  # 2026-03-05T12:00:00Z

offsets = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(
    lambda minutes: timezone(timedelta(minutes=minutes))
)
moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 12, 31, 23, 59, 59), timezones=offsets)  # noqa: DTZ001 - hypothesis adds the zone


@given(moments)
def test_instant_agrees_with_the_standard_library(moment: datetime) -> None:
    expected = (moment - EPOCH) // timedelta(milliseconds=1)
    assert instant_ms(moment.isoformat()) == expected
    assert instant_ms(moment.isoformat(timespec="milliseconds")) == expected


@given(moments, st.integers(0, 99), st.text("0123456789", min_size=1, max_size=30))
def test_fraction_is_cut_to_milliseconds(moment: datetime, second: int, fraction: str) -> None:
    second %= 60
    whole = moment.replace(second=second, microsecond=0)
    text = whole.isoformat()
    text = f"{text[:19]}.{fraction}{text[19:]}"
    assert instant_ms(text) - instant_ms(whole.isoformat()) == int(fraction.ljust(3, "0")[:3])


@given(st.one_of(st.text(), st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)")))
def test_any_text_is_an_instant_that_the_standard_library_knows_or_is_refused(text: str) -> None:
    try:
        instant = instant_ms(text)
    except InstantError:
        return
    written = text.upper().replace(":60", ":59.999", 1) if text[17:19] == "60" else text.upper()
    assert instant == (datetime.fromisoformat(written) - EPOCH) // timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-05T12:00:00Z", NOON_MS),
        ("2026-03-05t12:00:00z", NOON_MS),
        ("2026-03-05T13:00:00+01:00", NOON_MS),
        ("2026-03-05 12:00:00Z", NOON_MS),
        ("2026-03-05T13:00:00+0100", NOON_MS),
        ("2026-03-05T12:00:00-00:00", NOON_MS),
        ("2026-03-05T12:00:00.5Z", NOON_MS + 500),
        ("2026-03-05T12:00:00.9999999999Z", NOON_MS + 999),
        ("2026-03-05T11:59:60Z", NOON_MS - 1),
        ("2026-03-05T11:59:60.7Z", NOON_MS - 1),
        ("2000-01-01T00:00:00Z", 946_684_800_000),
        ("2000-01-01T00:00:00+14:00", 946_684_800_000 - 14 * HOUR_MS),
        ("2100-12-31T23:59:59.999Z", 4_133_980_799_999),
    ],
)
def test_written_time_is_that_instant(text: str, expected: int) -> None:
    assert instant_ms(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-03-05T12:00:00",
        "2026-03-05",
        "1772712000",
        "2026-03-05T12:00Z",
        "20260305T120000Z",
        "2026-W10-4T12:00:00Z",
        "2026-03-05_12:00:00Z",
        "2026-03-05T12:00:00+01",
        "2026-03-05T12:00:00+2400",
        "2026-03-05T12:00:00+24:00",
        "2026-03-05T12:00:00+01:60",
        "2026-03-05T12:00:00.Z",
        "2026-03-05T12:00:00,5Z",
        "2026-03-05T24:00:00Z",
        "2026-03-05T12:60:00Z",
        "2026-03-05T12:00:61Z",
        "2026-02-29T12:00:00Z",
        "2026-13-01T12:00:00Z",
        "2026-00-01T12:00:00Z",
        "1999-12-31T23:59:59Z",
        "2101-01-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        " 2026-03-05T12:00:00Z",
        "2026-03-05T12:00:00Z\n",
        "٢٠٢٦-03-05T12:00:00Z",
    ],
)
def test_what_is_no_time_with_offset_is_refused(text: str) -> None:
    with pytest.raises(InstantError, match="expected an RFC 3339 time with offset"):
        instant_ms(text)


def test_error_cuts_a_long_text() -> None:
    with pytest.raises(InstantError) as caught:
        instant_ms("x" * 1000)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2026-03-29", "Europe/Paris", "2026-03-29T00:00:00+01:00"),
        ("2026-03-30", "Europe/Paris", "2026-03-30T00:00:00+02:00"),
        # The clocks of Beirut skip midnight: the day begins at one.
        ("2026-03-29", "Asia/Beirut", "2026-03-29T01:00:00+03:00"),
        # Those of Havana show midnight twice: the day begins with the first.
        ("2026-11-01", "America/Havana", "2026-11-01T00:00:00-04:00"),
    ],
)
def test_date_begins_at_its_first_instant_in_the_zone(text: str, zone: str, expected: str) -> None:
    assert date_ms(text, ZoneInfo(zone)) == instant_ms(expected)


ZONES = ("UTC", "Europe/Paris", "Asia/Beirut", "America/Havana", "Pacific/Apia", "Africa/Cairo")


@given(st.dates(date(2000, 1, 1), date(2100, 12, 31)), st.sampled_from(ZONES))
def test_the_date_changes_where_a_date_begins(day: date, zone: str) -> None:
    start_ms = date_ms(day.isoformat(), ZoneInfo(zone))

    def local(instant: int) -> date:
        return (EPOCH + timedelta(milliseconds=instant)).astimezone(ZoneInfo(zone)).date()

    # Apia skipped 30 December 2011: that day begins, and ends, with the next one.
    assert local(start_ms - 1) < day <= local(start_ms)


@pytest.mark.parametrize("text", ["2026-02-30", "1999-12-31", "2101-01-01", "20260301", "2026-3-1"])
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(InstantError, match="expected a date"):
        date_ms(text, PARIS)


def test_form_of_a_date_is_told_from_a_time() -> None:
    assert is_date("2026-03-01")
    assert not is_date("2026-03-01T00:00:00Z")


def test_day_of_the_clock_change_is_one_day() -> None:
    start_ms, end_ms = date_ms("2026-10-25", PARIS), date_ms("2026-10-26", PARIS)
    assert end_ms - start_ms == DAY_MS + HOUR_MS
    assert days_between(start_ms, end_ms, PARIS) == 1


def test_zone_is_found_by_its_name() -> None:
    assert time_zone("America/Argentina/Buenos_Aires").key == "America/Argentina/Buenos_Aires"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Mars/Olympus",
        "Europe",
        "Europe/Paris ",
        "/etc/localtime",
        "../zoneinfo/UTC",
        "localtime",
        "right/Europe/Paris",
        "posix/Europe/Paris",
        "zone.tab",
        "x" * 5000,
        "a\x00b",
        "Paris/é",
    ],
)
def test_what_is_no_zone_is_refused(name: str) -> None:
    with pytest.raises(InstantError, match="expected an IANA time zone"):
        time_zone(name)


@given(st.text())
def test_any_text_is_a_zone_or_refused(name: str) -> None:
    with suppress(InstantError):
        assert time_zone(name).key == name


dates = st.dates(date(2000, 1, 1), date(2100, 12, 31))


@given(dates)
def test_date_comes_back_from_its_text(day: date) -> None:
    assert calendar_date(day.isoformat()) == day
    assert day_start_ms(day, PARIS) == date_ms(day.isoformat(), PARIS)


@pytest.mark.parametrize(
    ("period", "first", "end"),
    [
        ("day", "2028-02-28", "2028-02-29"),
        ("week", "2026-12-28", "2027-01-04"),
        ("month", "2026-02-01", "2026-03-01"),
        ("month", "2026-12-01", "2027-01-01"),
        ("quarter", "2026-01-01", "2026-04-01"),
        ("quarter", "2100-10-01", "2101-01-01"),
    ],
)
def test_period_ends_where_the_next_begins(period: str, first: str, end: str) -> None:
    assert period_end(date.fromisoformat(first), period) == date.fromisoformat(end)


@given(dates, st.sampled_from(PERIODS))
def test_periods_of_a_kind_follow_each_other_without_a_gap(day: date, period: str) -> None:
    end = period_end(day, period)
    if end is None:
        return
    between = (day + timedelta(days=n) for n in range(1, (end - day).days))
    assert period == "day" or all(period_end(inner, period) is None for inner in between)
    assert period_end(end, period) is not None


@given(dates)
def test_a_period_begins_on_some_days_only(day: date) -> None:
    assert period_end(day, "day") == day + timedelta(days=1)
    assert (period_end(day, "week") is not None) == (day.isoweekday() == 1)
    assert (period_end(day, "month") is not None) == (day.day == 1)
    is_first = (day.month, day.day) in {(1, 1), (4, 1), (7, 1), (10, 1)}
    assert (period_end(day, "quarter") is not None) == is_first
