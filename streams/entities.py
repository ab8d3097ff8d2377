"""Stage 2: the state of clicks with an id, leads, sales, cost and report rows, and what changes in it.

Whatever happens to an entity, the facts get contribution(new) - contribution(old).
"""

import heapq
from typing import Any, Final, NamedTuple

from msgspec import msgpack

from kpis.calendar import instant_text
from kpis.contributions import Contribution, correction
from kpis.events import (
    ClickRecorded,
    CostSnapshot,
    CountsReported,
    LeadCreated,
    LeadStageChanged,
    SaleCreated,
    SaleVoided,
)
from kpis.journeys import (
    Click,
    Lead,
    Outcome,
    Sale,
    Waiting,
    attach_sale,
    click,
    click_contribution,
    create_lead,
    create_sale,
    current_stage,
    lead_contribution,
    sale_contribution,
    state_for_lead,
    take_orphans,
    tell_lead,
    tell_sale,
)
from kpis.reading import Refused, reject_value
from kpis.spend import Row, restate, row_contribution
from streams.messages import (
    Deltas,
    Forwarded,
    SaleTold,
    decode_entity_item,
    decode_envelope,
    entity_key,
    shard_of,
)
from streams.outbox import Outbox
from streams.stages import MARK_EVERY_MS, Context, Marks, Progress, Sender
from streams.transport import Chunk

_LEAD: Final = b"l"
_SALE: Final = b"s"
_CLICK: Final = b"c"
_DEADLINE: Final = b"d"
_DEADLINE_BYTES: Final = 8

_encode = msgpack.Encoder().encode
_decode_lead = msgpack.Decoder(Lead).decode
_decode_sale = msgpack.Decoder(Sale).decode
_decode_click = msgpack.Decoder(Click).decode
_decode_row = msgpack.Decoder(Row).decode


class _TakenUp(NamedTuple):
    """A lead that is being changed, what it added before, and how many events waited for it."""

    lead: Lead
    before: Contribution
    waited: int


