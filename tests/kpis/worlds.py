"""Leads, sales and clicks that tell each other what happened, in any order; and the same at once.

A world has two shards. Messages from one to another arrive in the order in which they were sent,
everything else in any order at all.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from random import Random

from kpis.clicks import (
    Click,
    answer,
    answers,
    ask_click,
    click_contribution,
    take_click,
    void_click,
)
from kpis.contributions import Contribution, correction
from kpis.events import ClickRecorded, ClickVoided, LeadCreated, SaleCreated
from kpis.facts import add
from kpis.lead_rows import decode_lead, encode_lead
from kpis.leads import (
    Journey,
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
from kpis.orders import Waiting, take_orphans
from kpis.remembered import begins_anew
from kpis.sales import (
    Sale,
    SaleState,
    create_sale,
    sale_contribution,
    state_for_lead,
    take_mismatches,
    tell_sale,
)
from tests.kpis.journeys import (
    FUNNEL,
    HORIZON_MS,
    KEEP_MS,
    PARK_MS,
    ClickEvent,
    LeadEvent,
    SaleEvent,
    convert,
    sound,
    summed,
    waiting,
)

Told = tuple[LeadEvent | SaleEvent | ClickEvent, int]
"""An event and its record's timestamp."""

SHARDS = 2
FOREVER = 10**15


def shard_of(name: str) -> int:
    return sum(name.encode()) % SHARDS


