"""A story to try rules on: five weeks of ordinary hours, then a landing page that is broken for eight."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from math import exp, factorial
from typing import Any, Final
from zoneinfo import ZoneInfo

from kpis.calendar import MINUTE_MS
from tests.kpis.streams_of_records import Record, ms, record

PARIS: Final = ZoneInfo("Europe/Paris")
HOUR: Final = 60
DAYS: Final = 35
CAMPAIGN: Final[dict[str, Any]] = {"channel": "google_ads", "campaign_id": "brand-search"}
EUROS_AN_HOUR: Final = 60
LEADS_AN_HOUR: Final = 3
"""So a lead usually costs 20 euros."""
BROKEN_HOURS: Final = 8


PLAIN: Final = """
[cpl_spike]
windows = ["last_6h"]
is_strict = false
"""
"""The rule whose minutes `BreakStory.foretold` tells, as TOML."""


def _poisson_at_most(count: int, expected: float) -> float:
    return sum(exp(-expected) * expected**each / factorial(each) for each in range(count + 1))


class BreakStory:
    """The records of the story; leads come on the minutes 5, 25 and 45 of each hour that works.

    Args:
        broken_at: When the page breaks, a local time on the hour.
        until: When the story ends; nothing happens from then on.
    """

    def __init__(self, broken_at: datetime, until: datetime) -> None:
        self.broken_minute = ms(broken_at.isoformat()) // MINUTE_MS
        self.mended_minute = self.broken_minute + BROKEN_HOURS * HOUR
        self.first_minute = self.broken_minute - DAYS * 24 * HOUR
        self.end_minute = ms(until.isoformat()) // MINUTE_MS

    def lead_minutes(self) -> Iterator[int]:
        """Yield when a lead came, in order."""
        for hour in range(self.first_minute, self.end_minute, HOUR):
            if not self.broken_minute <= hour < self.mended_minute:
                yield from (
                    minute
                    for minute in (hour + 5, hour + 25, hour + 45)
                    if minute < self.end_minute
                )

    def records(self, until_minute: int | None = None) -> Iterator[Record]:
        """Yield all records, or those that there were when `until_minute` began."""
        end = self.end_minute if until_minute is None else until_minute
        for minute in self.lead_minutes():
            if minute < end:
                yield self._lead(minute)
        for hour in range(self.first_minute, end, HOUR):
            yield self._cost(hour, min(HOUR, end - hour))

    def foretold(self, start: int, end: int) -> tuple[int, int]:
        """Return in which minutes of [start, end) the plain rule fires and resolves, by the formula.

        The plain rule is cpl_spike of last_6h alone, not strict.

        Source: contract, section 9.
        """
        fired = next(m for m in range(start + 1, end) if self._fires(m) and self._fires(m - 1))
        minutes = range(fired + 1, end)
        return fired, next(m for m in minutes if self._is_well(m) and self._is_well(m - 1))

    def _fires(self, minute: int) -> bool:
        expected, leads = self._seen(minute)
        return _poisson_at_most(leads, expected) < 0.01 and expected > 1.5 * leads

    def _is_well(self, minute: int) -> bool:
        expected, leads = self._seen(minute)
        return _poisson_at_most(leads, expected) > 0.2 and expected <= 1.5 * leads

    def _seen(self, minute: int) -> tuple[float, int]:
        """Return expected leads and leads of the last six hours, whole hours and the running one."""
        start = (minute - 6 * HOUR) // HOUR * HOUR
        leads = sum(start <= each <= minute for each in self.lead_minutes())
        return (minute + 1 - start) * LEADS_AN_HOUR / HOUR, leads

    @staticmethod
    def _lead(minute: int) -> Record:
        return record(
            "leads", "lead.created", minute * MINUTE_MS, lead_id=f"l-{minute}", **CAMPAIGN
        )

    @staticmethod
    def _cost(hour: int, minutes: int) -> Record:
        """Return a bill of a euro a minute for the first minutes of an hour."""
        begin = datetime.fromtimestamp(hour * 60, PARIS)
        fields: dict[str, Any] = {
            "cost_source": "bills",
            "period_start": begin.isoformat(),
            "period_end": (begin + timedelta(hours=1)).isoformat(),
            "as_of": (begin + timedelta(minutes=minutes)).isoformat(),
            "reported_at": (begin + timedelta(minutes=minutes)).isoformat(),
            "amount": f"{minutes * EUROS_AN_HOUR // HOUR}.00",
            "currency": "EUR",
        }
        at_ms = (hour + minutes) * MINUTE_MS
        return record(
            "costs", "cost.snapshot", at_ms, event_id=f"c-{hour}-{minutes}", **fields, **CAMPAIGN
        )
