"""Alerts as records of leadgen.alerts.v1.

Source: contract, section 7.
"""

from datetime import tzinfo
from fractions import Fraction
from types import MappingProxyType
from typing import Final, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from kpis.alert_texts import message_en, message_fr
from kpis.alerts import FIRED, RESOLVED, UPDATED, Alert, Evidence
from kpis.calendar import instant_text, minute_text
from kpis.decomposition import Explanation
from kpis.facts import Scope
from kpis.money import MICROS
from kpis.spans import Window
from kpis.windows import Record, amount_text, escaped, scope_parts

VERSION: Final = 1
TYPES: Final = MappingProxyType(
    {
        FIRED: "leadgen.alerts.fired.v1",
        UPDATED: "leadgen.alerts.updated.v1",
        RESOLVED: "leadgen.alerts.resolved.v1",
    }
)
"""The CloudEvents types on leadgen.alerts.v1, by state."""


class ScopeValue(Struct, frozen=True):
    """A scope as records say it; null: all."""

    channel: str | None
    campaign_id: str | None


class WindowValue(Struct, frozen=True):
    """A window as records say it."""

    kind: str
    start: str | None
    end: str | None
    time_zone: str


class EvidenceValue(Struct, frozen=True, kw_only=True):
    """Evidence as records say it; what only some kinds of rules have is left out elsewhere."""

    cost: str | None
    leads: int | None
    expected: float | None
    baseline: float | None
    baseline_kind: str | None
    p_value: float | None
    ratio: float | None
    trials: int | UnsetType = UNSET
    successes: int | UnsetType = UNSET
    kpi: str | UnsetType = UNSET
    actual: float | UnsetType = UNSET
    elapsed: float | UnsetType = UNSET
    channels: tuple[str, ...] | UnsetType = UNSET


class AlertValue(Struct, frozen=True, kw_only=True):
    """The JSON of leadgen.alerts.v1, in the contract's order. `explanation` is null if there is none."""

    version: int
    id: str
    rule: str
    state: str
    scope: ScopeValue
    window: WindowValue
    at: str
    since: str
    evidence: EvidenceValue
    explanation: Explanation | None
    message_en: str
    message_fr: str


def alert_value(
    alert: Alert, explanation: Explanation | None, zone: tzinfo, currency: str
) -> AlertValue:
    """Return what the record of an alert says; amounts in messages are in `currency`, ISO 4217."""
    finding = alert.finding
    return AlertValue(
        version=VERSION,
        id=alert.id,
        rule=finding.rule.name,
        state=alert.state,
        scope=ScopeValue(*finding.scope),
        window=_window(finding.window, zone),
        at=instant_text(alert.at_ms),
        since=instant_text(alert.since_ms),
        evidence=_evidence(finding.evidence),
        explanation=explanation,
        message_en=message_en(alert, explanation, currency),
        message_fr=message_fr(alert, explanation, currency),
    )


def alert_key(rule: str, scope: Scope) -> bytes:
    """Return the key of a record, `rule|channel|campaign`, its parts escaped.

    Source: contract, section 7.
    """
    channel, campaign_id = scope_parts(scope)
    return f"{escaped(rule)}|{channel}|{campaign_id}".encode()


def alert_record(value: AlertValue, source: str = "/leadpulse") -> Record:
    """Return the record of an alert: key, JSON value and CloudEvents headers in binary mode."""
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_type", TYPES[value.state].encode()),
        ("ce_source", source.encode()),
        ("ce_id", value.id.encode()),
        ("ce_time", value.at.encode()),
        ("content-type", b"application/json"),
    ]
    scope = Scope(value.scope.channel, value.scope.campaign_id)
    return Record(alert_key(value.rule, scope), _ENCODER.encode(value), headers)


def _window(window: Window, zone: tzinfo) -> WindowValue:
    start, end = window.start_minute, window.end_minute
    return WindowValue(
        window.kind,
        None if start is None else minute_text(start, zone),
        None if end is None else minute_text(end, zone),
        str(zone),
    )


def _evidence(evidence: Evidence) -> EvidenceValue:
    return EvidenceValue(
        cost=None if evidence.cost is None else amount_text(evidence.cost),
        leads=evidence.leads,
        expected=_number(evidence.expected),
        baseline=_number(evidence.baseline),
        baseline_kind=evidence.baseline_kind,
        p_value=None if evidence.p_value is None else float(f"{evidence.p_value:.5e}"),
        ratio=_number(evidence.ratio),
        trials=_or_unset(evidence.trials),
        successes=_or_unset(evidence.successes),
        kpi=_or_unset(evidence.kpi),
        actual=_or_unset(_number(evidence.actual)),
        elapsed=_or_unset(_number(evidence.elapsed)),
        channels=evidence.channels or UNSET,
    )


def _number(value: Fraction | None) -> float | None:
    """Return a quotient rounded half-even to six decimals, as KPIs are."""
    return None if value is None else round(value * MICROS) / MICROS


_Told = TypeVar("_Told")


def _or_unset(value: _Told | None) -> _Told | UnsetType:
    return UNSET if value is None else value


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(AlertValue)


def alert_of(value: bytes) -> AlertValue:
    """Return what a record's value says.

    Raises:
        msgspec.MsgspecError: if it is no such value.
    """
    return _DECODER.decode(value)