class Entities:
    """The entities of one shard."""

    name = "entities"

    def __init__(self, context: Context) -> None:
        self._shard = context.partition
        self._deployment = context.deployment
        self._tally = context.tally
        self._rows = context.tables["journeys"]
        self._memo = context.tables["positions"]
        topics = context.deployment.topics
        self.positions: dict[str, int] = {}
        self.pending_bytes = 0
        self._partitions = context.deployment.partitions
        self._deltas = Deltas(self._partitions)
        self._told: dict[int, list[object]] = {}
        self._rejects: list[tuple[bytes, bytes]] = []
        self._to_merge = Sender(self._shard, self.name, topics.deltas, self._partitions)
        self._to_entities = Sender(self._shard, self.name, topics.entities, self._partitions)
        self._marks = Marks()
        self._newest_minute = 0
        self._deadlines: list[tuple[int, bytes]] = []
        self._parked = 0
        self._taken_up: dict[bytes, _TakenUp] = {}
        self._first_ms: int | None = None
        self._mark_due_ms = 0
        self._has_read = False

    def restore(self) -> None:
        """Take up what the tables say after they were read."""
        if (row := self._memo.get(self.name.encode())) is not None:
            marks, self._newest_minute = msgpack.decode(row, type=tuple[dict[str, int], int])
            self._marks = Marks(marks)
        keys = (key for key, _ in self._rows.items() if key.startswith(_DEADLINE))
        self._deadlines = [_deadline_of(key) for key in keys]
        heapq.heapify(self._deadlines)
        waiting = {key for _, key in self._deadlines if not key.startswith(_CLICK)}
        self._parked = sum(len(self._load(key).waiting) for key in waiting)

    # ------------------------------------------------------------------------- reading

    def apply(self, chunk: Chunk) -> None:
        """Apply every item of a chunk of the entities topic."""
        for record in chunk.records:
            if record.value is None:
                continue
            envelope = decode_envelope(record.value)
            self._newest_minute = max(self._newest_minute, envelope.newest_minute)
            for raw in envelope.items:
                self._take(decode_entity_item(raw))
            if self._marks.take(str(envelope.sender), envelope.mark_ms):
                self._put_down()
                self._pass_deadlines()
            if self._first_ms is None:
                self._first_ms = envelope.arrived_ms
            self._has_read = True
        self._put_down()
        self.positions[chunk.topic] = chunk.end

    def _take(self, item: Forwarded | SaleTold) -> None:
        if isinstance(item, SaleTold):
            self._attach(item)
            return
        event = item.event
        match event:
            case ClickRecorded():
                outcome = self._click(event, item.timestamp_ms)
            case CostSnapshot() | CountsReported():
                outcome = self._restate(event)
            case SaleCreated() | SaleVoided():
                outcome = self._sale(event, item)
            case _:
                outcome = self._lead(event, item)
        self._tally.outcome(item.topic, outcome.value)

    def _click(self, event: ClickRecorded, timestamp_ms: int) -> Outcome:
        key = entity_key(event)
        row = self._rows.get(key)
        old = None if row is None else _decode_click(row)
        new, outcome = click(old, event, timestamp_ms, self._deployment.keep_ms)
        forgotten = old is not None and outcome is Outcome.ACCEPTED
        before = {} if forgotten else click_contribution(old)
        self._deltas.add(correction(click_contribution(new), before))
        self._rows.put(key, _encode(new))
        if outcome is Outcome.ACCEPTED:
            self._wait_until(new.timestamp_ms + self._deployment.keep_ms, key)
        return outcome

    def _restate(self, event: CostSnapshot | CountsReported) -> Outcome:
        key = entity_key(event)
        row = self._rows.get(key)
        old = None if row is None else _decode_row(row)
        new, outcome = restate(old, event)
        if outcome is Outcome.ACCEPTED:
            buckets, newest = self._deployment.buckets, self._newest_minute
            before = row_contribution(old, buckets, newest)
            self._deltas.add(correction(row_contribution(new, buckets, newest), before))
            self._rows.put(key, _encode(new))
            if isinstance(event, CostSnapshot):
                self._tally.cost_reported(event.channel, event.reported_ms)
        return outcome

    # ------------------------------------------------------------------------- leads and sales

    def _lead(self, event: Any, item: Forwarded) -> Outcome:
        key = entity_key(event)
        lead = self._take_up(key)
        self._remark(lead, event)
        if isinstance(event, LeadCreated):
            outcome = create_lead(lead, event, item.timestamp_ms, self._deployment.park_ms)
        else:
            outcome = tell_lead(lead, _waiting(item), self._deployment.park_ms)
        if outcome is Outcome.PARKED:
            self._wait_until(item.timestamp_ms + self._deployment.park_ms, key)
        return outcome

    def _remark(self, lead: Lead, event: Any) -> None:
        if isinstance(event, LeadStageChanged) and (stage := current_stage(lead)) is not None:
            if event.to_stage == stage:
                self._tally.remarked("same_stage")
            if event.from_stage not in (None, stage):
                self._tally.remarked("other_from_stage")

    def _attach(self, told: SaleTold) -> None:
        lead = self._take_up(_LEAD + told.lead_id.encode())
        attach_sale(lead, told.sale_id, told.state)

    def _take_up(self, key: bytes) -> Lead:
        """Return a lead to be changed; what changes in the facts is told when it is put down."""
        found = self._taken_up.get(key)
        if found is None:
            lead = self._load_lead(key)
            before = lead_contribution(lead, self._deployment.funnel)
            found = self._taken_up[key] = _TakenUp(lead, before, len(lead.waiting))
        return found.lead

    def _put_down(self) -> None:
        # Once per chunk and lead: thousands of sales may name the same one.
        for key, (lead, before, waited) in self._taken_up.items():
            self._deltas.add(correction(lead_contribution(lead, self._deployment.funnel), before))
            self._parked += len(lead.waiting) - waited
            if lead.created is None and not lead.sales and not lead.waiting:
                self._rows.delete(key)
            else:
                self._rows.put(key, _encode(lead))
        self._taken_up = {}

    def _sale(self, event: SaleCreated | SaleVoided, item: Forwarded) -> Outcome:
        key = entity_key(event)
        sale = self._load_sale(key)
        before = sale_contribution(sale)
        told_before, waited = _told(sale), len(sale.waiting)
        if isinstance(event, SaleCreated):
            outcome = create_sale(sale, event, item.timestamp_ms, self._deployment.park_ms)
        else:
            outcome = tell_sale(sale, _waiting(item), self._deployment.park_ms)
        self._deltas.add(correction(sale_contribution(sale), before))
        self._tell(told_before, _told(sale))
        self._rows.put(key, _encode(sale))
        self._parked += len(sale.waiting) - waited
        if outcome is Outcome.PARKED:
            self._wait_until(item.timestamp_ms + self._deployment.park_ms, key)
        return outcome

    def _tell(self, before: SaleTold | None, now: SaleTold | None) -> None:
        if before == now:
            return
        if before is not None and (now is None or now.lead_id != before.lead_id):
            self._send(SaleTold(before.lead_id, before.sale_id, None))
        if now is not None:
            self._send(now)

    def _send(self, told: SaleTold) -> None:
        target = shard_of(_LEAD + told.lead_id.encode(), self._partitions)
        self._told.setdefault(target, []).append(told)

    def _load(self, key: bytes) -> Lead | Sale:
        return self._load_sale(key) if key.startswith(_SALE) else self._load_lead(key)

    def _load_lead(self, key: bytes) -> Lead:
        row = self._rows.get(key)
        return Lead() if row is None else _decode_lead(row)

    def _load_sale(self, key: bytes) -> Sale:
        row = self._rows.get(key)
        return Sale() if row is None else _decode_sale(row)

    # ------------------------------------------------------------------------- deadlines

    def _wait_until(self, deadline_ms: int, key: bytes) -> None:
        heapq.heappush(self._deadlines, (deadline_ms, key))
        self._rows.put(_deadline_key(deadline_ms, key), b"")

    def _pass_deadlines(self) -> None:
        complete_until_ms = self._marks.least(self._partitions)
        while (
            complete_until_ms is not None
            and self._deadlines
            and self._deadlines[0][0] < complete_until_ms
        ):
            deadline_ms, key = heapq.heappop(self._deadlines)
            self._rows.delete(_deadline_key(deadline_ms, key))
            self._expire(key, complete_until_ms)
        self._tally.parked = self._parked

    def _expire(self, key: bytes, complete_until_ms: int) -> None:
        row = self._rows.get(key)
        if row is None:
            return
        if key.startswith(_CLICK):
            if _decode_click(row).timestamp_ms + self._deployment.keep_ms < complete_until_ms:
                self._rows.delete(key)
            return
        entity = self._load(key)
        orphans = take_orphans(entity, complete_until_ms, self._deployment.park_ms)
        self._parked -= len(orphans)
        for orphan in orphans:
            self._reject(orphan, "sale" if key.startswith(_SALE) else "lead")
        if entity.created is None and not entity.waiting and not getattr(entity, "sales", None):
            self._rows.delete(key)
        elif orphans:
            self._rows.put(key, _encode(entity))

    def _reject(self, orphan: Waiting, kind: str) -> None:
        entity_id = getattr(orphan.event, f"{kind}_id")
        days = self._deployment.park_ms // 86_400_000
        is_personal = f"{kind}_id" in self._deployment.rules.personal
        shown = "one that was not" if is_personal else f"{entity_id!r:.40}"
        message = f"{kind}_id: expected a {kind} created within {days} days, got {shown}"
        envelope = orphan.event.envelope
        refused = Refused(
            f"orphan_{kind}",
            f"{kind}_id",
            message,
            envelope.event_id,
            instant_text(envelope.occurred_ms),
        )
        full = self._deployment.topics.inputs[orphan.topic]
        place = (full, orphan.partition, orphan.offset)
        value = reject_value(refused, *place, orphan.raw, self._deployment.rules)
        self._rejects.append(("{}/{}/{}".format(*place).encode(), value))
        self._tally.rejected(orphan.topic, refused.reason)

    # ------------------------------------------------------------------------- writing

    def is_due(self) -> bool:
        """Tell whether items were applied since the last commit."""
        return self._has_read

    def flush(self, outbox: Outbox) -> None:
        """Write deltas, what sales tell their leads, rejects and, about once a second, the mark."""
        now_ms = self._deployment.clock.now_ms()
        mark_ms = None
        if now_ms >= self._mark_due_ms:
            mark_ms = self._marks.least(self._partitions)
            self._mark_due_ms = now_ms + MARK_EVERY_MS
        deltas = self._deltas.take()
        progress = Progress(mark_ms, self._newest_minute, self._first_ms)
        self._to_merge.send(outbox, deltas, progress)
        self._to_entities.send(outbox, self._told, progress._replace(mark_ms=None))
        for key, value in self._rejects:
            outbox.put(self._deployment.topics.rejects, self._shard, key, value)
        if self._has_read:
            self._memo.put(self.name.encode(), _encode((self._marks, self._newest_minute)))
        self._told = {}
        self._rejects = []
        self._first_ms = None
        self._has_read = False


def _waiting(item: Forwarded) -> Waiting:
    event: Any = item.event
    return Waiting(event, item.timestamp_ms, item.topic, item.partition, item.offset, item.raw)


def _told(sale: Sale) -> SaleTold | None:
    state = state_for_lead(sale)
    if state is None or sale.created is None or sale.created.lead_id is None:
        return None
    return SaleTold(sale.created.lead_id, sale.created.sale_id, state)


def _deadline_key(deadline_ms: int, key: bytes) -> bytes:
    return _DEADLINE + deadline_ms.to_bytes(_DEADLINE_BYTES) + key


def _deadline_of(key: bytes) -> tuple[int, bytes]:
    return int.from_bytes(key[1 : 1 + _DEADLINE_BYTES]), key[1 + _DEADLINE_BYTES :]
