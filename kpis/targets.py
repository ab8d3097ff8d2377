"""Targets: what a fact or KPI is to come to in a period, and which windows show it.

Source: contract, section 2 (`target.set`) and section 5 (`target_attainment`, `pacing`).
"""

from collections.abc import Iterable
from fractions import Fraction
from types import MappingProxyType
from typing import Final, Self

from msgspec import Struct

from kpis.calendar import MINUTE_MS, Calendar
from kpis.events import TargetSet
from kpis.spans import Window

LINEAR: Final = "linear"
BUSINESS_DAYS: Final = "business_days"

KIND_OF: Final = MappingProxyType({"day": "1d", "week": "1w", "month": "1mo", "quarter": "1mo"})
"""In which windows the target of a period shows: the one that is the period, or a quarter's months."""

_QUARTER: Final = "quarter"
_SATURDAY: Final = 5

Key = tuple[str, ...]
"""The natural key of a target."""


class Target(Struct, frozen=True, array_like=True):
    """What `kpi`, a fact or KPI by its full name, is to come to in [start, end) of one scope.

    The ends are whole minutes since 1970 UTC; `value_micros` is in millionths of the KPI's unit,
    above 0. `profile` says how it grows over the period: `linear` or `business_days`.
    """

    kpi: str
    period: str
    start_minute: int
    end_minute: int
    value_micros: int
    profile: str = LINEAR

    @classmethod
    def of(cls, event: TargetSet) -> Self:
        """Return what an event sets."""
        return cls(
            event.kpi,
            event.period,
            event.start_minute,
            event.end_minute,
            event.value_micros,
            event.profile,
        )


class Targets:
    """The targets of one scope, by natural key."""

    __slots__ = ("_targets",)

    def __init__(self) -> None:
        self._targets: dict[Key, Target] = {}

    def __bool__(self) -> bool:
        return bool(self._targets)

    def put(self, key: Key, target: Target | None) -> None:
        """Set a target in place of the one of the same key; None takes it away."""
        if target is None:
            self._targets.pop(key, None)
        else:
            self._targets[key] = target

    def get(self, key: Key) -> Target | None:
        """Return a target, None if it is not set."""
        return self._targets.get(key)

    def shown_in(self, window: Window) -> tuple[Target, ...]:
        """Return the targets that the records of `window` show, one of each KPI, by its name.

        A quarter's target shows in its months as long as those have none of their own.
        """
        if not self._targets:
            return ()
        shown = [target for target in self._targets.values() if is_shown_in(target, window)]
        # Of one KPI the month's comes last and stays.
        shown.sort(key=lambda target: (target.kpi, target.period != _QUARTER, target.start_minute))
        return tuple({target.kpi: target for target in shown}.values())

    def later_months(self, month: Window, calendar: Calendar) -> tuple[Window, ...]:
        """Return the months that a quarter's target counts on to from `month`: those after it."""
        return tuple(
            later
            for target in self._targets.values()
            if target.period == _QUARTER and is_shown_in(target, month)
            for later in windows_of(target, calendar)
            if (later.start_minute or 0) > (month.start_minute or 0)
        )


def is_shown_in(target: Target, window: Window) -> bool:
    """Tell whether `target` concerns the records of `window`, if no other one takes its place."""
    if window.start_minute is None or KIND_OF[target.period] != window.kind:
        return False
    if target.period == _QUARTER:
        return target.start_minute <= window.start_minute < target.end_minute
    return target.start_minute == window.start_minute


def windows_of(target: Target, calendar: Calendar) -> tuple[Window, ...]:
    """Return the windows that may show `target`: those to publish anew when it changes."""
    if target.period != _QUARTER:
        kind = KIND_OF[target.period]
        return (Window(kind, target.start_minute, target.end_minute),)
    windows = []
    start = target.start_minute
    while start < target.end_minute:
        end = calendar.month_end(start)
        windows.append(Window(KIND_OF[_QUARTER], start, end))
        start = end
    return tuple(windows)


def elapsed_share(
    target: Target, window: Window, complete_until_ms: int | None, calendar: Calendar
) -> Fraction:
    """Return the share, 0 to 1, of the target's period that is over.

    It is over up to `complete_until`, in a window that ended before up to its end. With
    `business_days` it counts days from Monday to Friday, all alike; a period without any never
    begins.
    """
    if complete_until_ms is None:
        return Fraction(0)
    end_minute = target.end_minute if window.end_minute is None else window.end_minute
    until_ms = min(complete_until_ms, min(end_minute, target.end_minute) * MINUTE_MS)
    if target.profile == BUSINESS_DAYS:
        days = [
            _part_over(start, end, until_ms)
            for start, end in _days(target, calendar)
            if _is_business_day(start, calendar)
        ]
        return sum(days, Fraction(0)) / len(days) if days else Fraction(0)
    return _part_over(target.start_minute, target.end_minute, until_ms)


def _days(target: Target, calendar: Calendar) -> Iterable[tuple[int, int]]:
    start = target.start_minute
    while start < target.end_minute:
        end = calendar.day_end(start)
        yield start, end
        start = end


def _is_business_day(start: int, calendar: Calendar) -> bool:
    # The day with ordinal 1, 1 January of the year 1, is a Monday.
    return (calendar.ordinal(start) - 1) % 7 < _SATURDAY


def _part_over(start_minute: int, end_minute: int, until_ms: int) -> Fraction:
    start_ms, end_ms = start_minute * MINUTE_MS, end_minute * MINUTE_MS
    over_ms = min(max(until_ms - start_ms, 0), end_ms - start_ms)
    return Fraction(over_ms, end_ms - start_ms)
