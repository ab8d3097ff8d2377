"""For each type of event the function that reads its fields, in the order of the contract.

Source: contract, sections 2 and 8.
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from kpis import events
from kpis.events import (
    NO_CAMPAIGN,
    UNATTRIBUTED,
    ClickRecorded,
    ClickVoided,
    CostDeleted,
    CostSnapshot,
    CountsReported,
    Envelope,
    Event,
    FxRateSet,
    ImpressionServed,
    LeadCreated,
    LeadDisqualified,
    LeadInvalidated,
    LeadMerged,
    LeadRequalified,
    LeadStageChanged,
    LeadUpdated,
    SaleAmended,
    SaleCancelled,
    SaleCreated,
    SaleRefunded,
    SaleVoided,
    TargetRemoved,
    TargetSet,
    VisitStarted,
)
from kpis.fields import Fields, Refused, refuse_field
from kpis.instants import DAY_MS, MINUTE_MS, PERIODS, day_start_ms, days_between, period_end

LONGEST_PERIOD_DAYS: Final = 400
LONGEST_REASON: Final = 256

INVALID_REASONS: Final = ("spam", "test", "duplicate", "bot", "error")
SALE_KINDS: Final = ("new", "repeat")
COST_TYPES: Final = ("media", "fee", "labour", "tool", "content", "other")
PROFILES: Final = ("linear", "business_days")


# ------------------------------------------------------------------------- visitors


def _impression_served(fields: Fields, envelope: Envelope) -> ImpressionServed:
    impression_id = fields.identifier("impression_id")
    if not fields.rules.dedup_impressions:
        impression_id = None
    channel = fields.channel() or UNATTRIBUTED
    campaign_id = fields.campaign() or NO_CAMPAIGN
    viewable = fields.flag("viewable")
    is_bot = fields.flag("is_bot")
    fields.identifier("visitor_id")
    return ImpressionServed(envelope, impression_id, channel, campaign_id, viewable, is_bot)


def _click_recorded(fields: Fields, envelope: Envelope) -> ClickRecorded:
    click_id = fields.identifier("click_id")
    fields.identifier("impression_id")
    fields.identifier("visitor_id")
    channel = fields.channel() or UNATTRIBUTED
    campaign_id = fields.campaign() or NO_CAMPAIGN
    return ClickRecorded(envelope, click_id, channel, campaign_id, fields.flag("is_bot"))


def _click_voided(fields: Fields, envelope: Envelope) -> ClickVoided:
    return ClickVoided(envelope, fields.required_identifier("click_id"), _reason(fields))


def _visit_started(fields: Fields, envelope: Envelope) -> VisitStarted:
    fields.required_identifier("visit_id")
    visitor_id = fields.required_identifier("visitor_id")
    channel = fields.channel() or UNATTRIBUTED
    campaign_id = fields.campaign() or NO_CAMPAIGN
    return VisitStarted(envelope, visitor_id, channel, campaign_id, fields.flag("is_bot"))


# ------------------------------------------------------------------------- leads


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


def _lead_updated(fields: Fields, envelope: Envelope) -> LeadUpdated:
    lead_id = fields.required_identifier("lead_id")
    return LeadUpdated(envelope, lead_id, fields.channel(), fields.campaign())


def _lead_disqualified(fields: Fields, envelope: Envelope) -> LeadDisqualified:
    return LeadDisqualified(envelope, fields.required_identifier("lead_id"), _reason(fields))


def _lead_requalified(fields: Fields, envelope: Envelope) -> LeadRequalified:
    return LeadRequalified(envelope, fields.required_identifier("lead_id"), _reason(fields))


def _lead_invalidated(fields: Fields, envelope: Envelope) -> LeadInvalidated:
    lead_id = fields.required_identifier("lead_id")
    return LeadInvalidated(envelope, lead_id, fields.required_choice("reason", INVALID_REASONS))


def _lead_merged(fields: Fields, envelope: Envelope) -> LeadMerged:
    lead_id = fields.required_identifier("lead_id")
    into_lead_id = fields.required_identifier("into_lead_id")
    if into_lead_id == lead_id:
        refuse_field(fields, "bad_merge", "into_lead_id", "another lead than lead_id")
    return LeadMerged(envelope, lead_id, into_lead_id)


def _lead_stage_changed(fields: Fields, envelope: Envelope) -> LeadStageChanged:
    return LeadStageChanged(
        envelope,
        fields.required_identifier("lead_id"),
        fields.required_stage("to_stage"),
        fields.stage("from_stage"),
        _reason(fields),
    )


# ------------------------------------------------------------------------- sales


def _sale_created(fields: Fields, envelope: Envelope) -> SaleCreated:
    return SaleCreated(
        envelope,
        fields.required_identifier("sale_id"),
        fields.identifier("lead_id"),
        fields.required_amount("amount"),
        fields.required_currency(),
        fields.choice("kind", SALE_KINDS),
        fields.amount("cost_of_goods"),
    )


def _sale_amended(fields: Fields, envelope: Envelope) -> SaleAmended:
    sale_id = fields.required_identifier("sale_id")
    amount_micros = fields.required_amount("amount")
    currency = fields.required_currency()
    # It stands in the envelope already, but only here it must.
    fields.required_instant("recorded_at")
    return SaleAmended(envelope, sale_id, amount_micros, currency)


def _sale_refunded(fields: Fields, envelope: Envelope) -> SaleRefunded:
    refund_id = fields.required_identifier("refund_id")
    sale_id = fields.required_identifier("sale_id")
    amount_micros = fields.required_amount("amount")
    if amount_micros == 0:
        refuse_field(fields, "bad_amount", "amount", "an amount above 0")
    return SaleRefunded(envelope, refund_id, sale_id, amount_micros, fields.required_currency())


def _sale_cancelled(fields: Fields, envelope: Envelope) -> SaleCancelled:
    return SaleCancelled(envelope, fields.required_identifier("sale_id"), _reason(fields))


def _sale_voided(fields: Fields, envelope: Envelope) -> SaleVoided:
    return SaleVoided(envelope, fields.required_identifier("sale_id"), _reason(fields))


def _reason(fields: Fields) -> str | None:
    """Return a free text, cut: a reason is for people, and state must stay small."""
    reason = fields.text("reason")
    return None if reason is None else reason[:LONGEST_REASON]


# ------------------------------------------------------------------------- rows


class _Dimensions(NamedTuple):
    """What a row is about."""

    channel: str
    campaign_id: str
    ad_group_id: str
    ad_id: str


class _Period(NamedTuple):
    """The period of a row, [start, end), and up to when it was told, if the row says so."""

    start_ms: int
    end_ms: int
    declared_ms: int | None

    def as_of_ms(self, reported_ms: int, *, is_whole: bool) -> int:
        """Return up to when the row counts.

        By default until it was reported, but to the end if the row `is_whole` or was reported
        before its period begins.

        Source: contract, section 3, "Cost and report rows".
        """
        if self.declared_ms is not None:
            return min(self.end_ms, self.declared_ms)
        if is_whole or reported_ms < self.start_ms:
            return self.end_ms
        return min(self.end_ms, reported_ms)


def _counts_reported(kind: str, fields: Fields, envelope: Envelope) -> CountsReported:
    dimensions = _dimensions(fields)
    period = _period(fields)
    count = fields.required_count("count")
    reported_ms = fields.required_instant("reported_at")
    return CountsReported(
        envelope,
        kind,
        *dimensions,
        start_ms=period.start_ms,
        end_ms=period.end_ms,
        as_of_ms=period.as_of_ms(reported_ms, is_whole=False),
        count=count,
        reported_ms=reported_ms,
        declared_channel=fields.other_channel(dimensions.channel),
    )


def _cost_snapshot(fields: Fields, envelope: Envelope) -> CostSnapshot:
    account = _account(fields)
    dimensions = _dimensions(fields)
    cost_type = _cost_type(fields)
    period = _period(fields)
    amount_micros = fields.required_amount("amount", signed=fields.members.get("credit") is True)
    currency = fields.required_currency()
    reported_ms = fields.required_instant("reported_at")
    return CostSnapshot(
        envelope,
        *account,
        *dimensions,
        cost_type,
        start_ms=period.start_ms,
        end_ms=period.end_ms,
        as_of_ms=period.as_of_ms(reported_ms, is_whole=cost_type != "media"),
        amount_micros=amount_micros,
        currency=currency,
        credit=fields.flag("credit"),
        reported_ms=reported_ms,
        declared_channel=fields.other_channel(dimensions.channel),
    )


def _cost_deleted(fields: Fields, envelope: Envelope) -> CostDeleted:
    account = _account(fields)
    dimensions = _dimensions(fields)
    cost_type = _cost_type(fields)
    start_ms, end_ms = _bounds(fields)
    credit = fields.flag("credit")
    return CostDeleted(
        envelope,
        *account,
        *dimensions,
        cost_type,
        start_ms=start_ms,
        end_ms=end_ms,
        credit=credit,
        reported_ms=fields.required_instant("reported_at"),
        declared_channel=fields.other_channel(dimensions.channel),
    )


def _account(fields: Fields) -> tuple[str, str]:
    """Return the source of a cost and the account there."""
    return fields.required_identifier("cost_source"), fields.identifier("account_id") or ""


def _dimensions(fields: Fields) -> _Dimensions:
    return _Dimensions(
        fields.required_channel(),
        fields.campaign() or NO_CAMPAIGN,
        fields.identifier("ad_group_id") or "",
        fields.identifier("ad_id") or "",
    )


def _cost_type(fields: Fields) -> str:
    return fields.choice("cost_type", COST_TYPES) or "media"


def _period(fields: Fields) -> _Period:
    start_ms, end_ms = _bounds(fields)
    declared_ms = fields.instant("as_of")
    if declared_ms is not None and declared_ms < start_ms:
        refuse_field(fields, "bad_period", "as_of", "no time before period_start")
    return _Period(start_ms, end_ms, declared_ms)


def _bounds(fields: Fields) -> tuple[int, int]:
    """Return the start and end of a row's period, in ms since 1970."""
    zone = _period_zone(fields)
    start_ms = fields.required_bound("period_start", zone)
    end_ms = fields.required_bound("period_end", zone)
    if end_ms <= start_ms:
        refuse_field(fields, "bad_period", "period_end", "an end after period_start")
    # Only a period that is nearly too long is worth a look at the zone's clocks.
    is_long = end_ms - start_ms > LONGEST_PERIOD_DAYS * DAY_MS
    if is_long and days_between(start_ms, end_ms, zone) > LONGEST_PERIOD_DAYS:
        refuse_field(fields, "bad_period", "period_end", f"at most {LONGEST_PERIOD_DAYS} days")
    return start_ms, end_ms


