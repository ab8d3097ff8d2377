"""Leads, sales and clicks as functions of the set of their events, and what they add to the facts.

State keeps what the set of events says, never the order in which they were read: the same events in
any order and number give the same state, and a contribution is computed from the state alone.

Source: contract, sections 2 ("Identity and duplicates", "Order") and 3.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from msgspec import Struct

from kpis.calendar import MINUTE_MS
from kpis.contributions import Contribution, Place, count, lifetime_place
from kpis.events import (
    NO_CAMPAIGN,
    UNATTRIBUTED,
    ClickRecorded,
    Envelope,
    LeadCreated,
    LeadInvalidated,
    LeadStageChanged,
    SaleCreated,
    SaleVoided,
)
from kpis.retention import Grain

CUSTOMER: Final = "customer"
NEW: Final = "new"


class Outcome(Enum):
    """What an event did to its entity, by the name under which it is counted."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    PARKED = "parked"


@dataclass(frozen=True, slots=True)
class Funnel:
    """The ordered stages of a deployment, and whether a higher stage implies those below it."""

    stages: tuple[str, ...] = ("visitor", "lead", "mql", "sql", "customer")
    imply_skipped: bool = True
    rank: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", {stage: i for i, stage in enumerate(self.stages)})


# ----------------------------------------------------------------------------- state


class Order(Struct, frozen=True, array_like=True, gc=False, order=True):
    """The common order of an entity's events."""

    occurred_ms: int
    source: str
    event_id: str
    digest: bytes


class Move(Struct, frozen=True, array_like=True, gc=False, order=True):
    """A stage change; moves sort in the common order."""

    order: Order
    to_stage: str


class Waiting(Struct, frozen=True, array_like=True):
    """An event that names an entity, with its record's timestamp and what a reject of it needs."""

    event: LeadInvalidated | LeadStageChanged | SaleVoided
    timestamp_ms: int
    topic: str
    partition: int
    offset: int
    raw: bytes


class SaleState(Struct, frozen=True, array_like=True, gc=False):
    """What a lead knows of one of its sales that is not void."""

    order: Order
    amount_micros: int
    kind: str | None


class Sale(Struct, array_like=True):
    """One `sale_id`; `created_timestamp_ms` is the smallest of its `created` records."""

    created: SaleCreated | None = None
    created_timestamp_ms: int | None = None
    is_void: bool = False
    waiting: list[Waiting] = []


class Lead(Struct, array_like=True):
    """One `lead_id`; `created_timestamp_ms` is the smallest of its `created` records."""

    created: LeadCreated | None = None
    created_timestamp_ms: int | None = None
    is_void: bool = False
    moves: list[Move] = []
    sales: dict[str, SaleState] = {}
    waiting: list[Waiting] = []


class Click(Struct, array_like=True):
    """One `click_id` while it is remembered: the first click, and the smallest timestamp."""

    first: ClickRecorded
    timestamp_ms: int


def order_of(envelope: Envelope) -> Order:
    """Return an event's place in the common order."""
    return Order(envelope.occurred_ms, envelope.source, envelope.event_id, envelope.digest)


# ----------------------------------------------------------------------------- transitions


def create_lead(lead: Lead, event: LeadCreated, timestamp_ms: int, park_ms: int) -> Outcome:
    """Take a `lead.created`; the first in the common order counts, whatever was read first."""
    outcome = _outcome_of_created(lead.created, event)
    if lead.created is None or order_of(event.envelope) < order_of(lead.created.envelope):
        lead.created = event
    lead.created_timestamp_ms = _smaller(lead.created_timestamp_ms, timestamp_ms)
    lead.waiting = [told for told in lead.waiting if not _apply_to_lead(lead, told, park_ms)]
    return outcome


def create_sale(sale: Sale, event: SaleCreated, timestamp_ms: int, park_ms: int) -> Outcome:
    """Take a `sale.created`; the first in the common order counts, whatever was read first."""
    outcome = _outcome_of_created(sale.created, event)
    if sale.created is None or order_of(event.envelope) < order_of(sale.created.envelope):
        sale.created = event
    sale.created_timestamp_ms = _smaller(sale.created_timestamp_ms, timestamp_ms)
    sale.waiting = [told for told in sale.waiting if not _apply_to_sale(sale, told, park_ms)]
    return outcome


