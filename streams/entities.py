"""Stage 2: the state of clicks and impressions with an id, leads, sales, rows, targets and rates, and what changes in it.

Whatever happens to an entity, the facts get contribution(new) - contribution(old). Each kind of entity
has a module of its own; here records are read, handed to their kind, and what came of them is written.
"""

from collections.abc import Iterator

from msgspec import msgpack

from kpis.calendar import MINUTE_MS
from kpis.events import (
    ClickRecorded,
    ClickVoided,
    CostDeleted,
    CostSnapshot,
    CountsReported,
    FxRateSet,
    ImpressionServed,
    SaleAmended,
    SaleCancelled,
    SaleCreated,
    SaleRefunded,
    SaleVoided,
    TargetRemoved,
    TargetSet,
)
from kpis.ledger import causes_of
from kpis.orders import Outcome
from streams.click_rows import CLICK, ClickRows
from streams.cost_rows import AHEAD, CostRows
from streams.deadlines import DEADLINE, deadline_of
from streams.entity_rows import Work
from streams.impression_rows import IMPRESSION, ImpressionRows
from streams.lead_rows import POINTER, LeadRows
from streams.levels import Levels
from streams.messages import (
    ClickAsked,
    ClickTold,
    EntityItem,
    Envelope,
    Forwarded,
    JourneyTold,
    PointerTold,
    SaleTold,
    decode_entity_item,
    decode_envelope,
)
from streams.outbox import Outbox
from streams.rate_rows import FOREIGN, RATE, RateRows
from streams.sale_rows import SALE, SaleRows
from streams.stages import HOPS, MARK_EVERY_MS, ROWS_PER_TURN, Context, Progress, Sender
from streams.target_rows import TargetRows
from streams.transport import Chunk
from streams.waiting import Parking

_Memo = tuple[list[dict[str, int]], int, int]
_decode_memo = msgpack.Decoder(_Memo).decode


