"""What the numbers of a window leave out, and why: the other side of the recomputation.

Source: contract, sections 2 ("Identity and duplicates"), 3 and 8.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from kpis.calendar import MINUTE_MS
from kpis.clicks import click_contribution
from kpis.cloud_events import Headers
from kpis.coverage import CostReports
from kpis.events import (
    UNATTRIBUTED,
    ClickRecorded,
    CostDeleted,
    CostSnapshot,
    CountsReported,
    Event,
    ImpressionServed,
    LeadInvalidated,
    LeadStageChanged,
    SaleVoided,
    VisitStarted,
)
from kpis.facts import COHORT, Scope
from kpis.fold_entities import Entities, Entity, created_ms
from kpis.impressions import Impression, take_impression
from kpis.leads import Funnel
from kpis.orders import Order, is_reached, order_of
from kpis.reading import Ignored, Refused, Rules, read
from kpis.sales import state_for_lead
from kpis.spans import Window
from kpis.spend import Row, RowEvent, is_ahead, natural_key, reported, restate

NOUNS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "impressions": "impressions",
        "clicks": "clicks",
        "visits": "visits",
        "leads": "leads",
        "stage-changes": "stage changes",
        "sales": "sales",
        "costs": "cost rows",
    }
)
"""What the records of each input topic that carries facts are about, by its short name."""

OF_BOTS: Final = "of bots"

_LEADS_TOO: Final = frozenset({"leads", "stage-changes", "sales"})
_STAGES: Final = frozenset({"stage-changes", "leads", "sales"})
_BUYING: Final = frozenset({"leads", "sales"})
_TOPICS_OF: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        **dict.fromkeys(("impressions",), frozenset({"impressions"})),
        **dict.fromkeys(("clicks", "invalid_clicks"), frozenset({"clicks"})),
        "visitors": frozenset({"visits"}),
        **dict.fromkeys(("cost", "cost_media", "expected", "covered"), frozenset({"costs"})),
        **dict.fromkeys(("stage_entered", "reached"), _STAGES),
        **dict.fromkeys(
            ("converted", "mature_converted", "cycle_ms", "cycle_count", "closed_from"), _BUYING
        ),
        "cycle_histogram": _BUYING,
        **dict.fromkeys(("sales", "new_customers"), frozenset({"sales"})),
        **dict.fromkeys(("revenue_gross", "revenue_net", "refunds"), frozenset({"sales"})),
    }
)


def topics_of(facts: Iterable[str]) -> frozenset[str]:
    """Return the short names of the topics whose events make up these facts."""
    leads = frozenset({"leads"})
    return frozenset().union(*(_TOPICS_OF.get(fact.partition(".")[0], leads) for fact in facts))


def topics_to_read(topics: frozenset[str]) -> frozenset[str]:
    """Return which topics have to be read to tell what of these was left out."""
    if not topics & _LEADS_TOO:
        return topics
    # Whose scope a sale is in says its lead, and that of a lead perhaps its click.
    return topics | _LEADS_TOO | {"clicks"}


# ----------------------------------------------------------------------------- items


class Item(NamedTuple):
    """One event or entity that was left out.

    It lies in [start, end), in ms; both are equal if it happened at an instant. A channel of None is
    not known.
    """

    what: str
    why: str
    start_ms: int
    end_ms: int
    channel: str | None
    campaign_id: str | None


class LeftOut(NamedTuple):
    """How many things were left out of a subject's window, by what and why.

    Those of `elsewhere` lie in the window, but nobody can tell in which scope.
    """

    counts: Mapping[tuple[str, str], int]
    elsewhere: Mapping[tuple[str, str], int]


def left_out(items: Iterable[Item], scope: Scope, window: Window) -> LeftOut:
    """Return how many of the items lie in a window of a scope."""
    inside: Counter[tuple[str, str]] = Counter()
    elsewhere: Counter[tuple[str, str]] = Counter()
    for item in items:
        if lies_in(item.start_ms, item.end_ms, window):
            is_in = is_of_scope(item.channel, item.campaign_id, scope)
            if is_in is not False:
                (inside if is_in else elsewhere)[item.what, item.why] += 1
    return LeftOut(inside, elsewhere)


def lies_in(start_ms: int, end_ms: int, window: Window) -> bool:
    """Tell whether [start, end), or the instant if both are equal, has to do with a window."""
    if window.start_minute is None or window.end_minute is None:
        return True
    first_ms, stop_ms = window.start_minute * MINUTE_MS, window.end_minute * MINUTE_MS
    return start_ms < stop_ms and max(end_ms, start_ms + 1) > first_ms


def is_of_scope(channel: str | None, campaign_id: str | None, scope: Scope) -> bool | None:
    """Tell whether what belongs to a channel and campaign counts in a scope; None: nobody knows."""
    if scope.channel is None:
        return True
    if channel is None:
        return None
    return channel == scope.channel and scope.campaign_id in (None, campaign_id)


# ----------------------------------------------------------------------------- collecting


class LeftOuts:
    """Takes the records of the topics of `topics_to_read`, in any order.

    Args:
        rules: What is accepted.
        funnel: The stages.
        park_ms: How long an event waits for the `created` of its lead or sale.
        keep_ms: How long the id of a click or impression is remembered.
        horizon_ms: How long after its creation a lead's first sale counts in `conversion_within`.
    """

    def __init__(
        self,
        rules: Rules,
        funnel: Funnel,
        park_ms: int,
        keep_ms: int,
        horizon_ms: int,
    ) -> None:
        self._rules = rules
        self._entities = _Entities(funnel, park_ms, keep_ms, horizon_ms)
        self._rows: dict[tuple[str, ...], list[RowEvent]] = {}
        self._single: list[Item] = []

    def add(
        self,
        topic: str,
        partition: int,
        offset: int,
        value: bytes | None,
        timestamp_ms: int,
        headers: Headers = (),
    ) -> None:
        """Take one record; `topic` is the short name. What is refused is told by its reject."""
        try:
            reading = read(topic, value, timestamp_ms, self._rules, headers)
        except (Refused, Ignored):
            return
        event = reading.event
        if reading.is_test:
            self._single.append(_item_of(event, topic, "test events"))
            return
        match event:
            case (
                ImpressionServed(impression_id=None) | VisitStarted() | ClickRecorded(click_id=None)
            ):
                if event.is_bot:
                    self._single.append(_item_of(event, topic, OF_BOTS))
            case CountsReported() | CostSnapshot() | CostDeleted():
                self._rows.setdefault(natural_key(event), []).append(event)
            case _ if topic in NOUNS:
                self._entities.take(event, timestamp_ms, topic, partition, offset)

    def items(self, basis: str, complete_until_ms: int) -> Iterator[Item]:
        """Yield everything that was left out, of the topics that were added.

        On the cohort basis it lies where its lead was created, if that is known.

        Args:
            basis: `period` or `cohort`.
            complete_until_ms: Up to when everything has been added; what is parked for longer than it
                may be is rejected, and told by its reject.
        """
        yield from self._single
        for events in self._rows.values():
            yield from _of_row(events, complete_until_ms)
        yield from self._entities.items(basis, complete_until_ms)

    def cost_reports(self) -> CostReports:
        """Return up to when the cost of each channel is known."""
        reports = CostReports()
        for events in self._rows.values():
            if (told := reported(_newest(events))) is not None:
                reports.add(*told, 1)
        return reports


def _item_of(event: Event, topic: str, why: str) -> Item:
    at_ms = event.envelope.occurred_ms
    channel = getattr(event, "channel", None)
    campaign_id = getattr(event, "campaign_id", None)
    return Item(NOUNS.get(topic, topic), why, at_ms, at_ms, channel, campaign_id)


# ----------------------------------------------------------------------------- rows of reports


def _newest(events: Iterable[RowEvent]) -> Row | None:
    row: Row | None = None
    for event in events:
        row, _ = restate(row, event)
    return row


def _of_row(events: list[RowEvent], complete_until_ms: int) -> Iterator[Item]:
    row = _newest(events)
    newest = None if row is None else row.newest
    why = (
        "deleted by their source" if isinstance(newest, CostDeleted) else "replaced by a newer row"
    )
    for event in events:
        if isinstance(event, CostDeleted):
            continue
        if event is newest:
            if is_ahead(row) and event.as_of_ms > complete_until_ms:
                yield _row_item(event, "partly still to come: such a row counts minute by minute")
        else:
            yield _row_item(event, why)


def _row_item(event: CountsReported | CostSnapshot, why: str) -> Item:
    what = NOUNS["costs"]
    if isinstance(event, CountsReported):
        what = NOUNS["impressions" if event.kind.startswith("impressions") else "clicks"]
    return Item(what, why, event.start_ms, event.end_ms, event.channel, event.campaign_id)


# ----------------------------------------------------------------------------- leads, sales, clicks, impressions


class _Home(NamedTuple):
    """Where a lead counts."""

    channel: str | None
    campaign_id: str | None
    created_ms: int | None
    is_void: bool


_UNKNOWN: Final = _Home(None, None, None, is_void=False)
_NO_LEAD: Final = _Home(UNATTRIBUTED, None, None, is_void=False)


class _Entities(Entities):
    """Clicks, impressions, leads and sales, asked for what of them does not count."""

    def items(self, basis: str, complete_until_ms: int) -> Iterator[Item]:
        """Yield what is left out; see `LeftOuts.items`."""
        pointers = self._pointers()
        at_roots = dict(self._homes())
        homes = {
            lead_id: at_roots[root]
            for lead_id in self._leads
            if (root := pointers.root(lead_id)) in at_roots
        }
        yield from self._of_clicks()
        yield from self._of_impressions()
        for lead_id, home in homes.items():
            is_root = pointers.root(lead_id) == lead_id
            yield from self._of_lead(self._leads[lead_id], home, basis, is_root=is_root)
        for entity in self._sales.values():
            yield from self._of_sale(entity, homes, basis)
        for kind, entities in (("lead", self._leads), ("sale", self._sales)):
            for entity in entities.values():
                yield from self._parked(entity, kind, complete_until_ms)

    def _homes(self) -> Iterator[tuple[str, _Home]]:
        """Yield where each lead counts that was not merged into another one."""
        for lead_id, contribution in self._lead_contributions({}):
            for place, facts in contribution.items():
                if place.basis == COHORT and "leads_gross" in facts:
                    is_void = "leads" not in facts
                    at_ms = place.bucket * MINUTE_MS
                    yield lead_id, _Home(place.channel, place.campaign_id, at_ms, is_void)

    def _of_clicks(self) -> Iterator[Item]:
        for told in self._clicks.values():
            counted: Counter[Order] = Counter()
            for click in self._remembered_clicks(told):
                if (first := click.first) is None:
                    continue
                counted[first.order] += 1
                facts = click_contribution(click, self._keep_ms).values()
                if any("invalid_clicks" in of_place for of_place in facts):
                    why = OF_BOTS if first.is_bot else "voided"
                    at_ms = first.order.at_ms
                    yield Item("clicks", why, at_ms, at_ms, first.channel, first.campaign_id)
            events = [event for _, event in told if isinstance(event, ClickRecorded)]
            for event in _extra(events, counted):
                yield _item_of(event, "clicks", "duplicates: the same click_id again")

    def _of_impressions(self) -> Iterator[Item]:
        for told in self._impressions.values():
            counted: Counter[Order] = Counter()
            for impression in self._remembered(told, Impression, take_impression):
                if (first := impression.first) is None:
                    continue
                counted[first.order] += 1
                if first.is_bot:
                    at_ms = first.order.at_ms
                    place = (first.channel, first.campaign_id)
                    yield Item("impressions", OF_BOTS, at_ms, at_ms, *place)
            for event in _extra([event for _, event in told], counted):
                yield _item_of(event, "impressions", "duplicates: the same impression_id again")

    def _of_lead(self, entity: Entity, home: _Home, basis: str, *, is_root: bool) -> Iterator[Item]:
        events = [event for event, _ in entity.created]
        yield from _duplicates("leads", "lead_id", events, home, basis)
        told = [t.event for t in entity.told if is_reached(created_ms(entity), t, self._park_ms)]
        if not is_root:
            if events:
                first = min(events, key=_order)
                yield _at(first, "leads", "merged into another lead", home, basis)
        elif home.is_void and home.created_ms is not None:
            why = _why("invalidated", [e for e in told if isinstance(e, LeadInvalidated)])
            at_ms = home.created_ms
            yield Item("leads", why, at_ms, at_ms, home.channel, home.campaign_id)
        yield from _of_stage_changes(told, home, basis)

    def _of_sale(self, entity: Entity, homes: Mapping[str, _Home], basis: str) -> Iterator[Item]:
        sale = self._sale(entity)
        if sale.created is None:
            return
        home = homes.get(sale.created.lead_id or "")
        events = [event for event, _ in entity.created]
        yield from _duplicates("sales", "sale_id", events, home or _NO_LEAD, basis)
        first = min(events, key=_order)
        if sale.is_void:
            why = _why("voided", [t.event for t in entity.told if isinstance(t.event, SaleVoided)])
            yield _at(first, "sales", why, home or _NO_LEAD, basis)
        elif basis == COHORT:
            if home is None or home.is_void:
                yield _at(first, "sales", "of no lead that is known and valid", _UNKNOWN, basis)
            elif (state := state_for_lead(sale, _unconverted)) and not state.stands:
                yield _at(first, "sales", "cancelled or refunded in full", home, basis)

    def _parked(self, entity: Entity, kind: str, complete_until_ms: int) -> Iterator[Item]:
        for told in entity.told:
            is_over = told.timestamp_ms + self._park_ms < complete_until_ms
            if not is_over and not is_reached(created_ms(entity), told, self._park_ms):
                why = f"changes parked: their {kind} has not come yet"
                yield _item_of(told.event, told.topic, why)


def _unconverted(currency: str, at_ms: int, micros: int) -> None:
    """Convert nothing: whether a sale stands does not depend on rates."""


def _of_stage_changes(told: Iterable[Event], home: _Home, basis: str) -> Iterator[Item]:
    seen: set[Order] = set()
    for event in told:
        if isinstance(event, LeadStageChanged):
            order = _order(event)
            if order in seen:
                yield _at(event, "stage changes", "duplicates: the same event again", home, basis)
            elif home.is_void:
                yield _at(event, "stage changes", "of invalidated leads", home, basis)
            seen.add(order)


def _why(word: str, events: Iterable[LeadInvalidated | SaleVoided]) -> str:
    first = min(events, key=_order, default=None)
    return f"{word}: {first.reason:.40}" if first is not None and first.reason else word


def _duplicates(
    what: str, name: str, events: Sequence[Event], home: _Home, basis: str
) -> Iterator[Item]:
    if len(events) > 1:
        first = Counter([min(map(_order, events))])
        for event in _extra(events, first):
            yield _at(event, what, f"duplicates: the same {name} again", home, basis)


def _extra(events: Iterable[Event], counted: Counter[Order]) -> Iterator[Event]:
    """Yield the events but those that count, one of each order."""
    left = Counter(counted)
    for event in events:
        order = _order(event)
        if left[order] > 0:
            left[order] -= 1
        else:
            yield event


def _at(event: Event, what: str, why: str, home: _Home, basis: str) -> Item:
    at_ms = event.envelope.occurred_ms
    if basis == COHORT and home.created_ms is not None:
        at_ms = home.created_ms
    return Item(what, why, at_ms, at_ms, home.channel, home.campaign_id)


def _order(event: Event) -> Order:
    return order_of(event.envelope)
