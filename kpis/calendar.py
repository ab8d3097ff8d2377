"""Spans of time in the reporting zone: minutes, hours, days, weeks and months, and how they are written."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

MINUTE_MS: Final = 60_000
HOUR_MINUTES: Final = 60
DAY_MINUTES: Final = 24 * HOUR_MINUTES
_WEEK_DAYS: Final = 7
_QUARTER_MONTHS: Final = 3

# Few quarters of an hour hold the start of an hour or day within them, so one answer serves them whole.
_QUARTER: Final = 15
_MEMO_LIMIT: Final = 200_000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Calendar:
    """The hours and days of one time zone, as half-open spans of whole minutes since 1970 UTC.

    A day has 23, 24 or 25 hours where the clock changes; an hour that occurs twice is two hours, and
    what occurs again after midnight when the clock goes back across it belongs to the new day.
    Weeks (ISO, from Monday), months and quarters are whole days; a date that a zone left out is none.
    """

    def __init__(self, zone: ZoneInfo) -> None:
        self.zone = zone
        self._hours: dict[int, int] = {}
        self._days: dict[int, int] = {}
        self._hour_ends: dict[int, int] = {}
        self._day_ends: dict[int, int] = {}
        self._ordinals: dict[int, int] = {}

    def hour_start(self, minute: int) -> int:
        """Return the first minute of the local hour that contains `minute`."""
        return self._remembered(self._hours, minute, self._find_hour_start)

    def day_start(self, minute: int) -> int:
        """Return the first minute of the local day that contains `minute`."""
        return self._remembered(self._days, minute, self._find_day_start)

    def hour_end(self, start: int) -> int:
        """Return the minute after the local hour that begins at `start`."""
        end = self._hour_ends.get(start)
        if end is None:
            end = self._find_end(start, self.hour_start, HOUR_MINUTES)
            _remember(self._hour_ends, start, end)
        return end

    def day_end(self, start: int) -> int:
        """Return the minute after the local day that begins at `start`."""
        end = self._day_ends.get(start)
        if end is None:
            end = self._find_end(start, self.day_start, DAY_MINUTES)
            _remember(self._day_ends, start, end)
        return end

    def ordinal(self, minute: int) -> int:
        """Return the date of the local day that contains `minute`, as `date.toordinal` numbers it."""
        start = self.day_start(minute)
        ordinal = self._ordinals.get(start)
        if ordinal is None:
            ordinal = self._local(start).toordinal()
            _remember(self._ordinals, start, ordinal)
        return ordinal

    def minute_of(self, day: date) -> int:
        """Return the first minute of the local day `day`; of the next one if the zone left it out."""
        midnight = datetime(day.year, day.month, day.day, tzinfo=self.zone)
        return (midnight.astimezone(UTC) - _EPOCH) // timedelta(minutes=1)

    def week_start(self, minute: int) -> int:
        """Return the first minute of the week, from Monday, that contains `minute`."""
        return self.minute_of(self._monday(minute))

    def week_end(self, start: int) -> int:
        """Return the minute after the week that begins at `start`."""
        return self.minute_of(self._monday(start) + timedelta(days=_WEEK_DAYS))

    def month_start(self, minute: int) -> int:
        """Return the first minute of the local month that contains `minute`."""
        return self.minute_of(self._date(minute).replace(day=1))

    def month_end(self, start: int) -> int:
        """Return the minute after the local month that begins at `start`."""
        return self.minute_of(_months_on(self._date(start), 1))

    def quarter_start(self, minute: int) -> int:
        """Return the first minute of the local quarter of a year that contains `minute`."""
        day = self._date(minute)
        return self.minute_of(
            day.replace(month=day.month - (day.month - 1) % _QUARTER_MONTHS, day=1)
        )

    def quarter_end(self, start: int) -> int:
        """Return the minute after the local quarter of a year that begins at `start`."""
        return self.minute_of(_months_on(self._date(start), _QUARTER_MONTHS))

    def _date(self, minute: int) -> date:
        return date.fromordinal(self.ordinal(minute))

    def _monday(self, minute: int) -> date:
        day = self._date(minute)
        return day - timedelta(days=day.weekday())

    def _local(self, minute: int) -> datetime:
        return (_EPOCH + timedelta(minutes=minute)).astimezone(self.zone)

    def _offset(self, minute: int) -> timedelta | None:
        return self._local(minute).utcoffset()

    def _find_hour_start(self, minute: int) -> int:
        start = minute - self._local(minute).minute
        offset = self._offset(minute)
        if self._offset(start) == offset:
            return start
        # The clock changed within the hour (Lord Howe Island moves by half an hour): the hour
        # begins again at the change.
        return next(m for m in range(start, minute + 1) if self._offset(m) == offset)

    def _find_day_start(self, minute: int) -> int:
        date = self._local(minute).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        # Tomorrow has begun already if the clock has gone back across midnight since; today has not
        # if it jumped across midnight and that moment, by the old clock, is still to come.
        days = (date + timedelta(days=1), date, date - timedelta(days=1))
        starts = ((day.astimezone(UTC) - _EPOCH) // timedelta(minutes=1) for day in days)
        return next(start for start in starts if start <= minute)

    @staticmethod
    def _remembered(memo: dict[int, int], minute: int, find: Callable[[int], int]) -> int:
        quarter = minute // _QUARTER
        start = memo.get(quarter)
        if start is None:
            start = find(quarter * _QUARTER)
            if find(quarter * _QUARTER + _QUARTER - 1) != start:
                # Something begins within this quarter: the clock changed at one minute past, say.
                return find(minute)
            _remember(memo, quarter, start)
        return start

    @staticmethod
    def _find_end(start: int, start_of: Callable[[int], int], usual: int) -> int:
        inside, outside = start, start + usual
        while start_of(outside) == start:
            inside, outside = outside, outside + HOUR_MINUTES
        while outside - inside > 1:
            middle = (inside + outside) // 2
            if start_of(middle) == start:
                inside = middle
            else:
                outside = middle
        return outside


def _months_on(day: date, months: int) -> date:
    """Return the first of the month that comes `months` after that of `day`."""
    years, month = divmod(day.month - 1 + months, 12)
    return date(day.year + years, month + 1, 1)


def _remember(memo: dict[int, int], key: int, value: int) -> None:
    if len(memo) >= _MEMO_LIMIT:
        memo.clear()
    memo[key] = value


@lru_cache(maxsize=8192)
def minute_text(minute: int, zone: tzinfo) -> str:
    """Return a minute since 1970 UTC as RFC 3339 text in `zone`, for example 2026-03-29T00:00:00+01:00."""
    return datetime.fromtimestamp(minute * 60, zone).isoformat()


@lru_cache(maxsize=64)
def instant_text(instant_ms: int) -> str:
    """Return ms since 1970 as RFC 3339 text in UTC; whole seconds without a fraction."""
    seconds, ms = divmod(instant_ms, 1000)
    text = datetime.fromtimestamp(seconds, UTC).isoformat().removesuffix("+00:00")
    return f"{text}.{ms:03d}Z" if ms else f"{text}Z"
