"""Clicks, impressions, leads and sales of the recomputation: all events of each are kept, and read at the end."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple, TypeVar

from kpis.clicks import (
    Attribution,
    Click,
    answer,
    ask_click,
    click_contribution,
    take_click,
    void_click,
)
from kpis.contributions import Contribution
from kpis.events import (
    ClickRecorded,
    ClickVoided,
    Event,
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
)
from kpis.fx import Rates
from kpis.impressions import Impression, impression_contribution, take_impression
from kpis.leads import (
    Funnel,
    Lead,
    Wanted,
    attach_click,
    attach_sale,
    create_lead,
    join,
    journey_of,
    lead_contribution,
    pointer,
    tell_lead,
    wanted_click,
)
from kpis.merges import Pointers
from kpis.orders import Outcome, Waiting, is_reached
from kpis.remembered import begins_anew
from kpis.sales import (
    Sale,
    SaleState,
    create_sale,
    sale_contribution,
    state_for_lead,
    tell_sale,
)

MISMATCH = "currency_mismatch"

_States = dict[str, dict[str, SaleState]]
_Known = TypeVar("_Known", Click, Impression)
_Event = TypeVar("_Event")


class Reject(NamedTuple):
    """A record that was refused, by the short name of its topic; `reason` as in contract, section 8."""

    topic: str
    partition: int
    offset: int
    reason: str


@dataclass(slots=True)
class Entity:
    """The events of one lead or sale with their records' timestamps, in the order of reading."""

    created: list[tuple[LeadCreated | SaleCreated, int]] = field(default_factory=list)
    told: list[Waiting] = field(default_factory=list)


