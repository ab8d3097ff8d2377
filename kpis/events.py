"""The accepted events as typed values, and which topic carries which types.

Every event travels as a msgpack array that begins with its tag. Times are whole milliseconds since
1970 UTC (`_ms`), money is whole micros of the currency that stands beside it (`_micros`). Dimensions
are normalised already; an absent part of a natural key is the empty string.

Source: contract, section 2.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from msgspec import Struct

UNATTRIBUTED: Final = "unattributed"
"""The channel of what names no channel."""

OTHER_CHANNEL: Final = "other"
"""The channel of an unknown channel where unknown ones are not allowed."""

NO_CAMPAIGN: Final = "-"
"""The campaign of what names no campaign."""

IMPRESSION_SERVED: Final = "impression.served"
IMPRESSIONS_REPORTED: Final = "impressions.reported"
CLICK_RECORDED: Final = "click.recorded"
CLICKS_REPORTED: Final = "clicks.reported"
CLICK_VOIDED: Final = "click.voided"
VISIT_STARTED: Final = "visit.started"
LEAD_CREATED: Final = "lead.created"
LEAD_UPDATED: Final = "lead.updated"
LEAD_DISQUALIFIED: Final = "lead.disqualified"
LEAD_REQUALIFIED: Final = "lead.requalified"
LEAD_INVALIDATED: Final = "lead.invalidated"
LEAD_MERGED: Final = "lead.merged"
LEAD_STAGE_CHANGED: Final = "lead.stage_changed"
SALE_CREATED: Final = "sale.created"
SALE_AMENDED: Final = "sale.amended"
SALE_REFUNDED: Final = "sale.refunded"
SALE_CANCELLED: Final = "sale.cancelled"
SALE_VOIDED: Final = "sale.voided"
COST_SNAPSHOT: Final = "cost.snapshot"
COST_DELETED: Final = "cost.deleted"
TARGET_SET: Final = "target.set"
TARGET_REMOVED: Final = "target.removed"
FX_RATE_SET: Final = "fxrate.set"

TOPICS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "impressions": (IMPRESSION_SERVED, IMPRESSIONS_REPORTED),
        "clicks": (CLICK_RECORDED, CLICKS_REPORTED, CLICK_VOIDED),
        "visits": (VISIT_STARTED,),
        "leads": (
            LEAD_CREATED,
            LEAD_UPDATED,
            LEAD_DISQUALIFIED,
            LEAD_REQUALIFIED,
            LEAD_INVALIDATED,
            LEAD_MERGED,
        ),
        "stage-changes": (LEAD_STAGE_CHANGED,),
        "sales": (SALE_CREATED, SALE_AMENDED, SALE_REFUNDED, SALE_CANCELLED, SALE_VOIDED),
        "costs": (COST_SNAPSHOT, COST_DELETED),
        "targets": (TARGET_SET, TARGET_REMOVED),
        "fx-rates": (FX_RATE_SET,),
    }
)
"""The types each topic takes, by the topic's short name; the first is meant if `type` is absent."""


class Envelope(Struct, frozen=True, array_like=True, gc=False):
    """What every event carries: who says it, and when it happened.

    `recorded_ms` is None where the source did not say when it wrote the event down; `digest` is the
    first 8 bytes of the SHA-256 of the record's value, the last resort of the common order.
    """

    event_id: str
    source: str
    occurred_ms: int
    recorded_ms: int | None
    digest: bytes


class ImpressionServed(Struct, frozen=True, array_like=True, gc=False, tag="i"):
    """One impression; without an `impression_id` it can be counted but not recognised again.

    The id is only kept where impressions are deduplicated: everywhere else nobody asks for it.
    """

    envelope: Envelope
    impression_id: str | None
    channel: str
    campaign_id: str
    viewable: bool
    is_bot: bool


class ClickRecorded(Struct, frozen=True, array_like=True, gc=False, tag="c"):
    """One click; without a `click_id` it can be counted but not recognised again."""

    envelope: Envelope
    click_id: str | None
    channel: str
    campaign_id: str
    is_bot: bool


