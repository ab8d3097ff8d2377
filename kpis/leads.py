"""Leads: their journeys, sales and mergers, and what they add to the facts on both bases.

Source: contract, sections 3 ("Lead", "Stages", "Merged", "Sale") and 4.
"""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from msgspec import Struct

from kpis.clicks import Attribution
from kpis.contributions import Contribution, lifetime_place
from kpis.events import (
    NO_CAMPAIGN,
    UNATTRIBUTED,
    LeadCreated,
    LeadDisqualified,
    LeadMerged,
    LeadRequalified,
    LeadStageChanged,
    LeadUpdated,
)
from kpis.facts import COHORT, PERIOD, Facts, add
from kpis.histogram import bucket_of, fact_name
from kpis.orders import (
    Order,
    Outcome,
    Waiting,
    content_of,
    correction_order,
    is_reached,
    later,
    order_of,
    outcome_of,
    smaller,
)
from kpis.sales import NEW, SaleState, count_sale, count_unattributed, minute_place

LEAD: Final = "lead"
CUSTOMER: Final = "customer"


@dataclass(frozen=True, slots=True)
class Funnel:
    """The ordered stages of a deployment, and whether a higher stage implies those below it."""

    stages: tuple[str, ...] = ("visitor", "lead", "mql", "sql", "customer")
    imply_skipped: bool = True
    rank: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", {stage: i for i, stage in enumerate(self.stages)})


# ----------------------------------------------------------------------------- state


class Creation(Struct, frozen=True, array_like=True, gc=False):
    """The `created` of a lead that counts: the first in the common order.

    The click is only kept where no channel was declared: nobody else asks it.
    """

    order: Order
    channel: str | None
    campaign_id: str | None
    click_id: str | None
    initial_stage: str
    content: int


class Move(Struct, frozen=True, array_like=True, gc=False, order=True):
    """A stage change; moves sort in the common order."""

    order: Order
    to_stage: str


class Corrected(Struct, frozen=True, array_like=True, gc=False):
    """A value, and the place of what said so in the order of corrections."""

    order: Order
    value: str


class Journey(Struct, frozen=True, array_like=True):
    """What a merged lead tells the one that it became part of; `told` is what its click answered."""

    created: Creation
    created_timestamp_ms: int
    moves: list[Move]
    sales: dict[str, SaleState]
    told: Attribution | None = None


class Lead(Struct, array_like=True):
    """One `lead_id`; `created_timestamp_ms` is the smallest of its `created` records.

    `channel` and `campaign_id` are the latest updates of each, `merged` the lead it became part of.
    `joined` are the journeys of the leads that became part of this one; `clicks` is what the clicks
    that its creations named answered.
    """

    created: Creation | None = None
    created_timestamp_ms: int | None = None
    is_void: bool = False
    moves: list[Move] = []
    sales: dict[str, SaleState] = {}
    channel: Corrected | None = None
    campaign_id: Corrected | None = None
    disqualified: Order | None = None
    requalified: Order | None = None
    merged: Corrected | None = None
    joined: dict[str, Journey] = {}
    clicks: dict[str, Attribution] = {}
    waiting: list[Waiting] = []


class Wanted(NamedTuple):
    """A click that a lead asks, and the timestamp of the creation that names it."""

    click_id: str
    timestamp_ms: int


# ----------------------------------------------------------------------------- transitions


def create_lead(lead: Lead, event: LeadCreated, timestamp_ms: int, park_ms: int) -> Outcome:
    """Take a `lead.created`; the first in the common order counts, whatever was read first."""
    content = content_of(event)
    outcome = outcome_of(None if lead.created is None else lead.created.content, content)
    order = order_of(event.envelope)
    if lead.created is None or order < lead.created.order:
        lead.created = Creation(
            order,
            event.channel,
            event.campaign_id,
            event.click_id if event.channel is None else None,
            event.initial_stage,
            content,
        )
    lead.created_timestamp_ms = smaller(lead.created_timestamp_ms, timestamp_ms)
    waiting, lead.waiting = lead.waiting, []
    for told in waiting:
        if is_reached(lead.created_timestamp_ms, told, park_ms):
            _apply(lead, told)
        else:
            lead.waiting.append(told)
    return outcome


