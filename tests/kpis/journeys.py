"""Events of leads, sales and clicks for tests, and what is read off what they add."""

import hashlib
from collections.abc import Iterable, Mapping

from kpis.contributions import Contribution
from kpis.events import (
    ClickRecorded,
    ClickVoided,
    Envelope,
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
)
from kpis.facts import PERIOD, Facts, add
from kpis.leads import Funnel
from kpis.orders import Waiting
from kpis.retention import Grain

MINUTE = 60_000
DAY = 24 * 60 * MINUTE
PARK_MS = KEEP_MS = 7 * DAY
HORIZON_MS = 30 * DAY
FUNNEL = Funnel()
STRICT = Funnel(imply_skipped=False)

LeadEvent = (
    LeadCreated
    | LeadUpdated
    | LeadDisqualified
    | LeadRequalified
    | LeadInvalidated
    | LeadMerged
    | LeadStageChanged
)
SaleEvent = SaleCreated | SaleAmended | SaleRefunded | SaleCancelled | SaleVoided
ClickEvent = ClickRecorded | ClickVoided


def envelope(
    at: int, content: object = None, event_id: str = "e", written: int | None = None
) -> Envelope:
    """Return the envelope of an event `at` minutes after 1970; other contents, other digests."""
    digest = hashlib.sha256(repr((at, event_id, written, content)).encode()).digest()[:8]
    recorded_ms = None if written is None else written * MINUTE
    return Envelope(event_id, "s", at * MINUTE, recorded_ms, digest)


def created(
    at: int = 0,
    channel: str | None = "seo",
    campaign_id: str | None = "c",
    initial_stage: str = "lead",
    click_id: str | None = None,
    lead_id: str = "l",
    event_id: str = "e",
) -> LeadCreated:
    content = (lead_id, channel, campaign_id, click_id, None, initial_stage)
    told = envelope(at, ("created", content), event_id)
    return LeadCreated(told, lead_id, channel, campaign_id, click_id, None, initial_stage)


def moved(at: int, to_stage: str, lead_id: str = "l", event_id: str = "m") -> LeadStageChanged:
    told = envelope(at, ("moved", lead_id, to_stage), event_id)
    return LeadStageChanged(told, lead_id, to_stage, None, None)


def updated(
    at: int,
    channel: str | None = None,
    campaign_id: str | None = None,
    lead_id: str = "l",
    written: int | None = None,
) -> LeadUpdated:
    told = envelope(at, ("updated", lead_id, channel, campaign_id), "u", written)
    return LeadUpdated(told, lead_id, channel, campaign_id)


def invalidated(at: int = 1, lead_id: str = "l") -> LeadInvalidated:
    return LeadInvalidated(envelope(at, ("invalidated", lead_id), "i"), lead_id, "spam")


def disqualified(at: int, lead_id: str = "l") -> LeadDisqualified:
    return LeadDisqualified(envelope(at, ("disqualified", lead_id), "d"), lead_id, None)


def requalified(at: int, lead_id: str = "l") -> LeadRequalified:
    return LeadRequalified(envelope(at, ("requalified", lead_id), "d"), lead_id, None)


def merged(at: int, lead_id: str, into_lead_id: str, written: int | None = None) -> LeadMerged:
    told = envelope(at, ("merged", lead_id, into_lead_id), "j", written)
    return LeadMerged(told, lead_id, into_lead_id)


def sold(
    at: int,
    amount: int = 5,
    kind: str | None = None,
    lead_id: str | None = "l",
    sale_id: str = "s",
    currency: str = "EUR",
) -> SaleCreated:
    content = (sale_id, lead_id, amount, currency, kind)
    told = envelope(at, ("sold", content), f"s-{sale_id}")
    return SaleCreated(told, sale_id, lead_id, amount, currency, kind, None)


def amended(
    at: int, amount: int, sale_id: str = "s", currency: str = "EUR", written: int | None = None
) -> SaleAmended:
    told = envelope(at, ("amended", sale_id, amount, currency), "a", written)
    return SaleAmended(told, sale_id, amount, currency)


def refunded(
    at: int, amount: int, refund_id: str = "r", sale_id: str = "s", currency: str = "EUR"
) -> SaleRefunded:
    told = envelope(at, ("refunded", sale_id, refund_id, amount, currency), "r")
    return SaleRefunded(told, refund_id, sale_id, amount, currency)


def cancelled(at: int, sale_id: str = "s") -> SaleCancelled:
    return SaleCancelled(envelope(at, ("cancelled", sale_id), "c"), sale_id, None)


def voided(at: int = 1, sale_id: str = "s") -> SaleVoided:
    return SaleVoided(envelope(at, ("voided", sale_id), "v"), sale_id, None)


def clicked(
    at: int,
    channel: str = "seo",
    campaign_id: str = "c",
    click_id: str = "k",
    *,
    is_bot: bool = False,
) -> ClickRecorded:
    told = envelope(at, ("clicked", click_id, channel, campaign_id, is_bot))
    return ClickRecorded(told, click_id, channel, campaign_id, is_bot)


def click_voided(at: int = 1, click_id: str = "k") -> ClickVoided:
    return ClickVoided(envelope(at, ("click voided", click_id)), click_id, None)


def waiting(event: LeadEvent | SaleEvent, timestamp_ms: int = 0) -> Waiting:
    """Return an event as it waits for the `created` of what it names."""
    assert not isinstance(event, LeadCreated | SaleCreated)
    return Waiting(event, timestamp_ms, "t", 0, 0, b"")


def convert(currency: str, at_ms: int, micros: int) -> int | None:
    """Return micros of euros: 10 dollars are 9 euros, a yen's day has no rate."""
    if currency == "EUR":
        return micros
    if currency == "USD":
        return round(micros * 9 / 10)
    return None


def facts_at(contribution: Contribution, at: int, basis: str = PERIOD) -> Facts:
    """Return the facts of minute `at`, whatever the campaign."""
    facts: Facts = {}
    for place, part in contribution.items():
        if place.basis == basis and place.grain is Grain.MINUTE and place.bucket == at:
            add(facts, part)
    return facts


def total(contribution: Contribution, basis: str = PERIOD) -> Facts:
    """Return the facts of one basis over lifetime."""
    facts: Facts = {}
    for place, part in contribution.items():
        if place.basis == basis:
            add(facts, part)
    return facts


def sound(contribution: Contribution) -> Contribution:
    """Return the contribution without places at which nothing is."""
    return {place: facts for place, facts in contribution.items() if facts}


def summed(contributions: Iterable[Contribution]) -> Contribution:
    """Return what several entities add together."""
    sums: Contribution = {}
    for contribution in contributions:
        for place, facts in contribution.items():
            add(sums.setdefault(place, {}), facts)
    return sound(sums)


def without(facts: Mapping[str, int], *names: str) -> Facts:
    """Return the facts but some."""
    return {name: amount for name, amount in facts.items() if name not in names}