class ClickVoided(Struct, frozen=True, array_like=True, gc=False, tag="cv"):
    """A click that never was one: it becomes invalid in its own window."""

    envelope: Envelope
    click_id: str
    reason: str | None


class VisitStarted(Struct, frozen=True, array_like=True, gc=False, tag="v"):
    """One visit of a website by a visitor."""

    envelope: Envelope
    visitor_id: str
    channel: str
    campaign_id: str
    is_bot: bool


class CountsReported(Struct, frozen=True, array_like=True, gc=False, tag="n"):
    """A row of a platform's report: `count` impressions or clicks from start to as_of.

    The row's period is [start, end); start < end, start <= as_of <= end. An `as_of` after
    `reported` lies in the future: those minutes count as time reaches them.
    """

    envelope: Envelope
    kind: str
    channel: str
    campaign_id: str
    ad_group_id: str
    ad_id: str
    start_ms: int
    end_ms: int
    as_of_ms: int
    count: int
    reported_ms: int
    declared_channel: str = ""


class LeadCreated(Struct, frozen=True, array_like=True, gc=False, tag="l"):
    """A lead; a channel or campaign of None was not declared."""

    envelope: Envelope
    lead_id: str
    channel: str | None
    campaign_id: str | None
    click_id: str | None
    visitor_id: str | None
    initial_stage: str


class LeadUpdated(Struct, frozen=True, array_like=True, gc=False, tag="lu"):
    """Late attribution of a lead; a channel or campaign of None stays as it is."""

    envelope: Envelope
    lead_id: str
    channel: str | None
    campaign_id: str | None


class LeadDisqualified(Struct, frozen=True, array_like=True, gc=False, tag="ld"):
    """A real lead that will not buy."""

    envelope: Envelope
    lead_id: str
    reason: str | None


class LeadRequalified(Struct, frozen=True, array_like=True, gc=False, tag="lr"):
    """A disqualified lead that may buy after all."""

    envelope: Envelope
    lead_id: str
    reason: str | None


class LeadMerged(Struct, frozen=True, array_like=True, gc=False, tag="lm"):
    """A lead that disappears into another one; the two differ."""

    envelope: Envelope
    lead_id: str
    into_lead_id: str


class LeadInvalidated(Struct, frozen=True, array_like=True, gc=False, tag="li"):
    """A lead that never was one, for example spam."""

    envelope: Envelope
    lead_id: str
    reason: str


class LeadStageChanged(Struct, frozen=True, array_like=True, gc=False, tag="ls"):
    """A lead's move to a stage of the funnel."""

    envelope: Envelope
    lead_id: str
    to_stage: str
    from_stage: str | None
    reason: str | None


class SaleCreated(Struct, frozen=True, array_like=True, gc=False, tag="s"):
    """A sale; a `kind` of None is told from the lead's other sales."""

    envelope: Envelope
    sale_id: str
    lead_id: str | None
    amount_micros: int
    currency: str
    kind: str | None
    cost_of_goods_micros: int | None


class SaleAmended(Struct, frozen=True, array_like=True, gc=False, tag="sa"):
    """Another amount of a sale: the first one was wrong."""

    envelope: Envelope
    sale_id: str
    amount_micros: int
    currency: str


class SaleRefunded(Struct, frozen=True, array_like=True, gc=False, tag="sr"):
    """Money of a sale that went back; `amount_micros` > 0."""

    envelope: Envelope
    refund_id: str
    sale_id: str
    amount_micros: int
    currency: str


class SaleCancelled(Struct, frozen=True, array_like=True, gc=False, tag="sc"):
    """A sale that was called off: what is left of its amount goes back."""

    envelope: Envelope
    sale_id: str
    reason: str | None


class SaleVoided(Struct, frozen=True, array_like=True, gc=False, tag="sv"):
    """A sale that never was one."""

    envelope: Envelope
    sale_id: str
    reason: str | None


