"""Bytes to events: `read` accepts a record or says why not; `reject_value` keeps what it refused.

Source: contract, sections 2, 7 (`leadgen.rejects.v1`) and 8.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from kpis import events
from kpis.events import (
    NO_CAMPAIGN,
    TOPICS,
    UNATTRIBUTED,
    ClickRecorded,
    CostSnapshot,
    CountsReported,
    Envelope,
    Event,
    ImpressionServed,
    LeadCreated,
    LeadInvalidated,
    LeadStageChanged,
    SaleCreated,
    SaleVoided,
)
from kpis.fields import (
    LONGEST_EVENT_ID,
    Fields,
    Refused,
    Rules,
    normal_campaign,
    normal_channel,
    refuse_field,
)
from kpis.instants import DAY_MS, days_between
from kpis.json_text import MalformedError, json_object, text_of, without

__all__ = [
    "Ignored",
    "Reading",
    "Refused",
    "Rules",
    "normal_campaign",
    "normal_channel",
    "read",
    "reject_value",
]

LONGEST_ORIGINAL: Final = 65_536
"""Bytes of a refused record that are kept."""

LONGEST_PERIOD_DAYS: Final = 400
LONGEST_REASON: Final = 256

INVALID_REASONS: Final = ("spam", "test", "duplicate", "bot", "error")
SALE_KINDS: Final = ("new", "repeat")
COST_TYPES: Final = ("media", "fee", "labour", "tool", "content", "other")

_VERSION: Final = re.compile(r"(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})")


class Ignored(Exception):  # noqa: N818 - an outcome of reading, not an error
    """A record that says nothing to us and is only counted; `why` is a word for the counter."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Reading(NamedTuple):
    """An accepted record.

    A test event (`is_test`) counts nowhere; `unknown_fields` counts what was ignored: fields we do
    not know, and a minor version we do not know.
    """

    event: Event
    is_test: bool
    unknown_fields: int


def read(topic: str, value: bytes | None, timestamp_ms: int, rules: Rules) -> Reading:
    """Return the event that a record's value is.

    Args:
        topic: The short name of the record's topic, one of `TOPICS`.
        value: The record's value; None is a tombstone.
        timestamp_ms: The record's own timestamp; negative if it has none, then no event is in the
            future.
        rules: The settings that decide what is accepted.

    Raises:
        Refused: for everything in contract section 8 that can be told from the record alone.
        Ignored: for a tombstone on costs.
    """
    if value is None:
        raise _tombstone(topic)
    if len(value) > rules.max_bytes:
        message = f"value: expected at most {rules.max_bytes} bytes, got {len(value)}"
        raise Refused(reason="too_large", field=None, message=message)
    try:
        members = json_object(value)
    except MalformedError as error:
        raise Refused(reason="malformed", field=None, message=str(error)) from None
    fields = Fields(members, rules)
    try:
        return _reading(topic, fields, timestamp_ms, value)
    except Refused as refused:
        _name_event(refused, fields)
        raise


def _tombstone(topic: str) -> Refused | Ignored:
    if topic == "costs":
        return Ignored("tombstone")
    return Refused("tombstone", None, "value: expected a JSON object, got null")


def _reading(topic: str, fields: Fields, timestamp_ms: int, value: bytes) -> Reading:
    type_name = _type_name(topic, fields)
    unknown = _unknown_minor_version(fields)
    event_id = fields.required_identifier("event_id", LONGEST_EVENT_ID)
    source = fields.required_identifier("source")
    occurred_ms = fields.required_instant("occurred_at")
    if occurred_ms > timestamp_ms + DAY_MS and timestamp_ms >= 0:
        refuse_field(
            fields, "future_time", "occurred_at", "at most 24 h after the record's timestamp"
        )
    recorded_ms = fields.instant("recorded_at")
    is_test = fields.flag("test")
    digest = hashlib.sha256(value).digest()[:8]
    reader, known = _READERS[type_name]
    event = reader(fields, Envelope(event_id, source, occurred_ms, recorded_ms, digest))
    if isinstance(event, CostSnapshot | CountsReported):
        _refuse_future_row(fields, event.reported_ms, timestamp_ms)
    if not known.issuperset(fields.members):
        unknown += len(fields.members.keys() - known)
    return Reading(event, is_test, unknown)


