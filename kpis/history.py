"""The facts of past minutes: what each window held when a minute had just ended, by what is known now."""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from kpis.calendar import Calendar
from kpis.cells import VISITORS
from kpis.facts import PERIOD, Facts, Subject
from kpis.fold_cells import Cells
from kpis.histogram import FACT
from kpis.retention import Buckets, Grain
from kpis.spans import Window

_HISTOGRAM: Final = f"{FACT}."
_BEFORE_ALL: Final = 0
_Cell = tuple[int, Mapping[str, int]]


class History:
    """Sums of the period basis as of `minute`, which may be set to any that is kept as such.

    What happened after `minute` is not in them, though it lies in the same hour or window; what
    happened before and arrived late is. Without visitors and the histogram of cycles, which are no
    plain sums. It answers what `kpis.surroundings` asks.

    Args:
        cells: The cells of each subject, as `Fold.result` has them; they are taken out of it.
        buckets: The retention that the cells were kept with.
        newest_minute: The one that retention was counted back from.
    """

    def __init__(self, cells: dict[Subject, Cells], buckets: Buckets, newest_minute: int) -> None:
        self._calendar = buckets.calendar
        self.first_hour = self._first(Grain.DAY, newest_minute - buckets.retention.hours)
        first_minute = self._first(Grain.HOUR, newest_minute - buckets.retention.minutes)
        self.first_minute = max(self.first_hour, first_minute)
        self.minute = newest_minute
        self._series: dict[Subject, _Series] = {}
        self._channels: set[str] = set()
        while cells:
            subject, by_grain = cells.popitem()
            if subject.basis == PERIOD:
                series = _Series(self._of_each_time(dict(by_grain)))
                if not series.minutes:
                    continue
                self._series[subject] = series
                if subject.scope.channel is not None:
                    self._channels.add(subject.scope.channel)

    def subjects(self) -> list[Subject]:
        """Return everything that there are numbers about."""
        return list(self._series)

    def channels(self, basis: str) -> Iterable[str]:
        """Return the channels that have facts."""
        return self._channels if basis == PERIOD else ()

    def has(self, subject: Subject, window: Window) -> bool:
        """Tell whether a subject had any fact in a window."""
        return bool(self.facts(subject, window))

    def facts(self, subject: Subject, window: Window) -> Facts:
        """Return the facts of a window up to and with `minute`; a copy, empty if there were none."""
        start = _BEFORE_ALL if window.start_minute is None else window.start_minute
        until = self.minute + 1
        end = until if window.end_minute is None else min(window.end_minute, until)
        return self._between(subject, start, end)

    def day_facts(self, subject: Subject, start: int) -> Mapping[str, int]:
        """Return the facts of the day that begins at minute `start`, up to and with `minute`."""
        end = min(self._calendar.day_end(start), self.minute + 1)
        return self._between(subject, start, end)

    def days(self, subject: Subject) -> Iterable[int]:
        """Return the days that had facts, by their first minutes."""
        series = self._series.get(subject)
        begun = () if series is None else series.days(self._calendar).items()
        return [day for day, first_minute in begun if first_minute <= self.minute]

    def ends(self, subject: Subject) -> tuple[int, int]:
        """Return the first and the last minute that a subject of `subjects` has facts of."""
        minutes = self._series[subject].minutes
        return minutes[0], minutes[-1]

    def busy_minutes(self, subject: Subject, start: int, end: int) -> Sequence[int]:
        """Return the minutes of [start, end) in which a subject had facts, in order."""
        series = self._series.get(subject)
        return () if series is None else series.between(start, end)

    def _between(self, subject: Subject, start: int, end: int) -> Facts:
        series = self._series.get(subject)
        return {} if series is None or start >= end else series.sum(start, end)

    def _first(self, grain: Grain, minute: int) -> int:
        """Return the first bucket that begins at `minute` or later."""
        calendar = self._calendar
        start = calendar.hour_start(minute) if grain is Grain.HOUR else calendar.day_start(minute)
        if start == minute:
            return start
        return calendar.hour_end(start) if grain is Grain.HOUR else calendar.day_end(start)

    def _of_each_time(self, by_grain: Cells) -> Iterator[_Cell]:
        """Yield every fact once, of the finest grain that is kept then, in order of time."""
        spans = (
            (Grain.DAY, _BEFORE_ALL, self.first_hour),
            (Grain.HOUR, self.first_hour, self.first_minute),
            (Grain.MINUTE, self.first_minute, None),
        )
        for grain, start, end in spans:
            cells = by_grain.pop(grain, {})
            for bucket in sorted(cells):
                if bucket >= start and (end is None or bucket < end):
                    yield bucket, cells[bucket]


class _Series:
    """The facts of one subject as running totals: the sum of any stretch is one difference each."""

    __slots__ = ("_days", "_totals", "minutes")

    def __init__(self, cells: Iterable[_Cell]) -> None:
        self.minutes = array("q")
        self._totals: dict[str, array[int]] = {}
        self._days: dict[int, int] = {}
        for minute, facts in cells:
            self.minutes.append(minute)
            for totals in self._totals.values():
                totals.append(totals[-1])
            for name, fact in facts.items():
                if name != VISITORS and not name.startswith(_HISTOGRAM):
                    self._total(name)[-1] += fact

    def _total(self, name: str) -> "array[int]":
        totals = self._totals.get(name)
        if totals is None:
            totals = self._totals[name] = array("q", bytes(8 * (len(self.minutes) + 1)))
        return totals

    def sum(self, start: int, end: int) -> Facts:
        """Return the facts of the minutes of [start, end)."""
        low, high = bisect_left(self.minutes, start), bisect_left(self.minutes, end)
        if low == high:
            return {}
        found = {name: totals[high] - totals[low] for name, totals in self._totals.items()}
        return {name: fact for name, fact in found.items() if fact}

    def days(self, calendar: Calendar) -> Mapping[int, int]:
        """Return the days that have facts, each with the first minute that has."""
        if not self._days:
            for minute in self.minutes:
                self._days.setdefault(calendar.day_start(minute), minute)
        return self._days

    def between(self, start: int, end: int) -> "array[int]":
        """Return the minutes of [start, end) that have facts."""
        return self.minutes[bisect_left(self.minutes, start) : bisect_left(self.minutes, end)]