def _period_zone(fields: Fields) -> ZoneInfo:
    try:
        return fields.zone("time_zone")
    except Refused:
        # Dates need the zone, but stand before it: their own faults come first.
        fields.required_bound("period_start", fields.rules.time_zone)
        fields.required_bound("period_end", fields.rules.time_zone)
        raise


# ------------------------------------------------------------------------- targets and rates


class _TargetKey(NamedTuple):
    """What a target is about, and its period [start, end) in minutes since 1970."""

    kpi: str
    channel: str | None
    campaign_id: str | None
    period: str
    start_minute: int
    end_minute: int


def _target_set(fields: Fields, envelope: Envelope) -> TargetSet:
    key = _target_key(fields)
    value_micros = fields.required_target("value")
    if fields.rules.target_kpis[key.kpi] == "amount":
        fields.check_reporting_currency()
    profile = fields.choice("profile", PROFILES) or "linear"
    reported_ms = fields.required_instant("reported_at")
    return TargetSet(envelope, *key, value_micros, profile, reported_ms)


def _target_removed(fields: Fields, envelope: Envelope) -> TargetRemoved:
    key = _target_key(fields)
    return TargetRemoved(envelope, *key, fields.required_instant("reported_at"))


def _target_key(fields: Fields) -> _TargetKey:
    kpi = _target_kpi(fields)
    channel, campaign_id = fields.channel(), fields.campaign()
    if campaign_id is not None and channel is None:
        refuse_field(fields, "missing_field", "channel", "the channel of the campaign")
    period = fields.required_choice("period", PERIODS)
    return _TargetKey(kpi, channel, campaign_id, period, *_target_minutes(fields, period))


