"""What the rules on price and conversion read off the windows of a scope.

Source: contract, section 9.
"""

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from typing import Final, NamedTuple

from kpis.alert_rules import CLICK_TO_LEAD, Rule
from kpis.alerts import Evidence
from kpis.baselines import TARGET, Usual
from kpis.facts import PERIOD, Facts
from kpis.money import MICROS
from kpis.sight import Sight
from kpis.significance import poisson_at_most, rate_at_most, share_at_most
from kpis.surroundings import leads_of
from kpis.verdicts import Reading

# ----------------------------------------------------------------------------- cpl_spike


class _UsualCpl(NamedTuple):
    """The usual CPL as a quotient, exactly: `cost` micros over `leads`."""

    kind: str
    cost: int
    leads: int
    facts: Mapping[str, int]


def cpl_spike(rule: Rule, sight: Sight) -> list[Reading]:
    """Compare the leads of each window with those that its cost usually brings."""
    readings = []
    for kind in rule.windows:
        has_cost = sight.facts(kind).get("cost", 0) > 0
        reading = _cpl_of(rule, sight, kind) if has_cost else _without_spend(rule, sight, kind)
        if reading is not None:
            readings.append(reading)
    return readings


_TRAFFIC: Final[tuple[Callable[[Facts], int], ...]] = (
    lambda facts: facts.get("clicks", 0),
    partial(leads_of, PERIOD),
)


def _without_spend(rule: Rule, sight: Sight, kind: str) -> Reading | None:
    """Return what it says that nothing is spent any more: whatever it was, it costs nothing now.

    If these hours usually bring enough clicks or leads: a small campaign has hours without any, and one
    that sleeps at night is not over each night.
    """
    if not sight.facts("last_24h").get("cost") or not sight.has_no_spend(kind):
        return None
    facts = sight.facts(kind)
    leads = leads_of(PERIOD, facts)
    return Reading(
        sight.window(kind),
        chance=None,
        strict_chance=None,
        is_off=False,
        is_back=True,
        is_telling=max(sight.expected(kind, count) for count in _TRAFFIC) >= rule.evidence_leads,
        evidence=lambda: Evidence(cost=0, leads=leads, expected=Fraction(0), p_value=1.0),
        facts=facts,
    )


def _cpl_of(rule: Rule, sight: Sight, kind: str) -> Reading | None:
    facts = sight.facts(kind)
    cost, leads = facts["cost"], leads_of(PERIOD, facts)
    if leads < 0 or not sight.is_covered(kind, rule.coverage):
        return None
    usual = _usual_cpl(rule, sight, kind)
    if usual is None:
        return None
    expected = cost * usual.leads / usual.cost
    # Whole numbers of any size divide to the nearest float, so 1.5 times exactly is not above it.
    ratio = cost * usual.leads / (leads * usual.cost) if leads else None
    is_telling = expected >= rule.evidence_leads
    chance = partial(poisson_at_most, leads, expected)
    strict = partial(rate_at_most, leads, cost, usual.leads, usual.cost)
    return Reading(
        sight.window(kind),
        chance=chance,
        strict_chance=chance if usual.kind == TARGET else strict,
        is_off=ratio is None or ratio > rule.ratio,
        # With few leads to come a ratio is chance; the p-value alone says that nothing is wrong.
        is_back=not is_telling or (ratio is not None and ratio <= rule.resolve_ratio),
        is_telling=is_telling,
        evidence=partial(_cpl_evidence, cost, leads, usual),
        facts=facts,
        usual=usual.facts,
    )


def _cpl_evidence(cost: int, leads: int, usual: _UsualCpl) -> Evidence:
    expected = Fraction(cost * usual.leads, usual.cost)
    return Evidence(
        cost=cost,
        leads=leads,
        expected=expected,
        baseline=Fraction(usual.cost, usual.leads * MICROS),
        baseline_kind=usual.kind,
        p_value=poisson_at_most(leads, cost * usual.leads / usual.cost),
        ratio=expected / leads if leads else None,
    )


def _usual_cpl(rule: Rule, sight: Sight, kind: str) -> _UsualCpl | None:
    """Return the CPL of the same hours of earlier weeks, else of the last days, else the target."""
    for usual in sight.usual(kind, rule.coverage):
        cost, leads = usual.cost, usual.leads
        if leads >= max(1, rule.baseline_leads) and cost > 0:
            return _UsualCpl(usual.kind, cost, leads, usual.facts)
    target = sight.target_cpl()
    return None if target is None else _UsualCpl(TARGET, target, 1, {})


# ----------------------------------------------------------------------------- conversion_drop


def conversion_drop(rule: Rule, sight: Sight) -> list[Reading]:
    """Compare a share, click-to-lead or the step between two stages, with the usual one."""
    readings = []
    for kind in rule.windows:
        facts = sight.facts(kind)
        trials, successes = _share_of(rule, facts)
        if not 0 <= successes <= trials or trials == 0:
            continue
        usual = _usual_share(rule, sight, kind)
        if usual is not None:
            readings.append(_conversion_of(rule, sight, kind, usual))
    return readings


def _conversion_of(rule: Rule, sight: Sight, kind: str, usual: Usual) -> Reading:
    facts = sight.facts(kind)
    trials, successes = _share_of(rule, facts)
    usual_trials, usual_successes = _share_of(rule, usual.facts)
    ratio = successes * usual_trials / (trials * usual_successes)
    is_telling = trials * usual_successes >= rule.evidence_leads * usual_trials
    chance = partial(share_at_most, successes, trials, usual_successes, usual_trials)

    def evidence() -> Evidence:
        share = Fraction(usual_successes, usual_trials)
        return Evidence(
            leads=leads_of(PERIOD, facts),
            expected=trials * share,
            baseline=share,
            baseline_kind=usual.kind,
            p_value=chance(),
            ratio=successes / (trials * share),
            trials=trials,
            successes=successes,
        )

    return Reading(
        sight.window(kind),
        chance=chance,
        strict_chance=None,
        is_off=is_telling and ratio < rule.ratio,
        is_back=not is_telling or ratio >= rule.resolve_ratio,
        is_telling=is_telling,
        evidence=evidence,
    )


def _share_of(rule: Rule, facts: Mapping[str, int]) -> tuple[int, int]:
    """Return how many could have gone on, and how many did."""
    if rule.step == CLICK_TO_LEAD:
        return facts.get("clicks", 0), leads_of(PERIOD, facts)
    earlier, _, later = rule.step.partition(".")
    return facts.get(f"stage_entered.{earlier}", 0), facts.get(f"stage_entered.{later}", 0)


def _usual_share(rule: Rule, sight: Sight, kind: str) -> Usual | None:
    # First what `cpl_spike` has looked up already: a share does not need its cost to be known.
    for coverage in (rule.coverage, 0.0):
        for usual in sight.usual(kind, coverage):
            trials, successes = _share_of(rule, usual.facts)
            if max(1, rule.baseline_leads) <= successes <= trials:
                return usual
    return None