def tell_lead(lead: Lead, told: Waiting, park_ms: int) -> Outcome:
    """Take an event that names a lead: apply it, or park it until the lead is created."""
    if not is_reached(lead.created_timestamp_ms, told, park_ms):
        lead.waiting.append(told)
        return Outcome.PARKED
    return Outcome.ACCEPTED if _apply(lead, told) else Outcome.DUPLICATE


def attach_sale(lead: Lead, sale_id: str, state: SaleState | None) -> None:
    """Replace what the lead knows of a sale that names it; None takes the sale away."""
    if state is None:
        lead.sales.pop(sale_id, None)
    else:
        lead.sales[sale_id] = state


def attach_click(lead: Lead, click_id: str, attribution: Attribution | None) -> None:
    """Replace what a click answered; None: it is not known."""
    if attribution is None:
        lead.clicks.pop(click_id, None)
    else:
        lead.clicks[click_id] = attribution


def join(lead: Lead, origin_id: str, journey: Journey | None) -> None:
    """Replace the journey that another lead brought along; None takes it away."""
    if journey is None:
        lead.joined.pop(origin_id, None)
    else:
        lead.joined[origin_id] = journey


def _apply(lead: Lead, told: Waiting) -> bool:
    """Apply an event and return whether it changes anything."""
    match event := told.event:
        case LeadStageChanged():
            return _move(lead, Move(order_of(event.envelope), event.to_stage))
        case LeadUpdated():
            return _update(lead, event)
        case LeadDisqualified():
            order = order_of(event.envelope)
            if not later(lead.disqualified, order):
                return False
            lead.disqualified = order
        case LeadRequalified():
            order = order_of(event.envelope)
            if not later(lead.requalified, order):
                return False
            lead.requalified = order
        case LeadMerged():
            merged = _corrected(lead.merged, correction_order(event), event.into_lead_id)
            if merged is lead.merged:
                return False
            lead.merged = merged
        case _:
            if lead.is_void:
                return False
            lead.is_void = True
    return True


def _move(lead: Lead, move: Move) -> bool:
    at = bisect_left(lead.moves, move)
    if lead.moves[at : at + 1] == [move]:
        return False
    lead.moves.insert(at, move)
    return True


def _update(lead: Lead, event: LeadUpdated) -> bool:
    order = correction_order(event)
    channel = _corrected(lead.channel, order, event.channel)
    campaign_id = _corrected(lead.campaign_id, order, event.campaign_id)
    is_news = channel is not lead.channel or campaign_id is not lead.campaign_id
    lead.channel, lead.campaign_id = channel, campaign_id
    return is_news


def _corrected(known: Corrected | None, order: Order, value: str | None) -> Corrected | None:
    if value is None or (known is not None and known.order >= order):
        return known
    return Corrected(order, value)


# ----------------------------------------------------------------------------- what others ask


def journey_of(lead: Lead) -> Journey | None:
    """Return what the lead brings along if it is merged: what is its own; None before it is created."""
    if lead.created is None or lead.created_timestamp_ms is None:
        return None
    return Journey(
        lead.created,
        lead.created_timestamp_ms,
        list(lead.moves),
        dict(lead.sales),
        _told(lead, lead.created),
    )


def pointer(lead: Lead) -> str | None:
    """Return the lead that this one was merged into, None if it was not."""
    return None if lead.merged is None else lead.merged.value


def wanted_click(lead: Lead) -> Wanted | None:
    """Return the click that the lead's own creation names; None if that has a channel or no click.

    A lead asks for itself at once, whatever it is merged or updated to: the lead that it may become
    part of one day would find the click forgotten.
    """
    created, timestamp_ms = lead.created, lead.created_timestamp_ms
    if created is None or timestamp_ms is None or created.click_id is None:
        return None
    return Wanted(created.click_id, timestamp_ms)


