"""What rules find in worlds of numbers: the contract's checks, and stories of hours."""

from itertools import pairwise

import msgspec
import pytest

from kpis.alert_rules import DEFAULT_RULES, DEFAULTS, Rule
from kpis.alerts import Alert, Finding
from kpis.baselines import Baselines
from kpis.calendar import DAY_MINUTES, HOUR_MINUTES
from kpis.detector import Detector
from kpis.facts import OVERALL, Scope
from kpis.money import MICROS
from kpis.targets import Target
from tests.kpis.alert_worlds import Story, World, minute

BRAND = Scope("google_ads", "brand")
VIDEO = Scope("meta_ads", "video")
GOOGLE, META = Scope("google_ads", None), Scope("meta_ads", None)
NOW = minute("2026-06-30T12:00:00+02:00")
MIDNIGHT = minute("2026-06-30T00:00:00+02:00")
WEEKS = 4 * 7 * DAY_MINUTES
HOUR = HOUR_MINUTES
SPIKE = DEFAULTS["cpl_spike"]


def past(world: World, scope: Scope, until: int, *, leads: int = 6, cost: float = 120.0) -> None:
    """Add 30 days of an even past: so many leads an hour at so much cost, ten clicks a lead."""
    for at in range(until - 30 * DAY_MINUTES, until, HOUR):
        world.add(scope, at, cost=cost, clicks=10 * leads, leads=leads)


def present(world: World, scope: Scope, first: int, last: int, *, every: int, cost: float) -> None:
    """Add minutes [first, last) with a lead each `every` minutes (0: none) and a cost each minute."""
    for at in range(first, last):
        world.add(scope, at, cost=cost, clicks=1, leads=int(every > 0 and at % every == 0))


def found(world: World, scope: Scope, rule: Rule, at: int = NOW) -> list[Finding]:
    world.now = at
    return Detector([rule], world.outlook(), world.spans).evaluate(scope, at)


def conditions(alerts: list[Alert], rule: str) -> list[tuple[int, str, Scope]]:
    return [
        (alert.finding.minute, alert.state, alert.finding.scope)
        for alert in alerts
        if alert.finding.rule.name == rule
    ]


# ----------------------------------------------------------------------------- the contract's checks


@pytest.mark.parametrize("is_strict", [True, False])
@pytest.mark.parametrize(
    ("cost", "leads", "p_value", "fires"),
    [
        (120, 0, 0.0025, True),
        (120, 2, 0.062, False),
        (40, 0, 0.135, False),
        (400, 10, 0.0108, False),
    ],
)
def test_the_checks_of_the_contract(
    cost: int, leads: int, p_value: float, fires: bool, is_strict: bool
) -> None:
    world = World()
    for back in range(1, 5):
        for hour in range(25):
            at = NOW - back * 7 * DAY_MINUTES - hour * HOUR
            world.add(BRAND, at, cost=200, clicks=100, leads=10)
    world.add(BRAND, NOW - 5, cost=cost, clicks=50, leads=leads)
    rule = msgspec.structs.replace(SPIKE, is_strict=is_strict)
    findings = found(world, BRAND, rule)
    assert bool(findings) is fires
    if fires:
        evidence = findings[0].evidence
        assert evidence.p_value == pytest.approx(p_value, rel=0.01)
        assert evidence.baseline == 20
        assert evidence.baseline_kind == "same_hours"
        assert evidence.cost == cost * MICROS
        assert evidence.expected == cost // 20
        assert evidence.ratio is None


# ----------------------------------------------------------------------------- baselines


def broken(world: World, scope: Scope = BRAND) -> None:
    world.add(scope, NOW - 5, cost=400, clicks=100)


def test_without_earlier_weeks_the_last_days_are_the_baseline() -> None:
    world = World()
    for hour in range(30, 150):
        world.add(BRAND, NOW - hour * HOUR, cost=20, clicks=10, leads=1)
    broken(world)
    (finding,) = found(world, BRAND, SPIKE)
    assert finding.evidence.baseline_kind == "last_7_days"


def test_without_any_past_the_target_is_the_baseline_and_without_it_there_is_silence() -> None:
    world = World()
    broken(world)
    assert found(world, BRAND, SPIKE) == []
    day = Target("cpl", "day", MIDNIGHT, MIDNIGHT + DAY_MINUTES, 20 * MICROS)
    world.aim(BRAND, day)
    (finding,) = found(world, BRAND, SPIKE)
    assert finding.evidence.baseline == 20
    assert finding.evidence.baseline_kind == "target"


