"""Alerts: what was found at a minute, where each rule and scope stands, and what is to be told of it.

Pure: the minute's findings and the machine's time come in, the next standing and an alert come out.

Source: contract, sections 7 (leadgen.alerts.v1) and 9.
"""

import hashlib
from fractions import Fraction
from typing import Final, Literal

import msgspec
from msgspec import Struct

from kpis.alert_rules import Rule
from kpis.calendar import DAY_MINUTES, HOUR_MINUTES, MINUTE_MS
from kpis.facts import Facts, Scope
from kpis.money import MICROS
from kpis.spans import Window

FIRES: Final = "fires"
WELL: Final = "well"
BETWEEN: Final = "between"
SILENT: Final = "silent"
Condition = Literal["fires", "well", "between", "silent"]
"""Meets the rule; far from it; neither; nothing to judge by."""

FIRED: Final = "fired"
UPDATED: Final = "updated"
RESOLVED: Final = "resolved"
State = Literal["fired", "updated", "resolved"]

_WIDEST_GAP_MINUTES: Final = 3
"""Evaluations so far apart still count as running: a busy worker may miss a minute or two."""
_JUDGED_EACH_MINUTES: Final = 15
"""How often a firing standing notes that it is still judged: to write each minute would be dear."""
_LONGEST_MINUTES: Final = DAY_MINUTES + HOUR_MINUTES
"""A rolling window reaches back at most so far, as it begins with an hour: what resolved before need
not be remembered."""


class Evidence(Struct, frozen=True, kw_only=True):
    """The numbers that a finding rests on; None where the kind of rule has none.

    Attributes:
        cost: Of the window, micros.
        leads: Of the window.
        expected: What was to come: leads, or the actual value that a target asks for by now.
        baseline: The usual, in the unit of what is watched: amount per lead (CPL), amount
            (`spend_stopped`), leads per hour (`leads_stopped`), share (`conversion_drop`), the target.
        baseline_kind: Where the usual comes from: same_hours, last_7_days, target.
        p_value: The chance of so little or less if all was as usual.
        ratio: What is, over the usual: CPL, cost, leads, share, pacing; or the cost coverage. None
            for an endless one (no leads).
        trials: Clicks or leads that could have gone on (`conversion_drop`).
        successes: Those that did.
        kpi: Whose target it is (`pacing_behind`).
        actual: What it came to, in the KPI's unit.
        elapsed: The share of the target's period that is over.
        channels: The channels without cost (`cost_missing`).
    """

    cost: int | None = None
    leads: int | None = None
    expected: Fraction | None = None
    baseline: Fraction | None = None
    baseline_kind: str | None = None
    p_value: float | None = None
    ratio: Fraction | None = None
    trials: int | None = None
    successes: int | None = None
    kpi: str | None = None
    actual: Fraction | None = None
    elapsed: Fraction | None = None
    channels: tuple[str, ...] = ()


class Finding(Struct, frozen=True, kw_only=True):
    """What a rule says of a scope at a minute, by the window that matters.

    `evaluations` is how many running must fire before it is told, at least those of the rule;
    `facts` are those of the window and `usual` those of its baseline, for the explanation; usual is
    empty if the baseline is a target or there is none.
    """

    rule: Rule
    scope: Scope
    minute: int
    window: Window
    condition: Condition
    evaluations: int = 0
    evidence: Evidence = Evidence()
    facts: Facts = {}
    usual: Facts = {}


class Standing(Struct, array_like=True, omit_defaults=True):
    """Where one (rule, scope) stands; the persisted state. The default is that of a quiet one.

    Attributes:
        is_firing: Whether a fired record was told and no resolved one since.
        streak: Evaluations running that speak for the other phase.
        evaluated_minute: The last minute that was evaluated.
        streak_ms: When the streak began.
        since_ms: When the present or last incident began: the first evaluation of its streak.
        told_ms: When the last record was told.
        number: How many records have been told of this incident.
        told_window: The kind of window that the last record told of.
        told_ratio: Its ratio in millionths; -1 for none.
        judged_minute: The last minute with anything to judge by.
        resolved_ms: When the last incident resolved; 0 if there was none.
    """

    is_firing: bool = False
    streak: int = 0
    evaluated_minute: int = 0
    streak_ms: int = 0
    since_ms: int = 0
    told_ms: int = 0
    number: int = 0
    told_window: str = ""
    told_ratio: int = -1
    judged_minute: int = 0
    resolved_ms: int = 0


QUIET: Final = Standing()
"""Where everything stands that nothing is to be remembered of."""


class Alert(Struct, frozen=True, kw_only=True):
    """Something to tell: an incident began, changed or is over.

    `number` counts the records of one incident from 1 on; `id` is the same whenever the same is told.
    """

    id: str
    state: State
    finding: Finding
    at_ms: int
    since_ms: int
    number: int


def step(
    standing: Standing, finding: Finding, now_ms: int, waited_minutes: int = 0
) -> tuple[Standing, Alert | None]:
    """Return where a rule and scope stand after a finding, and what to tell; None: nothing.

    The same standing comes back, not only an equal one, while there is nothing to remember. A minute
    that was taken in changes nothing the second time.

    Args:
        standing: Where they stood before.
        finding: What was found.
        now_ms: The machine's time.
        waited_minutes: How long the scope waited for its turn behind others: that is no gap between
            two evaluations.
    """
    if finding.minute <= standing.evaluated_minute:
        return standing, None
    gap_minutes = finding.minute - waited_minutes - standing.evaluated_minute
    is_running = gap_minutes <= _WIDEST_GAP_MINUTES
    if standing.is_firing:
        return _firing(standing, finding, now_ms, is_running=is_running)
    return _quiet(standing, finding, now_ms, is_running=is_running)


