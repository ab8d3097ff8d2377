"""Ways in which producers break events, each with the reason for which it has to be refused.

Source: contract, section 8; what can be told from the record alone.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

Event = Mapping[str, object]
encode = msgspec.json.Encoder().encode

TOO_LARGE_BYTES = 262_145
# Further ahead than any broker's clock.
FUTURE = "2099-12-31T23:59:59Z"


class Breakage(NamedTuple):
    """One way to break a sound event.

    `reason` is the word of the contract; `apply` makes the record's value from the event;
    `types` are those it is made for, empty for all.
    """

    name: str
    reason: str
    apply: Callable[[Event], bytes | None]
    types: tuple[str, ...] = ()


def _set(**changes: object) -> Callable[[Event], bytes]:
    return lambda event: encode({**event, **changes})


def _without(*names: str) -> Callable[[Event], bytes]:
    return lambda event: encode({name: event[name] for name in event if name not in names})


def _raw(addition: bytes) -> Callable[[Event], bytes]:
    """Return what writes `addition` before the last brace: things that no encoder would write."""
    return lambda event: encode(event)[:-1] + addition + b"}"


def _into_itself(event: Event) -> bytes:
    return encode({**event, "into_lead_id": event["lead_id"]})


BREAKAGES: tuple[Breakage, ...] = (
    Breakage("empty value", "malformed", lambda _: b""),
    Breakage("truncated", "malformed", lambda event: encode(event)[:-9]),
    Breakage("not UTF-8", "malformed", lambda event: encode(event)[:-2] + b'\xff\xfe"}'),
    Breakage("duplicate keys", "malformed", _raw(b',"event_id":"twice"')),
    Breakage("NaN", "malformed", _raw(b',"score":NaN')),
    Breakage("deep nesting", "malformed", _raw(b',"deep":' + b"[" * 40 + b"]" * 40)),
    Breakage("no object", "malformed", lambda event: encode([event])),
    Breakage("too large", "too_large", _set(note="x" * TOO_LARGE_BYTES)),
    Breakage("unknown type", "unknown_type", _set(type="lead.forgotten")),
    Breakage("unknown major version", "unsupported_version", _set(schema_version="2.0")),
    Breakage("no event_id", "missing_field", _without("event_id")),
    Breakage("empty source", "missing_field", _set(source="")),
    Breakage("number for text", "wrong_type", _set(source=12)),
    Breakage("naive time", "bad_time", _set(occurred_at="2026-03-05T12:00:00")),
    Breakage("epoch number", "bad_time", _set(occurred_at=1_772_712_000)),
    Breakage("far future", "future_time", _set(occurred_at=FUTURE)),
    Breakage("long event_id", "bad_id", _set(event_id="e" * 129)),
    Breakage(
        "reserved campaign",
        "bad_id",
        _set(campaign_id="_all"),
        ("impression.served", "click.recorded", "lead.created"),
    ),
    Breakage(
        "bad channel",
        "bad_value",
        _set(channel="google ads!"),
        ("impression.served", "click.recorded", "lead.created"),
    ),
    Breakage(
        "text for truth",
        "wrong_type",
        _set(is_bot="yes"),
        ("impression.served", "click.recorded", "visit.started"),
    ),
    Breakage("no visitor_id", "missing_field", _without("visitor_id"), ("visit.started",)),
    Breakage("no click_id", "missing_field", _without("click_id"), ("click.voided",)),
    Breakage("no lead_id", "missing_field", _without("lead_id"), ("lead.created",)),
    Breakage(
        "tombstone",
        "tombstone",
        lambda _: None,
        ("lead.created", "sale.created", "visit.started", "lead.stage_changed"),
    ),
    Breakage("merge into itself", "bad_merge", _into_itself, ("lead.merged",)),
    Breakage("no survivor", "missing_field", _without("into_lead_id"), ("lead.merged",)),
    Breakage("unknown stage", "unknown_stage", _set(to_stage="won_maybe"), ("lead.stage_changed",)),
    Breakage("unknown reason", "bad_value", _set(reason="boring"), ("lead.invalidated",)),
    Breakage(
        "negative amount",
        "negative_amount",
        _set(amount="-5.00"),
        ("sale.created", "sale.amended", "sale.refunded"),
    ),
    Breakage("refund of nothing", "bad_amount", _set(amount=0), ("sale.refunded",)),
    Breakage("no refund_id", "missing_field", _without("refund_id"), ("sale.refunded",)),
    Breakage("no recorded_at", "missing_field", _without("recorded_at"), ("sale.amended",)),
    Breakage("seven decimals", "bad_amount", _set(amount="1.1234567"), ("sale.created",)),
    Breakage("grouped amount", "bad_amount", _set(amount="1,200.00"), ("sale.created",)),
    Breakage("exponent", "bad_amount", _set(amount="1e3"), ("sale.created", "cost.snapshot")),
    Breakage(
        "no currency",
        "missing_currency",
        _without("currency"),
        ("sale.created", "sale.amended", "sale.refunded"),
    ),
    Breakage(
        "unknown currency",
        "unknown_currency",
        _set(currency="EURO"),
        ("cost.snapshot", "sale.created"),
    ),
    Breakage("unknown kind", "bad_value", _set(kind="gift"), ("sale.created",)),
    Breakage("negative count", "bad_count", _set(count=-1), ("impressions.reported",)),
    Breakage("text for count", "wrong_type", _set(count="12"), ("clicks.reported",)),
    Breakage(
        "empty period",
        "bad_period",
        _set(period_start="2026-03-05", period_end="2026-03-05"),
        ("cost.snapshot", "cost.deleted"),
    ),
    Breakage(
        "unknown zone", "unknown_time_zone", _set(time_zone="Europe/Atlantis"), ("cost.snapshot",)
    ),
    Breakage("no cost_source", "missing_field", _without("cost_source"), ("cost.deleted",)),
    Breakage("target of 0", "bad_target", _set(value="0"), ("target.set",)),
    Breakage("unknown profile", "bad_value", _set(profile="wavy"), ("target.set",)),
    Breakage("target of nothing", "bad_value", _set(kpi="luck"), ("target.set", "target.removed")),
    Breakage("rate of 0", "bad_rate", _set(rate="0.00"), ("fxrate.set",)),
    Breakage("no date", "missing_field", _without("date"), ("fxrate.set",)),
    Breakage("unknown base", "unknown_currency", _set(base="EURO"), ("fxrate.set",)),
)


def breakages_of(event_type: str) -> tuple[Breakage, ...]:
    """Return the ways to break an event of this type."""
    return tuple(b for b in BREAKAGES if not b.types or event_type in b.types)