def current_stage(lead: Lead) -> str | None:
    """Return the stage of the last move as far as it is known; None for a lead that does not count."""
    created, _ = _effective(lead)
    if created is None or lead.is_void:
        return None
    last = max(
        (
            *lead.moves[-1:],
            *(move for journey in lead.joined.values() for move in journey.moves[-1:]),
            *(Move(sale.order, CUSTOMER) for sale in _all_sales(lead)),
        ),
        default=None,
    )
    return created.initial_stage if last is None else last.to_stage


def _told(lead: Lead, created: Creation | None) -> Attribution | None:
    """Return what the click that the lead's own creation names answered, None without an answer."""
    if created is None or created.click_id is None:
        return None
    return lead.clicks.get(created.click_id)


def _effective(lead: Lead) -> tuple[Creation | None, Attribution | None]:
    """Return the earliest of the lead's own creation and the joined ones, and what its click answered."""
    created, told = lead.created, _told(lead, lead.created)
    for journey in lead.joined.values():
        if created is None or journey.created.order < created.order:
            created, told = journey.created, journey.told
    return created, told


def _attribution(lead: Lead, created: Creation, told: Attribution | None) -> Attribution:
    channel = created.channel if lead.channel is None else lead.channel.value
    campaign_id = created.campaign_id if lead.campaign_id is None else lead.campaign_id.value
    if channel is None:
        if told is not None:
            return told
        channel = UNATTRIBUTED
    return Attribution(channel, campaign_id or NO_CAMPAIGN)


def _all_sales(lead: Lead) -> list[SaleState]:
    sales = list(lead.sales.values())
    for journey in lead.joined.values():
        sales += journey.sales.values()
    return sales


# ----------------------------------------------------------------------------- contributions


class _Counting:
    """Where a lead counts, and what it adds so far."""

    __slots__ = ("campaign_id", "channel", "cohort", "created_ms", "result")

    def __init__(self, result: Contribution, where: Attribution, created_ms: int) -> None:
        self.result = result
        self.channel, self.campaign_id = where.channel, where.campaign_id
        self.created_ms = created_ms
        self.cohort = self.at(COHORT, created_ms)

    def at(self, basis: str, at_ms: int) -> Facts:
        """Return the facts of the minute of an instant, to be added to."""
        place = minute_place(basis, self.channel, self.campaign_id, at_ms)
        return self.result.setdefault(place, {})


def lead_contribution(
    lead: Lead, funnel: Funnel, horizon_ms: int, *, is_root: bool
) -> Contribution:
    """Return what a lead adds on both bases, with the journeys that joined it.

    Sales of a void lead, or of one that was never created, are unattributed.

    Args:
        lead: The lead.
        funnel: The stages.
        horizon_ms: How long after its creation a lead that buys has converted within the horizon.
        is_root: Whether the lead counts itself, and not as part of the one it was merged into.
    """
    result: Contribution = {}
    if not is_root:
        return result
    created, told = _effective(lead)
    sales = _all_sales(lead)
    if created is not None:
        where = _attribution(lead, created, told)
        counting = _Counting(result, where, created.order.at_ms)
        _count_creation(counting, is_void=lead.is_void)
        if not lead.is_void:
            sales.sort(key=lambda sale: sale.order)
            _count_stages(counting, lead, created, sales, funnel)
            _count_sales(counting, sales, horizon_ms)
            return result
    for sale in sales:
        count_unattributed(result, sale)
    return result


def _count_creation(counting: _Counting, *, is_void: bool) -> None:
    facts = counting.at(PERIOD, counting.created_ms)
    facts["leads_gross"] = counting.cohort["leads_gross"] = 1
    if is_void:
        facts["leads_voided"] = 1
    else:
        counting.cohort["leads"] = 1


def _count_stages(
    counting: _Counting, lead: Lead, created: Creation, sales: list[SaleState], funnel: Funnel
) -> None:
    moves = _moves(lead, sales)
    entries = _entries(created, moves, funnel)
    # At most one entry for each stage: nothing is there to be added to.
    for stage, (at_ms, is_implied) in entries.items():
        facts = counting.at(PERIOD, at_ms)
        facts["stage_entered." + stage] = 1
        if is_implied:
            facts["stage_implied." + stage] = 1
    _count_cohort_stages(counting, entries, sales, funnel)
    current = _count_regressions(counting, created, moves, funnel)
    if lead.disqualified is not None and (
        lead.requalified is None or lead.requalified < lead.disqualified
    ):
        counting.at(PERIOD, lead.disqualified.at_ms)["leads_disqualified"] = 1
    else:
        lifetime = lifetime_place(counting.channel, counting.campaign_id)
        counting.result[lifetime] = {"stage_current." + current: 1}