def _refuse_future_row(fields: Fields, reported_ms: int, timestamp_ms: int) -> None:
    # A row counts minute by minute up to then: one from next year would be half a million minutes.
    if reported_ms > timestamp_ms + DAY_MS and timestamp_ms >= 0:
        refuse_field(
            fields, "future_time", "reported_at", "at most 24 h after the record's timestamp"
        )


def _type_name(topic: str, fields: Fields) -> str:
    names = TOPICS[topic]
    type_name = fields.text("type")
    if type_name is None:
        return names[0]
    if type_name not in names:
        refuse_field(fields, "unknown_type", "type", "one of " + ", ".join(names))
    return type_name


def _unknown_minor_version(fields: Fields) -> int:
    version = fields.text("schema_version")
    if version is None or version == "1.0":
        return 0
    match = _VERSION.fullmatch(version)
    if match is None:
        refuse_field(fields, "bad_value", "schema_version", "MAJOR.MINOR")
    if match[1] != "1":
        refuse_field(fields, "unsupported_version", "schema_version", "major version 1")
    return 1


def _impression_served(fields: Fields, envelope: Envelope) -> ImpressionServed:
    fields.identifier("impression_id")
    channel = fields.channel() or UNATTRIBUTED
    campaign_id = fields.campaign() or NO_CAMPAIGN
    viewable = fields.flag("viewable")
    is_bot = fields.flag("is_bot")
    fields.identifier("visitor_id")
    return ImpressionServed(envelope, channel, campaign_id, viewable, is_bot)


def _click_recorded(fields: Fields, envelope: Envelope) -> ClickRecorded:
    click_id = fields.identifier("click_id")
    fields.identifier("impression_id")
    fields.identifier("visitor_id")
    channel = fields.channel() or UNATTRIBUTED
    campaign_id = fields.campaign() or NO_CAMPAIGN
    return ClickRecorded(envelope, click_id, channel, campaign_id, fields.flag("is_bot"))


def _counts_reported(kind: str) -> Callable[[Fields, Envelope], CountsReported]:
    def read_counts(fields: Fields, envelope: Envelope) -> CountsReported:
        channel = fields.required_channel()
        campaign_id = fields.campaign() or NO_CAMPAIGN
        ad_group_id = fields.identifier("ad_group_id") or ""
        ad_id = fields.identifier("ad_id") or ""
        period = _period(fields)
        count = fields.required_count("count")
        reported_ms = _reported_ms(fields, period)
        return CountsReported(
            envelope=envelope,
            kind=kind,
            channel=channel,
            campaign_id=campaign_id,
            ad_group_id=ad_group_id,
            ad_id=ad_id,
            start_ms=period.start_ms,
            end_ms=period.end_ms,
            as_of_ms=period.as_of_ms(reported_ms),
            count=count,
            reported_ms=reported_ms,
            declared_channel=fields.other_channel(channel),
        )

    return read_counts


def _lead_created(fields: Fields, envelope: Envelope) -> LeadCreated:
    return LeadCreated(
        envelope,
        fields.required_identifier("lead_id"),
        fields.channel(),
        fields.campaign(),
        fields.identifier("click_id"),
        fields.identifier("visitor_id"),
        fields.stage("initial_stage") or "lead",
    )


def _lead_invalidated(fields: Fields, envelope: Envelope) -> LeadInvalidated:
    lead_id = fields.required_identifier("lead_id")
    return LeadInvalidated(envelope, lead_id, fields.required_choice("reason", INVALID_REASONS))


def _lead_stage_changed(fields: Fields, envelope: Envelope) -> LeadStageChanged:
    return LeadStageChanged(
        envelope,
        fields.required_identifier("lead_id"),
        fields.required_stage("to_stage"),
        fields.stage("from_stage"),
        _reason(fields),
    )