def is_past(standing: Standing, cooldown_minutes: int, now_ms: int) -> bool:
    """Tell whether an incident ended so long ago that nothing depends on it any more."""
    remembered_minutes = max(cooldown_minutes, _LONGEST_MINUTES)
    return now_ms - standing.resolved_ms >= remembered_minutes * MINUTE_MS


def gone(
    standing: Standing, name: str, scope: Scope, minute: int, now_ms: int
) -> tuple[Standing, Alert | None]:
    """Return what is to be told of a standing whose rule or scope is no longer looked at."""
    if not standing.is_firing:
        return QUIET, None
    window = Window(standing.told_window, minute, minute + 1)
    rule = Rule(name=name, kind="")
    finding = Finding(rule=rule, scope=scope, minute=minute, window=window, condition=SILENT)
    return _tell(standing, finding, RESOLVED, now_ms)


def alert_id(rule: str, scope: Scope, since_ms: int, state: str, number: int) -> str:
    """Return the id of a record, 16 hex digits; equal for equal parts only."""
    parts = msgspec.json.encode((rule, *scope, since_ms, state, number))
    return hashlib.blake2b(parts, digest_size=8).hexdigest()


# ----------------------------------------------------------------------------- phases


def _quiet(
    standing: Standing, finding: Finding, now_ms: int, *, is_running: bool
) -> tuple[Standing, Alert | None]:
    rule = finding.rule
    rested_ms = now_ms - standing.resolved_ms
    if finding.condition != FIRES or rested_ms < rule.cooldown_minutes * MINUTE_MS:
        is_forgotten = is_past(standing, rule.cooldown_minutes, now_ms)
        return QUIET if is_forgotten else _without_streak(standing), None
    following = _with_streak(standing, finding, now_ms, is_running=is_running)
    if following.streak < max(rule.evaluations, finding.evaluations):
        return following, None
    begun = Standing(is_firing=True, evaluated_minute=finding.minute, since_ms=following.streak_ms)
    return _tell(begun, finding, FIRED, now_ms)


def _firing(
    standing: Standing, finding: Finding, now_ms: int, *, is_running: bool
) -> tuple[Standing, Alert | None]:
    rule, minute = finding.rule, finding.minute
    if finding.condition == WELL:
        following = _with_streak(standing, finding, now_ms, is_running=is_running)
        if following.streak < rule.evaluations:
            return following, None
        return _tell(following, finding, RESOLVED, now_ms)
    if finding.condition == SILENT:
        if minute - standing.judged_minute >= rule.silent_minutes:
            return _tell(standing, finding, RESOLVED, now_ms)
        return _without_streak(standing), None
    standing = _without_streak(standing)
    if minute - standing.judged_minute >= _JUDGED_EACH_MINUTES:
        standing = msgspec.structs.replace(standing, judged_minute=minute)
    if finding.condition == FIRES and _is_news(standing, finding, now_ms):
        return _tell(standing, finding, UPDATED, now_ms)
    return standing, None


def _with_streak(
    standing: Standing, finding: Finding, now_ms: int, *, is_running: bool
) -> Standing:
    """Count one more evaluation running; after a gap the first."""
    is_running = is_running and standing.streak > 0
    return msgspec.structs.replace(
        standing,
        streak=standing.streak + 1 if is_running else 1,
        streak_ms=standing.streak_ms if is_running else now_ms,
        evaluated_minute=finding.minute,
        judged_minute=finding.minute,
    )


def _without_streak(standing: Standing) -> Standing:
    if not standing.streak:
        return standing
    return msgspec.structs.replace(standing, streak=0, streak_ms=0)


def _is_news(standing: Standing, finding: Finding, now_ms: int) -> bool:
    """Tell whether an incident has changed enough, and long enough after the last record."""
    if now_ms - standing.told_ms < finding.rule.update_minutes * MINUTE_MS:
        return False
    told, ratio = standing.told_ratio, _ratio_micros(finding)
    if finding.window.kind != standing.told_window or min(told, ratio) < 0 <= max(told, ratio):
        return True
    return abs(ratio - told) * 4 >= told > 0


def _tell(
    standing: Standing, finding: Finding, state: State, now_ms: int
) -> tuple[Standing, Alert]:
    number = standing.number + 1
    name = finding.rule.name
    alert = Alert(
        id=alert_id(name, finding.scope, standing.since_ms, state, number),
        state=state,
        finding=finding,
        at_ms=now_ms,
        since_ms=standing.since_ms,
        number=number,
    )
    if state == RESOLVED:
        return Standing(evaluated_minute=finding.minute, resolved_ms=now_ms), alert
    told = msgspec.structs.replace(
        standing,
        evaluated_minute=finding.minute,
        judged_minute=finding.minute,
        told_ms=now_ms,
        number=number,
        told_window=finding.window.kind,
        told_ratio=_ratio_micros(finding),
    )
    return told, alert


def _ratio_micros(finding: Finding) -> int:
    ratio = finding.evidence.ratio
    return -1 if ratio is None else round(ratio * MICROS)