def _target_kpi(fields: Fields) -> str:
    """Return the full name of what a target is about; of `stage_entered` the stage is part."""
    name = fields.required_text("kpi")
    is_staged = name == "stage_entered"
    if not is_staged and name not in fields.rules.target_kpis:
        expected = "leads, sales, new_customers, revenue_net, cost, stage_entered or a KPI"
        refuse_field(fields, "bad_value", "kpi", expected)
    stage = fields.required_stage("stage") if is_staged else fields.stage("stage")
    return f"{name}.{stage}" if is_staged else name


def _target_minutes(fields: Fields, period: str) -> tuple[int, int]:
    first = fields.required_date("period_start")
    end = period_end(first, period)
    if end is None:
        refuse_field(fields, "bad_period", "period_start", f"the first day of a {period}")
    zone = fields.rules.time_zone
    start_minute, end_minute = (day_start_ms(day, zone) // MINUTE_MS for day in (first, end))
    if end_minute <= start_minute:
        # A zone that moves across the date line leaves out a day.
        refuse_field(fields, "bad_period", "period_start", "a day that exists in the zone")
    return start_minute, end_minute


def _fx_rate_set(fields: Fields, envelope: Envelope) -> FxRateSet:
    base = fields.required_currency("base")
    quote = fields.required_currency("quote")
    if quote == base:
        refuse_field(fields, "bad_value", "quote", "another currency than base")
    day = fields.required_date("date").toordinal()
    rate = fields.required_rate("rate")
    return FxRateSet(envelope, base, quote, day, rate.numerator, rate.denominator)


# ------------------------------------------------------------------------- the table

_ENVELOPE: Final = (
    *("event_id", "source", "type", "occurred_at", "schema_version", "recorded_at", "test"),
)
_DIMENSIONS: Final = ("channel", "campaign_id", "ad_group_id", "ad_id")
_ROW: Final = (
    *_DIMENSIONS,
    *("period_start", "period_end", "time_zone", "as_of", "reported_at"),
)
_COST: Final = (
    *_ROW,
    *("cost_source", "account_id", "cost_type", "amount", "currency", "credit"),
)
_TARGET: Final = (
    *("kpi", "stage", "channel", "campaign_id", "period", "period_start"),
    *("value", "currency", "profile", "reported_at"),
)

_Reader = Callable[[Fields, Envelope], Event]


def _reads(reader: _Reader, *names: str) -> tuple[_Reader, frozenset[str]]:
    return reader, frozenset((*_ENVELOPE, *names))


def _reads_counts(kind: str) -> tuple[_Reader, frozenset[str]]:
    return _reads(partial(_counts_reported, kind), *_ROW, "count")


READERS: Final[Mapping[str, tuple[_Reader, frozenset[str]]]] = MappingProxyType(
    {
        events.IMPRESSION_SERVED: _reads(
            _impression_served,
            *("impression_id", "channel", "campaign_id", "viewable", "is_bot", "visitor_id"),
        ),
        events.IMPRESSIONS_REPORTED: _reads_counts(events.IMPRESSIONS_REPORTED),
        events.CLICK_RECORDED: _reads(
            _click_recorded,
            *("click_id", "impression_id", "visitor_id", "channel", "campaign_id", "is_bot"),
        ),
        events.CLICKS_REPORTED: _reads_counts(events.CLICKS_REPORTED),
        events.CLICK_VOIDED: _reads(_click_voided, "click_id", "reason"),
        events.VISIT_STARTED: _reads(
            _visit_started, "visit_id", "visitor_id", "channel", "campaign_id", "is_bot"
        ),
        events.LEAD_CREATED: _reads(
            _lead_created,
            *("lead_id", "channel", "campaign_id", "click_id", "visitor_id", "initial_stage"),
        ),
        events.LEAD_UPDATED: _reads(_lead_updated, "lead_id", "channel", "campaign_id"),
        events.LEAD_DISQUALIFIED: _reads(_lead_disqualified, "lead_id", "reason"),
        events.LEAD_REQUALIFIED: _reads(_lead_requalified, "lead_id", "reason"),
        events.LEAD_INVALIDATED: _reads(_lead_invalidated, "lead_id", "reason"),
        events.LEAD_MERGED: _reads(_lead_merged, "lead_id", "into_lead_id"),
        events.LEAD_STAGE_CHANGED: _reads(
            _lead_stage_changed, "lead_id", "to_stage", "from_stage", "reason"
        ),
        events.SALE_CREATED: _reads(
            _sale_created, "sale_id", "lead_id", "amount", "currency", "kind", "cost_of_goods"
        ),
        events.SALE_AMENDED: _reads(_sale_amended, "sale_id", "amount", "currency"),
        events.SALE_REFUNDED: _reads(_sale_refunded, "refund_id", "sale_id", "amount", "currency"),
        events.SALE_CANCELLED: _reads(_sale_cancelled, "sale_id", "reason"),
        events.SALE_VOIDED: _reads(_sale_voided, "sale_id", "reason"),
        events.COST_SNAPSHOT: _reads(_cost_snapshot, *_COST),
        events.COST_DELETED: _reads(_cost_deleted, *_COST),
        events.TARGET_SET: _reads(_target_set, *_TARGET),
        events.TARGET_REMOVED: _reads(_target_removed, *_TARGET),
        events.FX_RATE_SET: _reads(_fx_rate_set, "base", "quote", "date", "rate"),
    }
)
"""For each type the function that reads it, and the fields it knows.

What takes a thing back knows the fields of what it takes back, and looks at the key only.
"""
