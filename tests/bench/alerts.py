"""How alerts do in the simulator's world: `python -m tests.bench.alerts --seeds 50`.

For each seed five weeks of the simulator's campaigns, at its rhythm of the day and its ratios: clicks and
leads by chance, cost by the click. The last days are told minute by minute and looked at minute by minute:

* a day of nothing but noise, on which every alert of any scope is a false alarm;
* a day on which at ten one campaign's landing page breaks: of its clicks a third as many become leads;
* a day on which at ten no lead comes any more, of any campaign.

The same is asked of the usual rule: CPL of the last hour above 1.5 times the average of the last seven days.
"""

import argparse
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from math import exp
from random import Random
from typing import Final

from kpis.alert_records import alert_value
from kpis.alert_rules import CPL_SPIKE, DEFAULT_RULES, Rule
from kpis.alerts import FIRED, Alert
from kpis.facts import OVERALL, PERIOD, Scope, Subject
from kpis.spans import HOURS, Window
from kpis.surroundings import leads_of
from streams.traffic import RHYTHM
from streams.traffic_plan import CAMPAIGNS, EURO, Campaign
from tests.kpis.alert_worlds import PARIS, Story, World
from tests.kpis.zones import minute

DAY: Final = 1440
HOUR: Final = 60
WATCHED: Final = minute("2026-06-10T00:00:00+02:00")
"""The first minute of the day that is watched, a Wednesday."""

HISTORY_DAYS: Final = 35
BROKEN_AT: Final = WATCHED + 10 * HOUR
BREAK_HOURS: Final = 12
PAID: Final = tuple(campaign for campaign in CAMPAIGNS if campaign.click_micros)
COOLDOWN: Final = 6 * HOUR
NAIVE_RATIO: Final = 1.5


def scope_of(campaign: Campaign) -> Scope:
    """Return the scope of a campaign."""
    return Scope(campaign.channel, campaign.campaign_id)


@dataclass
class Market:
    """The simulator's campaigns at a size: so many leads a day of all together."""

    leads_a_day: float
    seed: int
    random: Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        weight = sum(c.weight * c.click_ratio * c.lead_ratio for c in CAMPAIGNS)
        self._shown_a_day = self.leads_a_day / weight

    def clicks_an_hour(self, campaign: Campaign, hour: int) -> float:
        """Return how many clicks are to be expected in an hour of the day."""
        shown = self._shown_a_day * campaign.weight / sum(RHYTHM)
        return shown * RHYTHM[hour % 24] * campaign.click_ratio

    def draw(self, mean: float) -> int:
        """Return a number by Poisson's law."""
        if mean > 60:
            return max(0, round(self.random.gauss(mean, mean**0.5)))
        limit, product, count = exp(-mean), self.random.random(), 0
        while product > limit:
            product *= self.random.random()
            count += 1
        return count

    def tell(self, world: World, start: int, end: int, step: int, lead_shares: "Shares") -> None:
        """Add what happens in [start, end), summed by `step` minutes."""
        for at in range(start, end, step):
            hour = (at - PARIS.day_start(at)) // HOUR
            for campaign in CAMPAIGNS:
                clicks = self.draw(self.clicks_an_hour(campaign, hour) * step / HOUR)
                share = campaign.lead_ratio * lead_shares.of(campaign, at)
                leads = self.draw(clicks * share)
                spread = sum(0.7 + 0.6 * self.random.random() for _ in range(min(clicks, 30)))
                price = campaign.click_micros / EURO
                cost = price * (spread if clicks <= 30 else clicks * spread / 30)
                told = cost if campaign.click_micros else None
                world.add(scope_of(campaign), at, cost=told, clicks=clicks, leads=leads)


@dataclass(frozen=True)
class Shares:
    """What part of the usual leads comes from [BROKEN_AT, …) on; None: of every campaign."""

    share: float = 1.0
    campaign: Campaign | None = None

    def of(self, campaign: Campaign, at: int) -> float:
        """Return the part of the usual leads of a campaign at a minute."""
        is_meant = self.campaign in (None, campaign)
        return self.share if is_meant and at >= BROKEN_AT else 1.0


def a_world(market: Market, shares: Shares, hours: int) -> World:
    """Return five weeks of hours, and a day and so many hours of minutes."""
    world = World()
    watched_from = WATCHED - DAY
    market.tell(world, watched_from - HISTORY_DAYS * DAY, watched_from, HOUR, Shares())
    market.tell(world, watched_from, WATCHED + hours * HOUR, 1, shares)
    return world


# ----------------------------------------------------------------------------- the usual rule


def naive(world: World, scope: Scope, first: int, last: int) -> Iterator[int]:
    """Yield when the usual rule fires; quiet for six hours after each."""
    subject, quiet_until = Subject(PERIOD, scope), 0
    for at in range(first, last):
        if at < quiet_until:
            continue
        world.now = at
        facts = world.facts(subject, world.spans.rolling("last_1h", at))
        leads, cost = leads_of(PERIOD, facts), facts.get("cost", 0)
        # Without leads there is no CPL, and nothing to compare.
        if not leads or not cost:
            continue
        start = PARIS.hour_start(at) - 7 * DAY
        before = world.facts(subject, Window(HOURS, start, PARIS.hour_start(at)))
        usual = leads_of(PERIOD, before)
        if usual and cost * usual > NAIVE_RATIO * before.get("cost", 0) * leads:
            yield at
            quiet_until = at + COOLDOWN


# ----------------------------------------------------------------------------- stories


