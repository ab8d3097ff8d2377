"""What each kind of rule reads off the windows of a scope.

Source: contract, section 9; the criteria that it leaves open are explained here.
"""

from collections.abc import Callable, Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Final, NamedTuple

from kpis.alert_rules import (
    CLICK_TO_LEAD,
    CONVERSION_DROP,
    COST_MISSING,
    CPL_SPIKE,
    LEADS_STOPPED,
    PACING_BEHIND,
    SPEND_STOPPED,
    Rule,
)
from kpis.alerts import Evidence
from kpis.baselines import SAME_HOURS, TARGET, Baseline, Usual
from kpis.calendar import MINUTE_MS
from kpis.catalog import Progress, derived
from kpis.facts import AMOUNTS, PERIOD, Facts, Scope, Subject
from kpis.money import MICROS
from kpis.sight import Sight, amount
from kpis.significance import poisson_at_most, rate_at_most, share_at_most
from kpis.spans import Window
from kpis.surroundings import leads_of
from kpis.verdicts import Reading

_LEAST_WEEKS_OF_LEADS: Final = 2
_LEAST_WEEKS_OF_SPEND: Final = 3
_NO_FACTS: Final[Facts] = {}

# ----------------------------------------------------------------------------- cpl_spike


class _UsualCpl(NamedTuple):
    """The usual CPL as a quotient, exactly: `cost` micros over `leads`."""

    kind: str
    cost: int
    leads: int
    facts: Facts


def cpl_spike(rule: Rule, sight: Sight) -> list[Reading]:
    """Compare the leads of each window with those that its cost usually brings."""
    readings = []
    for kind in rule.windows:
        if sight.facts(kind).get("cost", 0) > 0:
            reading = _cpl_of(rule, sight, kind)
        else:
            reading = _without_spend(sight, kind)
        if reading is not None:
            readings.append(reading)
    return readings


def _without_spend(sight: Sight, kind: str) -> Reading | None:
    """Return what it says that nothing is spent any more: whatever it was, it costs nothing now."""
    if not sight.facts("last_24h").get("cost") or not sight.has_no_spend(kind):
        return None
    facts = sight.facts(kind)
    evidence = Evidence(cost=0, leads=leads_of(PERIOD, facts), expected=Fraction(0), p_value=1.0)
    window = sight.window(kind)
    return Reading(
        window, 1.0, None, is_off=False, is_back=True, is_telling=True,
        evidence=evidence, facts=facts, usual=_NO_FACTS,
    )  # fmt: skip


def _cpl_of(rule: Rule, sight: Sight, kind: str) -> Reading | None:
    facts = sight.facts(kind)
    cost, leads = facts["cost"], leads_of(PERIOD, facts)
    if leads < 0 or not sight.is_covered(kind, rule.coverage):
        return None
    usual = _usual_cpl(rule, sight, kind)
    if usual is None:
        return None
    expected = cost * usual.leads / usual.cost
    p_value = poisson_at_most(leads, expected)
    strict = (
        p_value
        if usual.kind == TARGET
        else rate_at_most(leads, cost, usual.leads, usual.cost)
        if rule.is_strict and p_value < rule.p_value
        else None
    )
    ratio = Fraction(cost * usual.leads, leads * usual.cost) if leads else None
    is_telling = expected >= rule.evidence_leads
    return Reading(
        sight.window(kind),
        p_value,
        strict,
        is_off=ratio is None or ratio > rule.ratio,
        # With few leads to come a ratio is chance; the p-value alone says that nothing is wrong.
        is_back=not is_telling or (ratio is not None and ratio <= rule.resolve_ratio),
        is_telling=is_telling,
        evidence=Evidence(
            cost=cost,
            leads=leads,
            expected=Fraction(cost * usual.leads, usual.cost),
            baseline=Fraction(usual.cost, usual.leads * MICROS),
            baseline_kind=usual.kind,
            p_value=p_value,
            ratio=ratio,
        ),
        facts=facts,
        usual=usual.facts,
    )


def _usual_cpl(rule: Rule, sight: Sight, kind: str) -> _UsualCpl | None:
    """Return the CPL of the same hours of earlier weeks, else of the last days, else the target."""
    baseline = sight.baseline(kind, rule.coverage)
    for usual in (baseline.same_hours, baseline.last_days):
        if usual.leads >= max(1, rule.baseline_leads) and usual.cost > 0:
            return _UsualCpl(usual.kind, usual.cost, usual.leads, usual.facts)
    target = sight.target_cpl()
    if target is None:
        return None
    return _UsualCpl(TARGET, target.numerator, target.denominator, _NO_FACTS)


# ----------------------------------------------------------------------------- leads_stopped


