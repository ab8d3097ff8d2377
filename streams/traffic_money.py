"""Simulated money: what the platforms report, fees, mistakes, targets and the rates of currencies."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Final

from kpis.instants import DAY_MS, MINUTE_MS
from kpis.windows import amount_text
from streams.traffic_plan import EURO, WORTH, Campaign, Planner, place, time_text

LATE_RATE_REPORTS: Final = 2
"""After so many reports the rate of the late currency is there."""

FEE_MICROS: Final = 900 * EURO

Fields = dict[str, object]


@dataclass(slots=True)
class Tally:
    """What a campaign has spent, in micros of EUR, and shown since its present period began."""

    start_ms: int
    end_ms: int
    micros: int = 0
    impressions: int = 0
    clicks: int = 0


class Money:
    """Plans everything about money, and the rows of reports."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._mix = planner.mix
        self._chance = planner.chance
        self._start_ms = planner.start_ms
        self.tallies = {c: self._tally(planner.start_ms) for c in self._mix.campaigns}
        self._last_report_ms = planner.start_ms

    def begin(self) -> None:
        """Plan what is known from the start: rates, targets and bills for a longer time."""
        self._publish_rates(self._start_ms)
        self._set_targets(self._start_ms)
        self._bill_fees()
        if self._mix.late_days:
            self._publish_old_rates()
            self._bill_last_month()

    def report(self, at_ms: int) -> None:
        """Plan what is told about the present day up to `at_ms`."""
        for campaign, tally in self.tallies.items():
            self._report_one(at_ms, min(at_ms, tally.end_ms), campaign, tally)
            if at_ms >= tally.end_ms:
                self.tallies[campaign] = self._tally(tally.end_ms)
        if self._planner.date_of(at_ms) != self._planner.date_of(self._last_report_ms):
            self._publish_rates(at_ms)
        self._last_report_ms = at_ms
        if self._chance(0.10):
            self._restate_rate(at_ms)
        if self._chance(0.05):
            self._set_targets(at_ms)

    def _tally(self, start_ms: int) -> Tally:
        """Return an empty tally up to the end of the reporting day that contains `start_ms`."""
        return Tally(start_ms, self._planner.day_bounds_ms(start_ms)[1])

    # ------------------------------------------------------------------------- campaigns

    def _report_one(self, at_ms: int, as_of_ms: int, campaign: Campaign, tally: Tally) -> None:
        row: Fields = {
            "period_start": time_text(tally.start_ms),
            "period_end": time_text(tally.end_ms),
            "as_of": time_text(as_of_ms),
            "reported_at": time_text(at_ms),
        }
        # Rows may overtake each other.
        arrives = at_ms + (self._mix.cost_every_ms * 3 // 2 if self._chance(0.03) else 0)
        if campaign.click_micros:
            # Now and then a platform tells too much; its next row sets that right.
            micros = tally.micros * (1.05 if self._chance(0.03) else 1.0)
            self._cost(at_ms, arrives, campaign, micros, row)
            if self._chance(0.04):
                self._cost(at_ms, arrives, campaign, -0.03 * tally.micros, row | {"credit": True})
            if self._chance(0.05):
                self._cost_by_mistake(at_ms, campaign, 0.1 * tally.micros, row)
        if campaign.is_reported:
            for kind, amount in (("impressions", tally.impressions), ("clicks", tally.clicks)):
                source = f"/search-console/{self._planner.run}"
                value = self._planner.event(at_ms, source, f"{kind}.reported")
                place(value, campaign)
                value |= row | {"count": amount}
                self._planner.plan(arrives, kind, _key(campaign), value)

    def _cost(
        self, at_ms: int, arrives: int, campaign: Campaign, euro_micros: float, row: Fields
    ) -> None:
        currency = self._mix.foreign if campaign.is_foreign else self._mix.currency
        value = self._planner.event(at_ms, f"/ads/{campaign.channel}", "cost.snapshot")
        place(value, campaign)
        value |= {"cost_source": campaign.channel, "account_id": self._planner.run}
        amount = amount_text(self._mix.in_currency(euro_micros, currency))
        value |= {"amount": amount, "currency": currency} | row
        self._planner.plan(arrives, "costs", _key(campaign), value)

    def _cost_by_mistake(
        self, at_ms: int, campaign: Campaign, euro_micros: float, row: Fields
    ) -> None:
        """Plan a row that its platform takes back; a few come again after all."""
        mistake = row | {"ad_group_id": self._planner.new_id("group")}
        self._cost(at_ms, at_ms, campaign, euro_micros, mistake)
        back_ms = at_ms + self._planner.delay_ms(self._mix.cost_every_ms)
        value = self._planner.event(back_ms, f"/ads/{campaign.channel}", "cost.deleted")
        place(value, campaign)
        value |= {"cost_source": campaign.channel, "account_id": self._planner.run}
        value |= {name: mistake[name] for name in ("period_start", "period_end", "ad_group_id")}
        value["reported_at"] = time_text(back_ms)
        # Some deletions are faster than their row.
        arrives = at_ms if self._chance(0.2) else back_ms
        self._planner.plan(arrives, "costs", _key(campaign), value)
        if self._chance(0.2):
            again_ms = back_ms + self._planner.delay_ms(self._mix.cost_every_ms)
            again = mistake | {"reported_at": time_text(again_ms)}
            self._cost(again_ms, again_ms, campaign, euro_micros, again)

    # ------------------------------------------------------------------------- longer bills

    def _bill_fees(self) -> None:
        """Plan bills that reach into the future: their minutes count as time reaches them."""
        start_ms, ahead_ms = self._start_ms, self._mix.fee_ahead_ms
        end_ms = self._month_end_ms(start_ms) if ahead_ms is None else start_ms + ahead_ms
        for cost_type, currency in (
            ("fee", self._mix.currency),
            ("tool", self._mix.foreign),
            ("labour", self._mix.late_currency),
        ):
            bill: Fields = {"cost_type": cost_type, "cost_source": f"agency-{self._planner.run}"}
            self._bill((start_ms,), FEE_MICROS, currency, bill | _period(start_ms, end_ms))
        if ahead_ms is None:
            # Media booked in advance, for a day that has not begun.
            day_ms = self._planner.day_bounds_ms(start_ms)[1]
            day = _period(day_ms, day_ms + DAY_MS) | {"cost_source": "booking"}
            self._bill((start_ms,), FEE_MICROS / 10, self._mix.currency, day)

    def _bill_last_month(self) -> None:
        """Plan late bills for the whole month before, in dates, and restate each of them."""
        last = self._month_start(self._start_ms) - timedelta(days=1)
        month: Fields = {
            "period_start": last.replace(day=1).isoformat(),
            "period_end": (last + timedelta(days=1)).isoformat(),
            "time_zone": self._mix.time_zone.key,
        }
        reports_ms = [self._start_ms + n * self._mix.cost_every_ms for n in (1, 4)]
        for currency in (self._mix.currency, self._mix.foreign, self._mix.late_currency):
            bill: Fields = {"cost_type": "content", "cost_source": f"studio-{self._planner.run}"}
            self._bill(reports_ms, FEE_MICROS, currency, bill | month)

    def _bill(
        self, reports_ms: Sequence[int], euro_micros: float, currency: str, fields: Fields
    ) -> None:
        """Plan a bill that is reported at these times, each time with a little more."""
        paid = [campaign for campaign in self._mix.campaigns if campaign.click_micros]
        campaign = self._planner.random.choice(paid or self._mix.campaigns)
        account: Fields = {"account_id": currency}
        for number, at_ms in enumerate(reports_ms):
            value = self._planner.event(at_ms, "/accounting", "cost.snapshot", **fields, **account)
            place(value, campaign)
            micros = self._mix.in_currency(euro_micros * (1 + number / 7), currency)
            value |= {"amount": amount_text(micros), "currency": currency}
            value["reported_at"] = time_text(at_ms)
            self._planner.plan(at_ms, "costs", _key(campaign), value)

    def _month_start(self, at_ms: int) -> date:
        return self._planner.date_of(at_ms).replace(day=1)

    def _month_end_ms(self, at_ms: int) -> int:
        after = (self._month_start(at_ms) + timedelta(days=31)).replace(day=1)
        midnight = datetime.combine(after, time(), self._mix.time_zone)
        return int(midnight.timestamp()) * 1000 // MINUTE_MS * MINUTE_MS

    # ------------------------------------------------------------------------- rates

    def _publish_rates(self, at_ms: int) -> None:
        """Plan the rates of the day; that of the late currency comes after some reports."""
        day = self._planner.date_of(at_ms)
        self._rate(at_ms, self._mix.foreign, day, 1.0)
        late_ms = at_ms + LATE_RATE_REPORTS * self._mix.cost_every_ms
        self._rate(late_ms, self._mix.late_currency, day, 1.0)

    def _publish_old_rates(self) -> None:
        """Plan rates of the days before, in any order, not for each day, and with a hole."""
        today = self._planner.date_of(self._start_ms)
        for back in range(1, self._mix.late_days + 1):
            for currency in (self._mix.foreign, self._mix.late_currency):
                is_hole = currency == self._mix.late_currency and 20 <= back < 32
                if is_hole or self._chance(0.6):
                    continue
                at_ms = self._start_ms + self._planner.delay_ms(3 * self._mix.cost_every_ms)
                factor = 0.97 + 0.06 * self._planner.random.random()
                self._rate(at_ms, currency, today - timedelta(days=back), factor)

    def _restate_rate(self, at_ms: int) -> None:
        factor = 0.99 + 0.02 * self._planner.random.random()
        self._rate(at_ms, self._mix.foreign, self._planner.date_of(at_ms), factor)

    def _rate(self, at_ms: int, currency: str, day: date, factor: float) -> None:
        """Plan a rate of one currency, as some banks write it, or the other way round."""
        reporting = self._mix.currency
        worth = WORTH.get(currency, 1.0) / WORTH.get(reporting, 1.0) * factor
        is_inverse = self._chance(0.3)
        base, quote = (reporting, currency) if is_inverse else (currency, reporting)
        value = self._planner.event(at_ms, "/ecb", "fxrate.set", base=base, quote=quote)
        value["date"] = day.isoformat()
        value["rate"] = f"{1 / worth if is_inverse else worth:.6f}"
        self._planner.plan(at_ms, "fx-rates", f"{base}/{quote}".encode(), value)

    # ------------------------------------------------------------------------- targets

    def _set_targets(self, at_ms: int) -> None:
        """Plan targets; later ones replace those before, and one is taken back soon."""
        day = self._planner.date_of(at_ms)
        week, month = day - timedelta(days=day.weekday()), day.replace(day=1)
        quarter = month.replace(month=(month.month - 1) // 3 * 3 + 1)
        hundreds = self._planner.random.randint(8, 12) * 100
        money: Fields = {"value": f"{hundreds}.00", "currency": self._mix.currency}
        removed: Fields = {"kpi": "sales", "period": "month", "period_start": month}
        stage: Fields = {"kpi": "stage_entered", "stage": self._mix.funnel[-1]}
        business: Fields = {"profile": "business_days", "channel": "google_ads"}
        for target in (
            {"kpi": "leads", "period": "day", "period_start": day, "value": f"{hundreds / 10}"},
            {"kpi": "leads", "period": "month", "period_start": month, "value": hundreds}
            | business,
            {"period": "week", "period_start": week, "value": hundreds} | stage,
            {"kpi": "revenue_net", "period": "quarter", "period_start": quarter} | money,
            {"kpi": "cpl", "period": "month", "period_start": month} | money,
            {"value": hundreds} | removed,
        ):
            self._target(at_ms, "set", target)
        later_ms = at_ms + self._planner.delay_ms(2 * self._mix.cost_every_ms)
        self._target(later_ms, "removed", removed)

    def _target(self, at_ms: int, kind: str, fields: Fields) -> None:
        value = self._planner.event(at_ms, "/planning", f"target.{kind}", **fields)
        value |= {"period_start": str(fields["period_start"]), "reported_at": time_text(at_ms)}
        self._planner.plan(at_ms, "targets", str(fields["kpi"]).encode(), value)


def _key(campaign: Campaign) -> bytes:
    return f"{campaign.channel}/{campaign.campaign_id}".encode()


def _period(start_ms: int, end_ms: int) -> Fields:
    return {"period_start": time_text(start_ms), "period_end": time_text(end_ms)}
