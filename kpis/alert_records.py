"""Alerts as records of leadgen.alerts.v1.

Source: contract, section 7.
"""

from datetime import tzinfo
from typing import Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from kpis.alerts import Alert
from kpis.decomposition import Explanation
from kpis.windows import Record

VERSION: Final = 1


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
    raise NotImplementedError


def alert_key(rule: str, channel: str | None, campaign_id: str | None) -> bytes:
    """Return the key of a record, `rule|channel|campaign`, its parts escaped."""
    raise NotImplementedError


def alert_record(value: AlertValue, source: str = "/leadpulse") -> Record:
    """Return the record of an alert: key, JSON value and CloudEvents headers in binary mode."""
    raise NotImplementedError


_DECODER = msgspec.json.Decoder(AlertValue)


def alert_of(value: bytes) -> AlertValue:
    """Return what a record's value says.

    Raises:
        msgspec.MsgspecError: if it is no such value.
    """
    return _DECODER.decode(value)
