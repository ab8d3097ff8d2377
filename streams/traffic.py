"""Plausible marketing traffic out of a seed: campaigns, clicks, leads, stages, sales, their cost.

Pure: the same seed, start and mix give the same records, in the order in which they arrive.
"""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from itertools import accumulate, count
from random import Random
from typing import NamedTuple
from zoneinfo import ZoneInfo

from kpis.calendar import Calendar
from kpis.instants import HOUR_MS, MINUTE_MS
from kpis.windows import amount_text
from streams.broken_events import TOO_LARGE_BYTES, Breakage, breakages_of, encode

EURO = 1_000_000
INVALID_REASONS = ("spam", "test", "duplicate", "bot", "error")
# A day of business customers: quiet nights, a dip at noon. Relative to the mean of the day.
RHYTHM = (
    *(0.3, 0.2, 0.2, 0.2, 0.3, 0.4, 0.6, 0.9, 1.3, 1.6, 1.7, 1.6),
    *(1.3, 1.5, 1.7, 1.6, 1.5, 1.3, 1.1, 1.1, 1.2, 1.1, 0.8, 0.5),
)


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
    `is_reported`: impressions and clicks come as rows of a report, not one by one.
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


# fmt: off
CAMPAIGNS: tuple[Campaign, ...] = (
    Campaign("google_ads", "brand-search", 8, 0.110, 0.22, 0.70, 900_000, 900 * EURO),
    Campaign("google_ads", "generic-search", 16, 0.055, 0.13, 0.58, 2_400_000, 850 * EURO),
    Campaign("google_ads", "competitor-search", 6, 0.035, 0.09, 0.52, 3_900_000, 1_100 * EURO),
    Campaign("meta_ads", "lookalike-video", 24, 0.016, 0.07, 0.45, 700_000, 420 * EURO),
    Campaign("meta_ads", "retargeting", 10, 0.034, 0.15, 0.60, 1_100_000, 520 * EURO),
    Campaign("meta_ads", "broad-prospecting", 14, 0.011, 0.05, 0.40, 550_000, 380 * EURO),
    Campaign("linkedin_ads", "decision-makers", 8, 0.012, 0.16, 0.66, 7_800_000, 4_800 * EURO),
    Campaign("linkedin_ads", "whitepaper", 6, 0.019, 0.24, 0.48, 6_200_000, 3_600 * EURO),
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
    `duplicate_share` of those with an id, `late_share` of impressions and clicks.
    """

    per_second: float = 200.0
    cycle_ms: int = 8 * MINUTE_MS
    cost_every_ms: int = 3 * MINUTE_MS
    broken_share: float = 0.01
    duplicate_share: float = 0.02
    late_share: float = 0.003
    currency: str = "EUR"
    time_zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    funnel: tuple[str, ...] = ("visitor", "lead", "mql", "sql", "customer")
    campaigns: Sequence[Campaign] = CAMPAIGNS


def traffic(seed: int, start_ms: int, mix: Mix | None = None) -> Iterator[Record]:
    """Return records without end, from `start_ms` on, in the order of arrival."""
    return _Traffic(seed, start_ms, mix or Mix()).records()


class _Planned(NamedTuple):
    """A record to come; `order` keeps the heap from comparing values."""

    at_ms: int
    order: int
    topic: str
    key: bytes
    value: Mapping[str, object] | bytes


@dataclass(slots=True)
class _Tally:
    """What a campaign has spent and shown since its present period began."""

    start_ms: int
    end_ms: int
    micros: int = 0
    impressions: int = 0
    clicks: int = 0


class _Traffic:
    """The state of one run; ids contain seed and start, so that no run repeats another's."""

    def __init__(self, seed: int, start_ms: int, mix: Mix) -> None:
        self.mix = mix
        self.start_ms = start_ms
        self.run = f"{seed}-{start_ms:x}"
        self.random = Random(seed)  # noqa: S311 - repeatable, not secret
        self.calendar = Calendar(mix.time_zone)
        self.heap: list[_Planned] = []
        self.order = count()
        self.weights = list(accumulate(campaign.weight for campaign in mix.campaigns))
        self.tallies = {c: self._tally(start_ms) for c in mix.campaigns}
        first, last = mix.funnel.index("lead"), mix.funnel.index("customer")
        self.stages = mix.funnel[first + 1 : last]
        self.gap_ms = 1000 / (mix.per_second * self._impression_share())
        self.breakages: dict[str, tuple[Breakage, ...]] = {}

    def records(self) -> Iterator[Record]:
        """Yield all that arrives."""
        at, next_report = float(self.start_ms), self.start_ms + self.mix.cost_every_ms
        usual = self._rhythm(self.start_ms)
        while True:
            at += self.random.expovariate(1.0) * self.gap_ms * usual / self._rhythm(int(at))
            while at >= next_report:
                self._report(next_report)
                next_report += self.mix.cost_every_ms
            self._see(int(at))
            while self.heap and self.heap[0].at_ms <= at:
                yield from self._emit(heapq.heappop(self.heap))

    def _emit(self, planned: _Planned) -> Iterator[Record]:
        at_ms, _, topic, key, value = planned
        chance = self.random.random
        if isinstance(value, bytes):
            yield Record(at_ms, topic, key, value, None)
            return
        encoded = encode(value)
        yield Record(at_ms, topic, key, encoded, None)
        if key and chance() < self.mix.duplicate_share:
            self._plan(at_ms + self._delay(10_000), topic, key, encoded)
        while chance() < self.mix.broken_share:
            yield self._broken(at_ms, topic, key, value)

    def _broken(self, at_ms: int, topic: str, key: bytes, value: Mapping[str, object]) -> Record:
        kind = str(value["type"])
        if kind not in self.breakages:
            self.breakages[kind] = breakages_of(kind)
        breakage = self.random.choice(self.breakages[kind])
        event = {**value, "event_id": f"{self.run}-x{next(self.order)}"}
        spoilt = breakage.apply(event)
        # A quarter of a megabyte is a rare fault.
        if spoilt is not None and len(spoilt) > TOO_LARGE_BYTES and self.random.random() < 0.9:
            breakage, spoilt = self.breakages[kind][0], b""
        return Record(at_ms, topic, key, spoilt, breakage.reason)

    def _see(self, at_ms: int) -> None:
        """Plan an impression and what comes of it."""
        chance = self.random.random
        campaign = self.random.choices(self.mix.campaigns, cum_weights=self.weights)[0]
        is_bot = chance() < 0.02
        self.tallies[campaign].impressions += 1
        if not campaign.is_reported:
            value = self._event(at_ms, f"/ads/{campaign.channel}", "impression.served")
            self._place(value, campaign)
            value["viewable"] = chance() < 0.6
            if is_bot:
                value["is_bot"] = True
            self._plan(at_ms, "impressions", b"", self._perhaps_late(at_ms, value))
        if chance() < campaign.click_ratio:
            self._click(at_ms + self._delay(5_000), campaign, is_bot=is_bot)

    def _click(self, at_ms: int, campaign: Campaign, *, is_bot: bool) -> None:
        tally, chance = self.tallies[campaign], self.random.random
        tally.clicks += 1
        tally.micros += int(campaign.click_micros * (0.7 + 0.6 * chance()))
        click_id = ""
        if not campaign.is_reported:
            value = self._event(at_ms, f"/ads/{campaign.channel}", "click.recorded")
            self._place(value, campaign)
            if chance() < 0.85:
                click_id = value["click_id"] = self._id("click")
            if is_bot:
                value["is_bot"] = True
            value = self._perhaps_late(at_ms, value)
            self._plan(at_ms, "clicks", click_id.encode(), value)
        if not is_bot and chance() < campaign.lead_ratio:
            self._lead(at_ms + self._delay(self.mix.cycle_ms // 20), campaign, click_id)

    def _lead(self, at_ms: int, campaign: Campaign, click_id: str) -> None:
        chance, lead_id = self.random.random, self._id("lead")
        moves = self._stages(at_ms, campaign, lead_id)
        value = self._event(at_ms, "/site/forms", "lead.created", lead_id=lead_id)
        if chance() < 0.95:
            self._place(value, campaign)
        if click_id:
            value["click_id"] = click_id
        if chance() < 0.3:
            value["email"] = f"{lead_id}@example.com"
        if chance() < 0.02:
            value["test"] = True
        # Some forms are slower than the sales people.
        arrives = moves[0] + 1_000 if moves and chance() < 0.05 else at_ms
        self._plan(arrives, "leads", lead_id.encode(), value)
        if chance() < 0.04:
            self._invalidate(at_ms, lead_id)

    def _invalidate(self, created_ms: int, lead_id: str) -> None:
        at_ms = created_ms + self._delay(self.mix.cycle_ms // 3)
        value = self._event(at_ms, "/crm/hubspot", "lead.invalidated", lead_id=lead_id)
        value["reason"] = self.random.choice(INVALID_REASONS)
        self._plan(at_ms, "leads", lead_id.encode(), value)

    def _stages(self, created_ms: int, campaign: Campaign, lead_id: str) -> list[int]:
        """Plan the moves of a lead, perhaps to its sale, and return when they happen."""
        chance, at_ms, moves = self.random.random, created_ms, list[int]()
        step_ms = self.mix.cycle_ms // (len(self.stages) + 1)
        for stage in self.stages:
            if chance() >= campaign.step_ratio:
                if moves and chance() < 0.05:
                    self._move(at_ms + self._delay(step_ms), lead_id, "lead")
                return moves
            at_ms += self._delay(step_ms)
            # A stage that nobody entered by hand is implied by the next one.
            if chance() >= 0.06:
                self._move(at_ms, lead_id, stage)
                moves.append(at_ms)
        if chance() < campaign.step_ratio:
            at_ms += self._delay(step_ms)
            self._sale(at_ms, campaign, lead_id)
            moves.append(at_ms)
        return moves

    def _move(self, at_ms: int, lead_id: str, stage: str) -> None:
        value = self._event(at_ms, "/crm/hubspot", "lead.stage_changed", lead_id=lead_id)
        value["to_stage"] = stage
        self._plan(at_ms, "stage-changes", lead_id.encode(), value)

    def _sale(self, at_ms: int, campaign: Campaign, lead_id: str | None) -> None:
        chance, sale_id = self.random.random, self._id("sale")
        value = self._event(at_ms, "/shop", "sale.created", sale_id=sale_id)
        stranger = chance()
        if stranger < 0.03:
            value["lead_id"] = self._id("unknown")
        elif stranger > 0.02 + 0.03:
            value["lead_id"] = lead_id
        micros = int(campaign.deal_micros * self.random.lognormvariate(0.0, 0.45))
        value["amount"] = amount_text(micros // 10_000 * 10_000)
        value["currency"] = self.mix.currency
        if chance() < 0.2:
            value["kind"] = "new"
        self._plan(at_ms, "sales", sale_id.encode(), value)
        if chance() < 0.04:
            self._void(at_ms + self._delay(self.mix.cycle_ms // 4), sale_id)
        if chance() < 0.08:
            self._sale(at_ms + self._delay(self.mix.cycle_ms), campaign, lead_id)

    def _void(self, at_ms: int, sale_id: str) -> None:
        value = self._event(at_ms, "/shop", "sale.voided", sale_id=sale_id, reason="entered twice")
        self._plan(at_ms, "sales", sale_id.encode(), value)

    def _report(self, at_ms: int) -> None:
        """Plan what the platforms say about each campaign's present day up to `at_ms`."""
        for campaign in self.mix.campaigns:
            tally = self.tallies[campaign]
            self._report_one(at_ms, min(at_ms, tally.end_ms), campaign, tally)
            if at_ms >= tally.end_ms:
                self.tallies[campaign] = self._tally(tally.end_ms)

    def _report_one(self, at_ms: int, as_of_ms: int, campaign: Campaign, tally: _Tally) -> None:
        row: dict[str, object] = {
            "period_start": _text(tally.start_ms),
            "period_end": _text(tally.end_ms),
            "as_of": _text(as_of_ms),
            "reported_at": _text(at_ms),
        }
        # Rows may overtake each other.
        arrives = at_ms + (self.mix.cost_every_ms * 3 // 2 if self.random.random() < 0.03 else 0)
        key = f"{campaign.channel}/{campaign.campaign_id}".encode()
        if campaign.click_micros:
            value = self._event(at_ms, f"/ads/{campaign.channel}", "cost.snapshot")
            self._place(value, campaign)
            value |= row | {"cost_source": campaign.channel, "account_id": self.run}
            value |= {"amount": amount_text(tally.micros), "currency": self.mix.currency}
            self._plan(arrives, "costs", key, value)
        if campaign.is_reported:
            for kind, amount in (("impressions", tally.impressions), ("clicks", tally.clicks)):
                value = self._event(at_ms, f"/search-console/{self.run}", f"{kind}.reported")
                self._place(value, campaign)
                self._plan(arrives, kind, key, value | row | {"count": amount})

    def _tally(self, start_ms: int) -> _Tally:
        """Return an empty tally up to the end of the reporting day that contains `start_ms`."""
        day = self.calendar.day_start(start_ms // MINUTE_MS)
        return _Tally(start_ms, self.calendar.day_end(day) * MINUTE_MS)

    def _event(self, at_ms: int, source: str, kind: str, **fields: object) -> dict[str, object]:
        event_id = f"{self.run}-{next(self.order)}"
        head = {"event_id": event_id, "source": source, "type": kind, "occurred_at": _text(at_ms)}
        return head | fields

    def _place(self, value: dict[str, object], campaign: Campaign) -> None:
        value["channel"] = campaign.channel
        value["campaign_id"] = campaign.campaign_id

    def _perhaps_late(self, at_ms: int, value: dict[str, object]) -> dict[str, object]:
        if self.random.random() < self.mix.late_share:
            value["occurred_at"] = _text(at_ms - int((2.1 + 3 * self.random.random()) * HOUR_MS))
        return value

    def _plan(
        self, at_ms: int, topic: str, key: bytes, value: Mapping[str, object] | bytes
    ) -> None:
        heapq.heappush(self.heap, _Planned(at_ms, next(self.order), topic, key, value))

    def _id(self, kind: str) -> str:
        return f"{kind}-{self.run}-{next(self.order)}"

    def _delay(self, mean_ms: int) -> int:
        """Return at least a second, at most five times the mean, so that little is remembered."""
        return 1_000 + int(min(self.random.expovariate(1.0), 5.0) * mean_ms)

    def _rhythm(self, at_ms: int) -> float:
        """Return how busy the moment is in the reporting zone, between the full hours on a line."""
        minute = at_ms // MINUTE_MS
        hours = (minute - self.calendar.day_start(minute)) / 60
        before = RHYTHM[int(hours) % 24]
        return before + (RHYTHM[(int(hours) + 1) % 24] - before) * (hours % 1)

    def _impression_share(self) -> float:
        """Return how many of all events are impressions of any campaign, roughly."""
        total = sum(campaign.weight for campaign in self.mix.campaigns)
        shown = sum(c.weight * (not c.is_reported) for c in self.mix.campaigns)
        clicks = sum(c.weight * c.click_ratio for c in self.mix.campaigns)
        leads = sum(c.weight * c.click_ratio * c.lead_ratio for c in self.mix.campaigns)
        return total / ((shown + clicks + 2.5 * leads) * (1 + self.mix.broken_share))


@lru_cache(maxsize=4096)
def _second_text(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _text(at_ms: int) -> str:
    second, millisecond = divmod(at_ms, 1000)
    return f"{_second_text(second)}.{millisecond:03d}Z"