def test_fewer_than_twenty_leads_are_no_baseline() -> None:
    for leads, is_known in ((19, False), (20, True)):
        world = World()
        world.add(BRAND, NOW - 3 * DAY_MINUTES, cost=20 * leads, clicks=200, leads=leads)
        broken(world)
        rule = msgspec.structs.replace(SPIKE, is_strict=False)
        assert bool(found(world, BRAND, rule)) is is_known


# ----------------------------------------------------------------------------- windows together


def an_outage(hours: int) -> World:
    """A campaign of six leads an hour; at noon its landing page breaks for some hours."""
    world = World()
    past(world, BRAND, MIDNIGHT)
    present(world, BRAND, MIDNIGHT, NOW, every=10, cost=2)
    end = NOW + hours * HOUR
    present(world, BRAND, NOW, end, every=0, cost=2)
    present(world, BRAND, end, NOW + 3 * DAY_MINUTES, every=10, cost=2)
    return world


def test_an_outage_is_told_within_two_hours_or_so_and_resolved_once_it_is_over() -> None:
    story = Story(an_outage(4), (SPIKE,))
    told = conditions(story.run(NOW - 6 * HOUR, NOW + 40 * HOUR, [BRAND]), "cpl_spike")
    fired, *between, resolved = told
    assert fired[1] == "fired"
    assert NOW < fired[0] <= NOW + 2 * HOUR + 5
    assert {state for _, state, _ in between} <= {"updated"}
    # The hour alone has too few leads to tell; six hours later it is known.
    assert resolved[1] == "resolved"
    assert NOW + 4 * HOUR < resolved[0] < NOW + 12 * HOUR


def test_what_is_over_does_not_fire_again_though_the_day_still_shows_it() -> None:
    world = an_outage(4)
    story = Story(world, (msgspec.structs.replace(SPIKE, cooldown_minutes=0),))
    told = conditions(story.run(NOW, NOW + 40 * HOUR, [BRAND]), "cpl_spike")
    assert [state for _, state, _ in told if state != "updated"] == ["fired", "resolved"]


def test_updates_come_at_most_hourly() -> None:
    story = Story(an_outage(20), (SPIKE,))
    told = conditions(story.run(NOW, NOW + 20 * HOUR, [BRAND]), "cpl_spike")
    minutes = [at for at, state, _ in told if state == "updated"]
    assert all(later - earlier >= HOUR for earlier, later in pairwise(minutes))
    assert len(minutes) <= 20


def test_a_campaign_that_is_paused_after_the_alert_is_resolved_within_an_hour_or_so() -> None:
    world = World()
    past(world, BRAND, NOW)
    past(world, VIDEO, NOW + DAY_MINUTES)
    present(world, BRAND, NOW, NOW + 3 * HOUR, every=0, cost=2)
    story = Story(world, (SPIKE,))
    told = conditions(story.run(NOW, NOW + 20 * HOUR, [BRAND]), "cpl_spike")
    assert [state for _, state, _ in told if state != "updated"] == ["fired", "resolved"]
    assert told[-1][0] <= NOW + 3 * HOUR + 65


def test_a_night_without_traffic_is_no_end_of_an_outage() -> None:
    world = World()
    for day in range(-30, 3):
        for hour in (*range(2), *range(4, 24)):
            at = MIDNIGHT + day * DAY_MINUTES + hour * HOUR
            leads = int(hour % 2 == 0 and at < NOW)
            world.add(BRAND, at, cost=10, clicks=5, leads=leads)
    story = Story(world, (SPIKE,))
    told = conditions(story.run(NOW, NOW + 58 * HOUR, [BRAND]), "cpl_spike")
    assert [state for _, state, _ in told if state != "updated"] == ["fired"]


def test_days_before_the_first_cost_are_no_cheap_past() -> None:
    world = World()
    for hour in range(9 * 24):
        at = NOW - hour * HOUR
        cost = 40 if hour < 60 else None
        world.add(BRAND, at, cost=cost, clicks=20, leads=2)
    story = Story(world, (SPIKE,))
    assert story.run(NOW, NOW + 30) == []
    usual = Baselines(world.outlook()).last_days(BRAND, NOW, SPIKE.coverage)
    # The day of the first cost counts as a whole.
    assert 36 * 2 <= usual.leads <= 48 * 2


def test_even_numbers_are_quiet_all_day() -> None:
    world = World()
    for scope in (BRAND, VIDEO):
        past(world, scope, MIDNIGHT)
        present(world, scope, MIDNIGHT, MIDNIGHT + DAY_MINUTES, every=10, cost=2)
    story = Story(world)
    assert story.run(MIDNIGHT, MIDNIGHT + DAY_MINUTES) == []


