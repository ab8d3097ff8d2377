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

ROW = {
    "channel": "google_ads",
    "period_start": "2026-03-01",
    "period_end": "2026-03-02",
    "reported_at": NOON,
}
REQUIRED: dict[str, dict[str, object]] = {
    "impression.served": {},
    "impressions.reported": {**ROW, "count": 7},
    "click.recorded": {},
    "clicks.reported": {**ROW, "count": 7},
    "lead.created": {"lead_id": "l-1"},
    "lead.invalidated": {"lead_id": "l-1", "reason": "spam"},
    "lead.stage_changed": {"lead_id": "l-1", "to_stage": "mql"},
    "sale.created": {"sale_id": "s-1", "amount": "12.50", "currency": "EUR"},
    "sale.voided": {"sale_id": "s-1"},
    "cost.snapshot": {**ROW, "cost_source": "bills", "amount": "12.50", "currency": "EUR"},
}
ROW_OPTIONAL = ("campaign_id", "ad_group_id", "ad_id", "time_zone", "as_of")
OPTIONAL: dict[str, tuple[str, ...]] = {
    "impression.served": (
        *("impression_id", "channel", "campaign_id", "viewable", "is_bot", "visitor_id"),
    ),
    "impressions.reported": ROW_OPTIONAL,
    "click.recorded": (
        *("click_id", "impression_id", "visitor_id", "channel", "campaign_id", "is_bot"),
    ),
    "clicks.reported": ROW_OPTIONAL,
    "lead.created": ("channel", "campaign_id", "click_id", "visitor_id", "initial_stage"),
    "lead.invalidated": (),
    "lead.stage_changed": ("from_stage", "reason"),
    "sale.created": ("lead_id", "kind", "cost_of_goods"),
    "sale.voided": ("reason",),
    "cost.snapshot": (*ROW_OPTIONAL, "account_id", "cost_type", "credit"),
}

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