def leads_stopped(rule: Rule, sight: Sight) -> list[Reading]:
    """Compare no leads at all with how many usually come in these hours, whatever they cost.

    Only with the same hours of two or more weeks: an average day knows nothing of nights.
    """
    readings = []
    for kind in rule.windows:
        weeks = sight.baseline(kind, 0.0).weeks
        if len(weeks) < _LEAST_WEEKS_OF_LEADS:
            continue
        head, tail = sight.weights(kind, sight.minute + 1)
        came = [(leads_of(PERIOD, week.head), leads_of(PERIOD, week.tail)) for week in weeks]
        if sum(map(sum, came)) < rule.baseline_leads:
            continue
        seen = sum(early * head + late * tail for early, late in came) / len(weeks)
        expected = Fraction(max(seen, 0))
        facts = sight.facts(kind)
        leads = max(0, leads_of(PERIOD, facts))
        p_value = poisson_at_most(leads, float(expected))
        evidence = Evidence(
            cost=facts.get("cost", 0) if facts.get("cost_records") else None,
            leads=leads,
            expected=expected,
            baseline=expected / sight.hours_seen(kind),
            baseline_kind=SAME_HOURS,
            p_value=p_value,
            ratio=leads / expected if expected else None,
        )
        is_telling = expected >= rule.evidence_leads
        readings.append(
            _reading(
                sight.window(kind),
                p_value,
                evidence,
                is_off=leads == 0,
                is_back=leads > 0,
                is_telling=is_telling,
            )
        )
    return readings


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
        window = sight.window(kind)
        start = window.start_minute or 0
        if 2 * (until - start) < sight.minute + 1 - start:
            continue
        spent = _spent(sight, kind, until)
        if len(spent) < _LEAST_WEEKS_OF_SPEND:
            continue
        cost, usual = sight.facts(kind).get("cost", 0), min(spent)
        ratio = cost / usual
        evidence = Evidence(
            cost=cost,
            leads=leads_of(PERIOD, sight.facts(kind)),
            baseline=amount(usual),
            baseline_kind=SAME_HOURS,
            ratio=ratio,
        )
        is_off, is_back = ratio < rule.ratio, ratio >= rule.resolve_ratio
        readings.append(_reading(window, None, evidence, is_off=is_off, is_back=is_back))
    return readings


def _spent(sight: Sight, kind: str, until_minute: int) -> list[Fraction]:
    """Return what each of the last weeks spent in the part of a window that is known, if anything."""
    head, tail = sight.weights(kind, min(sight.minute + 1, until_minute))
    weeks = sight.baseline(kind, 0.0).weeks
    costs = (week.head.get("cost", 0) * head + week.tail.get("cost", 0) * tail for week in weeks)
    return [cost for cost in costs if cost > 0]


# ----------------------------------------------------------------------------- cost_missing


def cost_missing(rule: Rule, sight: Sight) -> list[Reading]:
    """Count the channels that have clicks and leads but no cost, though they expect it.

    A few stragglers of a campaign that ended cost nothing: `baseline_leads` clicks and leads or more.
    """
    readings = []
    sums = sight.outlook.sums
    for kind in rule.windows:
        window = sight.window(kind)
        missing: list[str] = []
        expected = activity = 0
        for channel in sight.paying_channels():
            subject = Subject(PERIOD, Scope(channel, sight.scope.campaign_id))
            facts = sums.facts(subject, window)
            if not facts:
                continue
            expected += 1
            if facts.get("cost_records", 0) <= 0:
                missing.append(channel)
                activity += facts.get("clicks", 0) + leads_of(PERIOD, facts)
        if not expected:
            continue
        ratio = Fraction(expected - len(missing), expected)
        is_off = ratio < rule.coverage and activity >= rule.baseline_leads
        evidence = Evidence(
            leads=leads_of(PERIOD, sight.facts(kind)), ratio=ratio, channels=tuple(missing)
        )
        readings.append(
            _reading(window, None, evidence, is_off=is_off, is_back=ratio >= rule.coverage)
        )
    return readings


# ----------------------------------------------------------------------------- conversion_drop


def conversion_drop(rule: Rule, sight: Sight) -> list[Reading]:
    """Compare a share, click-to-lead or the step between two stages, with the usual one."""
    readings = []
    for kind in rule.windows:
        facts = sight.facts(kind)
        trials, successes = _share_of(rule, facts)
        if not 0 <= successes <= trials or trials == 0:
            continue
        usual = _usual_share(rule, sight.baseline(kind, 0.0))
        if usual is None:
            continue
        usual_trials, usual_successes = _share_of(rule, usual.facts)
        expected = Fraction(trials * usual_successes, usual_trials)
        ratio = successes / expected
        is_telling = expected >= rule.evidence_leads
        p_value = (
            share_at_most(successes, trials, usual_successes, usual_trials) if ratio < 1 else 1.0
        )
        evidence = Evidence(
            leads=leads_of(PERIOD, facts),
            expected=expected,
            baseline=Fraction(usual_successes, usual_trials),
            baseline_kind=usual.kind,
            p_value=p_value,
            ratio=ratio,
            trials=trials,
            successes=successes,
        )
        is_off = is_telling and ratio < rule.ratio
        is_back = not is_telling or ratio >= rule.resolve_ratio
        readings.append(
            _reading(
                sight.window(kind),
                p_value,
                evidence,
                is_off=is_off,
                is_back=is_back,
                is_telling=is_telling,
            )
        )
    return readings