def tell_lead(lead: Lead, told: Waiting, park_ms: int) -> Outcome:
    """Take an event that names a lead: apply it, or park it until the lead is created."""
    before = (lead.is_void, len(lead.moves))
    if not _apply_to_lead(lead, told, park_ms):
        lead.waiting.append(told)
        return Outcome.PARKED
    return Outcome.ACCEPTED if before != (lead.is_void, len(lead.moves)) else Outcome.DUPLICATE


def tell_sale(sale: Sale, told: Waiting, park_ms: int) -> Outcome:
    """Take an event that names a sale: apply it, or park it until the sale is created."""
    was_void = sale.is_void
    if not _apply_to_sale(sale, told, park_ms):
        sale.waiting.append(told)
        return Outcome.PARKED
    return Outcome.DUPLICATE if was_void else Outcome.ACCEPTED


def attach_sale(lead: Lead, sale_id: str, state: SaleState | None) -> None:
    """Replace what the lead knows of a sale; None takes the sale away."""
    if state is None:
        lead.sales.pop(sale_id, None)
    else:
        lead.sales[sale_id] = state


def state_for_lead(sale: Sale) -> SaleState | None:
    """Return what a sale tells its lead: None without a `created` or if it is void."""
    if sale.created is None or sale.is_void:
        return None
    return SaleState(order_of(sale.created.envelope), sale.created.amount_micros, sale.created.kind)


def take_orphans(entity: Lead | Sale, complete_until_ms: int, park_ms: int) -> list[Waiting]:
    """Take out of `entity` the parked events that no `created` can reach any more.

    An event is an orphan exactly if no `created` has a timestamp up to `park_ms` after its own,
    which is known once everything up to then has been read.
    """
    orphans = [t for t in entity.waiting if t.timestamp_ms + park_ms < complete_until_ms]
    if orphans:
        entity.waiting = [
            t for t in entity.waiting if t.timestamp_ms + park_ms >= complete_until_ms
        ]
    return orphans


def click(
    known: Click | None, event: ClickRecorded, timestamp_ms: int, keep_ms: int
) -> tuple[Click, Outcome]:
    """Return what is remembered of a `click_id` after a click with it, and what the click did.

    Within `keep_ms` of the smallest timestamp a second click has no effect; after that the id is new.
    """
    if known is None or timestamp_ms >= known.timestamp_ms + keep_ms:
        return Click(event, timestamp_ms), Outcome.ACCEPTED
    outcome = _outcome_of_created(known.first, event)
    first = min(known.first, event, key=lambda e: order_of(e.envelope))
    return Click(first, min(known.timestamp_ms, timestamp_ms)), outcome


def _outcome_of_created(
    known: LeadCreated | SaleCreated | ClickRecorded | None,
    event: LeadCreated | SaleCreated | ClickRecorded,
) -> Outcome:
    if known is None:
        return Outcome.ACCEPTED
    same = all(
        getattr(known, name) == getattr(event, name)
        for name in event.__struct_fields__
        if name != "envelope"
    )
    return Outcome.DUPLICATE if same else Outcome.CONFLICT


def _smaller(known: int | None, new: int) -> int:
    return new if known is None else min(known, new)


def _is_reached(created_timestamp_ms: int | None, told: Waiting, park_ms: int) -> bool:
    return created_timestamp_ms is not None and created_timestamp_ms <= told.timestamp_ms + park_ms


def _apply_to_lead(lead: Lead, told: Waiting, park_ms: int) -> bool:
    if not _is_reached(lead.created_timestamp_ms, told, park_ms):
        return False
    if isinstance(told.event, LeadStageChanged):
        move = Move(order_of(told.event.envelope), told.event.to_stage)
        at = bisect_left(lead.moves, move)
        if lead.moves[at : at + 1] != [move]:
            lead.moves.insert(at, move)
    else:
        lead.is_void = True
    return True


def _apply_to_sale(sale: Sale, told: Waiting, park_ms: int) -> bool:
    if not _is_reached(sale.created_timestamp_ms, told, park_ms):
        return False
    sale.is_void = True
    return True


def current_stage(lead: Lead) -> str | None:
    """Return the stage of the last move as far as it is known; None for a lead that does not count."""
    if lead.created is None or lead.is_void:
        return None
    newest_sale = max((sale.order for sale in lead.sales.values()), default=None)
    newest = lead.moves[-1] if lead.moves else None
    if newest_sale is not None and (newest is None or newest_sale > newest.order):
        return CUSTOMER
    return newest.to_stage if newest else lead.created.initial_stage


# ----------------------------------------------------------------------------- contributions