class Entities:
    """The entities of one shard."""

    name = "entities"

    def __init__(self, context: Context) -> None:
        self._shard = context.partition
        self._deployment = context.deployment
        self._tally = context.tally
        self._memo = context.tables["positions"]
        self._partitions = context.deployment.partitions
        self._work = Work(context)
        self._parking = Parking(context)
        self._rates = RateRows(self._work)
        self._clicks = ClickRows(self._work)
        self._impressions = ImpressionRows(self._work)
        self._leads = LeadRows(self._work, self._parking)
        self._sales = SaleRows(self._work, self._rates, self._parking)
        self._costs = CostRows(self._work, self._rates)
        self._targets = TargetRows(self._work)
        topics = context.deployment.topics
        self._to_merge = Sender(self._shard, self.name, topics.deltas, self._partitions)
        self._to_entities = Sender(self._shard, self.name, topics.entities, self._partitions)
        self.positions: dict[str, int] = {}
        self.pending_bytes = 0
        self._levels = Levels()
        self._first_ms: int | None = None
        self._mark_due_ms = 0
        self._has_read = False

    def restore(self) -> Iterator[None]:
        """Take up what the tables say after they were read, some rows at a time."""
        if (memo := self._memo.get(self.name.encode())) is not None:
            levels, self._work.newest_minute, self._costs.booked_minute = _decode_memo(memo)
            self._levels = Levels(levels)
        restorers = {
            DEADLINE: self._restore_deadline,
            POINTER: self._leads.restore_pointer,
            RATE: self._rates.restore,
            FOREIGN: self._rates.restore_index,
            AHEAD: self._costs.restore_index,
        }
        for number, (key, row) in enumerate(self._work.table.items(), 1):
            if (restorer := restorers.get(key[:1])) is not None:
                restorer(key, row)
            if number % ROWS_PER_TURN == 0:
                yield
        for number, key in enumerate(self._parking.deadlines.waiting(), 1):
            kind = self._sales if key.startswith(SALE) else self._leads
            self._parking.count(len(kind.load(key).waiting))
            if number % ROWS_PER_TURN == 0:
                yield

    def _restore_deadline(self, stored_key: bytes, row: bytes) -> None:
        del row
        key = deadline_of(stored_key)[1]
        if key.startswith(CLICK):
            self._clicks.deadlines.restore(stored_key)
        elif key.startswith(IMPRESSION):
            self._impressions.deadlines.restore(stored_key)
        else:
            self._parking.deadlines.restore(stored_key)

    # ------------------------------------------------------------------------- reading

    def apply(self, chunk: Chunk) -> None:
        """Apply every item of a chunk of the entities topic."""
        for record in chunk.records:
            if record.value is None:
                continue
            envelope = decode_envelope(record.value)
            work = self._work
            work.newest_minute = max(work.newest_minute, envelope.newest_minute)
            for raw in envelope.items:
                self._take(decode_entity_item(raw))
            self._take_marks(envelope)
            if self._first_ms is None:
                self._first_ms = envelope.arrived_ms
            self._has_read = True
        self._put_down()
        self.positions[chunk.topic] = chunk.end

    def _take(self, item: EntityItem) -> None:
        match item:
            case Forwarded():
                self._take_event(item)
            case SaleTold():
                self._leads.attach_sale(item)
            case JourneyTold():
                self._leads.join(item)
            case PointerTold():
                self._leads.point(item)
            case ClickTold():
                self._leads.attach_click(item)
            case ClickAsked():
                self._clicks.ask(item)

    def _take_event(self, item: Forwarded) -> None:
        outcome = self._outcome(item)
        # A rate comes to every shard and is counted in one; what is rejected was counted already.
        is_counted = item.partition == self._shard or not isinstance(item.event, FxRateSet)
        if is_counted and outcome is not Outcome.REJECTED:
            self._tally.outcome(item.topic, outcome.value)

    def _outcome(self, item: Forwarded) -> Outcome:
        event = item.event
        match event:
            case ClickRecorded() | ClickVoided():
                return self._clicks.apply(event, item.timestamp_ms)
            case ImpressionServed():
                return self._impressions.apply(event, item.timestamp_ms)
            case CostSnapshot() | CostDeleted() | CountsReported():
                return self._costs.apply(event)
            case SaleCreated() | SaleAmended() | SaleRefunded() | SaleCancelled() | SaleVoided():
                return self._sales.apply(event, item)
            case TargetSet() | TargetRemoved():
                return self._targets.apply(event)
            case FxRateSet():
                return self._convert_anew(event)
            case _:
                return self._leads.apply(event, item)

    def _convert_anew(self, event: FxRateSet) -> Outcome:
        concerned = self._rates.concerned(event)
        self._sales.take_up_all(concerned, causes_of(event))
        self._costs.take_up_all(concerned, causes_of(event))
        return self._rates.set(event)

    def _put_down(self) -> None:
        # Once per chunk and entity: thousands of sales may name the same lead.
        for kind in (
            *(self._clicks, self._impressions, self._leads),
            *(self._sales, self._costs, self._targets),
        ):
            kind.put_down()

    # ------------------------------------------------------------------------- time

    def _take_marks(self, envelope: Envelope) -> None:
        if not self._levels.take(envelope):
            return
        arrived_until_ms = self._levels.least(0, self._partitions)
        if arrived_until_ms is not None:
            self._give_up(arrived_until_ms)
            self._book(arrived_until_ms // MINUTE_MS)
        complete_until_ms = self._levels.least(HOPS, self._partitions)
        if complete_until_ms is not None:
            self._clicks.forget(complete_until_ms)
            self._impressions.forget(complete_until_ms)

    def _give_up(self, complete_until_ms: int) -> None:
        for key in self._parking.deadlines.pass_before(complete_until_ms):
            kind = self._sales if key.startswith(SALE) else self._leads
            kind.expire(key, complete_until_ms)

    def _book(self, minute: int) -> None:
        if minute > self._costs.booked_minute:
            self._costs.put_down()
            self._costs.book(minute)

    # ------------------------------------------------------------------------- writing

    def is_due(self) -> bool:
        """Tell whether items were applied since the last commit."""
        return self._has_read

    def flush(self, outbox: Outbox) -> None:
        """Write deltas, what entities tell each other, rejects and, about once a second, the marks."""
        now_ms = self._deployment.clock.now_ms()
        is_mark_due = now_ms >= self._mark_due_ms
        if is_mark_due:
            self._mark_due_ms = now_ms + MARK_EVERY_MS
        work, levels, senders = self._work, self._levels, self._partitions
        progress = Progress((), work.newest_minute, self._first_ms)
        to_merge = levels.to_merge(senders) if is_mark_due else ()
        self._to_merge.send(outbox, work.deltas.take(), progress._replace(marks=to_merge))
        to_entities = levels.to_entities(senders) if is_mark_due else ()
        self._to_entities.send(outbox, work.told, progress._replace(marks=to_entities))
        for key, value in self._parking.rejects:
            outbox.put(self._deployment.topics.rejects, self._shard, key, value)
        if self._has_read:
            memo = (levels.dump(), work.newest_minute, self._costs.booked_minute)
            self._memo.put(self.name.encode(), msgpack.encode(memo))
        work.told = {}
        self._parking.rejects = []
        self._first_ms = None
        self._has_read = False