def _share_of(rule: Rule, facts: Facts) -> tuple[int, int]:
    """Return how many could have gone on, and how many did."""
    if rule.step == CLICK_TO_LEAD:
        return facts.get("clicks", 0), leads_of(PERIOD, facts)
    earlier, _, later = rule.step.partition(".")
    return facts.get(f"stage_entered.{earlier}", 0), facts.get(f"stage_entered.{later}", 0)


def _usual_share(rule: Rule, baseline: Baseline) -> Usual | None:
    for usual in (baseline.same_hours, baseline.last_days):
        trials, successes = _share_of(rule, usual.facts)
        if max(1, rule.baseline_leads) <= successes <= trials:
            return usual
    return None


# ----------------------------------------------------------------------------- pacing_behind


def pacing_behind(rule: Rule, sight: Sight) -> list[Reading]:
    """Compare what came of a target's period with what the part that is over asks for.

    One reading of the worst target. Of things that are counted the lag must be more than chance.
    """
    if not sight.outlook.targets.get(sight.scope):
        return []
    found = [
        reading
        for kind in rule.windows
        for reading in _pacing_in(rule, sight, sight.spans.tumbling(kind, sight.minute))
    ]
    worst = min(found, key=lambda each: each.evidence.ratio or Fraction(0), default=None)
    return [] if worst is None else [worst]


def _pacing_in(rule: Rule, sight: Sight, window: Window) -> list[Reading]:
    outlook = sight.outlook
    until_ms = (sight.minute + 1) * MINUTE_MS
    around = outlook.surroundings(sight.subject, window, until_ms)
    readings = []
    for progress in around.targets:
        kpi = progress.target.kpi
        is_watched = kpi in rule.kpis if rule.kpis else kpi != "cost"
        if not is_watched or progress.elapsed < rule.elapsed:
            continue
        facts = progress.facts
        if facts is None:
            facts = outlook.sums.facts(sight.subject, window)
        if (actual := _actual(kpi, facts)) is not None:
            readings.append(_pacing_of(rule, window, progress, actual))
    return readings


def _actual(kpi: str, facts: Facts) -> int | None:
    """Return what a fact came to, in millionths of its unit; None for a KPI, which has no pace."""
    known = derived(facts, PERIOD)
    is_fact = kpi in known or kpi in _COUNTED or kpi in AMOUNTS or kpi.startswith("stage_entered.")
    if not is_fact:
        return None
    return known.get(kpi, 0) * (1 if kpi in AMOUNTS else MICROS)


_COUNTED: Final = frozenset({"leads", "sales", "new_customers"})


def _pacing_of(rule: Rule, window: Window, progress: Progress, actual: int) -> Reading:
    target = progress.target
    asked = target.value_micros * progress.elapsed
    ratio = actual / asked
    is_count = target.kpi not in AMOUNTS
    p_value = poisson_at_most(max(0, actual // MICROS), float(amount(asked))) if is_count else None
    evidence = Evidence(
        expected=amount(asked),
        baseline=amount(target.value_micros),
        baseline_kind=TARGET,
        p_value=p_value,
        ratio=ratio,
        kpi=target.kpi,
        actual=amount(actual),
        elapsed=progress.elapsed,
    )
    is_off, is_back = ratio < rule.ratio, ratio >= rule.resolve_ratio
    # A target is a promise, not a guess: nearer than resolve_ratio is well, whatever chance says.
    tested = p_value if is_off or not is_back else None
    return _reading(window, tested, evidence, is_off=is_off, is_back=is_back)


# ----------------------------------------------------------------------------- all


def _reading(
    window: Window,
    p_value: float | None,
    evidence: Evidence,
    *,
    is_off: bool,
    is_back: bool,
    is_telling: bool = True,
) -> Reading:
    """Return a reading without a strict test and without what explains it."""
    return Reading(
        window, p_value, None, is_off, is_back, is_telling, evidence, _NO_FACTS, _NO_FACTS
    )


READERS: Final[Mapping[str, Callable[[Rule, Sight], list[Reading]]]] = MappingProxyType(
    {
        CPL_SPIKE: cpl_spike,
        SPEND_STOPPED: spend_stopped,
        LEADS_STOPPED: leads_stopped,
        COST_MISSING: cost_missing,
        CONVERSION_DROP: conversion_drop,
        PACING_BEHIND: pacing_behind,
    }
)
"""How the rules of each kind read."""