def _sale_created(fields: Fields, envelope: Envelope) -> SaleCreated:
    sale_id = fields.required_identifier("sale_id")
    lead_id = fields.identifier("lead_id")
    amount_micros = fields.required_amount("amount")
    fields.check_currency()
    kind = fields.choice("kind", SALE_KINDS)
    cost_of_goods_micros = fields.amount("cost_of_goods")
    return SaleCreated(envelope, sale_id, lead_id, amount_micros, kind, cost_of_goods_micros)


def _sale_voided(fields: Fields, envelope: Envelope) -> SaleVoided:
    return SaleVoided(envelope, fields.required_identifier("sale_id"), _reason(fields))


def _cost_snapshot(fields: Fields, envelope: Envelope) -> CostSnapshot:
    cost_source = fields.required_identifier("cost_source")
    account_id = fields.identifier("account_id") or ""
    channel = fields.required_channel()
    campaign_id = fields.campaign() or NO_CAMPAIGN
    ad_group_id = fields.identifier("ad_group_id") or ""
    ad_id = fields.identifier("ad_id") or ""
    cost_type = fields.choice("cost_type", COST_TYPES) or "media"
    period = _period(fields)
    amount_micros = fields.required_amount("amount", signed=fields.members.get("credit") is True)
    fields.check_currency()
    reported_ms = _reported_ms(fields, period)
    return CostSnapshot(
        envelope=envelope,
        cost_source=cost_source,
        account_id=account_id,
        channel=channel,
        campaign_id=campaign_id,
        ad_group_id=ad_group_id,
        ad_id=ad_id,
        cost_type=cost_type,
        start_ms=period.start_ms,
        end_ms=period.end_ms,
        as_of_ms=period.as_of_ms(reported_ms),
        amount_micros=amount_micros,
        credit=fields.flag("credit"),
        reported_ms=reported_ms,
        declared_channel=fields.other_channel(channel),
    )


def _reason(fields: Fields) -> str | None:
    """Return a free text, cut: a reason is for people, and state must stay small."""
    reason = fields.text("reason")
    return None if reason is None else reason[:LONGEST_REASON]


class _Period(NamedTuple):
    """The period of a row, [start, end), and up to when it was told, if the row says so."""

    start_ms: int
    end_ms: int
    declared_ms: int | None

    def as_of_ms(self, reported_ms: int) -> int:
        """Return up to when the row counts: by default, until it was reported."""
        return min(self.end_ms, reported_ms if self.declared_ms is None else self.declared_ms)


def _period(fields: Fields) -> _Period:
    zone = _period_zone(fields)
    start_ms = fields.required_bound("period_start", zone)
    end_ms = fields.required_bound("period_end", zone)
    if end_ms <= start_ms:
        refuse_field(fields, "bad_period", "period_end", "an end after period_start")
    # Only a period that is nearly too long is worth a look at the zone's clocks.
    is_long = end_ms - start_ms > LONGEST_PERIOD_DAYS * DAY_MS
    if is_long and days_between(start_ms, end_ms, zone) > LONGEST_PERIOD_DAYS:
        refuse_field(fields, "bad_period", "period_end", f"at most {LONGEST_PERIOD_DAYS} days")
    declared_ms = fields.instant("as_of")
    if declared_ms is not None and declared_ms < start_ms:
        refuse_field(fields, "bad_period", "as_of", "no time before period_start")
    return _Period(start_ms, end_ms, declared_ms)


def _period_zone(fields: Fields) -> ZoneInfo:
    try:
        return fields.zone("time_zone")
    except Refused:
        # Dates need the zone, but stand before it: their own faults come first.
        fields.required_bound("period_start", fields.rules.time_zone)
        fields.required_bound("period_end", fields.rules.time_zone)
        raise


def _reported_ms(fields: Fields, period: _Period) -> int:
    reported_ms = fields.required_instant("reported_at")
    if reported_ms < period.start_ms:
        refuse_field(fields, "bad_period", "reported_at", "no time before period_start")
    if period.as_of_ms(reported_ms) > reported_ms + DAY_MS:
        refuse_field(fields, "bad_period", "as_of", "at most 24 h after reported_at")
    return reported_ms


_ENVELOPE: Final = (
    *("event_id", "source", "type", "occurred_at", "schema_version", "recorded_at", "test"),
)
_ROW: Final = (
    *("channel", "campaign_id", "ad_group_id", "ad_id"),
    *("period_start", "period_end", "time_zone", "as_of", "reported_at"),
)

