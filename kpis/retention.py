"""The grains that are stored, and how long each is kept."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from kpis.calendar import HOUR_MINUTES, Calendar

LIFETIME_BUCKET: Final = 0
_DAY_MINUTES: Final = 24 * HOUR_MINUTES


class Grain(IntEnum):
    """A stored grain, the finest first."""

    MINUTE = 0
    HOUR = 1
    DAY = 2
    LIFETIME = 3


@dataclass(frozen=True, slots=True)
class Retention:
    """How long each grain is kept, counted back from the newest event time.

    Source: contract, section 1, "Stored grains".
    """

    minutes: int = 3 * HOUR_MINUTES
    hours: int = 36 * _DAY_MINUTES
    days: int = 400 * _DAY_MINUTES

    def kept_minutes(self, grain: Grain) -> int | None:
        """Return for how many minutes a grain is kept, None for ever."""
        return (self.minutes, self.hours, self.days, None)[grain]


class Buckets:
    """Which buckets a minute falls into, and which of them are still kept."""

    def __init__(self, calendar: Calendar, retention: Retention) -> None:
        self.calendar = calendar
        self.retention = retention

    def start(self, grain: Grain, minute: int) -> int:
        """Return the bucket of `minute`: the first minute of its span, 0 for lifetime."""
        if grain is Grain.MINUTE:
            return minute
        if grain is Grain.HOUR:
            return self.calendar.hour_start(minute)
        if grain is Grain.DAY:
            return self.calendar.day_start(minute)
        return LIFETIME_BUCKET

    def end(self, grain: Grain, start: int) -> int:
        """Return the minute after a bucket that is no lifetime."""
        if grain is Grain.MINUTE:
            return start + 1
        if grain is Grain.HOUR:
            return self.calendar.hour_end(start)
        return self.calendar.day_end(start)

    def is_kept(self, grain: Grain, start: int, newest_minute: int) -> bool:
        """Tell whether the bucket is still kept when `newest_minute` has been seen."""
        kept = self.retention.kept_minutes(grain)
        return kept is None or self.end(grain, start) > newest_minute - kept

    def cut(
        self, start: int, end: int, newest_minute: int
    ) -> Iterator[tuple[Grain, int, int, int]]:
        """Cut minutes [start, end) into (grain, bucket, first, last + 1) of the finest grain still kept.

        So a month's bill is some days, hours and minutes, not 44,640 minutes. A piece need not fill
        its bucket: what is older than the minutes of an hour that are kept goes to the hour.
        """
        minute = start
        while minute < end:
            for grain in (Grain.MINUTE, Grain.HOUR, Grain.DAY):
                bucket = self.start(grain, minute)
                if self.is_kept(grain, bucket, newest_minute):
                    stop = min(end, self.end(grain, bucket))
                    break
            else:
                grain, bucket = Grain.LIFETIME, LIFETIME_BUCKET
                stop = min(end, self._first_kept_day(minute, end, newest_minute))
            if grain in (Grain.HOUR, Grain.DAY):
                stop = self._up_to_finer(grain, minute, stop, newest_minute)
            yield grain, bucket, minute, stop
            minute = stop

    def _first_kept_day(self, minute: int, end: int, newest_minute: int) -> int:
        day = self.start(Grain.DAY, max(minute, newest_minute - self.retention.days))
        while day <= minute or not self.is_kept(Grain.DAY, day, newest_minute):
            day = self.end(Grain.DAY, day)
            if day >= end:
                return end
        return day

    def _up_to_finer(self, grain: Grain, minute: int, stop: int, newest_minute: int) -> int:
        """Return where the first bucket of the next finer grain begins that is still kept."""
        finer = Grain(grain - 1)
        cursor = self.end(finer, self.start(finer, minute))
        # Only a bucket that the cut-off runs through has kept finer ones in it.
        if self.is_kept(finer, self.start(finer, stop - 1), newest_minute):
            while cursor < stop and not self.is_kept(finer, cursor, newest_minute):
                cursor = self.end(finer, cursor)
            return min(cursor, stop)
        return stop
