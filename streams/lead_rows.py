"""Leads of a shard: their journeys, what joins them, and what they tell the lead they became part of."""

from typing import Final, NamedTuple

from kpis.contributions import Contribution, correction
from kpis.events import LeadCreated, LeadStageChanged
from kpis.lead_rows import decode_lead, encode_lead
from kpis.leads import (
    Journey,
    Lead,
    Wanted,
    attach_click,
    attach_sale,
    create_lead,
    current_stage,
    join,
    journey_of,
    lead_contribution,
    pointer,
    tell_lead,
    wanted_click,
)
from kpis.ledger import causes_of
from kpis.merges import Pointers
from kpis.orders import Outcome, take_orphans
from streams.entity_rows import LEAD_CORRECTED, Rows, TakenUp, Work
from streams.messages import (
    ClickAsked,
    ClickTold,
    Forwarded,
    JourneyTold,
    LeadEvent,
    PointerTold,
    SaleTold,
    click_key,
    entity_key,
    lead_id_of,
    lead_key,
)
from streams.waiting import Parking, waiting_of

POINTER: Final = b"m"


class _Shown(NamedTuple):
    """What a lead adds, what it tells which root, whom it points to, what it asks, and what waits."""

    contribution: Contribution
    root_id: str
    journey: Journey | None
    pointer: str | None
    wanted: Wanted | None
    waiting: int


class LeadRows(Rows[Lead, _Shown]):
    """The leads that live in one shard, and the pointers of all merged leads of all shards.

    Who leads where is decided by each merged lead alone, told to every shard, and followed by each
    shard alone: so a lead's journey takes one hop to the lead that counts for it.
    """

    def __init__(self, work: Work, parking: Parking) -> None:
        super().__init__(work, decode_lead, encode_lead)
        self._parking = parking
        self._pointers = Pointers()
        self._park_ms = work.deployment.park_ms

    def restore_pointer(self, key: bytes, row: bytes) -> None:
        """Take up a stored pointer."""
        self._pointers.set(key[len(POINTER) :].decode(), row.decode())

    # ------------------------------------------------------------------------- events

    def apply(self, event: LeadEvent, item: Forwarded) -> Outcome:
        """Take in an event of a lead."""
        key = entity_key(event)
        lead = self.take_up(key, causes_of(event)).entity
        if isinstance(event, LeadCreated):
            return create_lead(lead, event, item.timestamp_ms, self._park_ms)
        if isinstance(event, LeadStageChanged):
            self._remark(lead, event)
        outcome = tell_lead(lead, waiting_of(item), self._park_ms)
        if outcome is Outcome.PARKED:
            self._parking.park(key, item.timestamp_ms)
        return outcome

    def expire(self, key: bytes, complete_until_ms: int) -> None:
        """Give up what no `created` can reach any more."""
        lead = self.take_up(key).entity
        for orphan in take_orphans(lead, complete_until_ms, self._park_ms):
            self._parking.reject_orphan(orphan, "lead")

    def _remark(self, lead: Lead, event: LeadStageChanged) -> None:
        stage = current_stage(lead)
        if stage is None:
            return
        if event.to_stage == stage:
            self._work.tally.remarked("same_stage")
        if event.from_stage not in (None, stage):
            self._work.tally.remarked("other_from_stage")

    # ------------------------------------------------------------------------- what others tell

    def attach_sale(self, told: SaleTold) -> None:
        """Take in what a sale tells the lead that it names."""
        lead = self.take_up(lead_key(told.lead_id), told.causes).entity
        attach_sale(lead, told.sale_id, told.state)

    def join(self, told: JourneyTold) -> None:
        """Take in what a merged lead tells the one that counts for it."""
        lead = self.take_up(lead_key(told.root_id), told.causes).entity
        join(lead, told.lead_id, told.journey)

    def attach_click(self, told: ClickTold) -> None:
        """Take in what a click answers."""
        lead = self.take_up(lead_key(told.lead_id), LEAD_CORRECTED).entity
        attach_click(lead, told.click_id, told.attribution)

    def point(self, told: PointerTold) -> None:
        """Take in where a lead leads: whoever leads to it may have another root from now on."""
        for lead_id in self._pointers.followers(told.lead_id):
            key = lead_key(lead_id)
            if self.is_known(key):
                self.take_up(key, LEAD_CORRECTED)
        self._pointers.set(told.lead_id, told.into_lead_id)
        row_key = POINTER + told.lead_id.encode()
        if told.into_lead_id is None:
            self._work.table.delete(row_key)
        else:
            self._work.table.put(row_key, told.into_lead_id.encode())

    # ------------------------------------------------------------------------- rows

    def _new(self) -> Lead:
        return Lead()

    def _is_empty(self, entity: Lead) -> bool:
        return entity.created is None and not (entity.sales or entity.joined or entity.waiting)

    def _show(self, key: bytes, entity: Lead) -> _Shown:
        lead_id, deployment = lead_id_of(key), self._work.deployment
        root_id = self._pointers.root(lead_id)
        is_root = root_id == lead_id
        return _Shown(
            lead_contribution(entity, deployment.funnel, deployment.horizon_ms, is_root=is_root),
            root_id,
            None if is_root else journey_of(entity),
            pointer(entity),
            wanted_click(entity),
            len(entity.waiting),
        )

    def _settle(self, key: bytes, taken: TakenUp[Lead, _Shown]) -> None:
        lead_id, before, now = (
            lead_id_of(key),
            taken.before,
            self._show(key, taken.entity),
        )
        work = self._work
        work.deltas.add(correction(now.contribution, before.contribution), taken.causes)
        if now.pointer != before.pointer:
            work.tell_all(PointerTold(lead_id, now.pointer))
        if now.wanted is not None and now.wanted != before.wanted:
            work.tell(click_key(now.wanted.click_id), _question(lead_id, now.wanted))
        self._tell_journey(lead_id, taken, now)
        self._parking.count(now.waiting - before.waiting)

    def _tell_journey(self, lead_id: str, taken: TakenUp[Lead, _Shown], now: _Shown) -> None:
        before, work = taken.before, self._work
        is_elsewhere = before.root_id != now.root_id
        if before.journey is not None and is_elsewhere:
            gone = JourneyTold(before.root_id, lead_id, None, taken.causes)
            work.tell(lead_key(before.root_id), gone)
        known = None if is_elsewhere else before.journey
        if now.journey is not None and now.journey != known:
            told = JourneyTold(now.root_id, lead_id, now.journey, taken.causes)
            work.tell(lead_key(now.root_id), told)


def _question(lead_id: str, wanted: Wanted) -> ClickAsked:
    return ClickAsked(wanted.click_id, lead_id, wanted.timestamp_ms)
