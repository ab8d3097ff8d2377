"""Plausible marketing traffic out of a seed: campaigns, visits, leads, stages, sales, money.

Pure: the same seed, start and mix give the same records, in the order in which they arrive.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Final

from kpis.instants import MINUTE_MS
from streams.broken_events import TOO_LARGE_BYTES, Breakage, breakages_of, encode
from streams.traffic_leads import MISMATCHED, Journeys
from streams.traffic_money import Money
from streams.traffic_plan import CAMPAIGNS, Campaign, Mix, Planned, Planner, Record, place

__all__ = ["CAMPAIGNS", "MISMATCHED", "Campaign", "Mix", "Record", "traffic"]

# A day of business customers: quiet nights, a dip at noon. Relative to the mean of the day.
RHYTHM: Final = (
    *(0.3, 0.2, 0.2, 0.2, 0.3, 0.4, 0.6, 0.9, 1.3, 1.6, 1.7, 1.6),
    *(1.3, 1.5, 1.7, 1.6, 1.5, 1.3, 1.1, 1.1, 1.2, 1.1, 0.8, 0.5),
)
BOT_SHARE: Final = 0.02
VISIT_SHARE: Final = 0.9
EVENTS_PER_LEAD: Final = 3.5


def traffic(seed: int, start_ms: int, mix: Mix | None = None) -> Iterator[Record]:
    """Return records without end, from `start_ms` on, in the order of arrival."""
    return _Traffic(seed, start_ms, mix or Mix()).records()


class _Traffic:
    """The state of one run."""

    def __init__(self, seed: int, start_ms: int, mix: Mix) -> None:
        self.mix = mix
        self.planner = Planner(seed, start_ms, mix)
        self.random = self.planner.random
        self.chance = self.planner.chance
        self.journeys = Journeys(self.planner)
        self.money = Money(self.planner)
        self.visitors: deque[str] = deque(maxlen=200)
        self.weights = list(accumulate(campaign.weight for campaign in mix.campaigns))
        self.gap_ms = 1000 / (mix.per_second * self._impression_share())
        self.breakages: dict[str, tuple[Breakage, ...]] = {}

    def records(self) -> Iterator[Record]:
        """Yield all that arrives."""
        start_ms, every_ms = self.planner.start_ms, self.mix.cost_every_ms
        self.money.begin()
        at, next_report = float(start_ms), start_ms + every_ms
        usual = self._rhythm(start_ms)
        while True:
            at += self.random.expovariate(1.0) * self.gap_ms * usual / self._rhythm(int(at))
            while at >= next_report:
                self.money.report(next_report)
                next_report += every_ms
            self._see(int(at))
            for planned in self.planner.due(at):
                yield from self._emit(planned)

    def _emit(self, planned: Planned) -> Iterator[Record]:
        at_ms, _, topic, key, value, broken = planned
        if isinstance(value, bytes):
            yield Record(at_ms, topic, key, value, None)
            return
        encoded = encode(value)
        yield Record(at_ms, topic, key, encoded, broken)
        if broken is not None:
            return
        if key and self.chance(self.mix.duplicate_share):
            self.planner.plan(at_ms + self.planner.delay_ms(10_000), topic, key, encoded)
        while self.chance(self.mix.broken_share):
            yield self._broken(at_ms, topic, key, value)

    def _broken(self, at_ms: int, topic: str, key: bytes, value: Mapping[str, object]) -> Record:
        kind = str(value["type"])
        if kind not in self.breakages:
            self.breakages[kind] = breakages_of(kind)
        breakage = self.random.choice(self.breakages[kind])
        event = {**value, "event_id": self.planner.new_event_id()}
        spoilt = breakage.apply(event)
        # A quarter of a megabyte is a rare fault.
        if spoilt is not None and len(spoilt) > TOO_LARGE_BYTES and not self.chance(0.1):
            breakage, spoilt = self.breakages[kind][0], b""
        return Record(at_ms, topic, key, spoilt, breakage.reason)

    # ------------------------------------------------------------------------- what is seen

    def _see(self, at_ms: int) -> None:
        """Plan an impression and what comes of it."""
        campaign = self.random.choices(self.mix.campaigns, cum_weights=self.weights)[0]
        is_bot = self.chance(BOT_SHARE)
        self.money.tallies[campaign].impressions += 1
        if not campaign.is_reported:
            value = self.planner.event(at_ms, f"/ads/{campaign.channel}", "impression.served")
            place(value, campaign)
            value["viewable"] = self.chance(0.6)
            if is_bot:
                value["is_bot"] = True
            self.planner.plan(at_ms, "impressions", b"", value)
        if self.chance(campaign.click_ratio):
            self._click(at_ms + self.planner.delay_ms(5_000), campaign, is_bot=is_bot)

    def _click(self, at_ms: int, campaign: Campaign, *, is_bot: bool) -> None:
        tally, delay_ms = self.money.tallies[campaign], self.planner.delay_ms
        tally.clicks += 1
        tally.micros += int(campaign.click_micros * (0.7 + 0.6 * self.random.random()))
        click_id = visitor_id = ""
        if not campaign.is_reported:
            click_id = self._record_click(at_ms, campaign, is_bot=is_bot)
        if is_bot or self.chance(VISIT_SHARE):
            visitor_id = self._visit(at_ms + delay_ms(2_000), campaign, is_bot=is_bot)
        if not is_bot and self.chance(campaign.lead_ratio):
            lead_ms = at_ms + delay_ms(self.mix.cycle_ms // 20)
            self.journeys.lead(lead_ms, campaign, click_id, visitor_id)

    def _record_click(self, at_ms: int, campaign: Campaign, *, is_bot: bool) -> str:
        """Plan a click and return its id, empty where it has none."""
        value = self.planner.event(at_ms, f"/ads/{campaign.channel}", "click.recorded")
        place(value, campaign)
        if is_bot:
            value["is_bot"] = True
        if not self.chance(0.85):
            self.planner.plan(at_ms, "clicks", b"", value)
            return ""
        click_id = self.planner.new_id("click")
        value["click_id"] = click_id
        # Some clicks are told later than what came of them.
        arrives = at_ms + (
            self.planner.delay_ms(self.mix.cycle_ms // 4) if self.chance(0.03) else 0
        )
        self.planner.plan(arrives, "clicks", click_id.encode(), value)
        if self.chance(0.02):
            void_ms = at_ms + self.planner.delay_ms(self.mix.cycle_ms // 4)
            value = self.planner.event(void_ms, f"/ads/{campaign.channel}", "click.voided")
            value |= {"click_id": click_id, "reason": "invalid traffic"}
            self.planner.plan(void_ms, "clicks", click_id.encode(), value)
        return click_id

    def _visit(self, at_ms: int, campaign: Campaign, *, is_bot: bool) -> str:
        """Plan a visit of somebody new, or of somebody who was here before; return who."""
        if self.visitors and self.chance(0.25):
            visitor_id = self.random.choice(self.visitors)
        else:
            visitor_id = self.planner.new_id("visitor")
            self.visitors.append(visitor_id)
        value = self.planner.event(at_ms, "/site", "visit.started", visitor_id=visitor_id)
        value["visit_id"] = self.planner.new_id("visit")
        place(value, campaign)
        if is_bot:
            value["is_bot"] = True
        self.planner.plan(at_ms, "visits", visitor_id.encode(), value)
        return visitor_id

    # ------------------------------------------------------------------------- how much of it

    def _rhythm(self, at_ms: int) -> float:
        """Return how busy the moment is in the reporting zone, between the full hours on a line."""
        minute = at_ms // MINUTE_MS
        hours = (minute - self.planner.calendar.day_start(minute)) / 60
        before = RHYTHM[int(hours) % 24]
        return before + (RHYTHM[(int(hours) + 1) % 24] - before) * (hours % 1)

    def _impression_share(self) -> float:
        """Return how many of all events are impressions of any campaign, roughly."""
        campaigns = self.mix.campaigns
        shown = sum(c.weight * (not c.is_reported) for c in campaigns)
        clicks = sum(
            c.weight * c.click_ratio * (VISIT_SHARE + (not c.is_reported)) for c in campaigns
        )
        leads = sum(c.weight * c.click_ratio * c.lead_ratio for c in campaigns)
        sent = shown + clicks + EVENTS_PER_LEAD * leads
        return self.weights[-1] / (sent * (1 + self.mix.broken_share))
