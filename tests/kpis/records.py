"""Builders of records: what is required, and what a test changes about it."""

import json
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from kpis.events import (
    TOPICS,
    Event,
)
from kpis.instants import instant_ms
from kpis.reading import (
    Reading,
    Refused,
    Rules,
    read,
)

PARIS = ZoneInfo("Europe/Paris")
RULES = Rules()
NOON = "2026-03-05T12:00:00Z"
NOON_MS = instant_ms(NOON)
ABSENT = object()

ROW: dict[str, object] = {
    "channel": "google_ads",
    "period_start": "2026-03-01",
    "period_end": "2026-03-02",
    "reported_at": NOON,
}
COST_KEY: dict[str, object] = {**ROW, "cost_source": "bills"}
TARGET_KEY: dict[str, object] = {
    "kpi": "leads",
    "period": "month",
    "period_start": "2026-03-01",
    "reported_at": NOON,
}
MONEY: dict[str, object] = {"amount": "12.50", "currency": "EUR"}
REQUIRED: dict[str, dict[str, object]] = {
    "impression.served": {},
    "impressions.reported": {**ROW, "count": 7},
    "click.recorded": {},
    "clicks.reported": {**ROW, "count": 7},
    "click.voided": {"click_id": "k-1"},
    "visit.started": {"visit_id": "w-1", "visitor_id": "v-1"},
    "lead.created": {"lead_id": "l-1"},
    "lead.updated": {"lead_id": "l-1"},
    "lead.disqualified": {"lead_id": "l-1"},
    "lead.requalified": {"lead_id": "l-1"},
    "lead.invalidated": {"lead_id": "l-1", "reason": "spam"},
    "lead.merged": {"lead_id": "l-1", "into_lead_id": "l-2"},
    "lead.stage_changed": {"lead_id": "l-1", "to_stage": "mql"},
    "sale.created": {"sale_id": "s-1", **MONEY},
    "sale.amended": {"sale_id": "s-1", **MONEY, "recorded_at": NOON},
    "sale.refunded": {"refund_id": "r-1", "sale_id": "s-1", **MONEY},
    "sale.cancelled": {"sale_id": "s-1"},
    "sale.voided": {"sale_id": "s-1"},
    "cost.snapshot": {**COST_KEY, **MONEY},
    "cost.deleted": COST_KEY,
    "target.set": {**TARGET_KEY, "value": "100"},
    "target.removed": TARGET_KEY,
    "fxrate.set": {"base": "USD", "quote": "EUR", "date": "2026-03-02", "rate": "0.92"},
}
"""The fields that each type needs beside its envelope."""

PLACE = ("channel", "campaign_id")
ROW_KEY = ("campaign_id", "ad_group_id", "ad_id", "time_zone")
OPTIONAL: dict[str, tuple[str, ...]] = {
    "impression.served": (*PLACE, "impression_id", "viewable", "is_bot", "visitor_id"),
    "impressions.reported": (*ROW_KEY, "as_of"),
    "click.recorded": (*PLACE, "click_id", "impression_id", "visitor_id", "is_bot"),
    "clicks.reported": (*ROW_KEY, "as_of"),
    "click.voided": ("reason",),
    "visit.started": (*PLACE, "is_bot"),
    "lead.created": (*PLACE, "click_id", "visitor_id", "initial_stage"),
    "lead.updated": PLACE,
    "lead.disqualified": ("reason",),
    "lead.requalified": ("reason",),
    "lead.invalidated": (),
    "lead.merged": (),
    "lead.stage_changed": ("from_stage", "reason"),
    "sale.created": ("lead_id", "kind", "cost_of_goods"),
    "sale.amended": (),
    "sale.refunded": (),
    "sale.cancelled": ("reason",),
    "sale.voided": ("reason",),
    "cost.snapshot": (*ROW_KEY, "as_of", "account_id", "cost_type", "credit"),
    "cost.deleted": (*ROW_KEY, "account_id", "cost_type", "credit"),
    "target.set": ("stage", *PLACE, "profile"),
    "target.removed": ("stage", *PLACE),
    "fxrate.set": (),
}
"""The fields that each type may have beside those."""

TOPIC_OF = {name: topic for topic, names in TOPICS.items() for name in names}


def a_record(type_name: str, **changes: object) -> bytes:
    """Return a record with only what is required, and the changes; ABSENT leaves a field out."""
    envelope = {"event_id": "e-1", "source": "/crm", "type": type_name, "occurred_at": NOON}
    members = envelope | REQUIRED[type_name] | changes
    present = {name: value for name, value in members.items() if value is not ABSENT}
    return json.dumps(present).encode()


def reading_of(type_name: str, rules: Rules = RULES, /, **changes: object) -> Reading:
    return read(TOPIC_OF[type_name], a_record(type_name, **changes), NOON_MS, rules)


def refusal_of(type_name: str, rules: Rules = RULES, /, **changes: object) -> Refused:
    with pytest.raises(Refused) as caught:
        reading_of(type_name, rules, **changes)
    return caught.value


def event_of(type_name: str, rules: Rules = RULES, /, **changes: object) -> Any:
    return reading_of(type_name, rules, **changes).event


def without_digest(event: Event) -> Event:
    envelope = msgspec.structs.replace(event.envelope, digest=b"")
    return msgspec.structs.replace(event, envelope=envelope)
