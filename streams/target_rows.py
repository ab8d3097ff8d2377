"""Targets of a shard: the newest of a natural key counts, and is told to the shard of its scope."""

from typing import Final

from msgspec import Struct, msgpack

from kpis.events import TargetRemoved, TargetSet
from kpis.facts import Scope
from kpis.ledger import causes_of
from kpis.orders import Outcome, correction_order
from kpis.targets import Target
from streams.entity_rows import Rows, TakenUp, Work
from streams.messages import TargetEvent, TargetTold, entity_key, shard_of_scope, target_key

TARGET: Final = b"g"


class TargetRow(Struct, array_like=True):
    """One target; its newest event may be a removal."""

    newest: TargetEvent | None = None


class TargetRows(Rows[TargetRow, Target | None]):
    """The targets that one shard decides on."""

    def __init__(self, work: Work) -> None:
        super().__init__(work, msgpack.Decoder(TargetRow).decode)

    def apply(self, event: TargetEvent) -> Outcome:
        """Take in a target or a removal."""
        row = self.take_up(entity_key(event), causes_of(event)).entity
        if row.newest is not None and correction_order(event) <= correction_order(row.newest):
            return Outcome.DUPLICATE
        row.newest = event
        return Outcome.ACCEPTED

    def _new(self) -> TargetRow:
        return TargetRow()

    def _is_empty(self, entity: TargetRow) -> bool:
        return entity.newest is None

    def _show(self, key: bytes, entity: TargetRow) -> Target | None:
        del key
        match entity.newest:
            case TargetSet() as event:
                return Target.of(event)
            case TargetRemoved() | None:
                return None

    def _settle(self, key: bytes, taken: TakenUp[TargetRow, Target | None]) -> None:
        event, now = taken.entity.newest, self._show(key, taken.entity)
        if event is None or now == taken.before:
            return
        scope = Scope(event.channel, event.campaign_id)
        told = TargetTold(*scope, target_key(event), now)
        self._work.deltas.tell(shard_of_scope(scope, self._work.partitions), told)