# ----------------------------------------------------------------------------- cost


def test_without_its_cost_a_channel_has_no_cpl_and_cost_missing_fires_instead() -> None:
    world = World()
    past(world, BRAND, MIDNIGHT)
    past(world, VIDEO, MIDNIGHT)
    for at in range(MIDNIGHT, MIDNIGHT + 2 * DAY_MINUTES):
        world.add(VIDEO, at, cost=2, clicks=1, leads=int(at % 10 == 0))
        world.add(BRAND, at, clicks=1)
    world.reported_until["google_ads"] = MIDNIGHT
    story = Story(world)
    alerts = story.run(MIDNIGHT, MIDNIGHT + 30 * HOUR, [GOOGLE, META, OVERALL])
    fired = {
        (alert.finding.rule.name, alert.finding.scope) for alert in alerts if alert.state == "fired"
    }
    assert ("cost_missing", GOOGLE) in fired
    assert ("cost_missing", OVERALL) in fired
    assert not {("cpl_spike", GOOGLE), ("spend_stopped", GOOGLE)} & fired
    assert META not in {scope for _, scope in fired}
    missing = next(alert for alert in alerts if alert.finding.rule.name == "cost_missing")
    assert missing.finding.evidence.channels == ("google_ads",)


def test_stragglers_of_a_channel_that_ended_are_no_missing_cost() -> None:
    world = World()
    past(world, BRAND, MIDNIGHT - 5 * DAY_MINUTES)
    for hour in range(10):
        world.add(BRAND, MIDNIGHT + hour * HOUR, leads=1)
    assert found(world, GOOGLE, DEFAULTS["cost_missing"]) == []


def test_spend_that_stops_is_told_but_not_spend_that_is_only_not_reported_yet() -> None:
    for is_reported in (True, False):
        world = World()
        past(world, BRAND, NOW)
        if not is_reported:
            world.reported_until["google_ads"] = NOW
        story = Story(world, (DEFAULTS["spend_stopped"],))
        told = conditions(story.run(NOW, NOW + 8 * HOUR, [GOOGLE]), "spend_stopped")
        assert bool(told) is is_reported


def test_a_channel_that_never_spends_at_night_has_not_stopped_at_night() -> None:
    world = World()
    for at in range(NOW - 30 * DAY_MINUTES, NOW + DAY_MINUTES, HOUR):
        if 8 <= (at - MIDNIGHT) // HOUR % 24 < 20:
            world.add(BRAND, at, cost=100, clicks=10, leads=2)
    rules = (DEFAULTS["spend_stopped"], DEFAULTS["leads_stopped"])
    assert Story(world, rules).run(NOW, NOW + DAY_MINUTES, [GOOGLE]) == []


# ----------------------------------------------------------------------------- leads and shares


def test_leads_that_stop_are_told_whatever_they_cost() -> None:
    seo = Scope("seo", None)
    world = World()
    for at in range(NOW - 30 * DAY_MINUTES, NOW, 5):
        world.add(Scope("seo", "-"), at, clicks=9, leads=1)
    story = Story(world, (DEFAULTS["leads_stopped"],))
    told = conditions(story.run(NOW, NOW + 4 * HOUR, [seo]), "leads_stopped")
    assert [state for _, state, _ in told] == ["fired"]
    assert NOW + 50 <= told[0][0] <= NOW + 65


@pytest.mark.parametrize("step", ["click_to_lead", "lead.mql"])
def test_a_share_that_falls_by_half_is_told(step: str) -> None:
    world = World()
    names = {"click_to_lead": ("clicks", "leads_gross")}.get(
        step, ("stage_entered.lead", "stage_entered.mql")
    )
    for at in range(NOW - 30 * DAY_MINUTES, NOW + 12 * HOUR, HOUR):
        went_on = 10 if at < NOW else 5
        world.add(BRAND, at, **dict(zip(names, (100, went_on), strict=True)))
    rule = msgspec.structs.replace(DEFAULTS["conversion_drop"], step=step)
    story = Story(world, (rule,))
    told = conditions(story.run(NOW, NOW + 12 * HOUR, [BRAND]), "conversion_drop")
    assert next(state for _, state, _ in told) == "fired"


# ----------------------------------------------------------------------------- pacing