class Entities:
    """The events of all entities that talk to each other.

    Args:
        funnel: The stages.
        park_ms: How long an event waits for the `created` of its lead or sale.
        keep_ms: How long the id of a click or impression is remembered.
        horizon_ms: How long after its creation a lead's first sale counts in `conversion_within`.
    """

    def __init__(self, funnel: Funnel, park_ms: int, keep_ms: int, horizon_ms: int) -> None:
        self._funnel = funnel
        self._park_ms = park_ms
        self._keep_ms = keep_ms
        self._horizon_ms = horizon_ms
        self._clicks: dict[str, list[tuple[int, ClickRecorded | ClickVoided]]] = {}
        self._impressions: dict[str, list[tuple[int, ImpressionServed]]] = {}
        self._leads: dict[str, Entity] = {}
        self._sales: dict[str, Entity] = {}

    def take(
        self, event: Event, timestamp_ms: int, topic: str, partition: int, offset: int
    ) -> None:
        """Take an event of a click or impression with an id, a lead or a sale."""
        match event:
            case ClickRecorded() | ClickVoided():
                told = (timestamp_ms, event)
                self._clicks.setdefault(str(event.click_id), []).append(told)
            case ImpressionServed():
                served = (timestamp_ms, event)
                self._impressions.setdefault(str(event.impression_id), []).append(served)
            case LeadCreated():
                self._leads.setdefault(event.lead_id, Entity()).created.append(
                    (event, timestamp_ms)
                )
            case SaleCreated():
                self._sales.setdefault(event.sale_id, Entity()).created.append(
                    (event, timestamp_ms)
                )
            case SaleAmended() | SaleRefunded() | SaleCancelled() | SaleVoided():
                waiting = Waiting(event, timestamp_ms, topic, partition, offset, b"")
                self._sales.setdefault(event.sale_id, Entity()).told.append(waiting)
            case (
                LeadUpdated()
                | LeadDisqualified()
                | LeadRequalified()
                | LeadInvalidated()
                | LeadMerged()
                | LeadStageChanged()
            ):
                waiting = Waiting(event, timestamp_ms, topic, partition, offset, b"")
                self._leads.setdefault(event.lead_id, Entity()).told.append(waiting)
            case _:
                msg = f"event: expected one of a click, impression, lead or sale, got {type(event).__name__}"
                raise TypeError(msg)

    # ------------------------------------------------------------------------- contributions

    def contributions(self, rates: Rates) -> Iterator[Contribution]:
        """Yield what each entity adds."""
        states: _States = {}
        for sale_id, entity in self._sales.items():
            sale = self._sale(entity)
            yield sale_contribution(sale, rates.convert)
            state = state_for_lead(sale, rates.convert)
            if state is not None and sale.created is not None and sale.created.lead_id is not None:
                states.setdefault(sale.created.lead_id, {})[sale_id] = state
        for clicks in self._clicks.values():
            for click in self._remembered_clicks(clicks):
                yield click_contribution(click, self._keep_ms)
        for served in self._impressions.values():
            for impression in self._remembered(served, Impression, take_impression):
                yield impression_contribution(impression)
        yield from (contribution for _, contribution in self._lead_contributions(states))

    def _lead_contributions(self, states: _States) -> Iterator[tuple[str, Contribution]]:
        """Yield what each lead that was not merged into another one adds."""
        pointers = self._pointers()
        merged: dict[str, list[str]] = {}
        for lead_id in self._leads:
            if (root := pointers.root(lead_id)) != lead_id:
                merged.setdefault(root, []).append(lead_id)
        for lead_id in {**self._leads, **states, **merged}:
            if pointers.root(lead_id) != lead_id:
                continue
            lead = self._attributed_lead(lead_id, states)
            for origin_id in merged.get(lead_id, ()):
                join(lead, origin_id, journey_of(self._attributed_lead(origin_id, states)))
            contribution = lead_contribution(lead, self._funnel, self._horizon_ms, is_root=True)
            yield lead_id, contribution

    def _attributed_lead(self, lead_id: str, states: _States) -> Lead:
        lead = self._lead(lead_id, states)
        if (wanted := wanted_click(lead)) is not None:
            attach_click(lead, wanted.click_id, self._attribution(wanted))
        return lead

    def _pointers(self) -> Pointers:
        pointers = Pointers()
        for lead_id, entity in self._leads.items():
            if any(isinstance(told.event, LeadMerged) for told in entity.told):
                pointers.set(lead_id, pointer(self._lead(lead_id, {})))
        return pointers

    def _lead(self, lead_id: str, states: _States) -> Lead:
        lead, entity = Lead(), self._leads.get(lead_id, Entity())
        for event, timestamp_ms in entity.created:
            if isinstance(event, LeadCreated):
                create_lead(lead, event, timestamp_ms, self._park_ms)
        for told in entity.told:
            tell_lead(lead, told, self._park_ms)
        for sale_id, state in states.get(lead_id, {}).items():
            attach_sale(lead, sale_id, state)
        return lead

    def _sale(self, entity: Entity) -> Sale:
        sale = Sale()
        for event, timestamp_ms in entity.created:
            if isinstance(event, SaleCreated):
                create_sale(sale, event, timestamp_ms, self._park_ms)
        for told in entity.told:
            tell_sale(sale, told, self._park_ms)
        return sale

    # ------------------------------------------------------------------------- clicks and impressions

    def _remembered(
        self,
        told: Iterable[tuple[int, _Event]],
        new: Callable[[], _Known],
        take: Callable[[_Known, _Event, int, int], Outcome],
    ) -> Iterator[_Known]:
        """Yield what was known under one id, one after the other as they were forgotten in between."""
        known: _Known | None = None
        for timestamp_ms, event in sorted(told, key=lambda one: one[0]):
            if known is None or begins_anew(known, timestamp_ms, self._keep_ms):
                if known is not None:
                    yield known
                known = new()
            take(known, event, timestamp_ms, self._keep_ms)
        if known is not None:
            yield known

    def _remembered_clicks(
        self, told: list[tuple[int, ClickRecorded | ClickVoided]]
    ) -> Iterator[Click]:
        voided_ms = sorted(at_ms for at_ms, event in told if isinstance(event, ClickVoided))

        def new() -> Click:
            click = Click()
            for at_ms in voided_ms:
                void_click(click, at_ms, self._keep_ms)
            return click

        recorded = ((at_ms, event) for at_ms, event in told if isinstance(event, ClickRecorded))
        return self._remembered(recorded, new, take_click)

    def _attribution(self, wanted: Wanted) -> Attribution | None:
        for click in self._remembered_clicks(self._clicks.get(wanted.click_id, [])):
            ask_click(click, "", wanted.timestamp_ms)
            told = answer(click, "", self._keep_ms, self._park_ms)
            if told is not None:
                return told
        return None

    # ------------------------------------------------------------------------- rejects

    def orphans(self, complete_until_ms: int) -> Iterator[Reject]:
        """Yield the events that no `created` can reach any more at `complete_until_ms`."""
        for reason, entities in (("orphan_lead", self._leads), ("orphan_sale", self._sales)):
            for entity in entities.values():
                reached = created_ms(entity)
                for told in entity.told:
                    is_over = told.timestamp_ms + self._park_ms < complete_until_ms
                    if is_over and not is_reached(reached, told, self._park_ms):
                        yield _reject(told, reason)

    def mismatches(self) -> Iterator[tuple[Reject, ...]]:
        """Yield the refunds that are in no currency that their sale ever had, each refund with its events.

        Exactly one event of each refund is rejected: which one, depends on the order of reading.
        """
        for events, currencies in self._refunds():
            if not any(_currency(told) in currencies for told in events):
                yield tuple(sorted(_reject(told, MISMATCH) for told in events))

    def possible_mismatches(self) -> Iterator[Reject]:
        """Yield the refunds that were in another currency than their sale, in some order of reading."""
        for events, currencies in self._refunds():
            for told in events:
                if currencies - {_currency(told)}:
                    yield _reject(told, MISMATCH)

    def _refunds(self) -> Iterator[tuple[list[Waiting], set[str]]]:
        """Yield the events of each refund that found its sale, with the currencies that the sale had."""
        for entity in self._sales.values():
            applied = [
                told for told in entity.told if is_reached(created_ms(entity), told, self._park_ms)
            ]
            refunds: dict[str, list[Waiting]] = {}
            for told in applied:
                if isinstance(told.event, SaleRefunded):
                    refunds.setdefault(told.event.refund_id, []).append(told)
            if refunds:
                told_by = chain(
                    (event for event, _ in entity.created), (told.event for told in applied)
                )
                currencies = set(_currencies(told_by))
                yield from ((events, currencies) for events in refunds.values())


def created_ms(entity: Entity) -> int | None:
    """Return the smallest timestamp of an entity's `created` records, None if there is none."""
    return min((timestamp_ms for _, timestamp_ms in entity.created), default=None)


def _currencies(events: Iterable[object]) -> Iterator[str]:
    for event in events:
        if isinstance(event, SaleCreated | SaleAmended):
            yield event.currency


def _currency(told: Waiting) -> str:
    return told.event.currency if isinstance(told.event, SaleRefunded) else ""


def _reject(told: Waiting, reason: str) -> Reject:
    return Reject(told.topic, told.partition, told.offset, reason)
