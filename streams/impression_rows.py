"""Impressions with an `impression_id` of a shard, where they are deduplicated: counted once."""

from typing import Final, NamedTuple

from msgspec import msgpack

from kpis.contributions import Contribution, correction
from kpis.events import ImpressionServed
from kpis.impressions import (
    Impression,
    forget_impression_ms,
    impression_contribution,
    take_impression,
)
from kpis.ledger import causes_of
from kpis.orders import Outcome
from kpis.remembered import begins_anew
from streams.entity_rows import TakenUp, Work
from streams.messages import entity_key
from streams.remembered_rows import RememberedRows

IMPRESSION: Final = b"i"


class _Shown(NamedTuple):
    """What an impression adds, and until when it is remembered."""

    contribution: Contribution
    forget_ms: int


class ImpressionRows(RememberedRows[Impression, _Shown]):
    """The impressions that one shard remembers."""

    def __init__(self, work: Work) -> None:
        super().__init__(work, msgpack.Decoder(Impression).decode)

    def apply(self, event: ImpressionServed, timestamp_ms: int) -> Outcome:
        """Take in an impression."""
        key = entity_key(event)
        taken = self.take_up(key, causes_of(event))
        if begins_anew(taken.entity, timestamp_ms, self._keep_ms):
            # What it counted until now stays.
            self._settle(key, taken)
            taken.before = self._show(key, taken.entity)._replace(contribution={})
        return take_impression(taken.entity, event, timestamp_ms, self._keep_ms)

    def _forget_ms(self, entity: Impression) -> int:
        return forget_impression_ms(entity, self._keep_ms)

    def _new(self) -> Impression:
        return Impression()

    def _is_empty(self, entity: Impression) -> bool:
        return entity.first is None

    def _show(self, key: bytes, entity: Impression) -> _Shown:
        del key
        return _Shown(impression_contribution(entity), self._forget_ms(entity))

    def _settle(self, key: bytes, taken: TakenUp[Impression, _Shown]) -> None:
        before, now = taken.before, self._show(key, taken.entity)
        changes = correction(now.contribution, before.contribution)
        self._work.deltas.add(changes, taken.causes)
        if now.forget_ms != before.forget_ms:
            self.deadlines.add(now.forget_ms, key)
