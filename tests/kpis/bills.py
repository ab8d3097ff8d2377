"""Cost records, report rows and rates for tests, and the zones whose clocks change within them."""

from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from kpis.calendar import Calendar
from kpis.contributions import Contribution
from kpis.events import CostDeleted, CostSnapshot, CountsReported, Envelope, FxRateSet
from kpis.facts import Facts, add

MINUTE_MS: Final = 60_000
HOUR: Final = 60
DAY: Final = 24 * HOUR

PARIS: Final = Calendar(ZoneInfo("Europe/Paris"))
LORD_HOWE: Final = Calendar(ZoneInfo("Australia/Lord_Howe"))
UTC_CALENDAR: Final = Calendar(ZoneInfo("UTC"))


def minute(text: str) -> int:
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp()) // 60


CHANGES: Final = {
    PARIS: (minute("2026-03-29T01:00:00Z"), minute("2026-10-25T01:00:00Z")),
    LORD_HOWE: (minute("2026-04-04T15:00:00Z"), minute("2026-10-03T15:30:00Z")),
}
"""The minutes in which the clocks change: by an hour in Paris, by half an hour on Lord Howe Island."""

places_in_time = st.sampled_from(
    [(calendar, change) for calendar, changes in CHANGES.items() for change in changes]
)

KEY: Final[dict[str, Any]] = {
    "cost_source": "ads",
    "account_id": "",
    "channel": "google_ads",
    "campaign_id": "c",
    "ad_group_id": "",
    "ad_id": "",
    "cost_type": "media",
    "start_ms": 0,
    "end_ms": HOUR * MINUTE_MS,
    "credit": False,
}


def an_envelope(event_id: str = "e", at: int = 0, recorded: int | None = None) -> Envelope:
    return Envelope(event_id, "s", at, recorded, event_id.encode())


def a_cost(
    amount_micros: int = 1,
    *,
    at: int = 0,
    event_id: str = "e",
    recorded: int | None = None,
    **other: Any,
) -> CostSnapshot:
    """Return a cost of the first hour of 1970, known in full, reported at its end unless it says else."""
    fields = KEY | other
    fields = {"as_of_ms": fields["end_ms"], "currency": "EUR"} | fields
    fields.setdefault("reported_ms", fields["as_of_ms"] + at)
    return CostSnapshot(
        envelope=an_envelope(event_id, at, recorded), amount_micros=amount_micros, **fields
    )


def a_deletion(
    *, at: int = 0, event_id: str = "e", recorded: int | None = None, **other: Any
) -> CostDeleted:
    fields = KEY | other
    fields.setdefault("reported_ms", fields["end_ms"] + at)
    return CostDeleted(envelope=an_envelope(event_id, at, recorded), **fields)


def some_counts(count: int, **other: Any) -> CountsReported:
    fields: dict[str, Any] = {
        name: KEY[name]
        for name in ("channel", "campaign_id", "ad_group_id", "ad_id", "start_ms", "end_ms")
    }
    fields |= {"kind": "impressions.reported", "reported_ms": 10**15, **other}
    fields.setdefault("as_of_ms", fields["end_ms"])
    return CountsReported(envelope=an_envelope(), count=count, **fields)


def a_rate(
    day: int,
    numerator: int,
    denominator: int = 1,
    *,
    base: str = "USD",
    quote: str = "EUR",
    at: int = 0,
    event_id: str = "r",
    recorded: int | None = None,
) -> FxRateSet:
    return FxRateSet(an_envelope(event_id, at, recorded), base, quote, day, numerator, denominator)


def total(contribution: Contribution, basis: str = "period") -> Facts:
    facts: Facts = {}
    for place, part in contribution.items():
        if place.basis == basis:
            add(facts, part)
    return facts
