"""What simulated traffic is made of, and the plan of what arrives next.

Pure: the same seed, start and mix give the same records.
"""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import count
from random import Random
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from kpis.calendar import Calendar
from kpis.instants import DAY_MS, HOUR_MS, MINUTE_MS, instant_ms

EURO: Final = 1_000_000
CENT: Final = 10_000

WORTH: Final[Mapping[str, float]] = {"EUR": 1.0, "USD": 0.92, "GBP": 1.17, "CHF": 1.05, "SEK": 0.09}
"""What one of a currency is worth in EUR, roughly; others count as one EUR."""

VOLUME: Final = ("impressions", "clicks", "visits")
_INSTANTS: Final = ("occurred_at", "period_start", "period_end", "as_of")


class Record(NamedTuple):
    """What a producer sends: `topic` is the short name.

    `broken` is the reason for which a sound worker refuses it; None if it has to be accepted.
    """

    at_ms: int
    topic: str
    key: bytes
    value: bytes | None
    broken: str | None


@dataclass(frozen=True, slots=True)
class Campaign:
    """What a campaign costs and brings.

    Ratios are of 1: clicks per impression, leads per click, and for each step after the lead.
    `is_reported`: impressions and clicks come as rows of a report, not one by one. `click_micros`
    and `deal_micros` are worth so much in EUR; `is_foreign`: its bills are in another currency than
    the reporting one.
    """

    channel: str
    campaign_id: str
    weight: int
    click_ratio: float
    lead_ratio: float
    step_ratio: float
    click_micros: int
    deal_micros: int
    is_reported: bool = False
    is_foreign: bool = False


