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
from kpis.facts import Facts, Scope
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

    `facts` are those of the window and `usual` those of its baseline, for the explanation; usual is
    empty if the baseline is a target or there is none.
    """

    rule: Rule
    scope: Scope
    minute: int
    window: Window
    condition: Condition
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


def step(standing: Standing, finding: Finding, now_ms: int) -> tuple[Standing, Alert | None]:
    """Return where a rule and scope stand after a finding, and what to tell; None: nothing.

    A minute is taken in once: a second finding of it changes nothing.
    """
    raise NotImplementedError


def alert_id(rule: str, scope: Scope, since_ms: int, state: str, number: int) -> str:
    """Return the id of a record, 16 hex digits; equal for equal parts only."""
    parts = msgspec.json.encode((rule, *scope, since_ms, state, number))
    return hashlib.blake2b(parts, digest_size=8).hexdigest()