def click_contribution(known: Click | None) -> Contribution:
    """Return what a click with an id adds."""
    result: Contribution = {}
    if known is not None:
        event = known.first
        place = _place(event.channel, event.campaign_id, event.envelope.occurred_ms)
        count(result, place, "invalid_clicks" if event.is_bot else "clicks")
    return result


def sale_contribution(sale: Sale) -> Contribution:
    """Return what a sale without a `lead_id` adds; the others count at their lead."""
    result: Contribution = {}
    state = state_for_lead(sale)
    if state is not None and sale.created is not None and sale.created.lead_id is None:
        _count_unattributed(result, state)
    return result


def lead_contribution(lead: Lead, funnel: Funnel) -> Contribution:
    """Return what a lead and its sales add; those of a missing or void lead are unattributed."""
    result: Contribution = {}
    created = lead.created
    if created is not None:
        place = _lead_place(created, created.envelope.occurred_ms)
        count(result, place, "leads_gross")
        count(result, place, "leads_voided", int(lead.is_void))
    if created is None or lead.is_void:
        for sale in lead.sales.values():
            _count_unattributed(result, sale)
        return result
    sales = sorted(lead.sales.values(), key=lambda sale: sale.order)
    _count_stages(result, created, _moves(lead, sales), funnel)
    _count_sales(result, created, sales)
    return result


def _moves(lead: Lead, sales: list[SaleState]) -> list[Move]:
    return sorted([*lead.moves, *(Move(sale.order, CUSTOMER) for sale in sales)])


def _count_stages(
    result: Contribution, created: LeadCreated, moves: list[Move], funnel: Funnel
) -> None:
    initial = funnel.rank[created.initial_stage]
    entered_at = _lead_place(created, created.envelope.occurred_ms)
    count(result, entered_at, f"stage_entered.{created.initial_stage}")
    for rank, entry in _entries(initial, moves, funnel):
        place = _lead_place(created, entry.order.occurred_ms)
        stage = funnel.stages[rank]
        count(result, place, f"stage_entered.{stage}")
        count(result, place, f"stage_implied.{stage}", int(entry.to_stage != stage))
    current = initial
    for move in moves:
        rank = funnel.rank[move.to_stage]
        if rank < current:
            place = _lead_place(created, move.order.occurred_ms)
            count(result, place, f"stage_regressed.{move.to_stage}")
        current = rank
    lifetime = lifetime_place(entered_at.channel, entered_at.campaign_id)
    count(result, lifetime, f"stage_current.{funnel.stages[current]}")


def _entries(initial: int, moves: list[Move], funnel: Funnel) -> Iterator[tuple[int, Move]]:
    """Yield (rank, earliest move to it or, if that implies it, above it) for ranks above `initial`."""
    reached: dict[int, Move] = {}
    for move in moves:
        rank = funnel.rank[move.to_stage]
        for passed in range(initial + 1, rank + 1) if funnel.imply_skipped else (rank,):
            if passed > initial:
                reached.setdefault(passed, move)
    yield from reached.items()


def _count_sales(result: Contribution, created: LeadCreated, sales: list[SaleState]) -> None:
    for index, sale in enumerate(sales):
        is_first = index == 0
        place = _lead_place(created, sale.order.occurred_ms)
        count(result, place, "sales")
        count(result, place, "revenue_gross", sale.amount_micros)
        is_new = sale.kind == NEW if sale.kind is not None else is_first
        count(result, place, "new_customers", int(is_new))
        if is_first:
            count(result, place, "converted")
            cycle_ms = sale.order.occurred_ms - created.envelope.occurred_ms
            # A sale before the lead was written down says nothing of how long buying takes.
            if cycle_ms >= 0:
                count(result, place, "cycle_ms", cycle_ms)
                count(result, place, "cycle_count")


def _count_unattributed(result: Contribution, sale: SaleState) -> None:
    place = _place(UNATTRIBUTED, NO_CAMPAIGN, sale.order.occurred_ms)
    count(result, place, "sales")
    count(result, place, "sales_unattributed")
    count(result, place, "revenue_gross", sale.amount_micros)
    count(result, place, "new_customers", int(sale.kind == NEW))


def _lead_place(created: LeadCreated, at_ms: int) -> Place:
    return _place(created.channel or UNATTRIBUTED, created.campaign_id or NO_CAMPAIGN, at_ms)


def _place(channel: str, campaign_id: str, at_ms: int) -> Place:
    return Place(channel, campaign_id, Grain.MINUTE, at_ms // MINUTE_MS)
