"""What the rule on pacing reads off the targets of a scope.

Source: contract, section 5 (`pacing`) and section 9.
"""

from collections.abc import Mapping
from fractions import Fraction
from functools import partial
from typing import Final

from kpis.alert_rules import Rule
from kpis.alerts import Evidence
from kpis.baselines import TARGET
from kpis.calendar import MINUTE_MS
from kpis.catalog import Progress, derived
from kpis.facts import AMOUNTS, PERIOD
from kpis.money import MICROS
from kpis.sight import Sight, amount
from kpis.significance import poisson_at_most
from kpis.spans import Window
from kpis.verdicts import Reading

_COUNTS: Final = frozenset({"leads", "sales", "new_customers"})


def pacing_behind(rule: Rule, sight: Sight) -> list[Reading]:
    """Compare what came of a target's period with what the part that is over asks for.

    One reading, of the target that is furthest behind. Of things that are counted the lag must be more
    than chance.
    """
    if not sight.outlook.targets.get(sight.scope):
        return []
    found = [
        reading
        for kind in rule.windows
        for reading in _pacing_in(rule, sight, sight.spans.tumbling(kind, sight.minute))
    ]
    worst = min(found, key=lambda each: each[0], default=None)
    return [] if worst is None else [worst[1]]


def _pacing_in(rule: Rule, sight: Sight, window: Window) -> list[tuple[Fraction, Reading]]:
    outlook = sight.outlook
    until_ms = (sight.minute + 1) * MINUTE_MS
    readings = []
    for progress in outlook.surroundings(sight.subject, window, until_ms).targets:
        kpi = progress.target.kpi
        is_watched = kpi in rule.kpis if rule.kpis else kpi != "cost"
        if not is_watched or not 0 < progress.elapsed >= rule.elapsed:
            continue
        facts = progress.facts
        if facts is None:
            facts = outlook.sums.facts(sight.subject, window)
        if (actual := _actual(kpi, facts)) is not None:
            readings.append(_pacing_of(rule, window, progress, actual))
    return readings


def _actual(kpi: str, facts: Mapping[str, int]) -> int | None:
    """Return what a fact came to, in millionths of its unit; None for a KPI, which has no pace."""
    is_amount = kpi in AMOUNTS
    if not (is_amount or kpi in _COUNTS or kpi.startswith("stage_entered.")):
        return None
    return derived(facts, PERIOD).get(kpi, 0) * (1 if is_amount else MICROS)


def _pacing_of(
    rule: Rule, window: Window, progress: Progress, actual: int
) -> tuple[Fraction, Reading]:
    target = progress.target
    asked = target.value_micros * progress.elapsed
    ratio = actual / asked
    chance = None
    if target.kpi not in AMOUNTS:
        chance = partial(poisson_at_most, max(0, actual // MICROS), float(amount(asked)))
    is_off, is_back = ratio < rule.ratio, ratio >= rule.resolve_ratio

    def evidence() -> Evidence:
        return Evidence(
            expected=amount(asked),
            baseline=amount(target.value_micros),
            baseline_kind=TARGET,
            p_value=None if chance is None else chance(),
            ratio=ratio,
            kpi=target.kpi,
            actual=amount(actual),
            elapsed=progress.elapsed,
        )

    return ratio, Reading(
        window,
        # A target is a promise, not a guess: what is near enough is well, whatever chance says.
        chance=None if is_back else chance,
        strict_chance=None,
        is_off=is_off,
        is_back=is_back,
        is_telling=True,
        evidence=evidence,
    )