class CostSnapshot(Struct, frozen=True, array_like=True, gc=False, tag="k"):
    """What was spent from start to as_of; the newest row of a natural key replaces the others.

    The row's period is [start, end); start < end, start <= as_of <= end. An `as_of` after
    `reported` lies in the future: those minutes count as time reaches them. The amount of a credit may
    be negative.
    """

    envelope: Envelope
    cost_source: str
    account_id: str
    channel: str
    campaign_id: str
    ad_group_id: str
    ad_id: str
    cost_type: str
    start_ms: int
    end_ms: int
    as_of_ms: int
    amount_micros: int
    currency: str
    credit: bool
    reported_ms: int
    declared_channel: str = ""


class CostDeleted(Struct, frozen=True, array_like=True, gc=False, tag="kd"):
    """A cost record that its source took back, by its natural key."""

    envelope: Envelope
    cost_source: str
    account_id: str
    channel: str
    campaign_id: str
    ad_group_id: str
    ad_id: str
    cost_type: str
    start_ms: int
    end_ms: int
    credit: bool
    reported_ms: int
    declared_channel: str = ""


class TargetSet(Struct, frozen=True, array_like=True, gc=False, tag="g"):
    """What a KPI or fact is to come to in a period of the reporting calendar.

    `kpi` is the full name, for example `stage_entered.mql`; channel and campaign of None mean all.
    The period is [start, end) in whole minutes since 1970 UTC. `value_micros` is the target in
    millionths of the KPI's unit.
    """

    envelope: Envelope
    kpi: str
    channel: str | None
    campaign_id: str | None
    period: str
    start_minute: int
    end_minute: int
    value_micros: int
    profile: str
    reported_ms: int


class TargetRemoved(Struct, frozen=True, array_like=True, gc=False, tag="gr"):
    """A target that is one no more, by its natural key."""

    envelope: Envelope
    kpi: str
    channel: str | None
    campaign_id: str | None
    period: str
    start_minute: int
    end_minute: int
    reported_ms: int


class FxRateSet(Struct, frozen=True, array_like=True, gc=False, tag="x"):
    """One `base` is rate_numerator / rate_denominator `quote` on the date with this ordinal."""

    envelope: Envelope
    base: str
    quote: str
    day: int
    rate_numerator: int
    rate_denominator: int


Event = (
    ImpressionServed
    | ClickRecorded
    | ClickVoided
    | CountsReported
    | VisitStarted
    | LeadCreated
    | LeadUpdated
    | LeadDisqualified
    | LeadRequalified
    | LeadInvalidated
    | LeadMerged
    | LeadStageChanged
    | SaleCreated
    | SaleAmended
    | SaleRefunded
    | SaleCancelled
    | SaleVoided
    | CostSnapshot
    | CostDeleted
    | TargetSet
    | TargetRemoved
    | FxRateSet
)


_ROWS: Final = (CountsReported, CostSnapshot, CostDeleted)
_REPORTS: Final = (*_ROWS, TargetSet, TargetRemoved)
_TIMELESS: Final = (TargetSet, TargetRemoved, FxRateSet)


def reported_ms_of(event: Event) -> int | None:
    """Return when a row or target was reported, None for what is no report."""
    return event.reported_ms if isinstance(event, _REPORTS) else None


def newest_ms(event: Event, timestamp_ms: int) -> int:
    """Return the event time that retention counts back from, never ahead of the record's timestamp.

    A row tells of everything up to its report, whatever `occurred_at` it was given, and a bill for a
    time to come of all of that which has passed as it arrives. Targets and rates tell of no time that
    has passed: they are as old as can be (0) and move nothing.
    """
    if isinstance(event, _TIMELESS):
        return 0
    newest = event.envelope.occurred_ms
    if isinstance(event, _ROWS):
        newest = max(newest, event.reported_ms)
    if isinstance(event, CountsReported | CostSnapshot):
        newest = max(newest, event.as_of_ms)
    return min(newest, timestamp_ms)
