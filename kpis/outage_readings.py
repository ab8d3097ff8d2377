"""What the rules on what stopped read off the windows of a scope.

Source: contract, section 9, which leaves the criteria open; they are explained here.
"""

from fractions import Fraction
from functools import partial
from typing import Final

from kpis.alert_rules import Rule
from kpis.alerts import Evidence
from kpis.baselines import SAME_HOURS
from kpis.facts import PERIOD, Scope, Subject
from kpis.sight import Sight, amount
from kpis.significance import poisson_at_most
from kpis.surroundings import leads_of
from kpis.verdicts import Reading

_LEAST_WEEKS_OF_LEADS: Final = 2
_LEAST_WEEKS_OF_SPEND: Final = 3


def leads_stopped(rule: Rule, sight: Sight) -> list[Reading]:
    """Compare no leads at all with how many usually come in these hours, whatever they cost.

    Only with the same hours of two or more weeks: an average day knows nothing of nights.
    """
    readings = []
    for kind in rule.windows:
        weeks = sight.weeks(kind)
        came = sum(leads_of(PERIOD, facts) for week in weeks for facts in (week.head, week.tail))
        if len(weeks) >= _LEAST_WEEKS_OF_LEADS and came >= rule.baseline_leads:
            expected = sight.expected(kind, partial(leads_of, PERIOD))
            readings.append(_leads_of(rule, sight, kind, expected))
    return readings


def _leads_of(rule: Rule, sight: Sight, kind: str, expected: float) -> Reading:
    facts = sight.facts(kind)
    leads = max(0, leads_of(PERIOD, facts))
    chance = partial(poisson_at_most, leads, expected)

    def evidence() -> Evidence:
        usual = Fraction(expected)
        return Evidence(
            cost=facts.get("cost", 0) if facts.get("cost_records") else None,
            leads=leads,
            expected=usual,
            baseline=usual / sight.hours_seen(kind),
            baseline_kind=SAME_HOURS,
            p_value=chance(),
            ratio=leads / usual if usual else None,
        )

    return Reading(
        sight.window(kind),
        chance=chance,
        strict_chance=None,
        is_off=leads == 0,
        is_back=leads > 0,
        is_telling=expected >= rule.evidence_leads,
        evidence=evidence,
    )


# ----------------------------------------------------------------------------- spend_stopped


def spend_stopped(rule: Rule, sight: Sight) -> list[Reading]:
    """Compare cost with the poorest of the last weeks that spent in these hours.

    Only so far as cost is known: what is not reported yet is not zero, and `cost_missing` says so.
    """
    until = sight.cost_until_minute()
    if until is None:
        return []
    readings = []
    for kind in rule.windows:
        start = sight.window(kind).start_minute or 0
        if 2 * (until - start) < sight.minute + 1 - start:
            continue
        spent = _spent(sight, kind, until)
        if len(spent) >= _LEAST_WEEKS_OF_SPEND:
            readings.append(_spend_of(rule, sight, kind, min(spent)))
    return readings


def _spend_of(rule: Rule, sight: Sight, kind: str, usual: float) -> Reading:
    facts = sight.facts(kind)
    cost = facts.get("cost", 0)

    def evidence() -> Evidence:
        return Evidence(
            cost=cost,
            leads=leads_of(PERIOD, facts),
            baseline=amount(Fraction(usual)),
            baseline_kind=SAME_HOURS,
            ratio=cost / Fraction(usual),
        )

    return Reading(
        sight.window(kind),
        chance=None,
        strict_chance=None,
        is_off=cost < rule.ratio * usual,
        is_back=cost >= rule.resolve_ratio * usual,
        is_telling=True,
        evidence=evidence,
    )


def _spent(sight: Sight, kind: str, until_minute: int) -> list[float]:
    """Return what each of the last weeks spent in the part of a window that is known, if anything."""
    until = min(sight.minute + 1, until_minute)
    costs = sight.each_week(kind, until, lambda facts: facts.get("cost", 0))
    return [cost for cost in costs if cost > 0]


# ----------------------------------------------------------------------------- cost_missing


def cost_missing(rule: Rule, sight: Sight) -> list[Reading]:
    """Count the channels that have clicks and leads but no cost, though they expect it.

    A few stragglers of a campaign that ended cost nothing: `baseline_leads` clicks and leads or more.
    """
    readings = []
    for kind in rule.windows:
        expected, missing, activity = _missing(sight, kind)
        if not expected:
            continue
        ratio = Fraction(expected - len(missing), expected)
        leads = leads_of(PERIOD, sight.facts(kind))
        readings.append(
            Reading(
                sight.window(kind),
                chance=None,
                strict_chance=None,
                is_off=ratio < rule.coverage and activity >= rule.baseline_leads,
                is_back=ratio >= rule.coverage,
                is_telling=True,
                evidence=partial(Evidence, leads=leads, ratio=ratio, channels=missing),
            )
        )
    return readings


def _missing(sight: Sight, kind: str) -> tuple[int, tuple[str, ...], int]:
    """Return how many channels expect cost, those without it, and what came of these."""
    sums, window = sight.outlook.sums, sight.window(kind)
    missing: list[str] = []
    expected = activity = 0
    for channel in sight.paying_channels():
        facts = sums.facts(Subject(PERIOD, Scope(channel, sight.scope.campaign_id)), window)
        if facts:
            expected += 1
            if facts.get("cost_records", 0) <= 0:
                missing.append(channel)
                activity += facts.get("clicks", 0) + leads_of(PERIOD, facts)
    return expected, tuple(missing), activity