_Reader = Callable[[Fields, Envelope], Event]


def _reads(reader: _Reader, *names: str) -> tuple[_Reader, frozenset[str]]:
    return reader, frozenset((*_ENVELOPE, *names))


_READERS: Final[Mapping[str, tuple[_Reader, frozenset[str]]]] = {
    events.IMPRESSION_SERVED: _reads(
        _impression_served,
        *("impression_id", "channel", "campaign_id", "viewable", "is_bot", "visitor_id"),
    ),
    events.IMPRESSIONS_REPORTED: _reads(
        _counts_reported(events.IMPRESSIONS_REPORTED), *_ROW, "count"
    ),
    events.CLICK_RECORDED: _reads(
        _click_recorded,
        *("click_id", "impression_id", "visitor_id", "channel", "campaign_id", "is_bot"),
    ),
    events.CLICKS_REPORTED: _reads(_counts_reported(events.CLICKS_REPORTED), *_ROW, "count"),
    events.LEAD_CREATED: _reads(
        _lead_created,
        *("lead_id", "channel", "campaign_id", "click_id", "visitor_id", "initial_stage"),
    ),
    events.LEAD_INVALIDATED: _reads(_lead_invalidated, "lead_id", "reason"),
    events.LEAD_STAGE_CHANGED: _reads(
        _lead_stage_changed, "lead_id", "to_stage", "from_stage", "reason"
    ),
    events.SALE_CREATED: _reads(
        _sale_created, "sale_id", "lead_id", "amount", "currency", "kind", "cost_of_goods"
    ),
    events.SALE_VOIDED: _reads(_sale_voided, "sale_id", "reason"),
    events.COST_SNAPSHOT: _reads(
        _cost_snapshot,
        *("cost_source", "account_id", "cost_type", "amount", "currency", "credit"),
        *_ROW,
    ),
}
"""For each type the function that reads it, and the fields it knows."""


def _name_event(refused: Refused, fields: Fields) -> None:
    """Put the event's id and time into `refused`, as far as they are sound and may be shown."""
    personal = fields.rules.personal
    try:
        if "event_id" not in personal:
            refused.event_id = fields.required_identifier("event_id", LONGEST_EVENT_ID)
    except Refused:
        pass
    try:
        fields.required_instant("occurred_at")
        if "occurred_at" not in personal:
            refused.occurred_at = fields.text("occurred_at")
    except Refused:
        pass


def reject_value(
    refused: Refused, topic: str, partition: int, offset: int, value: bytes | None, rules: Rules
) -> bytes:
    """Return the JSON record for `leadgen.rejects.v1`; `topic` is the full name.

    Personal fields are cut out of `original` before it is cut to size; a value that cannot be
    searched for them is replaced by its length and SHA-256.
    """
    reject: dict[str, object] = {
        "reason": refused.reason,
        "field": refused.field,
        "message": refused.message,
        "topic": topic,
        "partition": partition,
        "offset": offset,
    }
    if refused.event_id is not None:
        reject["event_id"] = refused.event_id
    if refused.occurred_at is not None:
        reject["occurred_at"] = refused.occurred_at
    return json.dumps(reject | _original(value, rules), ensure_ascii=False).encode()


def _original(value: bytes | None, rules: Rules) -> dict[str, object]:
    if value is None:
        return {"original": None, "truncated": False}
    kept = _without_personal(value, rules)
    if kept is None:
        digest = hashlib.sha256(value).hexdigest()
        return {"length": len(value), "sha256": digest, "truncated": False}
    cut = base64.b64encode(kept[:LONGEST_ORIGINAL]).decode()
    return {"original": cut, "truncated": len(kept) > LONGEST_ORIGINAL}


def _without_personal(value: bytes, rules: Rules) -> bytes | None:
    if len(value) > rules.max_bytes:
        return None
    try:
        members = json_object(value)
    except MalformedError:
        return None
    rest = without(members, rules.personal)
    # An untouched record is kept to the byte.
    return value if rest == members else text_of(rest).encode()
