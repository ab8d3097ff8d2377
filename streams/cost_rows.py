"""Cost records and report rows of a shard: restated, converted, and booked as time reaches them."""

from collections.abc import Iterable
from typing import Final, NamedTuple

from msgspec import msgpack

from kpis.contributions import Contribution, correction
from kpis.events import CostSnapshot
from kpis.ledger import Causes, causes_of
from kpis.orders import Outcome
from kpis.spend import (
    Row,
    booked_between,
    currency_of,
    days,
    end_minute,
    is_ahead,
    reported,
    restate,
    row_contribution,
)
from streams.entity_rows import LATE, Rows, TakenUp, Work
from streams.messages import Reported, RowEvent, entity_key
from streams.rate_rows import RateRows

ROW: Final = b"r"
AHEAD: Final = b"a"


class _Shown(NamedTuple):
    """What a row adds, and of which channel it tells all up to which minute."""

    contribution: Contribution
    reported: tuple[str, int] | None


class CostRows(Rows[Row | None, _Shown]):
    """The cost records and report rows of one shard.

    Rows for a time still to come are booked up to `booked_minute`, one number for all of them.
    """

    def __init__(self, work: Work, rates: RateRows) -> None:
        super().__init__(work, msgpack.Decoder(Row).decode)
        self.booked_minute = 0
        self._rates = rates
        self._ahead: dict[bytes, Row] = {}

    def restore_index(self, key: bytes, row: bytes) -> None:
        """Take up a row of which minutes are still to come; needs no more than that it is known."""
        del row
        known = self.load(key[len(AHEAD) :])
        if known is not None:
            self._ahead[key[len(AHEAD) :]] = known

    def apply(self, event: RowEvent) -> Outcome:
        """Take in a row or a deletion: the newest of a natural key counts."""
        key = entity_key(event)
        taken = self.take_up(key)
        known = taken.entity
        taken.entity, outcome = restate(known, event)
        if outcome is Outcome.ACCEPTED:
            taken.because(causes_of(event, replaces=known is not None))
            if isinstance(event, CostSnapshot):
                self._work.tally.cost_reported(event.channel, event.reported_ms)
        return outcome

    def take_up_all(self, keys: Iterable[bytes], causes: Causes) -> None:
        """Take up the rows that a rate is about to convert anew."""
        for key in keys:
            if key.startswith(ROW):
                self.take_up(key, causes)

    def book(self, minute: int) -> None:
        """Book what was spent before `minute`, now that time has reached it; nothing may be taken up."""
        work, rates = self._work, self._rates.rates
        before, self.booked_minute = self.booked_minute, minute
        for key, row in list(self._ahead.items()):
            added = booked_between(
                row, work.deployment.buckets, work.newest_minute, before, minute, rates
            )
            work.deltas.add(added, LATE)
            self._follow(key, row)

    def _new(self) -> Row | None:
        return None

    def _is_empty(self, entity: Row | None) -> bool:
        return entity is None

    def _show(self, key: bytes, entity: Row | None) -> _Shown:
        del key
        work = self._work
        contribution = row_contribution(
            entity,
            work.deployment.buckets,
            work.newest_minute,
            self.booked_minute,
            self._rates.rates,
        )
        return _Shown(contribution, reported(entity))

    def _settle(self, key: bytes, taken: TakenUp[Row | None, _Shown]) -> None:
        row, before = taken.entity, taken.before
        now = self._show(key, row)
        deltas = self._work.deltas
        deltas.add(correction(now.contribution, before.contribution), taken.causes)
        if now.reported != before.reported:
            for known, count in ((before.reported, -1), (now.reported, 1)):
                if known is not None:
                    deltas.tell_all(Reported(*known, count))
        self._rates.index(key, currency_of(row), days(row, self._work.deployment.buckets.calendar))
        self._follow(key, row)

    def _follow(self, key: bytes, row: Row | None) -> None:
        """Remember a row as long as minutes of it are to come."""
        is_to_come = row is not None and is_ahead(row) and end_minute(row) > self.booked_minute
        if row is not None and is_to_come:
            if key not in self._ahead:
                self._work.table.put(AHEAD + key, b"")
            self._ahead[key] = row
        elif self._ahead.pop(key, None) is not None:
            self._work.table.delete(AHEAD + key)