@dataclass
class Outcome:
    """What came of one seed."""

    false: Counter[str] = field(default_factory=Counter)
    naive_false: int = 0
    minutes: dict[str, int | None] = field(default_factory=dict)
    elsewhere: Counter[str] = field(default_factory=Counter)
    message: str = ""


def fired(alerts: Sequence[Alert]) -> list[Alert]:
    """Return the alerts that began."""
    return [alert for alert in alerts if alert.state == FIRED]


def run_seed(leads_a_day: float, rules: tuple[Rule, ...], broken: Campaign, seed: int) -> Outcome:
    """Return what alerts do on the three days of a seed."""
    outcome = Outcome()
    calm = a_world(Market(leads_a_day, seed), Shares(), 24)
    for alert in fired(Story(calm, rules).run(WATCHED, WATCHED + DAY)):
        outcome.false[alert.finding.rule.name] += 1
    outcome.naive_false = sum(
        1 for scope in calm.scopes() for _ in naive(calm, scope, WATCHED, WATCHED + DAY)
    )
    _break(outcome, leads_a_day, rules, broken, seed)
    _stop(outcome, leads_a_day, rules, seed)
    return outcome


def _break(
    outcome: Outcome, leads_a_day: float, rules: tuple[Rule, ...], broken: Campaign, seed: int
) -> None:
    end = BROKEN_AT + BREAK_HOURS * HOUR
    world = a_world(Market(leads_a_day, 1_000 + seed), Shares(1 / 3, broken), 10 + BREAK_HOURS)
    scope = scope_of(broken)
    concerned = (scope, Scope(scope.channel, None), OVERALL)
    story = Story(world, rules)
    story.run(BROKEN_AT - 3 * HOUR, BROKEN_AT)
    outcome.minutes["break"] = None
    for alert in fired(story.run(BROKEN_AT, end)):
        name = alert.finding.rule.name
        if alert.finding.scope not in concerned:
            outcome.elsewhere[name] += 1
        elif alert.finding.scope == scope and outcome.minutes["break"] is None:
            outcome.minutes["break"] = alert.finding.minute - BROKEN_AT
        if not outcome.message and alert.finding.scope in concerned and name == CPL_SPIKE:
            outcome.message = _said(story, alert)
    found = next(naive(world, scope, BROKEN_AT, end), None)
    outcome.minutes["break, usual rule"] = None if found is None else found - BROKEN_AT


def _said(story: Story, alert: Alert) -> str:
    """Return what an alert says, with the campaigns that a shard would have told of."""
    finding = alert.finding
    story.world.now = finding.minute
    told = story.detector.campaigns_told(story.world.scopes(), finding.minute)
    why = story.detector.explain(finding, told)
    return alert_value(alert, why, PARIS.zone, "EUR").message_en


def _stop(outcome: Outcome, leads_a_day: float, rules: tuple[Rule, ...], seed: int) -> None:
    end = BROKEN_AT + BREAK_HOURS * HOUR
    world = a_world(Market(leads_a_day, 2_000 + seed), Shares(0.0), 10 + BREAK_HOURS)
    story = Story(world, rules)
    told = fired(story.run(BROKEN_AT, end, [OVERALL, Scope("google_ads", None)]))
    first = min((alert.finding.minute for alert in told), default=None)
    outcome.minutes["outage"] = None if first is None else first - BROKEN_AT
    found = next(naive(world, OVERALL, BROKEN_AT, end), None)
    outcome.minutes["outage, usual rule"] = None if found is None else found - BROKEN_AT


# ----------------------------------------------------------------------------- telling


def _times(outcomes: Sequence[Outcome], name: str) -> str:
    found = [at for one in outcomes if (at := one.minutes[name]) is not None]
    if not found:
        return f"0 of {len(outcomes)}"
    median, worst = statistics.median(found), max(found)
    return f"{len(found)} of {len(outcomes)}, after {median:.0f} min (median), {worst} at most"


def main() -> None:
    """Run the stories and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--leads", type=float, nargs="*", default=[200, 1_000, 5_000])
    parser.add_argument("--campaign", default="generic-search", help="the one that breaks")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    broken = next(each for each in PAID if each.campaign_id == given.campaign)
    scopes = len(CAMPAIGNS) + len({campaign.channel for campaign in CAMPAIGNS}) + 1
    worded = tuple(Rule(name=r.name, kind=r.kind, is_strict=False) for r in DEFAULT_RULES[:1])
    print(f"{given.seeds} seeds, {scopes} scopes, {given.campaign} of {broken.channel} breaks")
    for leads_a_day in given.leads:
        for title, rules in (("default rules", DEFAULT_RULES), ("cpl_spike, not strict", worded)):
            with ProcessPoolExecutor(given.processes) as pool:
                work = partial(run_seed, leads_a_day, rules, broken)
                outcomes = list(pool.map(work, range(given.seeds)))
            false: Counter[str] = sum((one.false for one in outcomes), Counter())
            elsewhere: Counter[str] = sum((one.elsewhere for one in outcomes), Counter())
            print(f"\n{leads_a_day:,.0f} leads a day, {title}")
            print(f"  false alarms, {given.seeds} days of noise: {false.total()} {dict(false)}")
            print(f"    usual rule: {sum(one.naive_false for one in outcomes)}")
            print(f"  page breaks: {_times(outcomes, 'break')}")
            print(f"    usual rule: {_times(outcomes, 'break, usual rule')}")
            print(f"    seed 0 says: {outcomes[0].message}")
            print(f"    alerts of scopes that nothing happened to: {dict(elsewhere)}")
            print(f"  no leads at all: {_times(outcomes, 'outage')}")
            print(f"    usual rule: {_times(outcomes, 'outage, usual rule')}", flush=True)


if __name__ == "__main__":
    main()