class World:
    """What many entities come to that were told of `events`, in the order that `seed` decides."""

    def __init__(self, events: Sequence[Told], seed: int) -> None:
        self.leads: dict[str, Lead] = {}
        self.sales: dict[str, Sale] = {}
        self.clicks: dict[str, Click] = {}
        self.sums: Contribution = {}
        self._booked: dict[tuple[str, str], Contribution] = {}
        self._pointers = [Pointers() for _ in range(SHARDS)]
        self._queues: dict[tuple[int, int], deque[Callable[[], None]]] = {}
        self._states: dict[str, tuple[str | None, SaleState | None]] = {}
        self._wanted: dict[str, Wanted | None] = {}
        self._pointed: dict[str, str | None] = {}
        self._journeys: dict[str, tuple[str, Journey | None]] = {}
        self._run(list(events), Random(seed))
        entities: list[Lead | Sale] = [*self.leads.values(), *self.sales.values()]
        self.orphans = Counter(
            repr(told.event)
            for entity in entities
            for told in take_orphans(entity, FOREVER, PARK_MS)
        )
        self.facts = sound(self.sums)

    def root(self, lead_id: str) -> str:
        return self._pointers[shard_of(lead_id)].root(lead_id)

    def contribution_of(self, lead_id: str) -> Contribution:
        return self._booked.get(("lead", lead_id), {})

    # ------------------------------------------------------------------------- running

    def _run(self, events: list[Told], random: Random) -> None:
        random.shuffle(events)
        while events or self._queues:
            ahead = [*self._queues, None] if events else [*self._queues]
            chosen = random.choice(ahead)
            if chosen is None:
                self._take(*events.pop())
            else:
                queue = self._queues[chosen]
                queue.popleft()()
                if not queue:
                    del self._queues[chosen]

    def _send(self, sender: int, receiver: int, message: Callable[[], None]) -> None:
        self._queues.setdefault((sender, receiver), deque()).append(message)

    def _book(self, kind: str, name: str, new: Contribution, *, is_forgotten: bool = False) -> None:
        old = {} if is_forgotten else self._booked.get((kind, name), {})
        for place, facts in correction(new, old).items():
            add(self.sums.setdefault(place, {}), facts)
        self._booked[kind, name] = new

    def _take(self, event: LeadEvent | SaleEvent | ClickEvent, timestamp_ms: int) -> None:
        if isinstance(event, ClickRecorded | ClickVoided):
            self._take_click(event, timestamp_ms)
        elif isinstance(event, SaleEvent):
            self._take_sale(event, timestamp_ms)
        else:
            lead = self._lead(event.lead_id)
            if isinstance(event, LeadCreated):
                create_lead(lead, event, timestamp_ms, PARK_MS)
            else:
                tell_lead(lead, waiting(event, timestamp_ms), PARK_MS)
            self._settle(event.lead_id)

    # ------------------------------------------------------------------------- clicks and sales

    def _take_click(self, event: ClickEvent, timestamp_ms: int) -> None:
        click_id = str(event.click_id)
        click = self.clicks.setdefault(click_id, Click())
        is_forgotten = False
        if isinstance(event, ClickRecorded):
            is_forgotten = begins_anew(click, timestamp_ms, KEEP_MS)
            take_click(click, event, timestamp_ms, KEEP_MS)
        else:
            void_click(click, timestamp_ms, KEEP_MS)
        self._book("click", click_id, click_contribution(click, KEEP_MS), is_forgotten=is_forgotten)
        for lead_id in answers(click, KEEP_MS, PARK_MS):
            self._answer(click_id, lead_id)

    def _ask(self, click_id: str, lead_id: str, timestamp_ms: int) -> None:
        ask_click(self.clicks.setdefault(click_id, Click()), lead_id, timestamp_ms)
        self._answer(click_id, lead_id)

    def _answer(self, click_id: str, lead_id: str) -> None:
        told = answer(self.clicks[click_id], lead_id, KEEP_MS, PARK_MS)

        def take() -> None:
            attach_click(self._lead(lead_id), click_id, told)
            self._settle(lead_id)

        self._send(shard_of(click_id), shard_of(lead_id), take)

    def _take_sale(self, event: SaleEvent, timestamp_ms: int) -> None:
        sale = self.sales.setdefault(event.sale_id, Sale())
        if isinstance(event, SaleCreated):
            create_sale(sale, event, timestamp_ms, PARK_MS)
        else:
            tell_sale(sale, waiting(event, timestamp_ms), PARK_MS)
        take_mismatches(sale)
        self._book("sale", event.sale_id, sale_contribution(sale, convert))
        state = state_for_lead(sale, convert)
        lead_id = None if sale.created is None else sale.created.lead_id
        before = self._states.get(event.sale_id, (None, None))
        self._states[event.sale_id] = (lead_id, state)
        if before[0] not in (None, lead_id):
            self._tell(str(before[0]), event.sale_id, None)
        if lead_id is not None and before != (lead_id, state):
            self._tell(lead_id, event.sale_id, state)

    def _tell(self, lead_id: str, sale_id: str, state: SaleState | None) -> None:
        def take() -> None:
            attach_sale(self._lead(lead_id), sale_id, state)
            self._settle(lead_id)

        self._send(shard_of(sale_id), shard_of(lead_id), take)

    # ------------------------------------------------------------------------- leads

    def _lead(self, lead_id: str) -> Lead:
        # As a table would give it.
        known = self.leads.get(lead_id)
        lead = Lead() if known is None else decode_lead(encode_lead(known))
        assert known is None or lead == known
        self.leads[lead_id] = lead
        return lead

    def _settle(self, lead_id: str) -> None:
        """Book what a lead adds now and tell the others what changed for them."""
        lead, shard = self.leads[lead_id], shard_of(lead_id)
        root = self.root(lead_id)
        new = lead_contribution(lead, FUNNEL, HORIZON_MS, is_root=root == lead_id)
        self._book("lead", lead_id, new)
        if (wanted := wanted_click(lead)) != self._wanted.get(lead_id):
            self._wanted[lead_id] = wanted
            if wanted is not None:
                click_id, timestamp_ms = wanted
                self._send(
                    shard,
                    shard_of(click_id),
                    lambda: self._ask(click_id, lead_id, timestamp_ms),
                )
        if (into := pointer(lead)) != self._pointed.get(lead_id):
            self._pointed[lead_id] = into
            for receiver in range(SHARDS):
                self._point(shard, receiver, lead_id, into)
        self._tell_journey(lead_id, root, journey_of(lead))

    def _point(self, sender: int, receiver: int, lead_id: str, into: str | None) -> None:
        def take() -> None:
            for changed in self._pointers[receiver].set(lead_id, into):
                if shard_of(changed) == receiver and changed in self.leads:
                    self._settle(changed)

        self._send(sender, receiver, take)

    def _tell_journey(self, lead_id: str, root: str, journey: Journey | None) -> None:
        before = self._journeys.get(lead_id)
        now = None if root == lead_id else (root, journey)
        if before == now:
            return
        if before is not None and (now is None or before[0] != root):
            self._join(before[0], lead_id, None)
        if now is None:
            del self._journeys[lead_id]
        else:
            self._journeys[lead_id] = now
            self._join(root, lead_id, journey)

    def _join(self, root: str, lead_id: str, journey: Journey | None) -> None:
        def take() -> None:
            join(self._lead(root), lead_id, journey)
            self._settle(root)

        self._send(shard_of(lead_id), shard_of(root), take)