def test_a_target_that_is_missed_by_a_third_is_told_after_a_fifth_of_its_period() -> None:
    start = minute("2026-06-01T00:00:00+02:00")
    end = minute("2026-07-01T00:00:00+02:00")
    world = World()
    for at in range(start, end, HOUR):
        world.add(BRAND, at, cost=1, clicks=10, leads=2)
    world.aim(GOOGLE, Target("leads", "month", start, end, 3 * 720 * MICROS))
    rule = DEFAULTS["pacing_behind"]
    assert found(world, GOOGLE, rule, start + 5 * DAY_MINUTES) == []
    (finding,) = found(world, GOOGLE, rule, start + 7 * DAY_MINUTES)
    assert finding.evidence.kpi == "leads"
    assert float(finding.evidence.ratio or 0) == pytest.approx(2 / 3, rel=0.01)


def test_a_small_target_is_not_behind_by_chance() -> None:
    start = minute("2026-06-29T00:00:00+02:00")
    world = World()
    world.add(BRAND, start + 5, leads=3)
    week = Target("leads", "week", start, start + 7 * DAY_MINUTES, 14 * MICROS)
    world.aim(GOOGLE, week)
    assert found(world, GOOGLE, DEFAULTS["pacing_behind"], start + 48 * HOUR) == []


# ----------------------------------------------------------------------------- explanations


def a_broken_campaign() -> tuple[Story, Alert]:
    world = World()
    for campaign in ("brand", "shoes"):
        past(world, Scope("google_ads", campaign), NOW, leads=20, cost=400)
    past(world, VIDEO, NOW, leads=20, cost=400)
    for at in range(NOW, NOW + 6 * HOUR):
        world.add(BRAND, at, cost=400 / 60, clicks=3, leads=0)
        for scope in (Scope("google_ads", "shoes"), VIDEO):
            world.add(scope, at, cost=400 / 60, clicks=3, leads=int(at % 3 == 0))
    story = Story(world, (SPIKE,))
    alerts = story.run(NOW, NOW + 6 * HOUR, [GOOGLE, OVERALL])
    return story, alerts[0]


def test_the_campaign_that_broke_is_named_first_and_excesses_sum_to_the_channel_s() -> None:
    story, alert = a_broken_campaign()
    at = alert.finding.minute
    story.world.now = at
    told = story.detector.campaigns_told(story.world.scopes(), at)
    explanation = story.detector.explain(alert.finding, told)
    assert explanation is not None
    assert isinstance(explanation.campaigns, tuple)
    assert explanation.campaigns[0].campaign_id == "brand"
    assert explanation.campaigns[0].leads == 0


@pytest.mark.parametrize("is_all_known", [True, False])
def test_the_channels_parts_sum_to_the_change_of_the_whole_s_cpl(is_all_known: bool) -> None:
    world = World()
    past(world, BRAND, NOW, leads=40, cost=400)
    past(world, VIDEO, NOW, leads=20, cost=400)
    if not is_all_known:
        # Leads of a channel that is to have cost and has none: the whole leaves that day out.
        radio = Scope("radio_ads", "r")
        for hour in range(-36, 36):
            world.add(radio, NOW - 14 * DAY_MINUTES + hour * HOUR, clicks=9, leads=30)
    for at in range(NOW, NOW + 6 * HOUR):
        world.add(BRAND, at, cost=7, clicks=3, leads=int(at % 10 == 0))
        world.add(VIDEO, at, cost=7, clicks=3, leads=int(at % 3 == 0))
    story = Story(world, (SPIKE,))
    alert = story.run(NOW, NOW + 6 * HOUR, [OVERALL])[0]
    story.world.now = alert.finding.minute
    explanation = story.detector.explain(alert.finding)
    assert explanation is not None
    assert isinstance(explanation.channels, tuple)
    evidence = alert.finding.evidence
    assert evidence.baseline is not None
    assert evidence.ratio is not None
    change = float(evidence.baseline * (evidence.ratio - 1))
    total = sum(part.mix + part.rate for part in explanation.channels)
    assert total == pytest.approx(change, abs=2e-6)


def test_a_shard_tells_of_ten_campaigns_a_window_at_most() -> None:
    world = World()
    scopes = [Scope("google_ads", f"c{number}") for number in range(30)]
    for number, scope in enumerate(scopes):
        world.add(scope, NOW - WEEKS, cost=100, leads=5)
        world.add(scope, NOW - 5, cost=number + 1, leads=0)
    world.now = NOW
    detector = Detector(DEFAULT_RULES, world.outlook(), world.spans)
    told = detector.campaigns_told([*scopes, GOOGLE], NOW)
    assert len(told) == 30
    hour = [each.campaign_id for each in told if each.window == "last_1h"]
    assert hour == [f"c{number}" for number in range(29, 19, -1)]