def _moves(lead: Lead, sales: list[SaleState]) -> list[Move]:
    if not sales and not lead.joined:
        return lead.moves
    moves = lead.moves + [Move(sale.order, CUSTOMER) for sale in sales]
    for journey in lead.joined.values():
        moves += journey.moves
    moves.sort()
    return moves


def _entries(created: Creation, moves: list[Move], funnel: Funnel) -> dict[str, tuple[int, bool]]:
    """Return when each stage was entered, and whether only a move to a higher one says so."""
    entries = {created.initial_stage: (created.order.at_ms, False)}
    reached = initial = funnel.rank[created.initial_stage]
    for move in moves:
        rank = funnel.rank[move.to_stage]
        if funnel.imply_skipped:
            for passed in range(reached + 1, rank + 1):
                entries[funnel.stages[passed]] = (move.order.at_ms, passed != rank)
            reached = max(reached, rank)
        elif rank > initial:
            entries.setdefault(move.to_stage, (move.order.at_ms, False))
    return entries


def _count_cohort_stages(
    counting: _Counting,
    entries: dict[str, tuple[int, bool]],
    sales: list[SaleState],
    funnel: Funnel,
) -> None:
    """Count what became of a lead where it entered each stage from `lead` on that has a next one."""
    has_closed = any(sale.stands for sale in sales)
    first = funnel.rank[LEAD]
    for stage, following in zip(funnel.stages[first:], funnel.stages[first + 1 :], strict=False):
        if stage in entries:
            facts = counting.at(COHORT, entries[stage][0])
            facts["stage_entered." + stage] = 1
            if following in entries:
                facts[f"reached.{following}.{stage}"] = 1
            if has_closed:
                facts["closed_from." + stage] = 1


def _count_regressions(
    counting: _Counting, created: Creation, moves: list[Move], funnel: Funnel
) -> str:
    """Count the moves to a lower stage and return the last stage."""
    current = created.initial_stage
    for move in moves:
        if funnel.rank[move.to_stage] < funnel.rank[current]:
            facts = counting.at(PERIOD, move.order.at_ms)
            name = "stage_regressed." + move.to_stage
            facts[name] = facts.get(name, 0) + 1
        current = move.to_stage
    return current


def _count_sales(counting: _Counting, sales: list[SaleState], horizon_ms: int) -> None:
    if not sales:
        return
    cohort: Facts = {}
    for index, sale in enumerate(sales):
        is_new = index == 0 if sale.kind is None else sale.kind == NEW
        count_sale(counting.result, counting.channel, counting.campaign_id, sale, is_new=is_new)
        add(cohort, _cohort_sale(sale, is_new=is_new))
    add(counting.cohort, cohort)
    _count_first_sale(counting, sales[0], horizon_ms)
    if "sales" in cohort:
        counting.cohort["converted"] = 1


def _cohort_sale(sale: SaleState, *, is_new: bool) -> Facts:
    return {
        "sales": int(sale.stands),
        "new_customers": int(sale.stands and is_new),
        "revenue_net": sale.gross_micros - sale.reversed_micros,
        "fx_missing": int(sale.is_fx_missing),
    }


def _count_first_sale(counting: _Counting, sale: SaleState, horizon_ms: int) -> None:
    period = counting.at(PERIOD, sale.order.at_ms)
    cycle_ms = sale.order.at_ms - counting.created_ms
    period["converted"] = counting.cohort["converted_gross"] = 1
    if cycle_ms <= horizon_ms:
        counting.cohort["converted_within"] = 1
    # A sale before the lead was written down says nothing of how long buying takes.
    if cycle_ms >= 0:
        cycle = {"cycle_ms": cycle_ms, "cycle_count": 1, fact_name(bucket_of(cycle_ms)): 1}
        add(period, cycle)
        add(counting.cohort, cycle)