# ----------------------------------------------------------------------------- at once


def at_once(events: Iterable[Told]) -> Contribution:
    """Return what the same events come to if everything is known from the beginning."""
    ordered = sorted(events, key=repr)
    leads, sales, clicks = _entities(ordered)
    roots = {lead_id: naive_root(lead_id, leads) for lead_id in leads}
    for sale_id, sale in sales.items():
        if sale.created is not None and sale.created.lead_id is not None:
            lead = leads.setdefault(sale.created.lead_id, Lead())
            attach_sale(lead, sale_id, state_for_lead(sale, convert))
    for lead_id, lead in leads.items():
        wanted = wanted_click(lead)
        click = clicks.get(wanted.click_id) if wanted else None
        if wanted and click:
            ask_click(click, lead_id, wanted.timestamp_ms)
            attach_click(lead, wanted.click_id, answer(click, lead_id, KEEP_MS, PARK_MS))
    for lead_id, root in roots.items():
        if root != lead_id:
            join(leads.setdefault(root, Lead()), lead_id, journey_of(leads[lead_id]))
    of_leads = (
        lead_contribution(lead, FUNNEL, HORIZON_MS, is_root=roots.get(lead_id, lead_id) == lead_id)
        for lead_id, lead in leads.items()
    )
    of_clicks = (click_contribution(click, KEEP_MS) for click in clicks.values())
    of_sales = (sale_contribution(sale, convert) for sale in sales.values())
    return summed((*of_leads, *of_clicks, *of_sales))


def _entities(
    events: Iterable[Told],
) -> tuple[dict[str, Lead], dict[str, Sale], dict[str, Click]]:
    leads: dict[str, Lead] = {}
    sales: dict[str, Sale] = {}
    clicks: dict[str, Click] = {}
    told_sales: list[tuple[Sale, Waiting]] = []
    told_leads: list[tuple[Lead, Waiting]] = []
    for event, timestamp_ms in events:
        if isinstance(event, ClickRecorded):
            click = clicks.setdefault(str(event.click_id), Click())
            take_click(click, event, timestamp_ms, KEEP_MS)
        elif isinstance(event, ClickVoided):
            void_click(clicks.setdefault(event.click_id, Click()), timestamp_ms, KEEP_MS)
        elif isinstance(event, LeadCreated):
            create_lead(leads.setdefault(event.lead_id, Lead()), event, timestamp_ms, PARK_MS)
        elif isinstance(event, SaleCreated):
            create_sale(sales.setdefault(event.sale_id, Sale()), event, timestamp_ms, PARK_MS)
        elif isinstance(event, SaleEvent):
            sale = sales.setdefault(event.sale_id, Sale())
            told_sales.append((sale, waiting(event, timestamp_ms)))
        else:
            lead = leads.setdefault(event.lead_id, Lead())
            told_leads.append((lead, waiting(event, timestamp_ms)))
    for sale, told in told_sales:
        tell_sale(sale, told, PARK_MS)
    for lead, told in told_leads:
        tell_lead(lead, told, PARK_MS)
    return leads, sales, clicks


def naive_root(lead_id: str, leads: dict[str, Lead]) -> str:
    """Return the end of the chain, step by step; of a circle its smallest member."""
    way = [lead_id]
    while (into := pointer(leads.get(way[-1], Lead()))) is not None:
        if into in way:
            return min(way[way.index(into) :])
        way.append(into)
    return way[-1]