# fmt: off
CAMPAIGNS: Final[tuple[Campaign, ...]] = (
    Campaign("google_ads", "brand-search", 8, 0.110, 0.22, 0.70, 900_000, 900 * EURO),
    Campaign("google_ads", "generic-search", 16, 0.055, 0.13, 0.58, 2_400_000, 850 * EURO),
    Campaign("google_ads", "competitor-search", 6, 0.035, 0.09, 0.52, 3_900_000, 1_100 * EURO),
    Campaign("meta_ads", "lookalike-video", 24, 0.016, 0.07, 0.45, 700_000, 420 * EURO),
    Campaign("meta_ads", "retargeting", 10, 0.034, 0.15, 0.60, 1_100_000, 520 * EURO),
    Campaign("meta_ads", "broad-prospecting", 14, 0.011, 0.05, 0.40, 550_000, 380 * EURO),
    Campaign("linkedin_ads", "decision-makers", 8, 0.012, 0.16, 0.66, 7_800_000, 4_800 * EURO,
             is_foreign=True),
    Campaign("linkedin_ads", "whitepaper", 6, 0.019, 0.24, 0.48, 6_200_000, 3_600 * EURO,
             is_foreign=True),
    Campaign("microsoft_ads", "generic-search", 5, 0.042, 0.11, 0.57, 1_600_000, 880 * EURO),
    Campaign("email", "newsletter-été", 6, 0.060, 0.10, 0.62, 0, 640 * EURO),
    Campaign("email", "nurturing", 3, 0.080, 0.18, 0.68, 0, 760 * EURO),
    Campaign("seo", "organic", 12, 0.045, 0.08, 0.55, 0, 820 * EURO, is_reported=True),
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Mix:
    """How much of what: `per_second` is all events per second of event time when it starts.

    `cycle_ms` is the mean time from lead to sale. Shares are of 1: `broken_share` of all records,
    `duplicate_share` of those with a key, `late_share` of what is counted one by one. With
    `late_days` that share of every kind of event, and of whole journeys, happened up to so many days
    before it arrives. Some bills reach into the future: to the end of the month, or only
    `fee_ahead_ms` beyond their report.
    """

    per_second: float = 200.0
    cycle_ms: int = 8 * MINUTE_MS
    cost_every_ms: int = 3 * MINUTE_MS
    broken_share: float = 0.01
    duplicate_share: float = 0.02
    late_share: float = 0.003
    late_days: int = 0
    fee_ahead_ms: int | None = None
    currency: str = "EUR"
    time_zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    funnel: tuple[str, ...] = ("visitor", "lead", "mql", "sql", "customer")
    campaigns: Sequence[Campaign] = CAMPAIGNS

    @property
    def foreign(self) -> str:
        """The currency of some bills and sales, whose rate is known from the start."""
        return next(c for c in ("USD", "EUR") if c != self.currency)

    @property
    def late_currency(self) -> str:
        """The currency of a few sales, whose rate comes late."""
        return next(c for c in ("GBP", "CHF") if c != self.currency)

    def in_currency(self, euro_micros: float, currency: str) -> int:
        """Return micros of EUR in micros of another currency, in whole cents."""
        return int(euro_micros / WORTH.get(currency, 1.0)) // CENT * CENT


class Planned(NamedTuple):
    """A record to come; `order` keeps the heap from comparing values.

    `value` is bytes where it was encoded before: a duplicate. `broken` as in `Record`.
    """

    at_ms: int
    order: int
    topic: str
    key: bytes
    value: Mapping[str, object] | bytes
    broken: str | None


class Planner:
    """What is to arrive, and what all parts of the traffic share: chance, ids, lateness.

    Ids contain seed and start, so that no run repeats another's.
    """

    def __init__(self, seed: int, start_ms: int, mix: Mix) -> None:
        self.mix = mix
        self.start_ms = start_ms
        self.run = f"{seed}-{start_ms:x}"
        self.random = Random(seed)  # noqa: S311 - repeatable, not secret
        self.calendar = Calendar(mix.time_zone)
        self.back_ms = 0
        self._heap: list[Planned] = []
        self._order = count()

    def due(self, at_ms: float) -> Iterator[Planned]:
        """Take and yield what arrives up to `at_ms`, also what is planned meanwhile."""
        while self._heap and self._heap[0].at_ms <= at_ms:
            yield heapq.heappop(self._heap)

    def plan(
        self,
        at_ms: int,
        topic: str,
        key: bytes,
        value: Mapping[str, object] | bytes,
        broken: str | None = None,
    ) -> None:
        """Plan that a record arrives at `at_ms`; an event may have happened long before."""
        # What belongs to a journey of long ago is late already.
        if not isinstance(value, bytes) and broken is None and not self.back_ms:
            back_ms = self._lateness_ms(topic, value)
            value = earlier(value, back_ms) if back_ms else value
        heapq.heappush(self._heap, Planned(at_ms, next(self._order), topic, key, value, broken))

    def event(self, at_ms: int, source: str, kind: str, /, **fields: object) -> dict[str, object]:
        """Return an event of `at_ms`, or as much earlier as `back_ms` says."""
        at = time_text(at_ms - self.back_ms)
        head = {"event_id": self.new_event_id(), "source": source, "type": kind, "occurred_at": at}
        return head | fields

    def chance(self, share: float) -> bool:
        """Return true in so many cases of 1."""
        return self.random.random() < share

    def delay_ms(self, mean_ms: int) -> int:
        """Return at least a second, at most five times the mean, so that little is remembered."""
        return 1_000 + int(min(self.random.expovariate(1.0), 5.0) * mean_ms)

    def long_ago_ms(self) -> int:
        """Return how far back something late lies: up to `late_days`, mostly less."""
        return int(self.mix.late_days * DAY_MS * self.random.random() ** 2)

    def new_id(self, kind: str) -> str:
        """Return an id that no other entity has."""
        return f"{kind}-{self.run}-{next(self._order)}"

    def new_event_id(self) -> str:
        """Return an id that no other event has."""
        return f"{self.run}-{next(self._order)}"

    def day_bounds_ms(self, at_ms: int) -> tuple[int, int]:
        """Return start and end of the reporting day that contains `at_ms`."""
        day = self.calendar.day_start(at_ms // MINUTE_MS)
        return day * MINUTE_MS, self.calendar.day_end(day) * MINUTE_MS

    def date_of(self, at_ms: int) -> date:
        """Return the date in the reporting zone."""
        return datetime.fromtimestamp(at_ms / 1000, self.mix.time_zone).date()

    def _lateness_ms(self, topic: str, value: Mapping[str, object]) -> int:
        is_single = topic in VOLUME and "period_start" not in value
        if not (is_single or self.mix.late_days) or not self.chance(self.mix.late_share):
            return 0
        if self.mix.late_days:
            return self.long_ago_ms()
        return int((2.1 + 3 * self.random.random()) * HOUR_MS)


def earlier(value: Mapping[str, object], back_ms: int) -> dict[str, object]:
    """Return an event with its time and its period moved back; dates keep to whole days."""
    moved = dict(value)
    for name in _INSTANTS:
        text = moved.get(name)
        if isinstance(text, str) and "T" in text:
            moved[name] = time_text(instant_ms(text) - back_ms)
    day = moved.get("date")
    if isinstance(day, str):
        moved["date"] = (date.fromisoformat(day) - timedelta(days=back_ms // DAY_MS)).isoformat()
    return moved


def place(value: dict[str, object], campaign: Campaign) -> None:
    """Put a campaign's channel and id into an event."""
    value["channel"] = campaign.channel
    value["campaign_id"] = campaign.campaign_id


def time_text(at_ms: int) -> str:
    """Return an instant in UTC, to the millisecond."""
    second, millisecond = divmod(at_ms, 1000)
    return f"{_second_text(second)}.{millisecond:03d}Z"


@lru_cache(maxsize=4096)
def _second_text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
