"""Times as they are written: strict RFC 3339 text and calendar dates to milliseconds since 1970.

Source: contract, sections 2 and 8 (`bad_time`, `unknown_time_zone`).
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final, TypeVar
from zoneinfo import ZoneInfo

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS

INSTANT: Final = "an RFC 3339 time with offset in the years 2000 to 2100"
DATE: Final = "a date YYYY-MM-DD in the years 2000 to 2100"
TIME_ZONE: Final = "an IANA time zone such as Europe/Paris"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)

_HOUR_AND_MINUTE: Final = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_INSTANT: Final = re.compile(
    rf"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[Tt ]{_HOUR_AND_MINUTE}):([0-5][0-9]|60)(?:\.([0-9]+))?"
    # Without its colon an offset is no RFC 3339, but common, clear, and accepted by the decoder that
    # counts impressions.
    rf"([Zz]|[+-](?:[01][0-9]|2[0-3]):?[0-5][0-9])"
)
_DATE: Final = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ZONE: Final = re.compile("[A-Za-z0-9_+-]{1,32}(?:/[A-Za-z0-9_+-]{1,32}){0,2}")
# Zone files that are no IANA names: this machine's own zone, and copies with and without leap
# seconds, which would make a number depend on where it was computed.
_NOT_ZONES: Final = re.compile("(?:right|posix)/.*|localtime|posixrules", re.IGNORECASE)


class InstantError(ValueError):
    """A text that is no time, no date or no time zone."""

    def __init__(self, expected: str, text: str) -> None:
        super().__init__(f"expected {expected}, got {text[:40]!r}")


def instant_ms(text: str) -> int:
    """Return the instant that an RFC 3339 text names, in milliseconds since 1970, cut not rounded.

    Second 60, a leap second, counts as 59.999999. The year is the one that is written.

    Raises:
        InstantError: unless `text` is a date, a time and an offset in the years 2000 to 2100.
    """
    match = _INSTANT.fullmatch(text)
    if match is None:
        raise InstantError(INSTANT, text)
    minute, second, fraction, offset = match.groups()
    try:
        start_ms = _minute_start_ms(minute, offset)
    except ValueError:
        raise InstantError(INSTANT, text) from None
    if second == "60":
        return start_ms + MINUTE_MS - 1
    if fraction is None:
        return start_ms + int(second) * 1000
    # Three digits, padded: .5 is 500 ms, .9999 is 999 ms.
    return start_ms + int(second + (fraction + "00")[:3])


@lru_cache(maxsize=4096)
def _minute_start_ms(minute: str, offset: str) -> int:
    """Return the start of a written minute; a stream names the same few minutes over and over."""
    offset = "+00:00" if offset in "Zz" else offset
    return _since_epoch_ms(_in_range(datetime.fromisoformat(minute.upper() + offset)))


@lru_cache(maxsize=4096)
def date_ms(text: str, zone: ZoneInfo) -> int:
    """Return the first instant of a calendar date in `zone`, in milliseconds since 1970.

    Raises:
        InstantError: unless `text` is YYYY-MM-DD in the years 2000 to 2100.
    """
    return day_start_ms(calendar_date(text), zone)


def calendar_date(text: str) -> date:
    """Return the calendar date that a text names.

    Raises:
        InstantError: unless `text` is YYYY-MM-DD in the years 2000 to 2100.
    """
    if _DATE.fullmatch(text) is None:
        raise InstantError(DATE, text)
    try:
        return _in_range(date.fromisoformat(text))
    except ValueError:
        raise InstantError(DATE, text) from None


def day_start_ms(day: date, zone: ZoneInfo) -> int:
    """Return the first instant of a day in `zone`, in milliseconds since 1970."""
    # fold=0 is right in both odd cases: of two midnights the first, and for a midnight that is
    # skipped the moment of the skip.
    return _since_epoch_ms(datetime.combine(day, time(), zone))


def period_end(first: date, period: str) -> date | None:
    """Return the date after the day, week (from Monday), month or quarter that begins on `first`.

    None if no such period begins on that date.

    Raises:
        KeyError: unless `period` is one of `PERIODS`.
    """
    begins, days = _PERIODS[period]
    if not begins(first):
        return None
    # Months differ in length: a few days past the end, then back to the first of that month.
    beyond = first + timedelta(days=days)
    return beyond.replace(day=1) if period in {"month", "quarter"} else beyond


_PERIODS: Final[Mapping[str, tuple[Callable[[date], bool], int]]] = {
    "day": (lambda _: True, 1),
    "week": (lambda day: day.weekday() == 0, 7),
    "month": (lambda day: day.day == 1, 31),
    # Three months have 90 to 92 days, so 95 days lead to the first days of the next quarter.
    "quarter": (lambda day: day.day == 1 and day.month % 3 == 1, 95),
}
PERIODS: Final = tuple(_PERIODS)
"""The periods of the calendar that a target may have."""


def is_date(text: str) -> bool:
    """Return whether `text` has the form of a date without a time."""
    return _DATE.fullmatch(text) is not None


def days_between(start_ms: int, end_ms: int, zone: ZoneInfo) -> float:
    """Return the days from start to end on the clocks of `zone`: a day of 25 hours is one day."""
    length = _wall_time(end_ms, zone) - _wall_time(start_ms, zone)
    return length / timedelta(days=1)


@lru_cache(maxsize=1024)
def time_zone(name: str) -> ZoneInfo:
    """Return the IANA time zone of that name.

    Raises:
        InstantError: if there is none.
    """
    if _ZONE.fullmatch(name) is None or _NOT_ZONES.fullmatch(name):
        raise InstantError(TIME_ZONE, name)
    try:
        return ZoneInfo(name)
    # A name may be a folder ("Europe"), a file that is no zone ("zone.tab") or nothing at all.
    except (KeyError, ValueError, OSError):
        raise InstantError(TIME_ZONE, name) from None


_Dated = TypeVar("_Dated", bound=date)


def _in_range(moment: _Dated) -> _Dated:
    if not 2000 <= moment.year <= 2100:
        raise ValueError(moment.year)
    return moment


def _since_epoch_ms(moment: datetime) -> int:
    return (moment - _EPOCH) // _MILLISECOND


def _wall_time(instant: int, zone: ZoneInfo) -> datetime:
    return (_EPOCH + timedelta(milliseconds=instant)).astimezone(zone).replace(tzinfo=None)
